//! What the handshake agrees on, and the compact form that holds it meanwhile.

use std::net::SocketAddr;

use super::*;

const OPEN: Open = Open { iss: ISS, ts_offset: 50, mss: 1460 };

fn syn(options: TcpOptions) -> TcpHeader {
    TcpHeader { seq: IRS, flags: TcpFlags::SYN, window: 8192, options, ..TcpHeader::default() }
}

fn all_options() -> TcpOptions {
    TcpOptions {
        mss: Some(1400),
        window_scale: Some(3),
        timestamps: Some(Timestamps { val: 77, ecr: 0 }),
        ..TcpOptions::default()
    }
}

#[test]
fn blocks_are_as_small_as_promised() {
    assert!(size_of::<Tcb>() <= 1112, "{}", size_of::<Tcb>());
    assert_eq!(size_of::<HalfOpen>(), 56);
    assert_eq!(size_of::<TimeWait>(), 32);
}

#[test]
fn an_active_open_offers_and_takes_options() {
    let config =
        TcpConfig { recv_buffer_bytes: 1 << 20, recv_autotune: false, ..TcpConfig::default() };
    let mut t = Trace::connecting(config);
    t.tx("S 0 win 65535 mss 1460 ws 5 ts 100000/0");
    t.rx("SA 0 ack 1 win 500 mss 1400 ws 3 ts 77/100000");
    t.tx("A 1 ack 1 ts 100000/77 win 32768");
    let info = t.tcb.info();
    assert_eq!((info.mss, info.timestamps, info.window_scales), (1388, true, Some((3, 5))));
    assert_eq!(info.snd_wnd_bytes, 500, "the window of a SYN is not scaled");
    t.rx("A 1 ack 1 win 500 ts 78/100000");
    assert_eq!(t.tcb.info().snd_wnd_bytes, 4000);
    t.end();
}

#[test]
fn the_offered_scale_holds_when_the_buffer_changes_before_the_answer() {
    let config =
        TcpConfig { recv_buffer_bytes: 1 << 20, recv_autotune: false, ..TcpConfig::default() };
    let mut t = Trace::connecting(config);
    t.tx("S 0 ws 5");
    t.tcb.update_config(|c| c.recv_buffer_bytes = 1 << 24);
    t.rx("SA 0 ack 1 mss 1460 ws 7 ts 1/100000");
    // 65,535 is as much as a field can say.
    t.tx("A 1 ack 1 win 65535");
    assert_eq!(t.tcb.info().rcv_wnd_bytes, 65_535 << 5);
    t.end();
}

#[test]
fn what_the_peer_does_not_offer_is_not_used() {
    let mut t = Trace::connecting(TcpConfig::default());
    t.tx("S 0");
    t.rx("SA 0 ack 1 win 500");
    t.tx("A 1 ack 1 win 65535");
    let info = t.tcb.info();
    assert_eq!((info.mss, info.timestamps, info.window_scales), (536, false, None));
    t.end();
}

#[test]
fn a_passive_open_answers_only_what_was_offered() {
    let config = TcpConfig::default();
    let now = Instant::from_millis(1_000);
    let full = HalfOpen::new(now, &syn(all_options()), &config, OPEN).syn_ack(now, &config);
    assert_eq!(full.options.mss, Some(1460));
    assert_eq!(full.options.window_scale, Some(7), "for 6 MiB");
    assert_eq!(full.options.timestamps, Some(Timestamps { val: 1_050, ecr: 77 }));
    let none = HalfOpen::new(now, &syn(TcpOptions::default()), &config, OPEN);
    let none = none.syn_ack(now, &config).options;
    assert_eq!((none.window_scale, none.timestamps), (None, None));
}

#[test]
fn a_passive_open_hands_everything_over() {
    let config = TcpConfig::default();
    let now = Instant::from_millis(1_000);
    let half = HalfOpen::new(now, &syn(all_options()), &config, OPEN);
    let later = now + Duration::from_millis(30);
    let mut t = Trace::with(half.into_tcb(later, Rc::new(config)), Trace::pool(), later);
    // The ACK that completes the handshake brings data already.
    t.rx("PA 1:11 ack 1 win 100 ts 80/1050");
    t.state("ESTABLISHED");
    t.read(10);
    let info = t.tcb.info();
    assert_eq!((info.mss, info.timestamps, info.window_scales), (1388, true, Some((3, 7))));
    assert_eq!((info.snd_wnd_bytes, info.srtt), (800, Some(Duration::from_millis(30))));
    t.tx("A 1 ack 11 ts 1080/80");
    t.end();
}

#[test]
fn a_handshake_that_ends_plainly_leaves_what_the_long_way_does() {
    let (now, later) = (Instant::from_millis(1_000), Instant::from_millis(1_030));
    for congestion in [Algorithm::NewReno, Algorithm::Cubic, Algorithm::Bbr] {
        for options in [all_options(), TcpOptions::default()] {
            let config = Rc::new(TcpConfig { congestion, ..TcpConfig::default() });
            let half = HalfOpen::new(now, &syn(options), &config, OPEN);
            let ts = options.timestamps.map(|_| Timestamps { val: 80, ecr: 1_050 });
            let ack = TcpHeader {
                seq: IRS + 1,
                ack: ISS + 1,
                flags: TcpFlags::ACK,
                window: 100,
                options: TcpOptions { timestamps: ts, ..TcpOptions::default() },
                ..TcpHeader::default()
            };
            let text = Text { len: 0, wire_segments: 1, ecn: Ecn::NotEct, memory: Memory::Plenty };
            let mut tcbs = [half.open(); 2].map(|open| Tcb::new(Rc::clone(&config), open, later));
            let outcome = half.establish(&mut tcbs[0], later, text.segment(&ack, &mut vec![]));
            assert_eq!(outcome, Outcome::Continue);
            tcbs[1] = half.into_tcb(later, config);
            let _ = tcbs[1].handle_segment(later, text.segment(&ack, &mut vec![]));
            let of = tcbs.map(|t| {
                let numbers = (t.state, t.pending, t.status, t.snd, t.rcv, t.poll_at());
                let path = (t.rtt, t.recovery, &t.controller, t.sendq.records.rate, t.tally);
                let rest = (t.tcp_info(later), t.ts_recent, t.ts_recent_at, t.last_heard);
                format!("{numbers:#?} {path:#?} {rest:#?} {:?}", t.readiness())
            });
            assert_eq!(of[0], of[1]);
        }
    }
}

#[test]
fn a_syn_ack_is_sent_again_at_doubling_intervals_and_given_up() {
    let config = TcpConfig { syn_ack_retries: 2, ..TcpConfig::default() };
    let now = Instant::from_millis(1_000);
    let mut half = HalfOpen::new(now, &syn(all_options()), &config, OPEN);
    let at = |ms| now + Duration::from_millis(ms);
    assert_eq!(half.handle_timeout(at(999), &config), HalfOpenTimeout::NotYet);
    assert!(matches!(half.handle_timeout(at(1000), &config), HalfOpenTimeout::Resend(_)));
    assert_eq!(half.poll_at(), at(3000));
    assert!(matches!(half.handle_timeout(at(3000), &config), HalfOpenTimeout::Resend(_)));
    assert_eq!(half.poll_at(), at(7000));
    assert_eq!(half.handle_timeout(at(7000), &config), HalfOpenTimeout::GiveUp);
}

#[test]
fn a_half_open_connection_judges_segments_by_rfc_5961() {
    let config = plain();
    let mut now = Instant::from_millis(1_000);
    let mut half = HalfOpen::new(now, &syn(TcpOptions::default()), &config, OPEN);
    let mut give = |flags, seq: u32, ack: u32| {
        let h = TcpHeader {
            seq: IRS.wrapping_add(seq),
            ack: ISS.wrapping_add(ack),
            flags,
            ..TcpHeader::default()
        };
        now += Duration::from_millis(500);
        half.handle_segment(now, &h, 0, &config)
    };
    let HalfOpenOutcome::Reply(again) = give(TcpFlags::SYN, 0, 0) else { panic!("SYN repeated") };
    assert!(again.flags.contains(TcpFlags::SYN | TcpFlags::ACK));
    let HalfOpenOutcome::Reply(challenge) = give(TcpFlags::RST, 2, 0) else { panic!("RST") };
    assert_eq!(challenge.flags, TcpFlags::ACK);
    assert_eq!(give(TcpFlags::RST, 100_000, 0), HalfOpenOutcome::Drop);
    assert!(matches!(give(TcpFlags::SYN, 5, 0), HalfOpenOutcome::Reply(_)), "another SYN");
    assert_eq!(give(TcpFlags::empty(), 1, 0), HalfOpenOutcome::Drop);
    let HalfOpenOutcome::Reset(rst) = give(TcpFlags::ACK, 1, 2) else { panic!("ACK of nothing") };
    assert_eq!((rst.seq, rst.flags), (ISS + 2, TcpFlags::RST));
    assert!(matches!(give(TcpFlags::ACK, 100_000, 1), HalfOpenOutcome::Reply(_)), "far away");
    assert_eq!(give(TcpFlags::ACK, 1, 1), HalfOpenOutcome::Establish);
    assert_eq!(give(TcpFlags::RST, 1, 0), HalfOpenOutcome::Remove);
}

/// What a cookie's SYN-ACK offers, and the connection that its ACK makes 250 ms later, if the
/// client echoes the timestamp.
fn through_a_cookie(config: TcpConfig, options: TcpOptions) -> (TcpHeader, Trace) {
    let flow: (SocketAddr, SocketAddr) = (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 4000).into());
    let now = Instant::from_millis(100_000);
    let syn = syn(options);
    let iss = cookie::make(9, flow, syn.seq, 1400, now);
    let open = Open { iss, ts_offset: 0xdead_beef, mss: 1460 };
    let answer = HalfOpen::cookie_syn_ack(now, &syn, &config, open);
    assert_eq!((answer.seq, answer.ack), (iss, IRS + 1));
    let now = now + Duration::from_millis(250);
    let echo = answer.options.timestamps.map(|ts| Timestamps { val: 501, ecr: ts.val });
    let ack = TcpHeader {
        seq: IRS + 1,
        ack: iss.wrapping_add(1),
        flags: TcpFlags::ACK,
        window: 9000,
        options: TcpOptions { timestamps: echo, ..TcpOptions::default() },
        ..TcpHeader::default()
    };
    let mss = cookie::check(9, flow, ack.seq - 1, ack.ack.wrapping_sub(1), now).unwrap();
    let half = HalfOpen::from_cookie(now, &ack, mss, &config, open);
    let mut t = Trace::with(half.into_tcb(now, Rc::new(config)), Trace::pool(), now);
    t.iss = iss;
    let segment = Segment {
        ecn: Ecn::NotEct,
        header: &ack,
        payload: &mut Vec::new(),
        payload_len: 0,
        wire_segments: 1,
        memory: Memory::Plenty,
    };
    assert_eq!(t.tcb.handle_segment(now, segment), Outcome::Continue);
    t.state("ESTABLISHED");
    (answer, t)
}

#[test]
fn a_cookie_makes_a_connection_out_of_its_ack() {
    let (answer, t) = through_a_cookie(plain(), all_options());
    assert_eq!(answer.options, TcpOptions { mss: Some(1460), ..TcpOptions::default() });
    let info = t.tcb.info();
    assert_eq!((info.mss, info.snd_wnd_bytes, info.srtt), (1400, 9000, None));
    t.end();
}

#[test]
fn a_cookie_with_timestamps_keeps_the_options_and_measures_the_round_trip() {
    let (answer, t) = through_a_cookie(TcpConfig::default(), all_options());
    let shift = all_options().window_scale.unwrap();
    assert!(answer.options.window_scale.is_some() && answer.options.timestamps.is_some());
    let info = t.tcb.info();
    assert_eq!((info.mss, info.snd_wnd_bytes), (1400 - 12, 9000 << shift));
    assert_eq!(info.window_scales.map(|(theirs, _)| theirs), Some(shift));
    let srtt = info.srtt.unwrap().as_millis();
    assert!((250..314).contains(&srtt), "{srtt} ms: the clock was set back by less than 64");
    assert_eq!(info.cwnd_bytes, 10 * 1388, "no SYN-ACK was lost");
    t.end();
}

#[test]
fn a_half_open_connection_answers_twice_a_second_at_most() {
    // RFC 5961 §7: two ends that disagree must not answer each other for ever.
    let config = plain();
    let mut now = Instant::from_millis(100_000);
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    let mut half = HalfOpen::new(now, &syn(TcpOptions::default()), &config, open);
    let far = TcpHeader { seq: IRS + 70_000, flags: TcpFlags::ACK, ..TcpHeader::default() };
    let mut answers = 0;
    for _ in 0..1_000 {
        let outcome = half.handle_segment(now, &far, 0, &config);
        answers += u32::from(matches!(outcome, HalfOpenOutcome::Reply(_)));
        now += Duration::from_millis(2);
    }
    assert_eq!(answers, 4, "in two seconds");
}

#[test]
fn deferred_accept_waits_for_data_and_asks_again_when_it_has_waited_enough() {
    let config = TcpConfig { defer_accept: Duration::from_secs(5), ..plain() };
    let start = Instant::from_millis(100_000);
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    let mut half = HalfOpen::new(start, &syn(TcpOptions::default()), &config, open);
    let ack =
        TcpHeader { seq: IRS + 1, ack: ISS + 1, flags: TcpFlags::ACK, ..TcpHeader::default() };
    let mut with_data = half;
    assert_eq!(half.handle_segment(start, &ack, 0, &config), HalfOpenOutcome::Deferred);
    assert_eq!(with_data.handle_segment(start, &ack, 5, &config), HalfOpenOutcome::Establish);
    // The client has answered: its SYN-ACK is not sent again meanwhile.
    let due = half.poll_at();
    assert_eq!(half.handle_timeout(due, &config), HalfOpenTimeout::NotYet);
    let due = half.poll_at();
    assert_eq!(due, start + Duration::from_secs(5));
    assert!(matches!(half.handle_timeout(due, &config), HalfOpenTimeout::Resend(_)));
    assert_eq!(half.handle_segment(due, &ack, 0, &config), HalfOpenOutcome::Establish);
    let tcb = half.into_tcb(due, Rc::new(config));
    assert_eq!(tcb.initial_window(), 10 * 536, "nothing was lost");
}

#[test]
fn a_refused_connection_says_so() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    assert_eq!(t.tcb.readiness(), Readiness::empty());
    t.read_is(Err(SocketError::WouldBlock));
    assert_eq!(t.tcb.write(&t.pool, b"x"), Err(SocketError::WouldBlock));
    assert_eq!(t.rx_outcome("RA 0 ack 1"), Outcome::Closed);
    assert!(t.tcb.readiness().contains(Readiness::ERROR | Readiness::WRITABLE));
    assert_eq!(t.tcb.take_error(), Some(SocketError::ConnectionRefused));
    t.end();
}

#[test]
fn a_lost_syn_leaves_one_segment_of_initial_window() {
    // RFC 5681 §3.1, RFC 6298 §5.7.
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    assert_eq!(t.wait_for_timer(), 1000);
    t.tx("S 0");
    t.rx("SA 0 ack 1 mss 1460");
    t.tx("A 1 ack 1");
    assert_eq!((t.tcb.info().cwnd_bytes, t.tcb.info().rto), (1460, Duration::from_secs(3)));
    t.end();
}

#[test]
fn a_port_in_closed_answers_by_rst() {
    // RFC 9293 §3.10.7.1.
    let h = |flags| TcpHeader { seq: 10, ack: 20, flags, ..TcpHeader::default() };
    let rst = reset_for(&h(TcpFlags::ACK), 5).unwrap();
    assert_eq!((rst.seq, rst.flags), (20, TcpFlags::RST));
    let rst = reset_for(&h(TcpFlags::SYN), 5).unwrap();
    assert_eq!((rst.seq, rst.ack, rst.flags), (0, 16, TcpFlags::RST | TcpFlags::ACK));
    assert_eq!(reset_for(&h(TcpFlags::RST), 0), None);
}
