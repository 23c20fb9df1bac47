//! When the short ways are taken, and when not: `short_ways` compares what they do.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use barewire_driver::PoolConfig;

use super::super::congestion::Controller;
use super::super::delivery::Delivery;
use super::super::fast_open::{Cache, FastConnect};
use super::super::ranges::Range;
use super::super::tests::*;
use super::super::*;
use super::*;
use crate::SocketError;
use crate::wire::tcp::Timestamps;

/// With timestamps, 20 ms from its peer, and with cells for messages.
fn calm_with(config: TcpConfig) -> Trace {
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..config });
    let cells = PoolConfig { slots: 64, slot_len: 2048, cells: 16, try_huge: false };
    t.pool = Pool::new(cells).unwrap();
    t.tx("S 0");
    t.now += Duration::from_millis(20);
    t.rx("SA 0 ack 1 win 65535 mss 1460 sackok yes ts 700/100000");
    t.tx("A 1 ack 1");
    t.tcb.rcv.quick_acks = 0;
    assert!(t.tcb.is_calm());
    t
}

fn calm() -> Trace {
    calm_with(plain())
}

/// The next segment without text, which acknowledges nothing new.
fn next(t: &Trace) -> PlainTcp {
    PlainTcp {
        src_port: 0,
        dst_port: 0,
        seq: t.tcb.rcv.nxt.get(),
        ack: t.tcb.snd.una.get(),
        flags: TcpFlags::ACK,
        window: 65_535,
        timestamps: t.tcb.timestamps(t.now).map(|ts| Timestamps { val: ts.ecr, ecr: ts.val }),
    }
}

fn text(len: u32) -> Text {
    Text { len, wire_segments: 1, ecn: Ecn::NotEct, memory: Memory::Plenty }
}

// --- in ------------------------------------------------------------------------------------------

#[test]
fn the_next_text_and_acks_of_what_is_in_flight_are_expected() {
    let mut t = calm();
    let h = next(&t);
    assert!(t.tcb.expects(&h, &text(1)));
    assert!(t.tcb.expects(&PlainTcp { flags: h.flags | TcpFlags::PSH, ..h }, &text(1)));
    assert!(t.tcb.expects(&h, &text(65_535)), "all that the window takes");
    assert!(t.tcb.expects(&h, &Text { ecn: Ecn::Ce, ..text(1) }), "a mark that nobody asked for");
    t.write(100);
    t.tx("PA 1:101 ack 1");
    for acked in [1, 50, 100] {
        let ack = h.ack + acked;
        assert!(t.tcb.expects(&PlainTcp { ack, ..h }, &text(0)), "{acked}");
        assert!(t.tcb.expects(&PlainTcp { ack, ..h }, &text(1)), "{acked}");
    }
    assert!(t.tcb.expects(&h, &text(1)), "text that acknowledges nothing new");
    let newer = h.timestamps.map(|ts| Timestamps { val: ts.val + 1, ..ts });
    assert!(t.tcb.expects(&PlainTcp { timestamps: newer, ..h }, &text(1)));
}

#[test]
fn without_timestamps_none_are_expected() {
    let mut t = Trace::with_sack(plain());
    let h = next(&t);
    assert!(h.timestamps.is_none() && t.tcb.expects(&h, &text(1)));
    let timestamps = Some(Timestamps { val: 1, ecr: 1 });
    assert!(!t.tcb.expects(&PlainTcp { timestamps, ..h }, &text(1)));
}

#[test]
fn a_segment_with_anything_unusual_is_not_expected() {
    type Change = fn(&mut PlainTcp, &mut Text);
    let cases: [(&str, Change); 14] = [
        ("an ACK of what was never sent", |h, _| h.ack += 101),
        ("an ACK from before snd.una", |h, _| h.ack -= 1),
        ("an ACK of nothing new, without text", |_, x| x.len = 0),
        ("no ACK", |h, _| h.flags = TcpFlags::PSH),
        ("FIN", |h, _| h.flags |= TcpFlags::FIN),
        ("RST", |h, _| h.flags |= TcpFlags::RST),
        ("an echo of a mark", |h, _| h.flags |= TcpFlags::ECE),
        ("a gap before it", |h, _| h.seq += 1),
        ("something that has come before", |h, _| h.seq -= 1),
        ("no timestamps", |h, _| h.timestamps = None),
        ("older timestamps", |h, _| {
            h.timestamps = h.timestamps.map(|ts| Timestamps { val: ts.val - 1, ..ts });
        }),
        ("more than the window takes", |_, x| x.len = 65_536),
        ("memory is scarce", |_, x| x.memory = Memory::Scarce),
        ("memory is exhausted", |_, x| x.memory = Memory::Exhausted),
    ];
    let mut t = calm();
    t.write(100);
    t.tx("PA 1:101 ack 1");
    for (what, change) in cases {
        let (mut h, mut text) = (next(&t), text(1));
        assert!(t.tcb.expects(&h, &text));
        change(&mut h, &mut text);
        assert!(!t.tcb.expects(&h, &text), "{what}");
    }
}

#[test]
fn a_disturbed_connection_expects_nothing_and_sends_no_message_the_short_way() {
    type Change = fn(&mut Tcb);
    let status = [
        Status::APP_CLOSED,
        Status::READ_SHUT,
        Status::EOF,
        Status::PROBED,
        Status::FIN_QUEUED,
        Status::FIN_SENT,
        Status::MEMORY_SCARCE,
    ];
    let cases: [(&str, Change); 19] = [
        ("a state behind ESTABLISHED", |tcb| tcb.state = State::CloseWait),
        ("a SYN to be acknowledged", |tcb| tcb.status -= Status::SYN_ACKED),
        ("a probe to send", |tcb| tcb.pending |= Pending::KEEPALIVE),
        ("a recovery", |tcb| {
            let f = tcb.flight();
            tcb.recovery.on_timeout(&f, true);
        }),
        ("blocks", |tcb| {
            let (from, to) = (tcb.snd.una, tcb.snd.nxt);
            let mut delivery = Delivery::new(tcb.snd.una);
            tcb.sendq.records.sack(from, to, 1448, &mut delivery);
        }),
        ("losses", |tcb| tcb.sendq.records.lose_first(1460)),
        ("a gap", |tcb| tcb.assembler = Some(Box::default())),
        ("a duplicate to report", |tcb| {
            tcb.rcv.dsack = Some(Range { start: tcb.rcv.nxt - 1, end: tcb.rcv.nxt });
        }),
        ("a duplicate ACK to send", |tcb| tcb.rcv.dup_acks = 1),
        ("retransmissions", |tcb| tcb.retries = 1),
        ("probes", |tcb| tcb.probes = 1),
        ("a closed window", |tcb| tcb.persist_backoff = 1),
        ("a backed-off timeout", |tcb| tcb.rtt.back_off()),
        ("an error", |tcb| tcb.error = Some(SocketError::ConnectionReset)),
        ("a soft error", |tcb| tcb.soft_error = Some(SocketError::HostUnreachable)),
        ("a mark to echo", |tcb| {
            tcb.ecn.agreed = true;
            tcb.ecn_arrived(Ecn::Ce, TcpFlags::empty());
        }),
        ("a reduction to tell of", |tcb| {
            tcb.ecn.agreed = true;
            tcb.ecn_reduced();
        }),
        ("a claim about the path", |tcb| {
            tcb.snd.proven = tcb.snd.mss;
            tcb.path_claimed(Instant::ZERO, tcb.snd.una, 1000);
        }),
        ("a handshake that brings a cookie", |tcb| {
            let cache = Rc::new(RefCell::new(Cache::new(1)));
            let server = IpAddr::from(Ipv4Addr::LOCALHOST);
            let _ = tcb.open_fast(&cache, server, FastConnect::AtOnce, Instant::ZERO);
        }),
    ];
    let disturbed = |what: &str, change: &dyn Fn(&mut Tcb)| {
        let mut t = calm();
        t.write(100);
        t.tx("PA 1:101 ack 1");
        t.now += Duration::from_millis(20);
        let h = PlainTcp { ack: t.tcb.snd.una.get() + 1, ..next(&t) };
        assert!(t.tcb.expects(&h, &text(1)));
        t.tcb.stir();
        change(&mut t.tcb);
        assert!(!t.tcb.looks_calm(), "{what}");
        assert!(!t.tcb.expects(&h, &text(1)), "{what}");
        assert!(!t.tcb.write_small(&t.pool, b"a message"), "{what}");
        assert!(t.tcb.read_small(&mut [0; 10]).is_none(), "{what}");
        t.tcb.sendq.copy_small(&t.pool, b"a message");
        assert!(sent_small(&mut t).is_none(), "{what}");
    };
    for (what, change) in cases {
        disturbed(what, &change);
    }
    for flag in status {
        disturbed(&format!("{flag:?}"), &|tcb| tcb.status |= flag);
    }
}

#[test]
fn marks_and_memory_end_what_is_expected() {
    let mut t = calm();
    let h = next(&t);
    t.tcb.ecn.agreed = true;
    assert!(t.tcb.expects(&h, &Text { ecn: Ecn::Ect0, ..text(1) }));
    assert!(!t.tcb.expects(&h, &Text { ecn: Ecn::Ce, ..text(1) }), "a mark is to be echoed");
    // With large slots, what the queue may pin is used up before the window is.
    let mut t = calm();
    let slots = PoolConfig { slots: 128, slot_len: 4096, cells: 1, try_huge: false };
    t.pool = Pool::new(slots).unwrap();
    let mut taken = 0;
    while t.tcb.expects(&next(&t), &text(600)) {
        let (now, h) = (t.now, next(&t));
        let piece = t.pool.copy_from(&[0; 600]).unwrap().freeze();
        t.tcb.take_expected(now, &h, &text(600), Some(piece));
        taken += 1;
    }
    assert_eq!(taken, recvq::pinned_max(t.tcb.rcv.buffer) / 4096);
    assert!(t.tcb.rcv.edge.since(t.tcb.rcv.nxt) > 600);
}

#[test]
fn the_ack_of_one_message_takes_the_shortest_way() {
    for sack in [true, false] {
        let mut t = calm();
        t.tcb.status.set(Status::SACK, sack);
        t.write(2 * 1448);
        assert_eq!(t.drain(), [(1, 2897)], "one transmission, two segments");
        t.now += Duration::from_millis(30);
        assert!(t.tcb.take_last_ack(t.now));
        assert_eq!((t.tcb.snd.una, t.tcb.bytes_unacked()), (t.tcb.snd.nxt, 0));
        assert_eq!(t.tcb.bytes_acked(), 2896);
        assert_eq!(t.tcb.rtt.srtt(), Some(Duration::from_micros(21_250)), "RFC 6298 §2.3");
        let timers = [Timer::Retransmit, Timer::Reorder, Timer::Probe];
        assert!(timers.iter().all(|&timer| !t.tcb.timers.is_set(timer)));
    }
}

#[test]
fn the_ack_of_more_is_left_to_the_longer_ways() {
    let mut t = calm();
    t.write(2 * 1448 + 1);
    t.drain();
    assert!(!t.tcb.take_last_ack(t.now), "RFC 7323 §4.2: the sample would weigh less");
    let mut t = calm();
    t.write(100);
    t.tx("PA 1:101 ack 1");
    t.now += Duration::from_millis(1);
    t.write(100);
    t.tx("PA 101:201 ack 1");
    assert!(!t.tcb.take_last_ack(t.now), "two transmissions");
    let mut t = calm_with(TcpConfig { congestion: Algorithm::Bbr, ..plain() });
    t.write(100);
    t.drain();
    assert!(!t.tcb.take_last_ack(t.now), "the controller wants to know the rate");
    let mut t = calm();
    t.write(100);
    t.tx("PA 1:101 ack 1");
    t.tcb.sendq.copy_small(&t.pool, b"more");
    assert!(!t.tcb.take_last_ack(t.now), "something is unsent");
}

#[test]
fn what_lies_in_one_piece_is_read_at_once_while_calm() {
    let mut t = calm();
    t.rx("A 1:51 ack 1 ts 700/1");
    assert!(t.tcb.read_small(&mut [0; 49]).is_none(), "it is not all of it");
    let mut out = [0; 60];
    assert_eq!(t.tcb.read_small(&mut out), Some(50));
    assert_eq!(out[..50], bytes(1, 51));
    assert!(t.tcb.read_small(&mut out).is_none(), "nothing is left");
}

// --- out -----------------------------------------------------------------------------------------

/// As `t.write` by the short way.
#[track_caller]
fn write_small(t: &mut Trace, len: usize) -> bool {
    let data = vec![7; len];
    t.tcb.write_small(&t.pool, &data)
}

/// As the stack does it: with headers that fit the connection.
fn send_small(t: &mut Trace) -> Option<PacketSlice> {
    let stamped = t.tcb.is_stamped()?;
    keep_headers(&mut t.tcb, stamped);
    sent_small(t)
}

#[test]
fn whether_segments_have_timestamps_is_known_once_it_is_agreed_on() {
    assert_eq!(Trace::connecting(plain()).tcb.is_stamped(), None);
    assert_eq!(Trace::established(plain()).tcb.is_stamped(), Some(false));
    assert_eq!(calm().tcb.is_stamped(), Some(true));
}

#[test]
fn a_small_message_takes_a_cell_and_leaves_as_it_is() {
    for len in [1, SMALL_MAX] {
        let mut t = calm();
        t.tcb.expect_more(true);
        assert!(write_small(&mut t, len), "what was to come has come");
        assert_eq!((t.tcb.bytes_unsent(), t.tcb.more_to_come), (len, false));
        let frame = send_small(&mut t).expect("a message that may leave");
        assert_eq!(frame.len(), t.tcb.front.len() + len);
        assert_eq!((t.tcb.bytes_unsent(), t.tcb.bytes_unacked()), (0, len));
        assert!(t.tcb.timers.is_set(Timer::Retransmit) && t.tcb.timers.is_set(Timer::Probe));
    }
}

#[test]
fn whoever_writes_a_small_message_alone_gets_a_cell() {
    for (len, cell) in [(SMALL_MAX as u32, true), (SMALL_MAX as u32 + 1, false)] {
        let mut t = calm();
        t.write(len);
        assert_eq!(t.tcb.sendq.small_len(), cell.then_some(len));
        t.tx(&format!("PA 1:{} ack 1", 1 + len));
        assert_eq!(t.tcb.sendq.small_len(), None);
    }
    let mut t = calm();
    t.tcb.expect_more(true);
    t.write(10);
    assert_eq!(t.tcb.sendq.small_len(), None, "it waits for what comes behind it");
}

#[test]
fn a_small_message_is_probed_for_when_its_ack_cannot_be_delayed_any_more() {
    // RFC 8985 §7.2: after two round trips of 20 ms, and the 200 ms that an ACK may wait.
    let mut t = calm_with(TcpConfig { rto_min: Duration::from_millis(400), ..plain() });
    assert!(write_small(&mut t, 10) && send_small(&mut t).is_some());
    let probe = t.tcb.timers.get(Timer::Probe) - t.now;
    assert_eq!(probe, Duration::from_millis(240));
}

#[test]
fn half_of_the_cells_are_left_to_headers() {
    let mut t = calm();
    let taken: Vec<_> = (0..7).map(|_| t.pool.alloc_cell().unwrap()).collect();
    assert!(write_small(&mut t, 10), "more than half of sixteen are free");
    let mut t = calm();
    let others: Vec<_> = (0..8).map(|_| t.pool.alloc_cell().unwrap()).collect();
    assert!(!write_small(&mut t, 10));
    drop((taken, others));
}

#[test]
fn another_message_takes_no_cell() {
    let no_cell = |what: &str, len: usize, change: &dyn Fn(&mut Trace)| {
        let mut t = calm();
        change(&mut t);
        assert!(!write_small(&mut t, len), "{what}");
    };
    no_cell("nothing", 0, &|_| {});
    no_cell("more than a cell holds", SMALL_MAX + 1, &|_| {});
    no_cell("something unusual", 1, &|t| t.tcb.stir());
    no_cell("a queue before it", 1, &|t| t.write(5));
    no_cell("a small buffer", 1, &|t| t.tcb.snd.buffer = 2 * SMALL_MAX as u32 - 1);
    no_cell("a cork", 1, &|t| t.tcb.status |= Status::CORK);
    let mut t = calm();
    t.tcb.snd.buffer = 2 * SMALL_MAX as u32;
    assert!(write_small(&mut t, SMALL_MAX), "there is room for another after it");
}

#[test]
fn a_message_behind_another_leaves_if_both_windows_and_nagle_let_it() {
    // The message that is in flight has 100 bytes, the next 50.
    let leaves = |config: TcpConfig, change: &dyn Fn(&mut Tcb)| {
        let mut t = calm_with(config);
        t.write(100);
        t.tx("PA 1:101 ack 1");
        assert!(t.tcb.sendq.copy_small(&t.pool, &[7; 50]));
        change(&mut t.tcb);
        let left = send_small(&mut t).is_some();
        assert_eq!(t.tcb.bytes_unsent(), if left { 0 } else { 50 });
        left
    };
    let nagle = || TcpConfig { nodelay: false, ..plain() };
    assert!(leaves(plain(), &|_| {}));
    assert!(leaves(plain(), &|tcb| tcb.snd.wnd = 150));
    assert!(!leaves(plain(), &|tcb| tcb.snd.wnd = 149), "the peer has no room");
    assert!(!leaves(nagle(), &|_| {}), "a partial segment is in flight");
    assert!(leaves(nagle(), &|tcb| tcb.snd.small_end = tcb.snd.una), "only full ones are");
    let narrow = |tcb: &mut Tcb, bytes| {
        tcb.controller = Controller::new(Algorithm::NewReno, bytes);
        tcb.snd.small_end = tcb.snd.una;
    };
    assert!(leaves(plain(), &|tcb| narrow(tcb, 150)));
    assert!(!leaves(plain(), &|tcb| narrow(tcb, 149)), "the network has none");
    assert!(!leaves(plain(), &|tcb| tcb.controller = Controller::new(Algorithm::NewReno, 1448)));
    assert!(!leaves(plain(), &|tcb| tcb.expect_more(true)), "MSG_MORE");
    for held in [Status::PACED, Status::USER_TIMEOUT, Status::CORK] {
        assert!(!leaves(plain(), &|tcb| tcb.status |= held), "{held:?}");
    }
    assert!(!leaves(plain(), &|tcb| tcb.ecn.agreed = true), "its frame would have to be marked");
}

#[test]
fn a_message_with_nothing_in_flight_fits_every_congestion_window() {
    let leaves = |change: &dyn Fn(&mut Tcb)| {
        let mut t = calm_with(TcpConfig { nodelay: false, ..plain() });
        assert!(write_small(&mut t, 100));
        change(&mut t.tcb);
        send_small(&mut t).is_some()
    };
    assert!(leaves(&|tcb| tcb.controller = Controller::new(Algorithm::NewReno, 1)));
    assert!(leaves(&|tcb| tcb.snd.wnd = 100));
    assert!(!leaves(&|tcb| tcb.snd.wnd = 99));
    assert!(leaves(&|tcb| tcb.snd.mss = 100));
    assert!(!leaves(&|tcb| tcb.snd.mss = 99), "more than a segment");
}

/// What a small message offers is what any segment would.
#[test]
fn a_small_message_offers_the_window_of_any_segment() {
    let sizes = [0, 1, 50, 99, 100, 101, 540, 1000, 1459, 1460, 1461, 3540, 63_000, 65_535, 65_536];
    for shift in [0, 3, 7] {
        let scale = WindowScale::from_option(shift);
        for buffer in [100, 2000, 5000, 65_535, 65_536, 200_000] {
            for queued in [0, 10] {
                let mut t = calm();
                t.rx(&format!("A 1:{} ack 1 ts 700/1", 1 + queued));
                (t.tcb.rcv.scale, t.tcb.rcv.buffer) = (scale, buffer);
                t.tcb.still = t.tcb.still_windows();
                for current in sizes.into_iter().filter(|&size| size <= buffer + scale.bytes(1)) {
                    let edge = t.tcb.rcv.nxt + current;
                    t.tcb.rcv.edge = edge;
                    let short = (t.tcb.window_calmly(), t.tcb.rcv.edge);
                    t.tcb.rcv.edge = edge;
                    let long = (t.tcb.window_field(Growth::Yes), t.tcb.rcv.edge);
                    assert_eq!(short, long, "{scale:?} of {buffer}, {queued} queued, {current}");
                }
            }
        }
    }
}
