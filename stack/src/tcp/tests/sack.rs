//! Selective acknowledgments: agreeing on them, sending them, believing them (RFC 2018, RFC 2883,
//! RFC 6675).

use super::*;

const MSS: u32 = 1460;

fn at(segment: u32) -> u32 {
    1 + segment * MSS
}

/// Ten segments in flight for 20 ms, 20 more to send.
fn ten_in_flight(config: TcpConfig) -> Trace {
    let mut t = Trace::with_sack(config);
    t.write(30 * MSS);
    t.tx(&format!("A 1:{} ack 1", at(10)));
    t.quiet();
    t.now += Duration::from_millis(20);
    t
}

/// By count, without the timers of RACK-TLP.
fn by_count() -> TcpConfig {
    TcpConfig { rack_tlp: false, ..plain() }
}

/// What reports the segments `[from, to)`, as `ack SEGMENT sack BLOCK,…`.
fn report(ack: u32, blocks: &[(u32, u32)]) -> String {
    let blocks: Vec<_> = blocks.iter().map(|&(a, b)| format!("{}-{}", at(a), at(b))).collect();
    format!("A 1 ack {} sack {}", at(ack), blocks.join(","))
}

// --- agreeing ------------------------------------------------------------------------------------

#[test]
fn sack_is_used_if_both_sides_permit_it() {
    // RFC 2018 §2.
    let t = Trace::with_sack(plain());
    assert!(t.tcb.info().sack);
    t.end();
    assert!(!Trace::established(plain()).tcb.info().sack, "the peer does not");
    let mut t = Trace::connecting(TcpConfig { sack: false, ..plain() });
    t.tx("S 0 sackok no");
    t.rx("SA 0 ack 1 mss 1460 sackok yes");
    assert!(!t.tcb.info().sack, "we do not");
    t.rx("A 101:201 ack 1");
    t.tx("A 1 ack 1 sack none");
    t.end();
}

#[test]
fn a_listener_answers_what_it_was_offered() {
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    for (offered, permitted) in [(true, true), (true, false), (false, true)] {
        let config = TcpConfig { sack: permitted, ..plain() };
        let options = TcpOptions { sack_permitted: offered, ..TcpOptions::default() };
        let syn = TcpHeader { seq: IRS, flags: TcpFlags::SYN, options, ..TcpHeader::default() };
        let now = Instant::from_millis(5);
        let half = HalfOpen::new(now, &syn, &config, open);
        let both = offered && permitted;
        assert_eq!(half.syn_ack(now, &config).options.sack_permitted, both);
        assert_eq!(half.into_tcb(now, Rc::new(config)).info().sack, both);
    }
}

// --- reporting -----------------------------------------------------------------------------------

#[test]
fn the_block_that_grew_last_comes_first() {
    // RFC 2018 §4.
    let mut t = Trace::with_sack(plain());
    t.rx("A 101:201 ack 1");
    t.tx("A 1 ack 1 sack 101-201");
    t.rx("A 301:401 ack 1");
    t.tx("A 1 ack 1 sack 301-401,101-201");
    t.rx("A 501:601 ack 1");
    t.tx("A 1 ack 1 sack 501-601,301-401,101-201");
    t.rx("A 201:301 ack 1");
    t.tx("A 1 ack 1 sack 101-401,501-601");
    t.rx("A 1:101 ack 1");
    t.tx("A 1 ack 401 sack 501-601");
    t.rx("A 401:501 ack 1");
    t.tx("A 1 ack 601 sack none");
    t.read(600);
    t.end();
}

#[test]
fn four_blocks_fit_and_three_beside_timestamps() {
    // RFC 2018 §3.
    let mut t = Trace::with_sack(plain());
    for i in 1..6 {
        t.rx(&format!("A {}:{} ack 1", 200 * i, 200 * i + 100));
        if i < 5 {
            t.drain();
        }
    }
    t.tx("A 1 ack 1 sack 1000-1100,800-900,600-700,400-500");
    t.end();
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0");
    t.rx("SA 0 ack 1 mss 1460 sackok yes ts 7/100000");
    t.drain();
    for i in 1..5 {
        t.rx(&format!("A {}:{} ack 1 ts 8/100000", 200 * i, 200 * i + 100));
        if i < 4 {
            t.drain();
        }
    }
    t.tx("A 1 ack 1 sack 800-900,600-700,400-500");
    t.end();
}

#[test]
fn a_fin_behind_a_gap_is_reported_with_its_data() {
    let mut t = Trace::with_sack(plain());
    t.rx("FA 101:201 ack 1");
    t.tx("A 1 ack 1 sack 101-202");
    t.rx("A 1:101 ack 1");
    t.tx("A 1 ack 202 sack none");
    t.state("CLOSE-WAIT");
    t.read(200);
    t.end();
}

#[test]
fn what_arrives_twice_is_reported_once() {
    // RFC 2883 §4.
    let mut t = Trace::with_sack(plain());
    t.rx("A 1:101 ack 1");
    t.rx("A 1:101 ack 1");
    t.tx("A 1 ack 101 sack 1-101");
    t.rx("A 51:151 ack 1");
    t.tx("A 1 ack 151 sack 51-101");
    t.rx("A 301:401 ack 1");
    t.tx("A 1 ack 151 sack 301-401");
    t.rx("A 351:451 ack 1");
    t.tx("A 1 ack 151 sack 351-401,301-451");
    t.rx("A 151 ack 1 win 60000");
    t.quiet();
    t.rx("A 501:601 ack 1");
    t.tx("A 1 ack 151 sack 501-601,301-451");
    t.read(150);
    t.end();
}

#[test]
fn duplicates_are_not_reported_where_that_is_turned_off() {
    let mut t = Trace::with_sack(TcpConfig { dsack: false, ..plain() });
    t.rx("A 1:101 ack 1");
    t.rx("A 1:101 ack 1");
    t.tx("A 1 ack 101 sack none");
    t.read(100);
    t.end();
}

#[test]
fn full_segments_have_no_room_for_blocks_and_an_ack_follows() {
    let mut t = Trace::with_sack(plain());
    t.rx("A 201:301 ack 1");
    t.rx("A 401:501 ack 1");
    t.drain();
    t.write(2 * MSS);
    t.rx("A 1:201 ack 1");
    t.tx("PA 1:2921 ack 301 sack none");
    t.tx("A 2921 ack 301 sack 401-501");
    t.quiet();
    t.write(100);
    t.rx("A 301:351 ack 2921");
    t.tx("PA 2921:3021 ack 351 sack 401-501");
    t.quiet();
    t.read(350);
    t.end();
}

// --- believing -----------------------------------------------------------------------------------

#[test]
fn three_reports_send_the_hole_again_and_nothing_else() {
    // RFC 6675 §5 and RFC 8985 §6.2 agree here; RFC 3042.
    for config in [plain(), by_count()] {
        let mut t = ten_in_flight(config);
        t.rx(&report(0, &[(1, 2)]));
        assert_eq!(t.drain(), [(at(10), at(11))], "limited transmit");
        t.rx(&report(0, &[(1, 3)]));
        assert_eq!(t.drain(), [(at(11), at(12))]);
        t.rx(&report(0, &[(1, 4)]));
        assert_eq!(t.drain(), [(1, at(1))]);
        let info = t.tcb.info();
        assert_eq!((info.sacked_bytes, info.lost_bytes), (3 * MSS, 0));
        assert_eq!(info.pipe_bytes, 9 * MSS);
        assert_eq!(info.ssthresh_bytes, 5 * MSS);
        t.rx(&report(12, &[]).replace(" sack ", ""));
        assert_eq!(t.tcb.info().cwnd_bytes, 5 * MSS);
        assert_eq!(t.drain(), [(at(12), at(17))]);
        assert_eq!(t.tcb.info().retransmissions, 1);
        t.end();
    }
}

#[test]
fn many_losses_in_a_window_are_repaired_in_one_round_trip() {
    for config in [plain(), by_count()] {
        let mut t = ten_in_flight(config);
        let mut sent = vec![];
        // 0, 3 and 6 are lost.
        for blocks in [
            &[(1, 2)][..],
            &[(1, 3)],
            &[(4, 5), (1, 3)],
            &[(4, 6), (1, 3)],
            &[(7, 8), (4, 6), (1, 3)],
            &[(7, 9), (4, 6), (1, 3)],
            &[(7, 10), (4, 6), (1, 3)],
        ] {
            t.rx(&report(0, blocks));
            sent.extend(t.drain());
        }
        let again: Vec<_> = sent.iter().filter(|s| s.0 < at(10)).copied().collect();
        assert_eq!(again, [(at(0), at(1)), (at(3), at(4)), (at(6), at(7))]);
        assert!(t.tcb.info().pipe_bytes <= 6 * MSS, "half of ten");
        t.now += Duration::from_millis(20);
        t.rx(&report(3, &[(4, 6), (7, 12)]));
        t.rx(&report(12, &[]).replace(" sack ", ""));
        assert_eq!((t.tcb.info().retransmissions, t.tcb.info().cwnd_bytes), (3, 5 * MSS));
        t.end();
    }
}

#[test]
fn neighbouring_losses_leave_as_one_super_segment() {
    let mut t = ten_in_flight(plain());
    t.rx(&report(0, &[(9, 10)]));
    t.drain();
    // Everything before the tenth is lost when its patience is over.
    t.now += Duration::from_millis(5);
    let _ = t.tcb.handle_timeout(t.now);
    let mut sent = t.drain();
    assert_eq!(sent, [(at(0), at(1))], "one segment at once, the rest as ACKs come");
    t.now += Duration::from_millis(20);
    t.rx(&report(1, &[(9, 11)]));
    sent.extend(t.drain());
    t.now += Duration::from_millis(20);
    t.rx(&report(3, &[(9, 11)]));
    sent.extend(t.drain());
    assert_eq!(sent[1..3], [(at(1), at(4)), (at(4), at(7))]);
    t.end();
}

#[test]
fn blocks_of_what_was_never_sent_are_counted_and_ignored() {
    let mut t = ten_in_flight(plain());
    for forged in [
        format!("A 1 ack 1 sack {}-{}", at(10), at(12)),
        format!("A 1 ack 1 sack {}-{}", at(3), at(2)),
        format!("A 1 ack 1 sack 1-{}", at(2)),
        format!("A 1 ack 1 sack {}-{}", at(9), at(9) + 3_000_000_000),
    ] {
        t.rx(&forged);
        assert_eq!(t.tcb.take_drop(), Some(DropReason::BadSack), "{forged}");
    }
    assert_eq!(t.tcb.info().sacked_bytes, 0);
    t.quiet();
    t.end();
}

#[test]
fn acks_and_blocks_in_crumbs_do_not_inflate_the_window() {
    // RFC 3465 §2.1: bytes count, not ACKs.
    let mut t = ten_in_flight(plain());
    for byte in 2..=at(1) {
        t.rx(&format!("A 1 ack {byte}"));
        t.drain();
    }
    assert!(t.tcb.info().cwnd_bytes <= 11 * MSS);
    let before = t.tcb.info();
    for byte in 0..MSS - 1 {
        t.rx(&format!("A 1 ack {} sack {}-{}", at(1), at(2), at(2) + byte + 1));
    }
    let after = t.tcb.info();
    assert_eq!((after.sacked_bytes, after.pipe_bytes), (0, before.pipe_bytes));
    t.quiet();
    t.end();
}

#[test]
fn what_the_receiver_throws_away_again_is_sent_again() {
    // RFC 2018 §8.
    let mut t = ten_in_flight(plain());
    t.rx(&report(0, &[(1, 4)]));
    t.rx(&report(0, &[(1, 6)]));
    t.drain();
    t.now += Duration::from_millis(20);
    t.rx(&report(1, &[]).replace(" sack ", ""));
    t.drain();
    let mut again = vec![];
    for _ in 0..3 {
        t.wait_for_timer();
        again.extend(t.drain());
    }
    assert!(again.contains(&(at(1), at(2))), "{again:?}");
    assert_eq!(t.tcb.info().sacked_bytes, 0);
    t.rx(&report(10, &[]).replace(" sack ", ""));
    t.state("ESTABLISHED");
    t.end();
}

#[test]
fn a_timeout_keeps_what_was_reported() {
    // RFC 6675 §5.1.
    let mut t = ten_in_flight(by_count());
    t.rx(&report(0, &[(8, 10)]));
    t.drain();
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", at(1)));
    t.quiet();
    t.now += Duration::from_millis(20);
    t.rx(&report(4, &[(8, 10)]));
    let sent = t.drain();
    assert!(sent.iter().all(|s| s.1 <= at(8) || s.0 >= at(10)), "{sent:?}");
    t.end();
}

#[test]
fn an_idle_connection_frees_the_scoreboard() {
    let mut t = ten_in_flight(plain());
    t.rx(&report(0, &[(1, 4)]));
    t.drain();
    t.now += Duration::from_millis(20);
    let mut acked = 0;
    while t.tcb.bytes_unacked() + t.tcb.bytes_unsent() > 0 {
        t.now += Duration::from_millis(20);
        acked = (acked + 12).min(30);
        let nxt = t.tcb.snd.nxt.get().wrapping_sub(ISS);
        t.rx(&format!("A 1 ack {nxt}"));
        t.drain();
    }
    assert!(t.tcb.sendq.records.capacity() > 0);
    t.rx("PA 1:11 ack 43801");
    t.wait(3_000);
    t.drain();
    t.wait(3_000);
    assert_eq!(t.tcb.sendq.records.capacity(), 0);
    t.read(10);
    t.end();
}

#[test]
fn three_reports_of_crumbs_are_enough() {
    // RFC 6675 §5, step 2: three duplicate ACKs, although what they report is less than a segment.
    let mut t = Trace::with_sack(by_count());
    for _ in 0..5 {
        t.write(100);
        t.drain();
        t.now += Duration::from_millis(1);
    }
    for to in [201, 301] {
        t.rx(&format!("A 1 ack 1 sack 101-{to}"));
        t.quiet();
    }
    t.rx("A 1 ack 1 sack 101-401");
    assert_eq!(t.drain(), [(1, 101)]);
}
