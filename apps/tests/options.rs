//! The options of SOCKETS.md on sockets of threads, between two instances over a cable.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use barewire::{Barewire, OptionName, SocketOption, TcpListener, TcpStream, UdpSocket};
use common::{CLIENT, SERVER, at, pair, stop_both};

const S: fn(u64) -> Duration = Duration::from_secs;

fn connected(server: &Barewire, client: &Barewire) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind_on(server, at(SERVER, 0)).unwrap();
    let near = TcpStream::connect_on(client, listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (listener, near, far)
}

fn of_streams() -> Vec<(OptionName, SocketOption)> {
    use OptionName as N;
    use SocketOption as O;
    vec![
        (N::KeepAlive, O::KeepAlive(true)),
        (N::KeepIdle, O::KeepIdle(S(11))),
        (N::KeepInterval, O::KeepInterval(S(12))),
        (N::KeepCount, O::KeepCount(3)),
        (N::SendBuffer, O::SendBuffer(100_000)),
        (N::RecvBuffer, O::RecvBuffer(90_000)),
        (N::RecvTimeout, O::RecvTimeout(Some(S(4)))),
        (N::SendTimeout, O::SendTimeout(Some(S(6)))),
        (N::NoDelay, O::NoDelay(true)),
        (N::QuickAck, O::QuickAck(true)),
        (N::UserTimeout, O::UserTimeout(Some(S(30)))),
        (N::Linger2, O::Linger2(S(7))),
        (N::Ttl, O::Ttl(9)),
        (N::Tos, O::Tos(0x10)),
        (N::Linger, O::Linger(Some(S(5)))),
    ]
}

#[test]
fn options_are_set_and_read_on_live_connections_and_listeners() {
    let (server, client) = pair("opt-live");
    let (listener, mut near, mut far) = connected(&server, &client);
    for (name, value) in of_streams() {
        near.set_option(value).unwrap();
        assert_eq!(near.option(name).unwrap(), value);
        listener.set_option(value).unwrap();
        assert_eq!(listener.option(name).unwrap(), value);
    }
    assert_eq!(near.read_timeout().unwrap(), Some(S(4)), "the same as std's call");
    assert_eq!(near.linger().unwrap(), Some(S(5)));
    near.write_all(b"still here").unwrap();
    let mut out = [0; 10];
    far.read_exact(&mut out).unwrap();
    assert_eq!(&out, b"still here");
    drop((near, far, listener));
    stop_both(&server, &client);
}

#[test]
fn accepted_connections_inherit_the_listeners_options_and_timeouts() {
    let (server, client) = pair("opt-inherit");
    let listener = TcpListener::bind_on(&server, at(SERVER, 0)).unwrap();
    listener.set_option(SocketOption::NoDelay(true)).unwrap();
    listener.set_option(SocketOption::RecvTimeout(Some(Duration::from_millis(50)))).unwrap();
    let near = TcpStream::connect_on(&client, listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    assert!(far.nodelay().unwrap());
    let begin = Instant::now();
    assert_eq!(far.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    let begin = Instant::now();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "its own, too");
    assert!(begin.elapsed() >= Duration::from_millis(50));
    drop((near, far, listener));
    stop_both(&server, &client);
}

#[test]
fn a_connection_is_opened_with_options_and_with_data_once_a_cookie_is_known() {
    let (server, client) = pair("opt-open");
    let listener = TcpListener::bind_on(&server, at(SERVER, 0)).unwrap();
    listener.set_option(SocketOption::FastOpen(8)).unwrap();
    let addr = listener.local_addr().unwrap();
    let options = [SocketOption::MaxSeg(900), SocketOption::RecvTimeout(Some(S(9)))];
    for round in 0..3 {
        let near = TcpStream::connect_with(&client, addr, &options, b"request").unwrap();
        assert_eq!(near.read_timeout().unwrap(), Some(S(9)));
        match near.option(OptionName::MaxSeg).unwrap() {
            SocketOption::MaxSeg(mss) => assert!(mss <= 900, "{mss}"),
            other => panic!("{other:?}"),
        }
        let (mut far, _) = listener.accept().unwrap();
        let mut out = [0; 7];
        far.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"request");
        far.write_all(b"answer").unwrap();
        let mut out = [0; 6];
        (&near).read_exact(&mut out).unwrap();
        assert_eq!(&out, b"answer", "round {round}");
    }
    drop(listener);
    stop_both(&server, &client);
}

#[test]
fn a_deferred_listener_hands_out_who_has_spoken() {
    let (server, client) = pair("opt-defer");
    let listener = TcpListener::bind_on(&server, at(SERVER, 0)).unwrap();
    listener.set_option(SocketOption::DeferAccept(S(60))).unwrap();
    listener.set_option(SocketOption::RecvTimeout(Some(Duration::from_millis(100)))).unwrap();
    let mut near = TcpStream::connect_on(&client, listener.local_addr().unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    near.write_all(b"GET /").unwrap();
    listener.set_option(SocketOption::RecvTimeout(None)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let mut out = [0; 5];
    far.read_exact(&mut out).unwrap();
    assert_eq!(&out, b"GET /");
    drop((near, far, listener));
    stop_both(&server, &client);
}

#[test]
fn datagram_sockets_tell_what_was_cut_off_and_keep_their_options() {
    let (server, client) = pair("opt-udp");
    let a = UdpSocket::bind_on(&server, at(SERVER, 0)).unwrap();
    let b = UdpSocket::bind_on(&client, at(CLIENT, 0)).unwrap();
    for (name, value) in [
        (OptionName::Broadcast, SocketOption::Broadcast(true)),
        (OptionName::Tos, SocketOption::Tos(8)),
        (OptionName::Ttl, SocketOption::Ttl(9)),
        (OptionName::RecvBuffer, SocketOption::RecvBuffer(60_000)),
        (OptionName::SendBuffer, SocketOption::SendBuffer(60_000)),
        (OptionName::SendTimeout, SocketOption::SendTimeout(Some(S(2)))),
        (OptionName::DontFragment, SocketOption::DontFragment(true)),
    ] {
        b.set_option(value).unwrap();
        assert_eq!(b.option(name).unwrap(), value);
    }
    b.send_to(&[7; 1000], a.local_addr().unwrap()).unwrap();
    b.send_to(&[], a.local_addr().unwrap()).unwrap();
    let mut out = [0; 10];
    let first = a.recv_datagram(&mut out).unwrap();
    assert_eq!((first.len, first.full_len, first.from), (10, 1000, b.local_addr().unwrap()));
    let second = a.recv_datagram(&mut out).unwrap();
    assert_eq!((second.len, second.full_len), (0, 0), "an empty datagram is one");
    a.set_option(SocketOption::RecvTimeout(Some(Duration::from_millis(30)))).unwrap();
    assert_eq!(a.recv_datagram(&mut out).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop((a, b));
    stop_both(&server, &client);
}
