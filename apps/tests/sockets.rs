//! Blocking sockets between two instances over a cable: the promises of `std::net`.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use barewire::{Barewire, TcpListener, TcpStream, UdpSocket};
use common::{CLIENT, LONG, Pattern, SERVER, at, pair, stop_both, within};

fn connected(server: &Barewire, client: &Barewire) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind_on(server, at(SERVER, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let near = TcpStream::connect_on(client, addr).unwrap();
    let (far, peer) = listener.accept().unwrap();
    assert_eq!(near.local_addr().unwrap(), peer);
    assert_eq!(near.peer_addr().unwrap(), addr);
    assert_eq!(far.peer_addr().unwrap(), peer);
    (near, far)
}

#[test]
fn thirty_two_mebibytes_are_echoed_intact() {
    const TOTAL: usize = 32 << 20;
    let (server, client) = pair("echo32");
    let (near, far) = connected(&server, &client);
    let echo = thread::spawn(move || {
        let mut buf = vec![0; 60_000];
        loop {
            let n = (&far).read(&mut buf).unwrap();
            if n == 0 {
                break;
            }
            (&far).write_all(&buf[..n]).unwrap();
        }
        far.shutdown(Shutdown::Write).unwrap();
        far
    });
    let writer = near.try_clone().unwrap();
    let send = thread::spawn(move || {
        let (mut pattern, mut left) = (Pattern::new(7), TOTAL);
        let mut buf = vec![0; 100_001];
        while left > 0 {
            let n = left.min(buf.len());
            pattern.fill(&mut buf[..n]);
            (&writer).write_all(&buf[..n]).unwrap();
            left -= n;
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let received = within(LONG, move || {
        let (mut pattern, mut total) = (Pattern::new(7), 0);
        let mut buf = vec![0; 80_000];
        loop {
            let n = (&near).read(&mut buf).unwrap();
            if n == 0 {
                return total;
            }
            pattern.check(&buf[..n]);
            total += n;
        }
    });
    assert_eq!(received, TOTAL);
    send.join().unwrap();
    drop(echo.join().unwrap());
    stop_both(&server, &client);
}

#[test]
fn a_half_closed_connection_still_carries_the_answer() {
    let (server, client) = pair("half");
    let (mut near, mut far) = connected(&server, &client);
    near.write_all(b"question").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut question = Vec::new();
    far.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    far.write_all(b"answer").unwrap();
    drop(far);
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(near.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(near);
    stop_both(&server, &client);
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    let (server, client) = pair("refused");
    let begin = Instant::now();
    let error = TcpStream::connect_on(&client, at(SERVER, 81)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(begin.elapsed() < Duration::from_secs(1));
    stop_both(&server, &client);
}

#[test]
fn a_host_that_is_not_there_times_out_or_is_unreachable() {
    let (server, client) = pair("silence");
    let nobody = at("10.9.0.77".parse().unwrap(), 80);
    let begin = Instant::now();
    let error =
        TcpStream::connect_timeout_on(&client, &nobody, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    let error = within(LONG, {
        let client = client.clone();
        move || TcpStream::connect_on(&client, nobody).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    stop_both(&server, &client);
}

#[test]
fn a_taken_port_is_refused_until_it_is_given_back() {
    let (server, client) = pair("taken");
    let first = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    let second = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AddrInUse);
    assert!(second.to_string().contains("Address already in use"), "{second}");
    let elsewhere = TcpListener::bind_on(&server, at(CLIENT, 80)).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::AddrNotAvailable);
    drop(first);
    let again = Instant::now();
    while TcpListener::bind_on(&server, at(SERVER, 80)).is_err() {
        assert!(again.elapsed() < LONG, "the port never came back");
    }
    stop_both(&server, &client);
}

#[test]
fn a_read_timeout_is_would_block_and_loses_nothing() {
    let (server, client) = pair("timeout");
    let (mut near, mut far) = connected(&server, &client);
    near.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begin = Instant::now();
    let error = near.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    let zero = near.set_read_timeout(Some(Duration::ZERO)).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidInput);
    far.write_all(b"late").unwrap();
    near.set_read_timeout(Some(LONG)).unwrap();
    let mut buf = [0; 8];
    assert_eq!(near.read(&mut buf).unwrap(), 4);
    assert_eq!(&buf[..4], b"late");
    drop((near, far));
    stop_both(&server, &client);
}

#[test]
fn a_write_timeout_ends_a_write_that_nobody_reads() {
    let (server, client) = pair("stuck");
    let (mut near, mut far) = connected(&server, &client);
    near.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let (chunk, mut sent) = (vec![7; 65_536], 0usize);
    let error = loop {
        match near.write(&chunk) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
        assert!(sent < 64 << 20, "a reader that stops must stop the writer");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    near.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    far.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), sent, "what was accepted arrives");
    drop((near, far));
    stop_both(&server, &client);
}

#[test]
fn nonblocking_calls_say_would_block_and_work_when_ready() {
    let (server, client) = pair("nonblocking");
    let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut near = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
    let begin = Instant::now();
    let mut far = loop {
        match listener.accept() {
            Ok((far, _)) => break far,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(begin.elapsed() < LONG);
    };
    far.set_nonblocking(true).unwrap();
    assert_eq!(far.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::WouldBlock);
    near.write_all(b"ping").unwrap();
    let mut buf = [0; 4];
    let mut got = 0;
    while got < 4 {
        match far.read(&mut buf[got..]) {
            Ok(n) => got += n,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(begin.elapsed() < LONG);
    }
    assert_eq!(&buf, b"ping");
    // A clone shares the flag, as a duplicated descriptor does.
    let clone = far.try_clone().unwrap();
    assert_eq!((&clone).read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop((near, far, clone, listener));
    stop_both(&server, &client);
}

#[test]
fn clones_share_the_connection_and_the_last_one_closes_it() {
    let (server, client) = pair("clones");
    let (near, mut far) = connected(&server, &client);
    let clone = near.try_clone().unwrap();
    drop(near);
    (&clone).write_all(b"still open").unwrap();
    let mut buf = [0; 10];
    far.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"still open");
    drop(clone);
    assert_eq!(far.read(&mut buf).unwrap(), 0);
    drop(far);
    stop_both(&server, &client);
}

#[test]
fn peeking_shows_all_that_came_and_takes_nothing() {
    let (server, client) = pair("peek");
    let (mut near, mut far) = connected(&server, &client);
    near.set_nodelay(true).unwrap();
    assert!(near.nodelay().unwrap());
    near.write_all(b"ab").unwrap();
    let mut buf = [0; 4];
    assert_eq!(far.peek(&mut buf[..1]).unwrap(), 1);
    near.write_all(b"cd").unwrap();
    let begin = Instant::now();
    while far.peek(&mut buf).unwrap() < 4 {
        assert!(begin.elapsed() < LONG, "peek has to see what arrives later");
    }
    assert_eq!(&buf, b"abcd");
    far.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"abcd");
    drop((near, far));
    stop_both(&server, &client);
}

#[test]
fn zero_linger_resets_the_peer() {
    let (server, client) = pair("linger0");
    let (near, mut far) = connected(&server, &client);
    near.set_linger(Some(Duration::ZERO)).unwrap();
    assert_eq!(near.linger().unwrap(), Some(Duration::ZERO));
    drop(near);
    assert_eq!(far.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(far.read(&mut [0; 4]).unwrap(), 0, "the reset is told once");
    assert_eq!(far.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(far);
    stop_both(&server, &client);
}

#[test]
fn lingering_waits_until_the_peer_has_everything() {
    let (server, client) = pair("linger");
    let (near, mut far) = connected(&server, &client);
    near.set_linger(Some(LONG)).unwrap();
    (&near).write_all(&vec![1; 300_000]).unwrap();
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all.len()
    });
    let begin = Instant::now();
    drop(near);
    assert!(begin.elapsed() < Duration::from_secs(10), "it ends with the acknowledgment");
    assert_eq!(reader.join().unwrap(), 300_000);
    stop_both(&server, &client);
}

#[test]
fn lingering_in_vain_ends_with_a_reset() {
    let (server, client) = pair("linger-vain");
    let (mut near, mut far) = connected(&server, &client);
    let time = Duration::from_millis(200);
    near.set_linger(Some(time)).unwrap();
    near.set_write_timeout(Some(time)).unwrap();
    // Nobody reads: soon nothing more goes in.
    while near.write(&[0; 65_536]).is_ok() {}
    let begin = Instant::now();
    drop(near);
    assert!(begin.elapsed() >= time, "it did not linger");
    far.set_read_timeout(Some(LONG)).unwrap();
    let error = std::io::copy(&mut far, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(far);
    stop_both(&server, &client);
}

#[test]
fn a_listener_that_closes_resets_who_waits_for_it() {
    let (server, client) = pair("listener-closes");
    let listener = TcpListener::bind_on(&server, at(SERVER, 7)).unwrap();
    let mut waiting = TcpStream::connect_on(&client, at(SERVER, 7)).unwrap();
    // The engine hands it over to the queue that threads accept from.
    while server.stats().engines[0].portals < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(listener);
    waiting.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(waiting);
    stop_both(&server, &client);
}

#[test]
fn closing_with_unread_data_resets() {
    let (server, client) = pair("unread");
    let (mut near, far) = connected(&server, &client);
    near.write_all(b"nobody reads this").unwrap();
    // Let it arrive first.
    far.peek(&mut [0; 1]).unwrap();
    drop(far);
    assert_eq!(near.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(near);
    stop_both(&server, &client);
}

#[test]
fn options_are_kept() {
    let (server, client) = pair("options");
    let (near, far) = connected(&server, &client);
    near.set_ttl(33).unwrap();
    assert_eq!(near.ttl().unwrap(), 33);
    assert_eq!(near.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(near.take_error().unwrap().is_none());
    assert!(near.read_timeout().unwrap().is_none());
    drop((near, far));
    stop_both(&server, &client);
}

#[test]
fn datagrams_arrive_whole_with_their_sender() {
    let (server, client) = pair("udp");
    let far = UdpSocket::bind_on(&server, at(SERVER, 53)).unwrap();
    let near = UdpSocket::bind_on(&client, at(CLIENT, 0)).unwrap();
    near.set_read_timeout(Some(LONG)).unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    let mut buf = vec![0; 65_535];
    for len in [0, 1, 1400, 1472, 1473, 8000, 60_000] {
        let mut sent = vec![0; len];
        Pattern::new(len as u64).fill(&mut sent);
        assert_eq!(near.send_to(&sent, at(SERVER, 53)).unwrap(), len);
        let (n, from) = far.peek_from(&mut buf).unwrap();
        assert_eq!((n, from), (len, near.local_addr().unwrap()));
        let (n, from) = far.recv_from(&mut buf).unwrap();
        assert_eq!(&buf[..n], sent);
        far.send_to(&buf[..n], from).unwrap();
        let (n, from) = near.recv_from(&mut buf).unwrap();
        assert_eq!((&buf[..n], from), (&sent[..], at(SERVER, 53)));
    }
    let long = near.send_to(&vec![0; 65_508], at(SERVER, 53)).unwrap_err();
    assert_eq!(long.to_string(), "message too long");
    near.send_to(b"longer than the buffer", at(SERVER, 53)).unwrap();
    assert_eq!(far.recv_from(&mut buf[..6]).unwrap().0, 6);
    far.set_nonblocking(true).unwrap();
    let rest = far.recv_from(&mut buf).unwrap_err();
    assert_eq!(rest.kind(), ErrorKind::WouldBlock, "the rest of a cut datagram is gone");
    drop((near, far));
    stop_both(&server, &client);
}

#[test]
fn a_connected_datagram_socket_hears_of_refusal() {
    let (server, client) = pair("udpref");
    let near = UdpSocket::bind_on(&client, at(CLIENT, 0)).unwrap();
    assert_eq!(near.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    near.connect(at(SERVER, 9)).unwrap();
    assert_eq!(near.peer_addr().unwrap(), at(SERVER, 9));
    near.set_read_timeout(Some(LONG)).unwrap();
    near.send(b"anybody?").unwrap();
    assert_eq!(near.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(near);
    stop_both(&server, &client);
}

#[test]
fn an_engine_that_stops_fails_whoever_waits() {
    let (server, client) = pair("stopping");
    let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    let near = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
    let (far, _) = listener.accept().unwrap();
    let udp = UdpSocket::bind_on(&server, at(SERVER, 53)).unwrap();
    let accept = thread::spawn(move || listener.accept().map(|_| ()).unwrap_err().kind());
    let read = thread::spawn(move || (&far).read(&mut [0; 4]).unwrap_err().kind());
    let recv = thread::spawn(move || udp.recv_from(&mut [0; 4]).unwrap_err().kind());
    thread::sleep(Duration::from_millis(50));
    let report = server.stop();
    for waiter in [accept, read, recv] {
        let kind = within(Duration::from_secs(5), move || waiter.join().unwrap());
        assert_eq!(kind, ErrorKind::ConnectionAborted);
    }
    report.check().unwrap();
    // The connection was closed, not forgotten.
    assert_eq!((&near).read(&mut [0; 4]).unwrap(), 0);
    let late = TcpListener::bind_on(&server, at(SERVER, 81)).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::ConnectionAborted);
    drop(near);
    stop_both(&server, &client);
}

#[test]
fn many_connections_of_one_port_are_told_apart() {
    const CONNECTIONS: usize = 200;
    let (server, client) = pair("many");
    let listener = TcpListener::bind_with_backlog(&server, at(SERVER, 80), 512).unwrap();
    let acceptor = thread::spawn(move || {
        let streams: Vec<_> = listener.incoming().take(CONNECTIONS).map(Result::unwrap).collect();
        for stream in &streams {
            let mut number = [0; 8];
            (&*stream).read_exact(&mut number).unwrap();
            (&*stream).write_all(&number).unwrap();
        }
        streams
    });
    let done = within(LONG, {
        let client = client.clone();
        move || {
            let streams: Vec<_> = (0..CONNECTIONS)
                .map(|_| TcpStream::connect_on(&client, at(SERVER, 80)).unwrap())
                .collect();
            for (i, stream) in streams.iter().enumerate() {
                (&*stream).write_all(&(i as u64).to_be_bytes()).unwrap();
            }
            for (i, stream) in streams.iter().enumerate() {
                let mut number = [0; 8];
                (&*stream).read_exact(&mut number).unwrap();
                assert_eq!(u64::from_be_bytes(number), i as u64);
            }
            streams.len()
        }
    });
    assert_eq!(done, CONNECTIONS);
    drop(acceptor.join().unwrap());
    stop_both(&server, &client);
}

#[test]
fn single_bytes_do_not_cost_a_slot_each() {
    let (server, client) = pair("bytes");
    let (mut near, mut far) = connected(&server, &client);
    // More single bytes than the pool has slots, while nobody reads.
    for i in 0..20_000u32 {
        near.write_all(&[i as u8]).unwrap();
    }
    near.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    far.read_to_end(&mut all).unwrap();
    assert!(all.iter().enumerate().all(|(i, &byte)| byte == i as u8));
    assert_eq!(all.len(), 20_000);
    drop((near, far));
    stop_both(&server, &client);
}

#[test]
fn small_and_large_writes_keep_their_order() {
    const WRITES: usize = 2_000;
    let len = |i: usize| [1, 63, 64, 65, 3_000, 7, 64, 2_048, 40][i % 9];
    let (server, client) = pair("sizes");
    let (near, far) = connected(&server, &client);
    let total = (0..WRITES).map(len).sum::<usize>();
    let send = thread::spawn(move || {
        let (mut pattern, mut buf) = (Pattern::new(3), [0; 3_000]);
        for i in 0..WRITES {
            pattern.fill(&mut buf[..len(i)]);
            (&near).write_all(&buf[..len(i)]).unwrap();
        }
        near
    });
    assert_eq!(received::<777>(far, 3, total), total);
    drop(send.join().unwrap());
    stop_both(&server, &client);
}

/// Reads so much of the pattern of this seed, `PART` bytes at most at a time; says how much came.
fn received<const PART: usize>(far: TcpStream, seed: u64, total: usize) -> usize {
    within(LONG, move || {
        let (mut pattern, mut buf, mut received) = (Pattern::new(seed), [0; PART], 0);
        while received < total {
            let n = (&far).read(&mut buf).unwrap();
            pattern.check(&buf[..n]);
            received += n;
        }
        received
    })
}

#[test]
fn small_writes_to_a_peer_that_does_not_read_have_a_limit() {
    const LIMIT: usize = 1 << 20;
    let (server, client) = pair("unread");
    let (near, far) = connected(&server, &client);
    near.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut pattern = Pattern::new(5);
    let (mut buf, mut written) = ([0; 50], 0);
    loop {
        let mut next = pattern.clone();
        next.fill(&mut buf);
        match (&near).write(&buf) {
            Ok(n) => {
                pattern.fill(&mut buf[..n]);
                written += n;
                assert!(written < LIMIT, "nothing holds the writer back");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert_eq!(received::<4_096>(far, 5, written), written);
    stop_both(&server, &client);
}

#[test]
fn of_many_sockets_each_is_heard_when_others_talk_more() {
    const SOCKETS: usize = 24;
    let (server, client) = pair("crowd");
    let pairs: Vec<_> = (0..SOCKETS).map(|_| connected(&server, &client)).collect();
    within(LONG, move || {
        let mut answer = [0; 8];
        for round in 0..20_000 {
            // Half of the rounds are a few sockets', so that the rest is forgotten meanwhile.
            let i = if round % 2 == 0 { round / 2 % 3 } else { round / 2 % SOCKETS };
            let (near, far) = &pairs[i];
            for (mut from, mut to) in [(near, far), (far, near)] {
                from.write_all(&(round as u64).to_le_bytes()).unwrap();
                to.read_exact(&mut answer).unwrap();
                assert_eq!(u64::from_le_bytes(answer), round as u64);
            }
        }
    });
    stop_both(&server, &client);
}
