//! RACK-TLP (RFC 8985): losses by time, lost retransmissions, tail loss probes; and the restart of
//! the retransmission timer (RFC 6298, RFC 7765).

use super::*;
use crate::tcp::timers::Timer;

const MSS: u32 = 1460;

fn at(segment: u32) -> u32 {
    1 + segment * MSS
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn in_flight(segments: u32, config: TcpConfig) -> Trace {
    let mut t = Trace::with_sack(config);
    t.write(segments * MSS);
    t.drain();
    t
}

/// Twenty segments to send, ten in flight for 20 ms.
fn ten_in_flight() -> Trace {
    let mut t = Trace::with_sack(plain());
    t.write(20 * MSS);
    t.tx(&format!("A 1:{} ack 1", at(10)));
    t.now += ms(20);
    t
}

fn report(ack: u32, from: u32, to: u32) -> String {
    format!("A 1 ack {} sack {}-{}", at(ack), at(from), at(to))
}

#[test]
fn one_report_and_a_quarter_of_a_round_trip_mean_a_loss() {
    // RFC 8985 §6.2, step 5.
    let mut t = in_flight(4, plain());
    t.now += ms(20);
    t.rx(&report(0, 1, 2));
    t.quiet();
    assert_eq!(t.wait_for_timer(), 5);
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.quiet();
    t.end();
}

#[test]
fn what_was_sent_later_is_too_young_to_be_lost() {
    let mut t = in_flight(2, plain());
    t.now += ms(10);
    t.write(3 * MSS);
    t.drain();
    t.now += ms(20);
    // The first two and the last were received late, the second and third of the later ones not.
    t.rx(&format!("A 1 ack {} sack {}-{}", at(2), at(4), at(5)));
    t.quiet();
    assert_eq!(t.wait_for_timer(), 5);
    assert_eq!(t.drain(), [(at(2), at(3))]);
    t.end();
}

#[test]
fn a_lost_retransmission_is_sent_again_without_a_timeout() {
    let mut t = ten_in_flight();
    t.rx(&report(0, 1, 4));
    assert_eq!(t.drain(), [(at(0), at(1))]);
    for to in 5..=10 {
        t.rx(&report(0, 1, to));
    }
    let new = t.drain();
    assert!(!new.is_empty() && new[0].0 == at(10), "{new:?}");
    t.now += ms(20);
    // What was sent after the retransmission has arrived, and the retransmission has not.
    t.rx(&report(0, 1, 11));
    assert_eq!(t.drain()[0], (at(0), at(1)));
    assert_eq!(t.tcb.info().retransmissions, 2);
    assert!(t.tcb.info().cwnd_bytes > MSS, "no timeout");
    t.end();
}

/// Ten segments of which all but the first have been reported, and the first was sent again: nothing
/// is left whose arrival would tell that it was lost again.
fn last_retransmission_lost(config: TcpConfig) -> Trace {
    let mut t = Trace::with_sack(config);
    t.write(10 * MSS);
    t.tx(&format!("PA 1:{} ack 1", at(10)));
    t.now += ms(20);
    t.rx(&report(0, 1, 4));
    assert_eq!(t.drain(), [(at(0), at(1))]);
    t.rx(&report(0, 1, 10));
    t.quiet();
    t
}

#[test]
fn a_retransmission_that_was_lost_last_is_probed_for() {
    let mut t = last_retransmission_lost(plain());
    assert_eq!(t.wait_for_timer(), 40, "two round trips");
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.quiet();
    t.now += ms(20);
    t.rx(&format!("A 1 ack {}", at(10)));
    let info = t.tcb.info();
    assert_eq!((info.retransmissions, info.undone), (2, 0));
    assert_eq!(info.cwnd_bytes, info.ssthresh_bytes, "one reduction, no timeout");
    assert_eq!(info.cwnd_bytes, 5 * MSS);
    t.end();
}

#[test]
fn the_probe_of_a_recovery_is_one_until_something_arrives() {
    let mut t = last_retransmission_lost(plain());
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", at(1)));
    assert_eq!(t.wait_for_timer(), 200, "then the timeout decides");
    t.tx(&format!("A 1:{} ack 1", at(1)));
    assert_eq!(t.tcb.info().cwnd_bytes, MSS);
    t.end();
}

#[test]
fn after_something_has_arrived_a_recovery_is_probed_again() {
    let mut t = last_retransmission_lost(plain());
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.write(MSS);
    t.drain();
    t.now += ms(20);
    t.rx(&report(0, 1, 11));
    let again = t.drain();
    assert!(t.tcb.timers.is_set(Timer::Probe), "{again:?}");
    t.end();
}

#[test]
fn a_needless_probe_of_a_recovery_is_no_reordering() {
    let mut t = last_retransmission_lost(plain());
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", at(1)));
    // The retransmission was only late, and the probe is reported as a duplicate.
    t.rx(&format!("A 1 ack {} sack 1-{}", at(3), at(1)));
    assert_eq!(t.tcb.info().undone, 0, "the first transmission was lost");
    assert_eq!(t.tcb.recovery.reo_wnd_mult(), 1);
    t.rx(&format!("A 1 ack {}", at(10)));
    assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS);
    t.end();
}

#[test]
fn a_recovery_is_not_probed_where_the_timeout_comes_as_soon() {
    let mut t = last_retransmission_lost(TcpConfig { rto_min: ms(60), ..plain() });
    assert_eq!(t.wait_for_timer(), 60);
    t.tx(&format!("A 1:{} ack 1", at(1)));
    assert_eq!(t.tcb.info().cwnd_bytes, MSS);
    t.end();
}

#[test]
fn reordering_that_was_seen_once_is_waited_for() {
    // RFC 8985 §6.2, steps 3 and 4.
    let mut t = ten_in_flight();
    t.rx(&report(0, 1, 4));
    assert_eq!(t.drain(), [(at(0), at(1))], "too early");
    t.rx(&report(4, 0, 1).replace(" sack 1-1461", ""));
    t.drain();
    // The duplicate is reported: nothing had been lost.
    t.now += ms(20);
    let before = t.tcb.info().cwnd_bytes;
    let nxt = t.tcb.snd.nxt.get().wrapping_sub(ISS);
    t.rx(&format!("A 1 ack {nxt} sack 1-{}", at(1)));
    assert!(t.tcb.info().cwnd_bytes > before, "what the loss had cost comes back");
    assert_eq!(t.tcb.info().undone, 1);
    let next = t.drain();
    let (una, to) = (next[0].0, next.last().expect("new data").1);
    t.now += ms(20);
    t.rx(&format!("A 1 ack {una} sack {}-{}", una + MSS, to));
    assert!(t.drain().iter().all(|s| s.0 >= to), "nothing is sent again");
    t.now += ms(4);
    let _ = t.tcb.handle_timeout(t.now);
    t.rx(&format!("A 1 ack {to}"));
    assert_eq!(t.tcb.info().retransmissions, 1);
    t.end();
}

#[test]
fn a_lost_tail_is_probed_for_and_repaired_without_a_timeout() {
    // RFC 8985 §7.
    let mut t = in_flight(4, plain());
    t.now += ms(20);
    t.rx(&format!("A 1 ack {}", at(1)));
    assert_eq!(t.wait_for_timer(), 40, "two round trips");
    t.tx(&format!("PA {}:{} ack 1", at(3), at(4)));
    t.quiet();
    t.now += ms(20);
    t.rx(&report(1, 3, 4));
    assert_eq!(t.drain(), [(at(1), at(2))]);
    t.now += ms(20);
    t.rx(&report(2, 3, 4));
    t.drain();
    t.rx(&format!("A 1 ack {}", at(4)));
    assert_eq!(t.tcb.info().retransmissions, 3);
    assert!(t.tcb.info().cwnd_bytes >= 2 * MSS && !t.tcb.timers.is_set(Timer::Retransmit));
    t.end();
}

#[test]
fn a_probe_carries_new_data_if_there_is_any() {
    let mut t = Trace::with_sack(plain());
    t.write(20 * MSS);
    t.tx(&format!("A 1:{} ack 1", at(10)));
    assert_eq!(t.wait_for_timer(), 40);
    t.tx(&format!("A {}:{} ack 1", at(10), at(11)));
    t.quiet();
    assert_eq!(t.tcb.info().cwnd_bytes, 10 * MSS, "the window is what it was");
    // One probe, then the timeout.
    assert_eq!(t.wait_for_timer(), 200);
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.end();
}

#[test]
fn a_single_segment_is_probed_for_when_its_ack_cannot_be_delayed_any_more() {
    // RFC 8985 §7.2: the smaller of 2 SRTT + 200 ms and the retransmission timeout.
    let mut t = in_flight(1, TcpConfig { rto_min: ms(400), ..plain() });
    assert_eq!(t.wait_for_timer(), 240);
    t.tx(&format!("PA 1:{} ack 1", at(1)));
    // The original had arrived: the report of the duplicate says so, and nothing is charged.
    let before = t.tcb.info().cwnd_bytes;
    t.rx(&format!("A 1 ack {}", at(1)));
    t.rx(&format!("A 1 ack {0} sack 1-{0}", at(1)));
    assert_eq!(t.tcb.info().cwnd_bytes, before);
    t.quiet();
    t.end();
}

/// A connection whose only segment was probed for, and then acknowledged; and what its congestion
/// window was before.
fn probed() -> (Trace, u32) {
    let mut t = in_flight(1, plain());
    t.wait_for_timer();
    t.tx(&format!("PA 1:{} ack 1", at(1)));
    t.now += ms(20);
    let before = t.tcb.info().cwnd_bytes;
    t.rx(&format!("A 1 ack {}", at(1)));
    (t, before)
}

#[test]
fn a_probe_that_repaired_a_loss_is_charged_for_it() {
    // RFC 8985 §7.4, case 2.
    let (mut t, before) = probed();
    t.write(MSS);
    t.drain();
    t.now += ms(20);
    t.rx(&format!("A 1 ack {}", at(2)));
    assert!(t.tcb.info().cwnd_bytes <= before / 2);
    t.end();
}

#[test]
fn a_duplicate_ack_after_a_probe_says_that_the_original_had_arrived() {
    // RFC 8985 §7.4, case 1, of a peer that does not report what arrives twice.
    let (mut t, before) = probed();
    t.rx(&format!("A 1 ack {}", at(1)));
    t.write(MSS);
    t.drain();
    t.now += ms(20);
    t.rx(&format!("A 1 ack {}", at(2)));
    assert!(t.tcb.info().cwnd_bytes >= before, "nothing is charged for");
    t.end();
}

#[test]
fn without_sack_or_when_turned_off_nothing_is_probed() {
    let mut off = in_flight(2, TcpConfig { rack_tlp: false, ..plain() });
    let mut t = Trace::established(plain());
    t.write(2 * MSS);
    t.drain();
    for t in [&mut t, &mut off] {
        assert_eq!(t.wait_for_timer(), 200);
        t.tx(&format!("A 1:{} ack 1", at(1)));
    }
    t.end();
    off.end();
}

#[test]
fn a_fin_alone_is_probed_for() {
    let mut t = Trace::with_sack(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    t.wait_for_timer();
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    t.state("FIN-WAIT-2");
    t.end();
}

#[test]
fn the_restarted_timer_counts_from_the_oldest_segment_if_asked_to() {
    // RFC 7765 §4.
    for (rto_restart, segments, expected) in
        [(false, 3, 200), (true, 3, 180), (true, 4, 180), (true, 5, 200)]
    {
        let config = TcpConfig { rto_restart, rack_tlp: false, ..plain() };
        let mut t = in_flight(segments, config);
        t.now += ms(20);
        t.rx(&format!("A 1 ack {}", at(1)));
        let left = t.tcb.timers.get(Timer::Retransmit) - t.now;
        assert_eq!(left, ms(expected), "{segments} segments, and one is acknowledged");
        t.end();
    }
}

#[test]
fn the_first_segment_leaves_on_a_timeout_whatever_is_too_young_to_be_lost() {
    // RFC 6298 §5.4, RFC 8985 §6.3.
    let mut t = in_flight(1, plain());
    t.wait_for_timer();
    assert_eq!(t.drain(), [(at(0), at(1))], "a probe");
    let timeout = t.tcb.timers.get(Timer::Retransmit);
    t.now += timeout - t.now - ms(1);
    t.write(5 * MSS);
    assert_eq!(t.drain(), [(at(1), at(6))]);
    assert_eq!(t.wait_for_timer(), 1);
    assert_eq!(t.drain(), [(at(0), at(1))]);
    assert_eq!((t.tcb.info().cwnd_bytes, t.tcb.info().lost_bytes), (MSS, 0));
}

#[test]
fn only_news_moves_the_probe() {
    let mut t = in_flight(3, plain());
    let probe = t.tcb.timers.get(Timer::Probe);
    assert!(t.tcb.timers.is_set(Timer::Probe));
    t.now += ms(5);
    t.rx("A 1 ack 1");
    assert_eq!(t.tcb.timers.get(Timer::Probe), probe, "nothing has arrived");
    t.rx(&report(0, 1, 2));
    assert!(!t.tcb.timers.is_set(Timer::Probe), "time tells of the gap, no probe has to");
    assert!(t.tcb.timers.is_set(Timer::Reorder));
}
