//! Two engines on a tap with two queues, with the Linux kernel as the peer. The kernel deals flows
//! out to the queues as it likes, so frames land at the wrong engine all the time.
//!
//! Needs the right to make a network namespace and `/dev/net/tun`; where one is missing, each test
//! says by name that it was skipped.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use barewire::Barewire;
use barewire_driver::sys;
use common::{LONG, Pattern};

/// Starts two engines in a network namespace of the test's own and runs it there, or says why not.
fn in_namespace(name: &'static str, test: impl FnOnce(&Barewire) + Send + 'static) {
    let ran = thread::spawn(move || {
        if let Err(error) = sys::open_tun() {
            return Err(format!("{} cannot be opened: {error}", sys::TUN_PATH));
        }
        sys::unshare_network().map_err(|error| format!("no network namespace: {error}"))?;
        let bw = Barewire::builder()
            .device("tap:bw0".parse().unwrap())
            .address("10.77.0.2/24".parse().unwrap())
            .cores(2)
            .stop_times(Duration::from_millis(100), Duration::from_millis(500))
            .start()
            .unwrap();
        test(&bw);
        bw.stop().check().unwrap();
        Ok(())
    });
    match ran.join() {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            // Past the harness, which shows what a test prints only if it fails.
            let line = format!("SKIPPED {name}: {reason}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Sends a pattern and checks that it comes back.
fn exchange(stream: &TcpStream, seed: u64, len: usize) {
    let mut data = vec![0; len];
    Pattern::new(seed).fill(&mut data);
    stream.set_read_timeout(Some(LONG)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&mut &*stream).write_all(&data).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        (&mut &*stream).read_to_end(&mut got).unwrap();
        assert!(got == data, "stream {seed} is damaged");
    });
}

#[test]
fn two_cores_serve_the_kernel() {
    const CONNECTIONS: u64 = 64;
    in_namespace("two_cores_serve_the_kernel", |bw| {
        bw.on_core(|core| async move {
            let listener = core.tcp_listen(([10, 77, 0, 2], 7).into(), 128).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                core.spawn(async move {
                    while let Ok(Some(data)) = stream.read_owned(usize::MAX).await {
                        if stream.write_owned(data).await.is_err() {
                            return;
                        }
                    }
                });
            }
        })
        .unwrap();
        thread::scope(|scope| {
            for seed in 0..CONNECTIONS {
                scope.spawn(move || {
                    let stream = TcpStream::connect("10.77.0.2:7").unwrap();
                    exchange(&stream, seed, 500_000);
                });
            }
        });
        let stats = bw.stats();
        let forwarded: u64 = stats.engines.iter().map(|engine| engine.run.forwarded_in).sum();
        let segments: Vec<_> =
            stats.engines.iter().map(|engine| engine.stack.tcp_segments_received).collect();
        assert!(segments.iter().all(|&n| n > 100), "both engines own flows: {segments:?}");
        assert!(forwarded > 0, "the kernel has never missed the owner of a flow");
        assert_eq!(stats.stack().tcp_resets_sent, 0);
    });
}

#[test]
fn two_cores_connect_to_the_kernel() {
    const CONNECTIONS: u64 = 32;
    in_namespace("two_cores_connect_to_the_kernel", |bw| {
        let listener = TcpListener::bind("10.77.0.1:9000").unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                for stream in listener.incoming().take(CONNECTIONS as usize) {
                    let mut stream = stream.unwrap();
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).unwrap();
                    stream.write_all(&all).unwrap();
                }
            });
            for seed in 0..CONNECTIONS {
                scope.spawn(move || {
                    let addr = "10.77.0.1:9000";
                    let mut stream = barewire::TcpStream::connect_on(bw, addr).unwrap();
                    let mut data = vec![0; 100_000];
                    Pattern::new(seed).fill(&mut data);
                    stream.write_all(&data).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).unwrap();
                    assert!(got == data, "stream {seed} is damaged");
                });
            }
        });
    });
}
