//! When the short ways of ACKs and FINs, and of an ACK alone, are taken, and when not:
//! `short_ways` compares what they do.

use super::super::tests::*;
use super::super::*;
use super::*;
use crate::wire::tcp::Timestamps;

fn segment(t: &Trace, flags: TcpFlags, ack: SeqNum) -> PlainTcp {
    let (seq, ack) = (t.tcb.rcv.nxt.get(), ack.get());
    PlainTcp { src_port: 0, dst_port: 0, seq, ack, flags, window: 65_535, timestamps: None }
}

const BARE: Text = Text { len: 0, wire_segments: 1, ecn: Ecn::NotEct, memory: Memory::Plenty };
const FIN: TcpFlags = TcpFlags::FIN.union(TcpFlags::ACK);

#[test]
fn the_ack_of_one_transmission_takes_a_short_way() {
    let mut t = Trace::with_sack(plain());
    t.write(64);
    t.tx("PA 1:65 ack 1");
    t.now += Duration::from_millis(20);
    let ack = t.tcb.snd.nxt;
    assert!(t.tcb.take_plain_ack(t.now, ack, false));
    assert_eq!((t.tcb.snd.una, t.tcb.bytes_unacked()), (ack, 0));
    assert!(!t.tcb.timers.is_set(Timer::Retransmit));
}

#[test]
fn the_ack_of_a_part_or_of_what_was_sent_again_takes_the_long_way() {
    let mut t = Trace::with_sack(plain());
    t.write(64);
    t.tx("PA 1:65 ack 1");
    let (part, all) = (t.tcb.snd.nxt - 1, t.tcb.snd.nxt);
    assert!(!t.tcb.take_plain_ack(t.now, part, false));
    while t.drain().is_empty() {
        t.wait_for_timer();
    }
    assert!(!t.tcb.take_plain_ack(t.now, all, false), "Karn's algorithm asks which it answers");
    let mut t = Trace::with_sack(TcpConfig { congestion: Algorithm::Bbr, ..plain() });
    t.write(64);
    t.tx("PA 1:65 ack 1");
    assert!(!t.tcb.take_plain_ack(t.now, t.tcb.snd.nxt, false), "BBR asks how fast it was");
}

#[test]
fn an_ack_of_many_segments_in_flight_is_one_of_many_samples() {
    // RFC 7323 §4.2: with eight segments in flight four samples a round trip are expected.
    let mut t = Trace::with_sack(plain());
    t.write(1460);
    t.drain();
    t.now += Duration::from_millis(1);
    t.write(7 * 1460);
    t.drain();
    t.now += Duration::from_millis(51);
    let first = t.tcb.snd.una + 1460;
    assert!(t.tcb.take_plain_ack(t.now, first, false));
    assert_eq!(t.tcb.rtt.srtt(), Some(Duration::from_millis(21)), "20 ms and a 32nd of 32 ms");
}

#[test]
fn fins_and_the_ack_of_ours_take_a_short_way() {
    let mut t = Trace::with_sack(plain());
    let fin = segment(&t, FIN, t.tcb.snd.una);
    assert_eq!(t.tcb.take_ending(t.now, &fin, &BARE), Some(Outcome::Continue));
    t.state("CLOSE-WAIT");
    t.tx("A 1 ack 2");

    let mut t = Trace::with_sack(plain());
    t.write(64);
    t.drain();
    let fin = segment(&t, FIN, t.tcb.snd.nxt);
    assert_eq!(t.tcb.take_ending(t.now, &fin, &BARE), Some(Outcome::Continue), "with an ACK");
    assert_eq!(t.tcb.bytes_unacked(), 0);

    let mut t = Trace::with_sack(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    let ack = segment(&t, TcpFlags::ACK, t.tcb.snd.nxt);
    assert_eq!(t.tcb.take_ending(t.now, &ack, &BARE), Some(Outcome::Continue));
    t.state("FIN-WAIT-2");
}

#[test]
fn other_segments_that_end_something_take_the_long_way() {
    type Change = fn(&mut Tcb, &mut PlainTcp, &mut Text);
    let cases: [(&str, Change); 13] = [
        ("it acknowledges nothing, and something is in flight", |tcb, h, _| {
            h.ack = tcb.snd.una.get()
        }),
        ("it acknowledges what was never sent", |_, h, _| h.ack += 1),
        ("it acknowledges less than before", |tcb, h, _| h.ack = tcb.snd.una.get() - 1),
        ("it has text", |_, _, text| text.len = 1),
        ("it has another flag", |_, h, _| h.flags |= TcpFlags::PSH),
        ("a gap lies before it", |_, h, _| h.seq += 1),
        ("timestamps that nobody agreed on", |_, h, _| {
            h.timestamps = Some(Timestamps { val: 1, ecr: 1 });
        }),
        ("timestamps are missing", |tcb, _, _| tcb.status |= Status::TIMESTAMPS),
        ("our SYN is not acknowledged", |tcb, _, _| tcb.status -= Status::SYN_ACKED),
        ("a probe is out", |tcb, _, _| tcb.status |= Status::PROBED),
        ("a recovery", |tcb, _, _| {
            let f = tcb.flight();
            tcb.recovery.on_timeout(&f, true);
        }),
        ("a gap", |tcb, _, _| tcb.assembler = Some(Box::default())),
        ("the peer has ended already", |tcb, _, _| tcb.state = State::CloseWait),
    ];
    for (what, change) in cases {
        let mut t = Trace::with_sack(plain());
        t.write(64);
        t.drain();
        let (mut h, mut text) = (segment(&t, FIN, t.tcb.snd.nxt), BARE);
        change(&mut t.tcb, &mut h, &mut text);
        let before = format!("{:?}", t.tcb);
        assert_eq!(t.tcb.take_ending(t.now, &h, &text), None, "{what}");
        assert_eq!(format!("{:?}", t.tcb), before, "nothing has changed: {what}");
    }
    // Without FIN it is the ACK of ours that ends something.
    let mut t = Trace::with_sack(plain());
    t.write(64);
    t.drain();
    let ack = segment(&t, TcpFlags::ACK, t.tcb.snd.nxt);
    assert_eq!(t.tcb.take_ending(t.now, &ack, &BARE), None, "there is none");
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.drain();
    assert_eq!(t.tcb.take_ending(t.now, &ack, &BARE), None, "it is not reached");
}

#[test]
fn an_older_timestamp_ends_nothing_the_short_way() {
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0");
    t.rx("SA 0 ack 1 win 65535 mss 1460 ts 700/100000");
    t.tx("A 1 ack 1");
    for (val, taken) in [(699, false), (700, true)] {
        let timestamps = Some(Timestamps { val, ecr: 100_000 });
        let fin = PlainTcp { timestamps, ..segment(&t, FIN, t.tcb.snd.una) };
        assert_eq!(t.tcb.take_ending(t.now, &fin, &BARE).is_some(), taken, "{val}");
    }
}

#[test]
fn the_last_ack_leaves_the_short_way() {
    let mut t = Trace::with_sack(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    assert_eq!(t.rx_outcome("FA 1 ack 2"), Outcome::TimeWait);
    let (header, text) = t.tcb.poll_expected(t.now, 128).expect("the ACK of the peer's FIN");
    assert_eq!((header.flags, header.seq, header.ack), (TcpFlags::ACK, ISS + 2, IRS + 2));
    assert!(text.is_empty());
    t.quiet();
}

#[test]
fn a_message_that_may_leave_whole_takes_the_short_way() {
    type Write = fn(&mut Trace);
    let cases: [(&str, Write); 3] = [
        ("in a cell", |t| t.write(64)),
        ("in a slot", |t| t.write(600)),
        ("in a slice of its own", |t| {
            let data = t.pool.copy_from(&bytes(1, 65)).unwrap().freeze();
            t.tcb.write_owned(data).unwrap();
        }),
    ];
    for (what, write) in cases {
        let mut t = Trace::with_sack(plain());
        write(&mut t);
        let unsent = t.tcb.bytes_unsent();
        assert!(t.tcb.poll_expected(t.now, unsent - 1).is_none(), "more than is wanted: {what}");
        let (header, text) = t.tcb.poll_expected(t.now, unsent).expect(what);
        assert_eq!((header.flags, header.seq), (TcpFlags::ACK | TcpFlags::PSH, ISS + 1), "{what}");
        assert_eq!(text, bytes(1, 1 + unsent as u32), "{what}");
        t.quiet();
    }
    let mut t = Trace::with_sack(plain());
    t.write(64);
    let data = t.pool.copy_from(b"another piece").unwrap().freeze();
    t.tcb.write_owned(data).unwrap();
    assert!(t.tcb.poll_expected(t.now, 1000).is_none(), "two pieces");
}

#[test]
fn what_else_is_to_be_sent_takes_the_long_way() {
    type Change = fn(&mut Tcb);
    let cases: [(&str, Change); 9] = [
        ("a keepalive", |tcb| tcb.pending |= Pending::KEEPALIVE),
        ("a duplicate ACK", |tcb| tcb.rcv.dup_acks = 1),
        ("a recovery", |tcb| {
            let f = tcb.flight();
            tcb.recovery.on_timeout(&f, true);
        }),
        ("a marked packet", |tcb| tcb.ecn.agreed = true),
        ("blocks", |tcb| tcb.assembler = Some(Box::default())),
        ("not its turn", |tcb| tcb.timers.set(Timer::Pacing, Instant::from_millis(200_000))),
        ("another state", |tcb| tcb.state = State::CloseWait),
        ("FIN behind it", |tcb| tcb.status |= Status::FIN_QUEUED),
        ("a window that is too small", |tcb| tcb.snd.wnd = 63),
    ];
    for (what, change) in cases {
        let mut t = Trace::with_sack(plain());
        t.write(64);
        change(&mut t.tcb);
        assert!(t.tcb.poll_expected(t.now, 128).is_none(), "{what}");
        assert_eq!(t.tcb.bytes_unsent(), 64, "{what}");
    }
}
