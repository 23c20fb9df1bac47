//! Engines as a whole: sleep, several on one device, the default instance, the end.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use barewire::{Barewire, StartError, TcpListener, TcpStream, UdpSocket};
use common::{CLIENT, LONG, Pattern, SERVER, at, pair, pair_of, stop_both, within};

/// What one wake-up may cost: some microseconds of spinning. Any periodic tick, and any loop that
/// does not sleep, is far above.
const WAKE_TURNS: u64 = 10_000;

#[test]
fn an_idle_engine_does_not_run() {
    let (server, client) = pair("asleep");
    let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let near = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
            (near, listener.accept().unwrap().0)
        })
        .collect();
    // Delayed ACKs and the like are over after this.
    thread::sleep(Duration::from_millis(200));
    let before = server.stats().engines[0].run;
    thread::sleep(Duration::from_millis(300));
    let after = server.stats().engines[0].run;
    // Each question wakes it once; nothing else may.
    assert!(after.sleeps - before.sleeps <= 2, "{before:?} {after:?}");
    assert!(after.busy_turns - before.busy_turns <= 2, "{before:?} {after:?}");
    assert!(after.turns - before.turns < 2 * WAKE_TURNS, "{before:?} {after:?}");
    // And the first packet after that is answered.
    let begin = Instant::now();
    client.ping(SERVER, 56, LONG).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500));
    let (near, far) = &streams[7];
    (&*near).write_all(b"wake up").unwrap();
    let mut buf = [0; 7];
    (&*far).read_exact(&mut buf).unwrap();
    drop(streams);
    stop_both(&server, &client);
}

#[test]
fn two_engines_carry_flows_to_their_owners() {
    const CONNECTIONS: usize = 40;
    let (server, client) = pair_of("twocores", 2);
    let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    let taken = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let acceptor = thread::spawn(move || {
        let echo = |stream: TcpStream| {
            thread::spawn(move || {
                let mut buf = vec![0; 20_000];
                loop {
                    let n = (&stream).read(&mut buf).unwrap();
                    if n == 0 {
                        break;
                    }
                    (&stream).write_all(&buf[..n]).unwrap();
                }
            })
        };
        let threads: Vec<_> =
            listener.incoming().take(CONNECTIONS).map(|stream| echo(stream.unwrap())).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let connections: Vec<_> = (0..CONNECTIONS as u64)
        .map(|seed| {
            let client = client.clone();
            thread::spawn(move || {
                let stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
                let mut data = vec![0; 200_000];
                Pattern::new(seed).fill(&mut data);
                let writer = stream.try_clone().unwrap();
                let sent = data.clone();
                let send = thread::spawn(move || {
                    (&writer).write_all(&sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut got = Vec::new();
                (&stream).read_to_end(&mut got).unwrap();
                assert!(got == data, "stream {seed} is damaged");
                send.join().unwrap();
            })
        })
        .collect();
    within(LONG, move || connections.into_iter().for_each(|c| c.join().unwrap()));
    acceptor.join().unwrap();
    for reports in stop_both(&server, &client) {
        let engines: Vec<_> = reports.iter().map(|engine| engine.stats.clone()).collect();
        assert!(engines.iter().all(|e| e.stack.tcp_segments_received > 100), "{engines:?}");
        let (out, taken): (u64, u64) = (
            engines.iter().map(|e| e.run.forwarded_out).sum(),
            engines.iter().map(|e| e.run.forwarded_in).sum(),
        );
        // The cable spreads flows by a hash of its own, so about half of them land elsewhere.
        assert!(out > 100 && taken > 100, "{out} {taken}");
        assert_eq!(engines.iter().map(|e| e.run.forward_dropped).sum::<u64>(), 0);
        assert_eq!(engines.iter().map(|e| e.stack.tcp_resets_sent).sum::<u64>(), 0);
    }
}

#[test]
fn datagrams_of_two_engines_reach_one_socket() {
    let (server, client) = pair_of("twoudp", 2);
    let far = UdpSocket::bind_on(&server, at(SERVER, 53)).unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    for round in 0..50u8 {
        let near = UdpSocket::bind_on(&client, at(CLIENT, 0)).unwrap();
        near.set_read_timeout(Some(LONG)).unwrap();
        near.send_to(&[round], at(SERVER, 53)).unwrap();
        let mut buf = [0; 2];
        let (n, from) = far.recv_from(&mut buf).unwrap();
        assert_eq!((n, buf[0], from), (1, round, near.local_addr().unwrap()));
        far.send_to(&[round, round], from).unwrap();
        assert_eq!(near.recv_from(&mut buf).unwrap(), (2, at(SERVER, 53)));
    }
    drop(far);
    client.ping(SERVER, 100, LONG).unwrap();
    stop_both(&server, &client);
}

#[test]
fn handlers_of_two_cores_listen_on_one_port() {
    let (server, client) = pair_of("twohandlers", 2);
    let (ready, started) = channel();
    server
        .on_core(move |core| {
            let ready = ready.clone();
            async move {
                let listener = core.tcp_listen(at(SERVER, 80), 64).unwrap();
                ready.send(()).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let index = core.index() as u8;
                    core.spawn(async move {
                        let _ = stream.write_all(&[index]).await;
                    });
                }
            }
        })
        .unwrap();
    for _ in 0..2 {
        started.recv_timeout(LONG).unwrap();
    }
    let mut seen = [0; 2];
    for _ in 0..40 {
        let mut stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
        let mut index = [0; 1];
        stream.read_exact(&mut index).unwrap();
        seen[usize::from(index[0])] += 1;
    }
    assert!(seen.iter().all(|&n| n > 0), "each core got connections: {seen:?}");
    stop_both(&server, &client);
}

#[test]
fn what_cannot_start_says_why() {
    let start = |spec: &str, address: &str| {
        Barewire::builder()
            .device(spec.parse().unwrap())
            .address(address.parse().unwrap())
            .gateway("10.1.2.3".parse().unwrap())
            .start()
    };
    let gateway = start("cable:never", "10.9.0.1/24").unwrap_err();
    assert!(matches!(gateway, StartError::Gateway(_)), "{gateway}");
    let none = Barewire::builder().start().unwrap_err();
    assert!(matches!(none, StartError::NoDevice), "{none}");
}

#[test]
fn stopping_twice_gives_the_same_report_and_dropping_stops() {
    let (server, client) = pair("twice");
    let first = server.stop();
    let second = server.stop();
    assert_eq!(first.engines.len(), second.engines.len());
    first.check().unwrap();
    assert!(server.on_core(|_core| async {}).is_err());
    drop(server);
    drop(client);
}
