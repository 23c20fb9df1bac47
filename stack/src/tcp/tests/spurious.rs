//! Losses that were none: F-RTO (RFC 5682), Eifel (RFC 3522, RFC 4015), DSACK (RFC 3708).

use super::*;

const MSS: u32 = 1460;

fn at(segment: u32) -> u32 {
    1 + segment * MSS
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Ten of thirty segments in flight, and the retransmission timer has expired.
fn timed_out() -> Trace {
    let mut t = Trace::with_sack(TcpConfig { rack_tlp: false, ..plain() });
    t.write(30 * MSS);
    t.tx(&format!("A 1:{} ack 1", at(10)));
    assert_eq!(t.wait_for_timer(), 200);
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.quiet();
    assert_eq!((t.tcb.info().cwnd_bytes, t.tcb.info().lost_bytes), (MSS, 9 * MSS));
    t.now += ms(5);
    t
}

#[test]
fn an_ack_of_what_was_sent_once_undoes_a_timeout() {
    // RFC 5682 §3.1, step 3b.
    let mut t = timed_out();
    t.rx(&format!("A 1 ack {}", at(2)));
    let info = t.tcb.info();
    assert_eq!((info.undone, info.lost_bytes), (1, 0));
    assert!(info.cwnd_bytes >= 10 * MSS);
    assert!(t.drain().iter().all(|s| s.0 >= at(10)), "nothing more is sent again");
    t.end();
}

#[test]
fn an_ack_of_what_was_sent_again_asks_new_data() {
    // RFC 5682 §3.1, step 2b.
    let mut t = timed_out();
    t.rx(&format!("A 1 ack {}", at(1)));
    assert_eq!(t.drain(), [(at(10), at(12))]);
    // Step 3b: an original arrives.
    let mut late = t;
    late.rx(&format!("A 1 ack {} sack {}-{}", at(1), at(2), at(3)));
    assert_eq!(late.tcb.info().undone, 1);
    assert!(late.drain().iter().all(|s| s.0 >= at(12)));
    late.end();
    // Step 3a: only the new data does.
    let mut lost = timed_out();
    lost.rx(&format!("A 1 ack {}", at(1)));
    lost.drain();
    lost.rx(&format!("A 1 ack {} sack {}-{}", at(1), at(10), at(11)));
    assert_eq!(lost.tcb.info().undone, 0);
    assert_eq!(lost.drain()[0].0, at(1));
    lost.end();
}

#[test]
fn without_new_data_a_timeout_goes_on_repairing() {
    let mut t = Trace::with_sack(TcpConfig { rack_tlp: false, ..plain() });
    t.write(10 * MSS);
    t.drain();
    t.wait_for_timer();
    t.drain();
    t.now += ms(5);
    t.rx(&format!("A 1 ack {}", at(1)));
    assert_eq!(t.drain(), [(at(1), at(3))]);
    t.end();
}

/// With timestamps: ten in flight, three reports, the first sent again.
fn repairing_with_timestamps() -> Trace {
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0 ts 100000/0");
    t.now += ms(20);
    t.rx("SA 0 ack 1 win 65535 mss 1472 sackok yes ts 7/100000");
    t.tx("A 1 ack 1");
    t.write(30 * 1448);
    assert_eq!(t.drain(), [(1, 14_481)]);
    t.now += ms(20);
    t.rx("A 1 ack 1 sack 1449-5793 ts 8/100020");
    assert_eq!(t.drain()[0], (1, 1449));
    assert!(t.tcb.info().cwnd_bytes < 10 * 1448);
    t
}

#[test]
fn an_echo_of_the_first_transmission_undoes_a_recovery() {
    // RFC 3522 §3.2, RFC 4015 §3.5.
    let mut t = repairing_with_timestamps();
    t.rx("A 1 ack 5793 ts 9/100020");
    assert_eq!(t.tcb.info().undone, 1);
    assert!(t.tcb.info().cwnd_bytes >= 10 * 1448);
    t.end();
    let mut t = repairing_with_timestamps();
    t.rx("A 1 ack 5793 ts 9/100040");
    assert_eq!(t.tcb.info().undone, 0, "the second was needed");
    t.end();
}

#[test]
fn an_old_ack_that_comes_late_undoes_nothing() {
    let mut t = repairing_with_timestamps();
    t.rx("A 1 ack 5793 ts 9/100040");
    t.rx("A 1 ack 1 ts 9/100020");
    assert_eq!(t.tcb.info().undone, 0, "it moves nothing, and says nothing of the retransmission");
    t.end();
}

#[test]
fn an_echo_of_the_first_transmission_undoes_a_timeout_without_sack() {
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0 ts 100000/0");
    t.rx("SA 0 ack 1 win 65535 mss 1472 ts 7/100000");
    t.drain();
    t.write(30 * 1448);
    t.drain();
    t.wait_for_timer();
    assert_eq!(t.drain(), [(1, 1449)]);
    assert_eq!(t.tcb.info().cwnd_bytes, 1448);
    t.now += ms(5);
    t.rx("A 1 ack 1449 ts 8/100000");
    let info = t.tcb.info();
    assert_eq!((info.undone, info.lost_bytes), (1, 0));
    assert!(info.cwnd_bytes >= 10 * 1448);
    assert!(t.drain().iter().all(|s| s.0 >= 14_481));
    t.end();
}

#[test]
fn reports_of_everything_sent_again_undo_a_recovery() {
    // RFC 3708 §2.
    let mut t = Trace::with_sack(plain());
    t.write(30 * MSS);
    t.drain();
    t.now += ms(20);
    // Two holes.
    t.rx(&format!("A 1 ack 1 sack {}-{},{}-{}", at(4), at(9), at(1), at(3)));
    let mut sent = t.drain();
    t.rx(&format!("A 1 ack 1 sack {}-{},{}-{}", at(4), at(10), at(1), at(3)));
    sent.extend(t.drain());
    let again: Vec<_> = sent.iter().filter(|s| s.0 < at(10)).copied().collect();
    assert_eq!(again, [(at(0), at(1)), (at(3), at(4))]);
    let reduced = t.tcb.info().cwnd_bytes;
    assert_eq!(reduced, 5 * MSS);
    t.now += ms(20);
    t.rx(&format!("A 1 ack {} sack 1-{}", at(10), at(1)));
    assert_eq!(t.tcb.info().undone, 0, "one may have been needed");
    t.rx(&format!("A 1 ack {} sack {}-{}", at(10), at(3), at(4)));
    assert_eq!(t.tcb.info().undone, 1);
    assert!(t.tcb.info().cwnd_bytes >= 10 * MSS);
    t.end();
}
