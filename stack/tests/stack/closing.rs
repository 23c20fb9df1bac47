//! The ends of connections (SOCKETS §2).

use std::net::Shutdown;
use std::time::Duration;

use barewire_stack::sim::Pair;
use barewire_stack::tcp::{Readiness, State};
use barewire_stack::wire::tcp::TcpFlags;
use barewire_stack::{SocketError, SocketId, SocketOption};

use super::{error_of, pair_with, pattern, read_all};

fn open() -> (Pair, SocketId, SocketId) {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    pair.server().close(listener).unwrap();
    pair.settle();
    pair.forget();
    (pair, client, server)
}

fn resets(pair: &Pair, host: usize) -> usize {
    let is_reset = |flags: TcpFlags| flags.contains(TcpFlags::RST);
    pair.segments().iter().filter(|s| s.host == host && is_reset(s.header.flags)).count()
}

/// Nothing is left of any socket, and every slot is back.
#[track_caller]
fn assert_clean(pair: &mut Pair) {
    pair.run_for(Duration::from_secs(200));
    for host in [0, 1] {
        let stack = &pair.host(host).stack;
        let left = (stack.sockets(), stack.time_wait(), stack.orphans(), stack.timers());
        assert_eq!(left, (0, 0, 0, 0), "host {host}");
        assert_eq!(stack.ports().in_use(), 0, "host {host}");
    }
    pair.stop();
    for host in [0, 1] {
        let audit = pair.host(host).pool.audit();
        assert!(audit.all_free(), "host {host}: {audit:?}");
    }
}

#[test]
fn what_was_written_before_close_arrives_and_then_the_end() {
    let (mut pair, client, server) = open();
    pair.client().write(client, &pattern(50_000)).unwrap();
    pair.client().close(client).unwrap();
    let mut got = Vec::new();
    pair.run_until(|p| {
        let (bytes, end) = read_all(p.server(), server);
        got.extend(bytes);
        end
    });
    assert!(got == pattern(50_000));
    pair.server().close(server).unwrap();
    pair.settle();
    assert_eq!((pair.client().time_wait(), pair.server().time_wait()), (1, 0), "who closed first");
    assert_eq!((resets(&pair, 0), resets(&pair, 1)), (0, 0));
    assert_clean(&mut pair);
}

#[test]
fn half_close_ends_one_direction_and_the_other_goes_on() {
    let (mut pair, client, server) = open();
    pair.client().write(client, b"request").unwrap();
    pair.client().shutdown(client, Shutdown::Write).unwrap();
    pair.settle();
    assert_eq!(pair.client().write(client, b"x"), Err(SocketError::BrokenPipe));
    assert_eq!(read_all(pair.server(), server), (b"request".to_vec(), true));
    assert_eq!(pair.server().figures(server).unwrap().state, State::CloseWait);
    assert_eq!(pair.client().figures(client).unwrap().state, State::FinWait2);
    pair.run_for(Duration::from_secs(300));
    pair.server().write(server, b"answer, much later").unwrap();
    pair.settle();
    assert_eq!(read_all(pair.client(), client), (b"answer, much later".to_vec(), false));
    pair.server().close(server).unwrap();
    pair.settle();
    assert_eq!(read_all(pair.client(), client), (vec![], true));
    pair.client().close(client).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn shutting_reading_down_answers_end_of_stream_at_once() {
    let (mut pair, client, server) = open();
    pair.client().shutdown(client, Shutdown::Read).unwrap();
    assert!(pair.client().readiness(client).unwrap().contains(Readiness::READ_CLOSED));
    assert_eq!(pair.client().read(client, &mut [0; 10]), Ok(0));
    pair.client().write(client, b"still writing").unwrap();
    pair.settle();
    assert_eq!(read_all(pair.server(), server).0, b"still writing");
    pair.client().close(client).unwrap();
    pair.settle();
    pair.server().close(server).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn a_simultaneous_close_ends_both_sides_in_time_wait() {
    let (mut pair, client, server) = open();
    pair.client().close(client).unwrap();
    pair.server().close(server).unwrap();
    pair.settle();
    assert_eq!((pair.client().time_wait(), pair.server().time_wait()), (1, 1));
    assert_clean(&mut pair);
}

#[test]
fn closing_with_unread_data_resets_so_that_the_peer_knows() {
    // RFC 2525 §2.17.
    let (mut pair, client, server) = open();
    pair.client().write(client, b"never read").unwrap();
    pair.settle();
    pair.server().close(server).unwrap();
    pair.settle();
    assert_eq!(resets(&pair, 1), 1);
    assert_eq!(pair.client().read(client, &mut [0; 10]), Err(SocketError::ConnectionReset));
    assert_eq!(pair.client().write(client, b"x"), Err(SocketError::BrokenPipe));
    pair.client().close(client).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn data_for_a_closed_socket_is_answered_by_a_reset() {
    // RFC 9293 §3.10.4 and RFC 1122 §4.2.2.13.
    let (mut pair, client, server) = open();
    pair.server().close(server).unwrap();
    pair.settle();
    pair.client().write(client, b"too late").unwrap();
    pair.settle();
    assert_eq!(error_of(&mut pair, client), SocketError::ConnectionReset);
    pair.client().close(client).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn linger_zero_aborts() {
    let (mut pair, client, server) = open();
    let linger = SocketOption::Linger(Some(Duration::ZERO));
    pair.client().set_option(client, linger).unwrap();
    pair.client().write(client, &pattern(5_000)).unwrap();
    pair.client().close(client).unwrap();
    pair.settle();
    assert_eq!(resets(&pair, 0), 1);
    assert_eq!((pair.client().sockets(), pair.client().time_wait()), (0, 0), "no TIME-WAIT");
    let read = pair.server().read(server, &mut [0; 10]);
    assert_eq!(read, Err(SocketError::ConnectionReset));
    pair.server().close(server).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn linger_with_a_time_gives_up_when_it_is_over() {
    let (mut pair, client, server) = open();
    let linger = SocketOption::Linger(Some(Duration::from_secs(5)));
    pair.client().set_option(client, linger).unwrap();
    pair.client().write(client, b"nobody hears this").unwrap();
    pair.host(1).deaf = true;
    pair.client().close(client).unwrap();
    pair.run_for(Duration::from_millis(4_900));
    assert_eq!(pair.client().orphans(), 1);
    pair.run_for(Duration::from_millis(200));
    assert_eq!((pair.client().orphans(), pair.client().sockets()), (0, 0));
    pair.host(1).deaf = false;
    pair.server().abort(server).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn an_orphan_whose_peer_never_closes_ends_after_fin_wait_2() {
    let (mut pair, client, server) = open();
    pair.client().close(client).unwrap();
    pair.run_for(Duration::from_secs(59));
    assert_eq!(pair.client().orphans(), 1);
    pair.run_for(Duration::from_secs(2));
    assert_eq!((pair.client().orphans(), pair.client().sockets()), (0, 0));
    pair.server().close(server).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn a_listener_that_closes_resets_whoever_waits() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let client = pair.start_connect(80);
    pair.settle();
    assert_eq!(pair.client().figures(client).unwrap().state, State::Established);
    pair.server().close(listener).unwrap();
    assert_eq!(error_of(&mut pair, client), SocketError::ConnectionReset);
    pair.client().close(client).unwrap();
    assert_clean(&mut pair);
}

#[test]
fn a_dead_peer_is_noticed_by_keepalive() {
    let mut pair = pair_with(|tcp| {
        let times = &mut tcp.keepalive_times;
        (times.idle, times.interval, times.count) =
            (Duration::from_secs(10), Duration::from_secs(2), 3);
    });
    let listener = pair.listen(80, 1);
    let (client, _server) = pair.connect(listener);
    pair.client().set_option(client, SocketOption::KeepAlive(true)).unwrap();
    pair.run_for(Duration::from_secs(100));
    assert_eq!(pair.client().take_error(client), Ok(None), "the peer answers");
    pair.host(1).deaf = true;
    let before = pair.now();
    assert_eq!(error_of(&mut pair, client), SocketError::TimedOut);
    assert!((pair.now() - before).as_secs() <= 10 + 3 * 2 + 2);
}

#[test]
fn a_closed_handle_names_nothing_and_its_successor_is_another() {
    let (mut pair, client, server) = open();
    pair.client().close(client).unwrap();
    let stack = pair.client();
    let bad = SocketError::BadSocket;
    assert_eq!(stack.read(client, &mut [0; 10]), Err(bad));
    assert_eq!(stack.write(client, b"x"), Err(bad));
    assert_eq!(stack.close(client), Err(bad));
    assert_eq!(stack.readiness(client), Err(bad));
    assert_eq!(stack.local_addr(client), Err(bad));
    assert_eq!(stack.shutdown(client, Shutdown::Both), Err(bad));
    assert_eq!(stack.connect(client, Pair::server_addr(80)), Err(bad));
    assert_eq!(stack.set_option(client, SocketOption::NoDelay(true)), Err(bad));
    assert_eq!(stack.send_to(client, b"x", None), Err(bad));
    let slot = stack.pool().alloc().unwrap().freeze();
    assert_eq!(stack.write_owned(client, slot).map_err(|(error, _)| error), Err(bad));
    pair.settle();
    pair.server().close(server).unwrap();
    assert_clean(&mut pair);
    for _ in 0..10 {
        assert_ne!(super::tcp(pair.client()), client);
    }
}
