//! Retransmission: timeouts, Karn's algorithm, fast retransmit, NewReno, congestion windows.

use super::*;
use crate::tcp::congestion::Controller;
use crate::tcp::timers::Timer;

const MSS: u32 = 1460;

fn at(segment: u32) -> u32 {
    1 + segment * MSS
}

/// Ten segments in flight.
fn ten_in_flight() -> Trace {
    let mut t = Trace::established(plain());
    t.write(30 * MSS);
    t.tx(&format!("A 1:{} ack 1", at(10)));
    t.quiet();
    t
}

#[test]
fn the_timeout_doubles_and_ends() {
    // RFC 6298 §5.5, RFC 9293 §3.8.3.
    let mut t = Trace::established(TcpConfig { data_retries: 3, ..plain() });
    t.write(100);
    t.tx("PA 1:101 ack 1");
    for expected in [200, 400, 800] {
        assert_eq!(t.wait_for_timer(), expected);
        t.tx("PA 1:101 ack 1");
        t.quiet();
    }
    assert_eq!(t.wait_outcome(1600), Outcome::Closed);
    t.quiet();
    t.read_is(Err(SocketError::TimedOut));
    t.end();
}

#[test]
fn what_was_sent_twice_gives_no_sample_and_keeps_the_backoff() {
    // Karn's algorithm, RFC 6298 §3.
    let mut t = Trace::established(plain());
    t.write(100);
    t.tx("PA 1:101 ack 1");
    t.wait_for_timer();
    t.tx("PA 1:101 ack 1");
    t.now += Duration::from_millis(5);
    let before = t.tcb.info();
    t.rx("A 1 ack 101");
    let after = t.tcb.info();
    assert_eq!((after.srtt, after.rto), (before.srtt, Duration::from_millis(400)));
    t.write(100);
    t.tx("PA 101:201 ack 1");
    t.now += Duration::from_millis(5);
    t.rx("A 1 ack 201");
    assert_eq!(t.tcb.info().rto, Duration::from_millis(200));
    t.end();
}

#[test]
fn timestamps_tell_which_transmission_was_answered() {
    // RFC 7323 §4.1.
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0");
    t.rx("SA 0 ack 1 mss 1460 ts 7/100000");
    t.tx("A 1 ack 1");
    t.write(100);
    t.tx("PA 1:101 ack 1 ts 100000/7");
    t.wait_for_timer();
    t.tx("PA 1:101 ack 1 ts 100200/7");
    t.now += Duration::from_millis(10);
    t.rx("A 1 ack 101 ts 8/100200");
    assert_eq!(t.tcb.info().rto, Duration::from_millis(200), "a sample ends the backoff");
    t.end();
}

#[test]
fn an_ack_restarts_the_timer_and_the_last_one_stops_it() {
    // RFC 6298 §5.2, §5.3.
    let mut t = Trace::established(plain());
    t.write(2 * MSS);
    t.tx("PA 1:2921 ack 1");
    t.now += Duration::from_millis(150);
    t.rx("A 1 ack 1461");
    let rto = t.tcb.info().rto;
    assert_eq!(t.tcb.poll_at(), Some(t.now + rto));
    t.rx("A 1 ack 2921");
    assert!(!t.tcb.timers.is_set(Timer::Retransmit));
    t.end();
}

#[test]
fn a_timeout_goes_back_and_sends_again_in_slow_start() {
    // RFC 5681 §3.1: one segment, and what was in flight counts as lost.
    let mut t = ten_in_flight();
    t.wait_for_timer();
    assert_eq!((t.tcb.info().cwnd_bytes, t.tcb.info().ssthresh_bytes), (MSS, 5 * MSS));
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.quiet();
    // RFC 5682 §2.1, step 2a: it was no late ACK.
    t.rx("A 1 ack 1");
    t.quiet();
    t.rx(&format!("A 1 ack {}", at(1)));
    t.tx(&format!("A {}:{} ack 1", at(1), at(3)));
    t.quiet();
    // The peer had the rest: nothing else is sent again.
    t.rx(&format!("A 1 ack {}", at(10)));
    t.tx(&format!("A {}:{} ack 1", at(10), at(13)));
    t.quiet();
    t.end();
}

#[test]
fn the_third_duplicate_ack_sends_one_segment_again() {
    // RFC 5681 §3.2, RFC 3042.
    let mut t = ten_in_flight();
    t.rx(&format!("A 1 ack {}", at(1)));
    assert_eq!(t.drain(), [(at(10), at(12))], "slow start");
    for i in 0..2 {
        t.rx(&format!("A 1 ack {}", at(1)));
        assert_eq!(t.drain(), [(at(12 + i), at(13 + i))], "limited transmit");
    }
    t.rx(&format!("A 1 ack {}", at(1)));
    t.tx(&format!("A {}:{} ack 1", at(1), at(2)));
    t.quiet();
    // 13 in flight, 2 of them by limited transmit: half of 11.
    assert_eq!(t.tcb.info().ssthresh_bytes, 11 * MSS / 2);
    t.end();
}

#[test]
fn a_partial_ack_sends_the_next_hole_again() {
    // RFC 6582 §3.2.
    let mut t = ten_in_flight();
    for _ in 0..3 {
        t.rx("A 1 ack 1");
    }
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.quiet();
    assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS);
    // Segments 0 and 4 were lost.
    for _ in 0..5 {
        t.rx("A 1 ack 1");
    }
    let new = t.drain();
    assert_eq!(new, [(at(10), at(13))], "inflated: 5 + 3 + 5 segments");
    t.rx(&format!("A 1 ack {}", at(4)));
    t.tx(&format!("A {}:{} ack 1", at(4), at(5)));
    // Deflated by the four that were acknowledged, less one: ten may be in flight, nine are.
    assert_eq!(t.drain(), [(at(13), at(14))]);
    t.rx(&format!("A 1 ack {}", at(13)));
    // Full: the window is what is in flight and one, at most ssthresh.
    assert_eq!(t.tcb.info().cwnd_bytes, 2 * MSS);
    assert_eq!(t.drain(), [(at(14), at(15))]);
    t.end();
}

#[test]
fn only_the_first_partial_ack_restarts_the_timer() {
    // RFC 6582 §3.2 step 3.
    let mut t = ten_in_flight();
    for _ in 0..3 {
        t.rx("A 1 ack 1");
    }
    t.drain();
    t.now += Duration::from_millis(50);
    t.rx(&format!("A 1 ack {}", at(2)));
    t.drain();
    let deadline = t.tcb.timers.get(Timer::Retransmit);
    assert_eq!(deadline, t.now + t.tcb.info().rto);
    t.now += Duration::from_millis(50);
    t.rx(&format!("A 1 ack {}", at(4)));
    t.drain();
    assert_eq!(t.tcb.timers.get(Timer::Retransmit), deadline);
    t.end();
}

#[test]
fn a_loss_right_after_a_recovery_starts_another() {
    let mut t = ten_in_flight();
    for _ in 0..3 {
        t.rx("A 1 ack 1");
    }
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.rx(&format!("A 1 ack {}", at(10)));
    assert_eq!(t.drain(), [(at(10), at(12))]);
    for _ in 0..3 {
        t.rx(&format!("A 1 ack {}", at(10)));
    }
    t.tx(&format!("A {}:{} ack 1", at(10), at(11)));
    t.end();
}

#[test]
fn progress_forgives_earlier_retransmissions() {
    // RFC 9293 §3.8.3: R2 counts retransmissions of the same segment.
    let mut t = Trace::established(TcpConfig { data_retries: 1, ..plain() });
    for i in 0..4 {
        let line = format!("PA {}:{} ack 1", 100 * i + 1, 100 * i + 101);
        t.write(100);
        t.tx(&line);
        t.wait_for_timer();
        t.tx(&line);
        t.rx(&format!("A 1 ack {}", 100 * i + 101));
    }
    t.state("ESTABLISHED");
    t.end();
}

#[test]
fn an_ack_with_data_or_another_window_is_no_duplicate() {
    // RFC 5681 §2.
    let mut t = ten_in_flight();
    t.rx("PA 1:11 ack 1");
    t.rx("PA 11:21 ack 1");
    t.rx("PA 21:31 ack 1");
    t.rx("A 31 ack 1 win 60000");
    t.rx("A 31 ack 1 win 60001");
    t.rx("A 31 ack 1 win 60002");
    assert_eq!(t.drain(), [(at(10), at(10))], "an ACK, nothing again");
    t.end();
}

#[test]
fn slow_start_doubles_the_window_in_a_round_trip() {
    let mut t = ten_in_flight();
    for i in 1..=5 {
        t.rx(&format!("A 1 ack {}", at(2 * i)));
    }
    assert_eq!(t.tcb.info().cwnd_bytes, 20 * MSS);
    assert_eq!(t.drain(), [(at(10), at(30))]);
    t.end();
}

#[test]
fn an_application_that_sends_little_does_not_grow_its_window() {
    // RFC 7661, RFC 5681 §4.1.
    let mut t = Trace::established(plain());
    for i in 0..50 {
        t.write(100);
        t.tx(&format!("PA {}:{} ack 1", 100 * i + 1, 100 * i + 101));
        t.rx(&format!("A 1 ack {}", 100 * i + 101));
    }
    assert_eq!(t.tcb.info().cwnd_bytes, 10 * MSS);
    t.end();
}

#[test]
fn an_idle_connection_starts_again_from_the_initial_window() {
    // RFC 5681 §4.1.
    let mut t = ten_in_flight();
    t.rx(&format!("A 1 ack {}", at(10)));
    assert_eq!(t.drain(), [(at(10), at(28))]);
    t.rx(&format!("A 1 ack {}", at(28)));
    t.drain();
    t.rx(&format!("A 1 ack {}", at(30)));
    assert!(t.tcb.info().cwnd_bytes > 18 * MSS);
    t.wait(10_000);
    t.write(30 * MSS);
    assert_eq!(t.drain(), [(at(30), at(40))]);
    t.end();
}

#[test]
fn after_a_timeout_old_duplicates_start_no_recovery() {
    // RFC 6582 §4.
    let mut t = ten_in_flight();
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.rx(&format!("A 1 ack {}", at(10)));
    t.drain();
    let again = t.tcb.info().retransmissions;
    for _ in 0..5 {
        t.rx(&format!("A 1 ack {}", at(10)));
    }
    t.drain();
    assert_eq!(t.tcb.info().retransmissions, again);
    t.end();
}

#[test]
fn retransmissions_are_cut_by_the_limits_of_the_device() {
    let mut t = ten_in_flight();
    t.limits.max_pieces = 1;
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.rx("A 1 ack 1");
    t.rx(&format!("A 1 ack {}", at(1)));
    // From 1461 on the first slot has 588 bytes left.
    t.tx("A 1461:2049 ack 1");
    t.tx("A 2049:3509 ack 1");
    t.end();
}

#[test]
fn a_loss_halves_what_is_in_flight_beyond_a_window_that_has_shrunk() {
    // RFC 5681 §3.1 counts what is in flight, and RFC 3042 §2 leaves out what limited transmit may
    // have sent.
    let mut t = ten_in_flight();
    t.tcb.controller = Controller::new(Algorithm::NewReno, 5 * MSS);
    for _ in 0..3 {
        t.rx("A 1 ack 1");
    }
    assert_eq!(t.tcb.info().ssthresh_bytes, 4 * MSS);
}
