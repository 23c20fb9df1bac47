//! Keepalive, user timeout, and memory given back.

use super::*;
use crate::tcp::timers::Timer;

fn keepalive() -> TcpConfig {
    let idle = Duration::from_secs(10);
    let interval = Duration::from_secs(2);
    TcpConfig { keepalive: Some(Keepalive { idle, interval, count: 3 }), ..plain() }
}

#[test]
fn keepalive_probes_a_silent_peer_and_gives_it_up() {
    // RFC 9293 §3.8.4.
    let mut t = Trace::established(keepalive());
    for expected in [10_000, 2_000, 2_000] {
        assert_eq!(t.wait_for_timer(), expected);
        t.tx("A 0 ack 1");
        t.quiet();
    }
    assert_eq!(t.wait_outcome(2_000), Outcome::Closed);
    assert_eq!(t.tcb.take_error(), Some(SocketError::TimedOut));
    t.tx("RA 1 ack 1");
    t.end();
}

#[test]
fn the_user_timeout_says_when_keepalive_gives_up() {
    // RFC 5482 §4.2: however many probes that takes.
    let user_timeout = Some(Duration::from_secs(17));
    let mut t = Trace::established(TcpConfig { user_timeout, ..keepalive() });
    for expected in [10_000, 2_000, 2_000, 2_000] {
        assert_eq!(t.wait_for_timer(), expected);
        t.tx("A 0 ack 1");
    }
    assert_eq!(t.wait_outcome(2_000), Outcome::Closed);
    t.tx("RA 1 ack 1");
    t.end();
}

#[test]
fn an_answer_to_a_keepalive_probe_starts_the_wait_again() {
    let mut t = Trace::established(keepalive());
    for _ in 0..10 {
        assert_eq!(t.wait_for_timer(), 10_000);
        t.tx("A 0 ack 1");
        t.rx("A 1 ack 1");
        t.quiet();
    }
    t.state("ESTABLISHED");
    t.end();
}

#[test]
fn a_peers_keepalive_probe_is_answered() {
    let mut t = Trace::established(plain());
    t.rx("A 0 ack 1");
    t.tx("A 1 ack 1");
    t.end();
}

#[test]
fn keepalive_can_be_turned_on_later() {
    let mut t = Trace::established(plain());
    t.wait(2000);
    assert_eq!(t.tcb.poll_at(), None, "it is at rest");
    t.tcb.update_config(|c| c.keepalive = keepalive().keepalive);
    assert_eq!(t.wait_for_timer(), 8_000);
    t.tx("A 0 ack 1");
    t.end();
}

#[test]
fn the_user_timeout_ends_a_connection_whose_data_is_not_acknowledged() {
    // RFC 5482.
    let user_timeout = Some(Duration::from_millis(1_500));
    let mut t = Trace::established(TcpConfig { user_timeout, ..plain() });
    t.write(100);
    t.tx("PA 1:101 ack 1");
    t.wait(200);
    t.tx("PA 1:101 ack 1");
    t.wait(400);
    t.tx("PA 1:101 ack 1");
    t.wait(800);
    t.tx("PA 1:101 ack 1");
    assert_eq!(t.wait_outcome(99), Outcome::Continue);
    assert_eq!(t.wait_outcome(1), Outcome::Closed);
    assert_eq!(t.tcb.take_error(), Some(SocketError::TimedOut));
    t.end();
}

#[test]
fn the_user_timeout_follows_progress() {
    let user_timeout = Some(Duration::from_millis(1_500));
    let mut t = Trace::established(TcpConfig { user_timeout, ..plain() });
    for i in 0..5 {
        t.write(100);
        t.tx(&format!("PA {}:{} ack 1", 100 * i + 1, 100 * i + 101));
        t.now += Duration::from_millis(1_000);
        t.rx(&format!("A 1 ack {}", 100 * i + 101));
    }
    assert!(!t.tcb.timers.is_set(Timer::User));
    t.end();
}

#[test]
fn an_idle_connection_gives_its_queues_memory_back() {
    let mut t = Trace::settled(plain());
    t.write(5_000);
    t.tx("PA 1:5001 ack 1");
    t.rx("PA 1:11 ack 5001");
    t.rx("PA 11:21 ack 5001");
    t.read(20);
    t.wait(40);
    t.tx("A 5001 ack 21");
    assert!(t.tcb.sendq.has_slack() && t.tcb.recvq.has_slack());
    t.wait(2_000);
    assert!(!t.tcb.sendq.has_slack() && !t.tcb.recvq.has_slack());
    assert_eq!(t.tcb.poll_at(), None, "and then nothing wakes it");
    assert_eq!(t.pool.audit().held, 0);
    t.end();
}
