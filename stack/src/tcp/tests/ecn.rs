//! Explicit congestion notification (RFC 3168).

use super::*;

const MSS: u32 = 1460;

fn at(segment: u32) -> u32 {
    1 + segment * MSS
}

fn asking() -> TcpConfig {
    TcpConfig { ecn: EcnMode::Request, ..plain() }
}

/// A connection whose ends have agreed.
#[track_caller]
fn agreed() -> Trace {
    let mut t = Trace::connecting(asking());
    t.tx("SEW 0 ip none");
    t.rx("SAE 0 ack 1 mss 1460");
    t.tx("A 1 ack 1 ip none");
    t.state("ESTABLISHED");
    t
}

/// What the listener answers to a SYN, and whether data is ECN-capable then.
fn passive(mode: EcnMode, syn: TcpFlags) -> (TcpFlags, Ecn) {
    let config = Rc::new(TcpConfig { ecn: mode, ..plain() });
    let now = Instant::from_millis(1000);
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    let header = TcpHeader { seq: IRS, flags: syn, window: 65_535, ..TcpHeader::default() };
    let half = HalfOpen::new(now, &header, &config, open);
    let answer = half.syn_ack(now, &config).flags;
    let mut t = Trace::with(half.into_tcb(now, config), Trace::pool(), now);
    t.rx("A 1 ack 1");
    t.write(10);
    let (sent, _) = t.poll().expect("data");
    (answer, sent.ecn)
}

#[test]
fn both_must_want_it() {
    // §6.1.1.
    let (syn, setup) = (TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR);
    let (no, yes) = (TcpFlags::SYN | TcpFlags::ACK, TcpFlags::SYN | TcpFlags::ACK | TcpFlags::ECE);
    assert_eq!(passive(EcnMode::WhenAsked, setup), (yes, Ecn::Ect0));
    assert_eq!(passive(EcnMode::Request, setup), (yes, Ecn::Ect0));
    assert_eq!(passive(EcnMode::Off, setup), (no, Ecn::NotEct));
    assert_eq!(passive(EcnMode::WhenAsked, syn), (no, Ecn::NotEct));
    assert_eq!(passive(EcnMode::WhenAsked, syn | TcpFlags::ECE), (no, Ecn::NotEct));
}

#[test]
fn only_who_is_told_to_asks() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    // An answer to what was not asked.
    t.rx("SAE 0 ack 1 mss 1460");
    t.tx("A 1 ack 1");
    t.write(10);
    t.tx("PA 1:11 ack 1 ip none");
    t.end();
}

#[test]
fn a_peer_that_only_mirrors_flags_has_not_agreed() {
    // §6.1.1: "an ECN-setup SYN-ACK packet … with the ECE flag set and the CWR flag not set".
    let mut t = Trace::connecting(asking());
    t.tx("SEW 0");
    t.rx("SAEW 0 ack 1 mss 1460");
    t.tx("A 1 ack 1");
    t.write(10);
    t.tx("PA 1:11 ack 1 ip none");
    t.end();
}

#[test]
fn a_lost_syn_no_longer_asks() {
    // §6.1.1.1.
    let mut t = Trace::connecting(asking());
    t.tx("SEW 0");
    assert_eq!(t.wait_for_timer(), 1000);
    t.tx("S 0");
    // The late answer to the first is not believed: a SYN that did not ask has been sent.
    t.rx("SAE 0 ack 1 mss 1460");
    t.tx("A 1 ack 1");
    t.write(10);
    t.tx("PA 1:11 ack 1 ip none");
    t.end();
}

#[test]
fn a_repeated_syn_that_no_longer_asks_is_the_last_word() {
    let config = plain();
    let now = Instant::from_millis(1000);
    let flags = TcpFlags::SYN | TcpFlags::ECE | TcpFlags::CWR;
    let syn = TcpHeader { seq: IRS, flags, window: 65_535, ..TcpHeader::default() };
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    let mut half = HalfOpen::new(now, &syn, &config, open);
    let again = TcpHeader { flags: TcpFlags::SYN, ..syn };
    let HalfOpenOutcome::Reply(reply) = half.handle_segment(now, &again, 0, &config) else {
        panic!("no answer")
    };
    assert_eq!(reply.flags, TcpFlags::SYN | TcpFlags::ACK);
}

#[test]
fn only_new_data_is_ecn_capable() {
    // §6.1.4, §6.1.5.
    let mut t = agreed();
    t.write(100);
    t.tx("PA 1:101 ack 1 ip ect0");
    t.wait_for_timer();
    t.tx("PA 1:101 ack 1 ip none");
    t.rx("PA 1:11 ack 101");
    t.tx("A 101 ack 11 ip none");
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 101 ack 11 ip none");
    t.end();
}

#[test]
fn a_window_probe_is_not_ecn_capable() {
    // §6.1.6.
    let mut t = agreed();
    t.rx("PA 1:2 ack 1 win 0");
    t.tx("A 1 ack 2");
    t.write(10);
    t.quiet();
    t.wait_for_timer();
    t.tx("A 1:2 ack 2 ip none");
    t.end();
}

#[test]
fn a_mark_is_echoed_until_the_window_was_reduced() {
    // §6.1.3.
    let mut t = agreed();
    t.rx("A 1:1001 ack 1 ip ect0");
    t.tx("A 1 ack 1001");
    t.rx("A 1001:2001 ack 1 ip ce");
    t.tx("AE 1 ack 2001");
    t.rx("A 2001:3001 ack 1 ip ect0");
    t.tx("AE 1 ack 3001");
    t.write(10);
    t.tx("PAE 1:11 ack 3001 ip ect0");
    t.rx("AW 3001:4001 ack 11 ip ect0");
    t.tx("A 11 ack 4001");
    // Told of a reduction and marked again at once.
    t.rx("AW 4001:5001 ack 11 ip ce");
    t.tx("AE 11 ack 5001");
    t.end();
}

#[test]
fn marks_of_what_is_not_acceptable_do_not_count() {
    // §6.1.5: whoever can guess only addresses and ports could slow the connection down.
    let mut t = agreed();
    t.rx("A 1:1001 ack 1 ip ect0");
    t.tx("A 1 ack 1001");
    t.rx("A 1:1001 ack 1 ip ce");
    t.tx("A 1 ack 1001");
    t.end();
}

#[test]
fn without_agreement_marks_and_echoes_mean_nothing() {
    let mut t = Trace::established(plain());
    t.rx("A 1:1001 ack 1 ip ce");
    t.tx("A 1 ack 1001");
    t.write(10 * MSS);
    assert_eq!(t.drain().len(), 1);
    let before = t.tcb.info().cwnd_bytes;
    t.rx(&format!("AE 1001 ack {}", at(2)));
    assert!(t.tcb.info().cwnd_bytes > before);
    t.end();
}

#[test]
fn the_window_is_reduced_once_for_a_window_of_marks() {
    // §6.1.2.
    let mut t = agreed();
    t.write(40 * MSS);
    t.tx(&format!("A 1:{} ack 1 ip ect0", at(10)));
    t.rx(&format!("AE 1 ack {}", at(2)));
    // Ten segments were in flight: half of that.
    assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS);
    for segment in 3..=9 {
        t.rx(&format!("AE 1 ack {}", at(segment)));
        assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS, "neither less nor more at {segment}");
    }
    // CWR stands in one wire segment, however much may leave.
    t.tx(&format!("AW {}:{} ack 1 ip ect0", at(10), at(11)));
    t.tx(&format!("A {}:{} ack 1 ip ect0", at(11), at(14)));
    t.quiet();
    // An echo of what was sent after the reduction is another event.
    t.rx(&format!("AE 1 ack {}", at(11)));
    assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS / 2);
    t.end();
}

#[test]
fn a_mark_during_a_recovery_reduces_no_further() {
    let mut t = agreed();
    t.write(40 * MSS);
    t.tx(&format!("A 1:{} ack 1", at(10)));
    for _ in 0..3 {
        t.rx("A 1 ack 1");
    }
    t.drain();
    let before = t.tcb.info().ssthresh_bytes;
    t.rx(&format!("AE 1 ack {}", at(10)));
    assert_eq!(t.tcb.info().ssthresh_bytes, before);
    t.end();
}

/// SACK and ECN, twenty segments to send, ten of them in flight for 20 ms.
fn ten_marked() -> Trace {
    let config = TcpConfig { ecn: EcnMode::Request, ..plain() };
    let mut t = Trace::connecting(config);
    t.tx("SEW 0 sackok yes");
    t.now += Duration::from_millis(20);
    t.rx("SAE 0 ack 1 win 65535 mss 1460 sackok yes");
    t.tx("A 1 ack 1");
    t.write(40 * MSS);
    t.drain();
    t.now += Duration::from_millis(20);
    t
}

#[test]
fn a_loss_in_the_window_of_a_mark_reduces_no_further() {
    // §6.1.2: once in response to a series of drops and marks from a single window.
    let mut t = ten_marked();
    t.rx(&format!("AE 1 ack {}", at(1)));
    assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS);
    t.rx(&format!("A 1 ack {} sack {}-{}", at(1), at(2), at(5)));
    assert_eq!(t.drain()[0], (at(1), at(2)), "it is repaired");
    assert_eq!(t.tcb.info().ssthresh_bytes, 5 * MSS);
    // Late, not lost: the mark still asks for the smaller window.
    t.rx(&format!("A 1 ack {} sack {}-{}", at(10), at(1), at(2)));
    assert_eq!((t.tcb.info().undone, t.tcb.info().ssthresh_bytes), (1, 5 * MSS));
    t.drain();
    // What is lost of what was sent after it is another event.
    let nxt = t.tcb.snd.nxt.get().wrapping_sub(ISS);
    t.now += Duration::from_millis(30);
    t.rx(&format!("A 1 ack {} sack {}-{}", at(10), at(11), nxt));
    t.now += Duration::from_millis(30);
    let _ = t.tcb.handle_timeout(t.now);
    assert!(t.tcb.info().ssthresh_bytes < 5 * MSS, "{}", t.tcb.info().ssthresh_bytes);
    t.end();
}

#[test]
fn a_loss_without_sack_in_the_window_of_a_mark_reduces_no_further() {
    let mut t = agreed();
    t.write(40 * MSS);
    t.drain();
    t.rx(&format!("AE 1 ack {}", at(1)));
    let before = t.tcb.info().ssthresh_bytes;
    for _ in 0..3 {
        t.rx(&format!("A 1 ack {}", at(1)));
    }
    assert_eq!(t.drain()[0].0, at(1), "fast retransmit");
    assert_eq!(t.tcb.info().ssthresh_bytes, before);
    t.end();
}

#[test]
fn a_timeout_in_the_window_of_a_mark_halves_nothing_again() {
    let mut t = ten_marked();
    t.rx(&format!("AE 1 ack {}", at(1)));
    t.wait_for_timer();
    t.drain();
    t.wait_for_timer();
    let info = t.tcb.info();
    assert_eq!((info.cwnd_bytes, info.ssthresh_bytes), (MSS, 5 * MSS));
    t.end();
}

#[test]
fn an_imagined_loss_in_a_window_that_is_marked_as_well_stays_answered() {
    let mut t = ten_marked();
    t.rx(&format!("A 1 ack 1 sack {}-{}", at(1), at(4)));
    assert_eq!(t.drain()[0], (at(0), at(1)));
    let reduced = t.tcb.info().ssthresh_bytes;
    t.rx(&format!("AE 1 ack {}", at(4)));
    t.rx(&format!("AE 1 ack {} sack 1-{}", at(10), at(1)));
    assert_eq!((t.tcb.info().undone, t.tcb.info().ssthresh_bytes), (1, reduced));
    t.end();
}
