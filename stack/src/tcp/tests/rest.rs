//! A connection at rest: what it keeps, what wakes it, and that nothing is lost by it.

use std::mem::size_of;

use super::super::tests::*;
use super::super::*;
use super::*;
use crate::SocketError;
use crate::tcp::ranges::Range;

/// An established connection that has said and heard something and is done with it.
fn talked(config: TcpConfig) -> Trace {
    let mut t = Trace::with_sack(config);
    t.write(100);
    t.drain();
    t.now += std::time::Duration::from_millis(20);
    t.rx("A 1 ack 101 win 900");
    t.rx("A 1:51 ack 101 win 900");
    t.read(50);
    t.wait(300);
    t.drain();
    t
}

/// Puts the connection to rest and wakes it.
fn rested(t: &mut Trace) {
    let rest = t.tcb.to_rest().expect("nothing is under way");
    t.tcb = Tcb::from_rest(rest);
}

#[test]
fn a_connection_at_rest_is_small() {
    assert!(size_of::<AtRest>() <= 256, "{}", size_of::<AtRest>());
}

#[test]
fn a_second_of_silence_is_what_it_takes() {
    let mut t = talked(TcpConfig::default());
    assert!(!t.tcb.may_rest(t.now));
    assert!(t.tcb.to_rest().is_none(), "its queues still have memory");
    t.wait(1000);
    assert!(t.tcb.may_rest(t.now) && t.tcb.to_rest().is_some());
}

#[test]
fn whoever_asks_gets_the_same_answers_after_a_rest() {
    for congestion in [Algorithm::NewReno, Algorithm::Cubic, Algorithm::Bbr] {
        let mut t = talked(TcpConfig { congestion, ..TcpConfig::default() });
        t.wait(2000);
        let (info, figures) = (t.tcb.tcp_info(t.now), t.tcb.info());
        let (ready, config) = (t.tcb.readiness(), t.tcb.config().clone());
        rested(&mut t);
        assert_eq!(t.tcb.tcp_info(t.now), info);
        assert_eq!(format!("{:?}", t.tcb.info()), format!("{figures:?}"));
        assert_eq!((t.tcb.readiness(), t.tcb.config()), (ready, &config));
    }
}

#[test]
fn the_conversation_goes_on_after_a_rest() {
    let mut t = talked(TcpConfig::default());
    t.wait(2000);
    rested(&mut t);
    t.rx("A 51:61 ack 101 win 900");
    t.quiet();
    t.read(10);
    t.write(30);
    t.tx("PA 101:131 ack 61");
    t.rx("A 61 ack 131 win 900");
    t.wait(2000);
    rested(&mut t);
    t.rx("FA 61 ack 131 win 900");
    t.state("CLOSE-WAIT");
}

#[test]
fn keepalive_goes_on_after_a_rest() {
    let idle = std::time::Duration::from_secs(60);
    let keepalive = Keepalive { idle, interval: idle, count: 2 };
    let mut t = talked(TcpConfig { keepalive: Some(keepalive), ..TcpConfig::default() });
    t.wait(2000);
    let before = t.tcb.poll_at();
    rested(&mut t);
    t.wait(1);
    assert!(before.is_some() && t.tcb.poll_at() >= before);
    t.wait(60_000);
    assert!(t.tcb.wants_transmit(), "a probe");
    assert!(t.tcb.to_rest().is_none(), "it waits for the answer");
}

#[test]
fn nothing_rests_that_has_something_to_do() {
    let awake = |what: &str, f: fn(&mut Trace)| {
        let mut t = talked(TcpConfig::default());
        f(&mut t);
        t.wait(1500);
        assert!(t.tcb.to_rest().is_none(), "{what}");
    };
    awake("data to send", |t| t.write(10));
    awake("data in flight", |t| {
        t.write(10);
        t.drain();
    });
    awake("data to read", |t| {
        t.rx("A 51:61 ack 101 win 900");
        t.wait(300);
        t.drain();
    });
    awake("a gap", |t| {
        t.rx("A 61:71 ack 101 win 900");
        t.drain();
    });
    awake("an ACK to send", |t| {
        t.rx("A 51:61 ack 101 win 900");
        t.read(10);
    });
    awake("a closed peer", |t| t.rx("FA 51 ack 101 win 900"));
    awake("a closed application", |t| {
        let _ = t.tcb.close(t.now);
    });
}

#[test]
fn nothing_rests_that_remembers_something_unusual() {
    type Change = fn(&mut Tcb);
    let cases: [(&str, Change); 15] = [
        ("another state", |tcb| tcb.state = State::CloseWait),
        ("a direction that was shut", |tcb| tcb.status |= Status::READ_SHUT),
        ("something to send", |tcb| tcb.pending |= Pending::KEEPALIVE),
        ("an ACK that waits", |tcb| tcb.rcv.acked = tcb.rcv.acked - 1),
        ("a duplicate ACK", |tcb| tcb.rcv.dup_acks = 1),
        ("a duplicate to report", |tcb| {
            tcb.rcv.dsack = Some(Range { start: tcb.rcv.nxt - 1, end: tcb.rcv.nxt });
        }),
        ("an error", |tcb| tcb.error = Some(SocketError::ConnectionReset)),
        ("a soft error", |tcb| tcb.soft_error = Some(SocketError::HostUnreachable)),
        ("a drop to tell of", |tcb| tcb.dropped = Some(DropReason::BadAck)),
        ("retransmissions", |tcb| tcb.retries = 1),
        ("probes", |tcb| tcb.probes = 1),
        ("a closed window", |tcb| tcb.persist_backoff = 1),
        ("a backed-off timeout", |tcb| tcb.rtt.back_off()),
        ("more to come", |tcb| tcb.expect_more(true)),
        ("a timer", |tcb| tcb.timers.set(Timer::Cork, Instant::from_millis(200_000))),
    ];
    for (what, change) in cases {
        let mut t = talked(TcpConfig::default());
        t.wait(2000);
        assert!(t.tcb.to_rest().is_some());
        change(&mut t.tcb);
        assert!(t.tcb.to_rest().is_none(), "{what}");
    }
    let mut t = talked(TcpConfig::default());
    t.wait(2000);
    t.write(10);
    assert!(t.tcb.to_rest().is_none(), "data to send");
}
