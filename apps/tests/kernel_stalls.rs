//! Readers that stop for a while: the writer is stopped by it, nothing is lost, and it goes on when
//! the reader does.

mod interop;

use std::net;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use barewire::{Barewire, TcpListener, TcpStream};
use interop::conn::{Conn, Listen};
use interop::stream::{CHUNK, Known, MIB, receive_some, send_some};
use interop::{Host, KERNEL, Task, in_namespace, join, kernel, ours, start};

/// Much more than the buffers of both sides hold.
const BYTES: u64 = 64 * MIB;
/// What is read before the reader stops.
const BEFORE: u64 = MIB;
/// How long it stops.
const STOP: Duration = Duration::from_secs(5);

/// Bytes that a writer has got rid of.
type Progress = Arc<AtomicU64>;

/// Writes all and counts it.
fn write(mut conn: impl Conn, seed: u64, progress: Progress) {
    let mut known = Known::new(seed);
    while known.sum().bytes < BYTES {
        let sum = send_some(&mut conn, &mut known, CHUNK as u64);
        progress.store(sum.bytes, Ordering::SeqCst);
    }
    conn.end(net::Shutdown::Write).unwrap();
}

/// Reads a little, stops, finds the writer stopped, too, and reads the rest.
fn read(mut conn: impl Conn, seed: u64, progress: Progress) {
    let mut known = Known::new(seed);
    receive_some(&mut conn, &mut known, BEFORE);
    thread::sleep(STOP);
    assert_stopped(&progress);
    receive_some(&mut conn, &mut known, u64::MAX);
    assert_eq!(known.sum().bytes, BYTES);
}

#[track_caller]
fn assert_stopped(progress: &Progress) {
    let written = progress.load(Ordering::SeqCst);
    assert!(written < BYTES, "the writer did not stop: {written} bytes");
}

/// Our writer on a thread, the kernel's reader.
fn our_thread_writes(bw: &Barewire, port: u16) -> Vec<JoinHandle<()>> {
    let progress = Progress::default();
    let listener = net::TcpListener::bind((KERNEL, port)).unwrap();
    let conn = TcpStream::connect_on(bw, kernel(port)).unwrap().patiently();
    let (seen, seed) = (progress.clone(), u64::from(port));
    vec![
        start(move || read(listener.take(), seed, seen)),
        start(move || write(conn, seed, progress)),
    ]
}

/// The kernel's writer, our reader on a thread.
fn our_thread_reads(bw: &Barewire, port: u16) -> Vec<JoinHandle<()>> {
    let progress = Progress::default();
    let listener = TcpListener::bind_on(bw, ours(port)).unwrap();
    let conn = net::TcpStream::connect(ours(port)).unwrap().patiently();
    let (seen, seed) = (progress.clone(), u64::from(port));
    vec![
        start(move || read(listener.take(), seed, seen)),
        start(move || write(conn, seed, progress)),
    ]
}

/// Our writer on the core, the kernel's reader.
fn our_core_writes(host: &Host, port: u16) -> (Task<()>, JoinHandle<()>) {
    let progress = Progress::default();
    let (listener, seed) = (net::TcpListener::bind((KERNEL, port)).unwrap(), u64::from(port));
    let seen = progress.clone();
    let reader = start(move || read(listener.take(), seed, seen));
    let writer = host.spawn(move |core| async move {
        let stream = core.tcp_connect(kernel(port)).await.unwrap();
        let mut known = Known::new(seed);
        while known.sum().bytes < BYTES {
            stream.write_all(&known.take(CHUNK)).await.unwrap();
            progress.store(known.sum().bytes, Ordering::SeqCst);
        }
        stream.close().await.unwrap();
    });
    (writer, reader)
}

/// The kernel's writer, our reader on the core.
fn our_core_reads(host: &Host, port: u16) -> (Task<()>, JoinHandle<()>) {
    let (progress, seed) = (Progress::default(), u64::from(port));
    let (ready, is_ready) = channel();
    let seen = progress.clone();
    let reader = host.spawn(move |core| async move {
        let listener = core.tcp_listen(ours(port), 8).unwrap();
        ready.send(()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut known = Known::new(seed);
        while known.sum().bytes < BEFORE {
            known.check(&stream.read_owned(CHUNK).await.unwrap().unwrap());
        }
        core.sleep(STOP).await;
        assert_stopped(&seen);
        while let Some(slice) = stream.read_owned(usize::MAX).await.unwrap() {
            known.check(&slice);
        }
        assert_eq!(known.sum().bytes, BYTES);
    });
    is_ready.recv().unwrap();
    let conn = net::TcpStream::connect(ours(port)).unwrap().patiently();
    (reader, start(move || write(conn, seed, progress)))
}

#[test]
fn a_reader_that_stops_for_five_seconds_loses_nothing() {
    in_namespace("a_reader_that_stops_for_five_seconds_loses_nothing", || {
        let host = Host::start();
        let threads = [our_thread_writes(host.bw(), 7001), our_thread_reads(host.bw(), 7002)];
        let tasks = [our_core_writes(&host, 7003), our_core_reads(&host, 7004)];
        for (task, thread) in tasks {
            task.join();
            join(thread);
        }
        threads.into_iter().flatten().for_each(join);
        host.stop();
    });
}
