//! How connections with the Linux kernel end: one direction before the other, with and without
//! lingering, and by a reset.

mod interop;

use std::io::{ErrorKind, Read, Write};
use std::net::{self, Shutdown};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use barewire::{AsyncTcpStream, TcpListener, TcpStream};
use interop::conn::{Conn, Listen};
use interop::stream::{Known, MIB, receive, send};
use interop::{Host, KERNEL, in_namespace, join, kernel, ours, start, wait_until};

/// What the direction that stays open carries.
const AFTER: u64 = 4 * MIB;

/// Ends its own direction first and reads on.
fn first(mut conn: impl Conn) {
    conn.write_all(b"that is all").unwrap();
    conn.end(Shutdown::Write).unwrap();
    let error = conn.write(b"no").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(receive(conn, 3).bytes, AFTER);
}

/// Hears the end and writes on.
fn second(mut conn: impl Conn) {
    let mut heard = Vec::new();
    conn.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"that is all");
    assert_eq!(send(conn, 3, AFTER).bytes, AFTER);
}

async fn first_async(stream: AsyncTcpStream) {
    stream.write_all(b"that is all").await.unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.write(b"no").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut known = Known::new(3);
    while let Some(slice) = stream.read_owned(usize::MAX).await.unwrap() {
        known.check(&slice);
    }
    assert_eq!(known.sum().bytes, AFTER);
}

async fn second_async(stream: AsyncTcpStream) {
    let mut heard = Vec::new();
    while let Some(slice) = stream.read_owned(usize::MAX).await.unwrap() {
        heard.extend_from_slice(&slice);
    }
    assert_eq!(heard, b"that is all");
    let mut known = Known::new(3);
    while known.sum().bytes < AFTER {
        stream.write_all(&known.take(64 * 1024)).await.unwrap();
    }
}

fn kernels(stream: net::TcpStream) -> net::TcpStream {
    stream.patiently()
}

#[test]
fn one_direction_ends_before_the_other() {
    in_namespace("one_direction_ends_before_the_other", || {
        let host = Host::start();
        // Our server on threads: the kernel ends first, then we do.
        let listener = TcpListener::bind_on(host.bw(), ours(7001)).unwrap();
        let server = start(move || {
            second(listener.take());
            first(listener.take());
        });
        first(kernels(net::TcpStream::connect(ours(7001)).unwrap()));
        second(kernels(net::TcpStream::connect(ours(7001)).unwrap()));
        join(server);
        // Our client on threads.
        let listener = net::TcpListener::bind((KERNEL, 7002)).unwrap();
        let server = start(move || {
            second(listener.take());
            first(listener.take());
            second(listener.take());
            first(listener.take());
        });
        first(TcpStream::connect_on(host.bw(), kernel(7002)).unwrap().patiently());
        second(TcpStream::connect_on(host.bw(), kernel(7002)).unwrap().patiently());
        // Both on the core.
        let client = host.spawn(|core| async move {
            first_async(core.tcp_connect(kernel(7002)).await.unwrap()).await;
            second_async(core.tcp_connect(kernel(7002)).await.unwrap()).await;
        });
        client.join();
        join(server);
        let (ready, is_ready) = channel();
        let server = host.spawn(|core| async move {
            let listener = core.tcp_listen(ours(7003), 8).unwrap();
            ready.send(()).unwrap();
            second_async(listener.accept().await.unwrap().0).await;
            first_async(listener.accept().await.unwrap().0).await;
        });
        is_ready.recv().unwrap();
        first(kernels(net::TcpStream::connect(ours(7003)).unwrap()));
        second(kernels(net::TcpStream::connect(ours(7003)).unwrap()));
        server.join();
        host.stop();
    });
}

/// A connection of a blocking socket of ours with one of the kernel's.
fn pair(host: &Host, port: u16) -> (TcpStream, net::TcpStream) {
    let listener = TcpListener::bind_on(host.bw(), ours(port)).unwrap();
    let theirs = kernels(net::TcpStream::connect(ours(port)).unwrap());
    (listener.take(), theirs)
}

#[test]
fn lingering_for_no_time_resets() {
    in_namespace("lingering_for_no_time_resets", || {
        let host = Host::start();
        let (mine, mut theirs) = pair(&host, 7001);
        mine.set_linger(Some(Duration::ZERO)).unwrap();
        drop(mine);
        let error = theirs.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);

        let listener = net::TcpListener::bind((KERNEL, 7002)).unwrap();
        let client = host.spawn(|core| async move {
            let stream = core.tcp_connect(kernel(7002)).await.unwrap();
            stream.set_linger(Some(Duration::ZERO)).unwrap();
            // A reset before this would find the kernel's side half open and leave no trace.
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 1);
        });
        let mut theirs = listener.take();
        theirs.write_all(b"1").unwrap();
        let error = theirs.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        client.join();
        host.stop();
    });
}

#[test]
fn closing_lingers_until_all_has_arrived_or_the_time_is_over() {
    in_namespace("closing_lingers_until_all_has_arrived_or_the_time_is_over", || {
        let host = Host::start();
        let linger = Duration::from_secs(30);
        let (mut mine, theirs) = pair(&host, 7001);
        mine.set_linger(Some(linger)).unwrap();
        let (go, told) = channel::<()>();
        let reader = start(move || {
            told.recv().unwrap();
            receive(theirs, 4)
        });
        // Fits into our buffers and the kernel's, so that the writer does not wait for the reader.
        mine.write_all(&Known::new(4).take(64 * 1024)).unwrap();
        let begin = Instant::now();
        go.send(()).unwrap();
        drop(mine);
        assert!(begin.elapsed() < linger, "it lingered although all had arrived");
        assert_eq!(join(reader).bytes, 64 * 1024);

        // Nobody reads, and there is more than fits: after the time it is over.
        let (mine, mut theirs) = pair(&host, 7002);
        let linger = Duration::from_millis(500);
        mine.set_linger(Some(linger)).unwrap();
        mine.set_nonblocking(true).unwrap();
        let block = vec![0; 64 * 1024];
        wait_until("all buffers are full", || {
            while (&mine).write(&block).is_ok() {}
            std::thread::sleep(Duration::from_millis(100));
            matches!((&mine).write(&block), Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        let begin = Instant::now();
        drop(mine);
        assert!(begin.elapsed() >= linger, "it did not linger");
        let error = std::io::copy(&mut theirs, &mut std::io::sink()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        host.stop();
    });
}

#[test]
fn a_reset_by_the_kernel_is_told() {
    in_namespace("a_reset_by_the_kernel_is_told", || {
        let host = Host::start();
        let (mut mine, theirs) = pair(&host, 7001);
        // The kernel resets a connection that is closed with data nobody has read.
        mine.write_all(b"unread").unwrap();
        assert_eq!(theirs.peek(&mut [0; 6]).unwrap(), 6);
        drop(theirs);
        let error = mine.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let error = mine.write(b"more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);

        // And so do we.
        let (mine, mut again) = pair(&host, 7002);
        again.write_all(b"unread").unwrap();
        assert!(mine.peek(&mut [0; 6]).unwrap() > 0);
        drop(mine);
        let error = again.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        host.stop();
    });
}

#[test]
fn what_was_written_before_close_arrives() {
    in_namespace("what_was_written_before_close_arrives", || {
        let host = Host::start();
        let (mine, theirs) = pair(&host, 7001);
        let writer = start(move || {
            let mut mine = mine;
            mine.write_all(&Known::new(6).take(3 * MIB as usize)).unwrap();
            // Closed at once, while most of it is still on its way.
        });
        assert_eq!(receive(theirs, 6).bytes, 3 * MIB);
        join(writer);

        let listener = net::TcpListener::bind((KERNEL, 7002)).unwrap();
        let client = host.spawn(|core| async move {
            let stream = core.tcp_connect(kernel(7002)).await.unwrap();
            stream.write_all(&Known::new(7).take(3 * MIB as usize)).await.unwrap();
        });
        assert_eq!(receive(listener.take(), 7).bytes, 3 * MIB);
        client.join();
        host.stop();
    });
}
