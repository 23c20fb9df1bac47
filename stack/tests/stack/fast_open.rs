//! TCP Fast Open (RFC 7413), both sides.

use std::net::Shutdown;
use std::time::Duration;

use barewire_stack::sim::{Pair, PairConfig};
use barewire_stack::tcp::{Readiness, State};
use barewire_stack::wire::tcp::TcpFlags;
use barewire_stack::{OptionName, SocketError, SocketId, SocketOption};

use super::{error_of, pattern, read_all, tcp};

/// A server with fast open on port 80, whose cookie the client knows.
fn acquainted(queue: u32) -> (Pair, SocketId) {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 16);
    pair.server().set_option(listener, SocketOption::FastOpen(queue)).unwrap();
    let stack = pair.client();
    let first = tcp(stack);
    let asked = stack.connect_with(first, Pair::server_addr(80), b"not yet");
    assert_eq!(asked, Err(SocketError::InProgress), "no cookie: nothing is taken");
    pair.settle();
    assert_eq!(pair.client().fast_open_cookies(), 1);
    let (server, _) = pair.server().accept(listener).unwrap();
    pair.client().abort(first).unwrap();
    pair.settle();
    pair.server().close(server).unwrap();
    pair.settle();
    pair.forget();
    (pair, listener)
}

fn connect_with(pair: &mut Pair, data: &[u8]) -> SocketId {
    let stack = pair.client();
    let socket = tcp(stack);
    assert_eq!(stack.connect_with(socket, Pair::server_addr(80), data), Ok(data.len()));
    socket
}

#[test]
fn the_request_goes_with_the_syn_and_the_answer_comes_before_the_handshake_ends() {
    let (mut pair, listener) = acquainted(4);
    let client = connect_with(&mut pair, b"request");
    // One way only: the client's SYN is there, its ACK is not.
    pair.host(0).deaf = true;
    pair.settle();
    let (server, peer) = pair.server().accept(listener).unwrap();
    assert_eq!(pair.server().figures(server).unwrap().state, State::SynReceived);
    assert_eq!(pair.server().peer_addr(server), Ok(peer));
    assert_eq!(read_all(pair.server(), server), (b"request".to_vec(), false));
    pair.server().write(server, b"answer").unwrap();
    pair.settle();
    let sent: Vec<_> =
        pair.segments().iter().map(|s| (s.host, s.header.flags, s.len, s.header.ack)).collect();
    let syn = pair.segments()[0].clone();
    let after = syn.header.seq.wrapping_add(1 + 7);
    let (syn_ack, push) = (TcpFlags::SYN | TcpFlags::ACK, TcpFlags::PSH | TcpFlags::ACK);
    assert_eq!(
        sent,
        [(0, TcpFlags::SYN, 7, 0), (1, syn_ack, 0, after), (1, push, 6, after)],
        "the SYN-ACK acknowledges the request, the answer does not wait"
    );
    pair.host(0).deaf = false;
    pair.run_for(Duration::from_secs(3));
    assert_eq!(read_all(pair.client(), client), (b"answer".to_vec(), false));
    assert_eq!(pair.server().figures(server).unwrap().state, State::Established);
    assert_eq!(pair.server().counters().fast_open_accepted, 1);
}

#[test]
fn more_than_one_segment_follows_the_syn_in_order() {
    let (mut pair, listener) = acquainted(4);
    let data = pattern(20_000);
    let client = connect_with(&mut pair, &data);
    pair.settle();
    let (server, _) = pair.server().accept(listener).unwrap();
    pair.run_for(Duration::from_millis(500));
    assert_eq!(read_all(pair.server(), server), (data, false));
    let syn = &pair.segments()[0];
    let room = 1460 - (syn.header.header_len() as u32 - 20);
    assert_eq!((syn.header.flags, syn.len), (TcpFlags::SYN, room), "an MSS less the options");
    assert_eq!(pair.client().figures(client).unwrap().retransmissions, 0);
    assert_eq!(pair.client().bytes_unacked(client), Ok(0));
}

#[test]
fn what_was_written_before_the_handshake_arrives_whoever_closes_meanwhile() {
    for (close, syn_is_lost) in [(true, false), (false, false), (true, true)] {
        let (mut pair, listener) = acquainted(4);
        let data = pattern(5000);
        let client = connect_with(&mut pair, &data);
        if close {
            pair.client().close(client).unwrap();
        } else {
            pair.client().shutdown(client, Shutdown::Write).unwrap();
            let late = pair.client().write(client, b"late");
            assert_eq!(late, Err(SocketError::BrokenPipe));
        }
        pair.host(1).deaf = syn_is_lost;
        pair.settle();
        pair.host(1).deaf = false;
        pair.run_for(Duration::from_secs(3));
        let (server, _) = pair.server().accept(listener).unwrap();
        pair.run_for(Duration::from_millis(500));
        assert_eq!(read_all(pair.server(), server), (data, true), "{close} {syn_is_lost}");
        pair.server().close(server).unwrap();
        pair.settle();
        assert_eq!(pair.client().orphans(), 0);
    }
}

#[test]
fn an_early_writer_that_has_closed_gives_up_like_any_other() {
    let (mut pair, _listener) = acquainted(4);
    let free = |pair: &mut Pair| pair.host(0).pool.free_slots() + pair.host(0).pool.free_cells();
    let before = free(&mut pair);
    let client = connect_with(&mut pair, b"into the void");
    assert!(free(&mut pair) < before);
    pair.client().close(client).unwrap();
    pair.host(1).deaf = true;
    pair.run_for(Duration::from_secs(200));
    assert_eq!((pair.client().orphans(), pair.client().sockets()), (0, 0));
    assert_eq!(free(&mut pair), before);
}

#[test]
fn connect_waits_for_the_first_write_where_a_cookie_is_known() {
    let (mut pair, listener) = acquainted(4);
    let stack = pair.client();
    let socket = tcp(stack);
    stack.set_option(socket, SocketOption::FastOpenConnect(true)).unwrap();
    assert_eq!(stack.connect(socket, Pair::server_addr(80)), Ok(()));
    assert!(stack.readiness(socket).unwrap().contains(Readiness::WRITABLE));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.segments().len(), 0, "nothing is sent before there is data");
    pair.client().write(socket, b"hello").unwrap();
    pair.settle();
    assert_eq!(pair.segments()[0].len, 5);
    let (server, _) = pair.server().accept(listener).unwrap();
    assert_eq!(read_all(pair.server(), server), (b"hello".to_vec(), false));

    // Elsewhere it is an ordinary connect, which asks for a cookie.
    let other = pair.listen(81, 1);
    pair.server().close(other).unwrap();
    let stack = pair.client();
    let socket = tcp(stack);
    stack.set_option(socket, SocketOption::FastOpenConnect(true)).unwrap();
    let addr = "10.0.0.9:80".parse().unwrap();
    assert_eq!(stack.connect(socket, addr), Err(SocketError::InProgress));
}

#[test]
fn a_path_that_drops_such_syns_costs_one_second_once() {
    let (mut pair, listener) = acquainted(4);
    pair.host(1).deaf = true;
    let client = connect_with(&mut pair, b"lost");
    pair.run_for(Duration::from_millis(500));
    pair.host(1).deaf = false;
    pair.run_for(Duration::from_secs(2));
    let syns: Vec<_> = pair
        .segments()
        .iter()
        .filter(|s| s.header.flags == TcpFlags::SYN)
        .map(|s| (s.len, s.header.options.fast_open.is_some()))
        .collect();
    assert_eq!(syns, [(4, true), (0, false)], "the second goes bare");
    let (server, _) = pair.server().accept(listener).unwrap();
    assert_eq!(read_all(pair.server(), server), (b"lost".to_vec(), false), "and the data follows");
    assert_eq!(pair.client().figures(client).unwrap().state, State::Established);
    let stack = pair.client();
    let next = tcp(stack);
    let answer = stack.connect_with(next, Pair::server_addr(80), b"x");
    assert_eq!(answer, Err(SocketError::InProgress), "no data with a SYN for an hour");
}

#[test]
fn a_listener_takes_so_many_unproven_connections_and_the_rest_as_usual() {
    let (mut pair, listener) = acquainted(2);
    pair.host(0).deaf = true;
    for _ in 0..5 {
        connect_with(&mut pair, b"data");
    }
    pair.settle();
    let counters = *pair.server().counters();
    assert_eq!((counters.fast_open_accepted, counters.fast_open_full), (2, 3));
    assert_eq!(pair.server().half_open(), 3);
    pair.host(0).deaf = false;
    pair.run_for(Duration::from_secs(4));
    for _ in 0..5 {
        let (server, _) = pair.server().accept(listener).unwrap();
        assert_eq!(read_all(pair.server(), server), (b"data".to_vec(), false));
    }
}

#[test]
fn a_listener_without_fast_open_takes_the_syn_and_not_its_data() {
    let (mut pair, listener) = acquainted(2);
    pair.server().set_option(listener, SocketOption::FastOpen(0)).unwrap();
    let client = connect_with(&mut pair, b"data");
    pair.settle();
    let (server, _) = pair.server().accept(listener).unwrap();
    assert_eq!(read_all(pair.server(), server), (b"data".to_vec(), false), "sent again at once");
    assert_eq!(pair.server().counters().fast_open_accepted, 0);
    assert_eq!(pair.client().figures(client).unwrap().state, State::Established);
    assert_eq!(pair.now().as_millis(), 0, "no timer was waited for");
}

#[test]
fn a_cookie_outlives_one_change_of_the_key_and_is_renewed() {
    let (mut pair, _listener) = acquainted(4);
    pair.run_for(Duration::from_secs(24 * 3600 + 60));
    connect_with(&mut pair, b"a day later");
    pair.settle();
    assert_eq!(pair.server().counters().fast_open_accepted, 1);
    let renewed =
        pair.segments().iter().any(|s| s.host == 1 && s.header.options.fast_open.is_some());
    assert!(renewed, "the SYN-ACK brings a fresh one");
    pair.run_for(Duration::from_secs(24 * 3600));
    connect_with(&mut pair, b"another day later");
    pair.settle();
    assert_eq!(pair.server().counters().fast_open_accepted, 2);
    // Three days without a word are too long.
    pair.run_for(Duration::from_secs(3 * 24 * 3600));
    connect_with(&mut pair, b"too late");
    pair.settle();
    let counters = *pair.server().counters();
    assert_eq!((counters.fast_open_accepted, counters.fast_open_refused), (2, 1));
}

#[test]
fn a_peer_that_resets_ends_the_accepted_connection_with_an_error() {
    let (mut pair, listener) = acquainted(4);
    pair.host(0).deaf = true;
    let client = connect_with(&mut pair, b"request");
    pair.settle();
    let (server, _) = pair.server().accept(listener).unwrap();
    pair.client().abort(client).unwrap();
    pair.host(0).deaf = false;
    pair.run_until(|p| p.server().readiness(server).unwrap().contains(Readiness::ERROR));
    assert_eq!(read_all_before_error(pair.server(), server), b"request");
    assert_eq!(pair.server().take_error(server), Ok(Some(SocketError::ConnectionReset)));
}

fn read_all_before_error(stack: &mut barewire_stack::Stack, socket: SocketId) -> Vec<u8> {
    let mut out = vec![0; 100];
    let n = stack.read(socket, &mut out).unwrap();
    out.truncate(n);
    out
}

#[test]
fn a_refused_fast_open_says_so_and_options_are_read_back() {
    let (mut pair, listener) = acquainted(4);
    let queue = pair.server().option(listener, OptionName::FastOpen);
    assert_eq!(queue, Ok(SocketOption::FastOpen(4)));
    pair.server().close(listener).unwrap();
    let client = connect_with(&mut pair, b"anyone?");
    assert_eq!(error_of(&mut pair, client), SocketError::ConnectionRefused);
}

#[test]
fn the_cookie_cache_is_bounded() {
    let mut config = PairConfig::default();
    config.client.stack.limits.fast_open_cookies = 0;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 16);
    pair.server().set_option(listener, SocketOption::FastOpen(4)).unwrap();
    for _ in 0..3 {
        let stack = pair.client();
        let socket = tcp(stack);
        let answer = stack.connect_with(socket, Pair::server_addr(80), b"x");
        assert_eq!(answer, Err(SocketError::InProgress));
        pair.settle();
    }
    assert_eq!(pair.client().fast_open_cookies(), 0);
}
