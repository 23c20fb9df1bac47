//! Whatever arrives, in whatever order with the application's calls: no panic, no endless output,
//! no memory beyond the limits, every buffer back at the end.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Segment {
        flags: u8,
        seq: i64,
        ack: i64,
        len: u32,
        win: u16,
        ts: Option<(u32, u32)>,
        sack: Vec<(i64, i64)>,
    },
    Write(u32),
    Read(usize),
    Wait(u64),
    Poll,
    ShutdownWrite,
    ShutdownRead,
    Icmp(u16, u32),
    Close,
}

fn near() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0i64..40, 3 => -40i64..6000, 1 => any::<u32>().prop_map(i64::from)]
}

fn event() -> impl Strategy<Value = Event> {
    let ts = proptest::option::of((95u32..120, 99_990u32..100_200));
    let sack = proptest::collection::vec((near(), near()), 0..4);
    let segment = (any::<u8>(), near(), near(), 0u32..3000, any::<u16>(), ts, sack);
    prop_oneof![
        12 => segment.prop_map(|(flags, seq, ack, len, win, ts, sack)| {
            // Mostly ACKs: other segments end most of what could be tried.
            let flags = if flags & 0x60 != 0 { 0x10 | flags & 0x01 & (flags >> 7) } else { flags };
            let len = if len > 2000 { 0 } else { len };
            Event::Segment { flags, seq, ack, len, win: win >> (win % 14), ts, sack }
        }),
        3 => (1u32..9000).prop_map(Event::Write),
        3 => (1usize..9000).prop_map(Event::Read),
        3 => (0u64..3000).prop_map(Event::Wait),
        6 => Just(Event::Poll),
        1 => Just(Event::ShutdownWrite),
        1 => Just(Event::ShutdownRead),
        1 => (any::<u16>(), 0u32..9000).prop_map(|(mss, seq)| Event::Icmp(mss, seq)),
        1 => Just(Event::Close),
    ]
}

/// Sequence numbers of segments are relative to what the connection expects, so that they hit.
fn apply(t: &mut Trace, event: Event) {
    match event {
        Event::Segment { flags, seq, ack, len, win, ts, sack } => {
            let una = t.tcb.snd.una.get();
            let edge = |n: i64| una.wrapping_add(n as u32);
            let header = TcpHeader {
                seq: t.tcb.rcv.nxt.get().wrapping_add(seq as u32),
                ack: t.tcb.snd.una.get().wrapping_add(ack as u32),
                flags: TcpFlags::from_bits_retain(flags),
                window: win,
                options: TcpOptions {
                    mss: Some(win),
                    window_scale: Some(win as u8),
                    timestamps: ts.map(|(val, ecr)| Timestamps { val, ecr }),
                    sack: sack.iter().map(|&(a, b)| (edge(a), edge(b))).collect(),
                    ..TcpOptions::default()
                },
                ..TcpHeader::default()
            };
            let data = vec![7; len as usize];
            let mut payload: Vec<_> =
                data.chunks(700).filter_map(|c| Some(t.pool.copy_from(c)?.freeze())).collect();
            let payload_len = payload.iter().map(|p| p.len() as u32).sum();
            let segment = Segment {
                ecn: Ecn::of_tos(flags),
                header: &header,
                payload: &mut payload,
                payload_len,
                wire_segments: 2,
                memory: Memory::Plenty,
            };
            let _ = t.tcb.handle_segment(t.now, segment);
        }
        Event::Write(n) => {
            let _ = t.tcb.write(&t.pool, &vec![9; n as usize]);
        }
        Event::Read(n) => {
            let _ = t.tcb.read(&mut vec![0; n]);
        }
        Event::Wait(ms) => {
            t.now += Duration::from_millis(ms);
            let _ = t.tcb.handle_timeout(t.now);
        }
        Event::Poll => {
            for _ in 0..200 {
                if t.poll().is_none() {
                    return;
                }
            }
            panic!("transmits without end");
        }
        Event::ShutdownWrite => {
            let _ = t.tcb.shutdown_write(t.now);
        }
        Event::ShutdownRead => t.tcb.shutdown_read(),
        Event::Icmp(mss, seq) => {
            let error = IcmpError::FragmentationNeeded { mss };
            let seq = t.tcb.snd.una.get().wrapping_add(seq);
            let _ = t.tcb.handle_icmp(t.now, error, seq);
        }
        Event::Close => {
            let _ = t.tcb.close(t.now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn arbitrary_segments_and_calls_never_break_a_connection(
        events in proptest::collection::vec(event(), 1..120),
        timestamps: bool,
        rack_tlp: bool,
        open: bool,
    ) {
        let config = TcpConfig {
            timestamps,
            rack_tlp,
            window_scale: true,
            recv_buffer_bytes: 20_000,
            send_buffer_bytes: 30_000,
            ..TcpConfig::default()
        };
        let mut t = Trace::connecting(config);
        t.tx("S 0");
        if open {
            let ts = if timestamps { "ts 100/100000" } else { "" };
            t.rx(&format!("SA 0 ack 1 mss 1460 ws 2 sackok yes {ts}"));
        }
        for event in events {
            apply(&mut t, event);
            let tcb = &t.tcb;
            prop_assert!(tcb.snd.una.before_eq(tcb.snd.nxt));
            if !matches!(tcb.state(), State::Closed | State::TimeWait) {
                tcb.sendq.records.check(tcb.snd.una, tcb.snd.nxt);
            }
            prop_assert!(tcb.rcv.nxt.before_eq(tcb.rcv.edge) || tcb.state() == State::SynSent);
            prop_assert!(tcb.info().pinned_bytes <= 2 * recvq::PINNED_MIN_BYTES + 4 * 2048);
            prop_assert!(tcb.bytes_readable() <= 20_000 + 65_535);
            prop_assert!(tcb.bytes_unacked() + tcb.bytes_unsent() <= 30_000);
        }
        t.end();
    }
}
