//! Async handlers on the engine's own core.

mod common;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use barewire::{AsyncTcpStream, Barewire, Core, TcpStream};
use common::{CLIENT, LONG, Pattern, SERVER, at, pair, stop_both, within};
use futures_io::{AsyncRead, AsyncWrite};

/// Listens on port 80 of each core and gives every connection to `handle`.
fn serve<Fut: Future<Output = ()> + 'static>(
    bw: &Barewire,
    handle: impl Fn(Core, AsyncTcpStream) -> Fut + Send + Clone + 'static,
) {
    bw.on_core(move |core| {
        let handle = handle.clone();
        async move {
            let listener = core.tcp_listen(at(SERVER, 80), 128).unwrap();
            while let Ok((stream, _peer)) = listener.accept().await {
                core.spawn(handle(core.clone(), stream));
            }
        }
    })
    .unwrap();
}

async fn echo(_core: Core, stream: AsyncTcpStream) {
    while let Ok(Some(data)) = stream.read_owned(usize::MAX).await {
        if stream.write_owned(data).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Sends `total` bytes through an echo and checks what comes back.
fn exchange(client: &Barewire, total: usize) {
    let stream = TcpStream::connect_on(client, at(SERVER, 80)).unwrap();
    let writer = stream.try_clone().unwrap();
    let send = thread::spawn(move || {
        let (mut pattern, mut buf) = (Pattern::new(3), vec![0; 50_000]);
        for start in (0..total).step_by(buf.len()) {
            let n = buf.len().min(total - start);
            pattern.fill(&mut buf[..n]);
            (&writer).write_all(&buf[..n]).unwrap();
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    within(LONG, move || {
        let (mut pattern, mut buf, mut got) = (Pattern::new(3), vec![0; 50_000], 0);
        loop {
            let n = (&stream).read(&mut buf).unwrap();
            if n == 0 {
                break;
            }
            pattern.check(&buf[..n]);
            got += n;
        }
        assert_eq!(got, total);
    });
    send.join().unwrap();
}

#[test]
fn a_stream_relayed_with_owned_calls_is_never_copied() {
    const TOTAL: usize = 8 << 20;
    let (server, client) = pair("owned");
    serve(&server, echo);
    exchange(&client, TOTAL);
    let stats = server.stats();
    // A segment of up to 128 bytes is copied behind its header, by design: the odd piece at the end
    // of a window. A copy of the stream would be 8 MiB.
    assert!(stats.bytes_copied() < TOTAL as u64 / 1000, "{}", stats.bytes_copied());
    assert!(stats.stack().tcp_segments_received > 100);
    stop_both(&server, &client);
}

#[test]
fn the_copying_calls_and_the_futures_traits_carry_the_same_bytes() {
    let (server, client) = pair("traits");
    serve(&server, |_core, mut stream| async move {
        let mut buf = vec![0; 10_000];
        loop {
            let read = |cx: &mut std::task::Context<'_>| {
                std::pin::Pin::new(&mut stream).poll_read(cx, &mut buf)
            };
            let n = std::future::poll_fn(read).await.unwrap();
            if n == 0 {
                break;
            }
            stream.write_all(&buf[..n]).await.unwrap();
        }
        let close =
            |cx: &mut std::task::Context<'_>| std::pin::Pin::new(&mut stream).poll_close(cx);
        std::future::poll_fn(close).await.unwrap();
    });
    exchange(&client, 1 << 20);
    assert!(server.stats().bytes_copied() >= 2 << 20);
    stop_both(&server, &client);
}

#[test]
fn halves_work_in_two_tasks() {
    let (server, client) = pair("split");
    serve(&server, |core, stream| async move {
        let (read, write) = stream.split();
        let queue = Rc::new(Mutex::new(Some(write)));
        let done = Rc::new(Cell::new(false));
        let (theirs, flag) = (queue.clone(), done.clone());
        core.spawn(async move {
            let mut data = VecDeque::new();
            while read.read_slices(usize::MAX, &mut data).await.is_ok_and(|bytes| bytes > 0) {
                let write = theirs.lock().unwrap().take();
                let Some(write) = write else { return };
                write.write_slices(&mut data).await.unwrap();
                *theirs.lock().unwrap() = Some(write);
            }
            flag.set(true);
        });
        while !done.get() {
            core.sleep(Duration::from_millis(1)).await;
        }
        // Dropping the write half ends the stream in that direction.
        drop(queue.lock().unwrap().take());
    });
    exchange(&client, 300_000);
    stop_both(&server, &client);
}

#[test]
fn a_panicking_handler_resets_its_connection_and_no_other() {
    let (server, client) = pair("panic");
    serve(&server, |core, stream| async move {
        let mut first = [0; 1];
        let _ = stream.read(&mut first).await;
        assert_ne!(first[0], b'!', "a handler's own fault (expected by this test)");
        let _ = stream.write_all(&first).await;
        echo(core, stream).await;
    });
    let mut good = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
    good.write_all(b"a").unwrap();
    let mut bad = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
    bad.write_all(b"!").unwrap();
    let mut buf = [0; 1];
    assert_eq!(bad.read(&mut buf).unwrap_err().kind(), ErrorKind::ConnectionReset);
    good.read_exact(&mut buf).unwrap();
    good.write_all(b"b").unwrap();
    good.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"b");
    assert_eq!(server.stats().engines[0].tasks.panicked, 1);
    drop((good, bad));
    stop_both(&server, &client);
}

#[test]
fn files_go_from_the_page_cache_into_packet_memory() {
    const LEN: u64 = 3_000_001;
    let path = std::env::temp_dir().join(format!("barewire-send-file-{}", std::process::id()));
    let mut content = vec![0; LEN as usize];
    Pattern::new(11).fill(&mut content);
    std::fs::write(&path, &content).unwrap();
    let (server, client) = pair("file");
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    serve(&server, move |_core, stream| {
        let file = file.clone();
        async move {
            stream.send_file(&file, 1, LEN - 1).await.unwrap();
            let short = stream.send_file(&file, LEN - 10, 11).await.unwrap_err();
            assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
            stream.close().await.unwrap();
        }
    });
    let mut stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got.len() as u64, LEN - 1 + 10);
    assert!(got[..LEN as usize - 1] == content[1..]);
    drop(stream);
    // As above: the odd piece of up to 128 bytes.
    assert!(server.stats().bytes_copied() < LEN / 1000);
    stop_both(&server, &client);
}

#[test]
fn handlers_connect_send_datagrams_ping_and_time_out() {
    let (server, client) = pair("active");
    serve(&server, echo);
    let (tell, told) = channel();
    client
        .on_core(move |core| {
            let tell = tell.clone();
            async move {
                let stream = core.tcp_connect(at(SERVER, 80)).await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                let mut buf = [0; 5];
                let mut got = 0;
                while got < 5 {
                    got += stream.read(&mut buf[got..]).await.unwrap();
                }
                assert_eq!(&buf, b"hello");
                let silent = core.timeout(Duration::from_millis(30), stream.read(&mut buf)).await;
                assert!(silent.is_err());
                stream.close().await.unwrap();
                let refused = core.tcp_connect(at(SERVER, 81)).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
                let a = core.udp_bind(at(CLIENT, 0)).unwrap();
                let b = core.udp_bind(at(CLIENT, 0)).unwrap();
                a.send_to(b"to myself", b.local_addr()).await.unwrap();
                let mut datagram = [0; 20];
                let (n, from) = b.recv_from(&mut datagram).await.unwrap();
                assert_eq!((&datagram[..n], from), (&b"to myself"[..], a.local_addr()));
                core.ping(SERVER, 3000, LONG).await.unwrap();
                let begin = Instant::now();
                core.sleep(Duration::from_millis(20)).await;
                assert!(begin.elapsed() >= Duration::from_millis(20));
                tell.send(()).unwrap();
            }
        })
        .unwrap();
    told.recv_timeout(LONG).unwrap();
    let time = client.ping(SERVER, 56, LONG).unwrap();
    assert!(time < LONG);
    let nobody = "10.9.0.99".parse().unwrap();
    let lost = client.ping(nobody, 56, Duration::from_millis(100)).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::TimedOut);
    stop_both(&server, &client);
}

#[test]
fn handlers_hear_of_the_end_and_may_finish() {
    let (server, client) = pair("finish");
    serve(&server, |core, stream| async move {
        core.stopping().await;
        stream.write_all(b"goodbye").await.unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let mut stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
    // Let it be accepted.
    client.ping(SERVER, 8, LONG).unwrap();
    thread::sleep(Duration::from_millis(20));
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    });
    server.stop().check().unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), b"goodbye");
    stop_both(&server, &client);
}

#[test]
fn a_blocking_call_on_a_core_fails_instead_of_hanging() {
    let (server, client) = pair("misuse");
    let listener = Arc::new(barewire::TcpListener::bind_on(&server, at(SERVER, 81)).unwrap());
    let (tell, told) = channel();
    let inside = server.clone();
    server
        .on_core(move |_core| {
            let bound = barewire::TcpListener::bind_on(&inside, at(SERVER, 82)).map(|_| ());
            let accepted = listener.accept().map(|_| ());
            tell.send((bound.unwrap_err().kind(), accepted.unwrap_err().kind())).unwrap();
            async {}
        })
        .unwrap();
    let kinds = told.recv_timeout(LONG).unwrap();
    assert_eq!(kinds, (ErrorKind::Unsupported, ErrorKind::WouldBlock));
    stop_both(&server, &client);
}
