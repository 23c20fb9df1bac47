//! The short ways leave a connection as the long one does, and send the same.
//!
//! One of two connections takes every short way that there is, in the order in which the stack tries
//! them. The other takes none: it is written to, read from and polled as by anybody, and its segments
//! carry URG, which means nothing (RFC 6093 §4) but is never expected.

use proptest::prelude::*;

use super::*;
use crate::tcp::tcb::ts_clock;
use crate::wire::ethernet;
use crate::wire::plain::PlainIpv4;
use crate::wire::tcp::PlainTcp;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// With `more` to come, or not.
    Write {
        len: u32,
        more: bool,
    },
    Read(usize),
    /// Everything that may leave now does.
    Send,
    /// The peer acknowledges so many of the transmissions that are out, and the rest but one byte
    /// or all of it.
    Ack {
        records: usize,
        short: bool,
        text: u32,
        window: u16,
        echo: bool,
    },
    /// The peer sends, and acknowledges nothing new.
    Text(u32),
    /// The peer has the second and not the first.
    Sack,
    /// The peer ends its direction, and acknowledges nothing more, everything, or less than before.
    Fin {
        acks: u8,
    },
    /// Our direction ends behind what is queued; the application lets go as well.
    Shut {
        close: bool,
    },
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let window = prop_oneof![20 => Just(65_535), 1 => Just(0), 2 => 1u16..3000];
    let ack = (1usize..4, 0u8..8, 0u32..400, window, 0u8..20);
    prop_oneof![
        8 => (1u32..200, 0u8..20).prop_map(|(len, more)| Event::Write { len, more: more == 0 }),
        4 => (1u32..4000).prop_map(|len| Event::Write { len, more: false }),
        4 => (1usize..1000).prop_map(Event::Read),
        8 => Just(Event::Send),
        12 => ack.prop_map(|(records, short, text, window, echo)| {
            let text = text.saturating_sub(200);
            Event::Ack { records, short: short == 0, text, window, echo: echo == 0 }
        }),
        4 => (1u32..1400).prop_map(Event::Text),
        1 => Just(Event::Sack),
        1 => (0u8..3).prop_map(|acks| Event::Fin { acks }),
        1 => any::<bool>().prop_map(|close| Event::Shut { close }),
        6 => (1u64..3_000_000).prop_map(Event::Wait),
        1 => (1u64..3_000_000_000).prop_map(Event::Wait),
    ]
}

/// What left: the numbers of its header, and its text.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    seq: u32,
    ack: u32,
    flags: TcpFlags,
    window: u16,
    timestamps: Option<Timestamps>,
    text: Vec<u8>,
}

impl Sent {
    fn new(header: &PlainTcp, text: &[u8]) -> Sent {
        let &PlainTcp { seq, ack, flags, window, timestamps, .. } = header;
        Sent { seq, ack, flags, window, timestamps, text: text.to_vec() }
    }
}

/// One connection, and the flags of the ACKs that reach it.
struct Side {
    trace: Trace,
    flags: &'static str,
    received: u32,
    sent: Vec<Sent>,
}

impl Side {
    fn new(flags: &'static str, config: TcpConfig, ecn: bool) -> Side {
        let mut trace = Trace::connecting(config);
        let cells = PoolConfig { slots: 2048, slot_len: 2048, cells: 64, try_huge: false };
        trace.pool = Pool::new(cells).unwrap();
        drop(trace.drain());
        trace.now += Duration::from_millis(20);
        let mut side = Side { trace, flags, received: 0, sent: Vec::new() };
        let ts = side.ts();
        side.trace.rx(&format!("SA 0 ack 1 win 65535 mss 1460 ws 7 sackok yes{ts}"));
        drop(side.trace.drain());
        side.trace.tcb.rcv.quick_acks = 0;
        side.trace.tcb.ecn.agreed = ecn;
        side.received = 1;
        side
    }

    fn takes_short_ways(&self) -> bool {
        !self.flags.contains('U')
    }

    /// The timestamps of what the peer sends now.
    fn ts(&self) -> String {
        let t = &self.trace;
        if !t.tcb.config.timestamps {
            return String::new();
        }
        format!(" ts {}/{}", t.now.as_millis(), ts_clock(t.now, 0))
    }

    fn receive(&mut self, flags: &str, text: u32, rest: &str) {
        let (from, to, ts) = (self.received, self.received + text, self.ts());
        self.received = to;
        let _ = self.trace.rx_outcome(&format!("{}{flags} {from}:{to} {rest}{ts}", self.flags));
    }

    fn write(&mut self, len: u32, more: bool) {
        let short = self.takes_short_ways();
        let t = &mut self.trace;
        if !t.tcb.state().can_write() || t.tcb.write_room() < len as usize {
            return;
        }
        let data = bytes(1 + t.written, 1 + t.written + len);
        if more || !short || !t.tcb.write_small(&t.pool, &data) {
            t.tcb.expect_more(more);
            assert_eq!(t.tcb.write(&t.pool, &data), Ok(len as usize));
        }
        t.written += len;
    }

    fn read(&mut self, len: usize) {
        let short = self.takes_short_ways();
        let t = &mut self.trace;
        let mut out = vec![0; len];
        let read = if short { t.tcb.read_small(&mut out) } else { None };
        let read = read.map_or_else(|| t.tcb.read(&mut out), Ok).unwrap_or(0) as u32;
        assert!(out[..read as usize] == bytes(1 + t.read, 1 + t.read + read), "the stream");
        t.read += read;
    }

    fn send(&mut self) {
        while self.trace.tcb.wants_transmit() {
            if self.takes_short_ways() && (self.send_small() || self.send_expected()) {
                continue;
            }
            let Some((sent, text)) = self.trace.poll() else { continue };
            let options = &sent.header.options;
            let header = PlainTcp {
                src_port: 0,
                dst_port: 0,
                seq: sent.header.seq,
                ack: sent.header.ack,
                flags: sent.header.flags,
                window: sent.header.window,
                timestamps: options.timestamps,
            };
            self.sent.push(Sent::new(&header, &text));
        }
    }

    fn send_small(&mut self) -> bool {
        let t = &mut self.trace;
        let Some(stamped) = t.tcb.is_stamped() else { return false };
        keep_headers(&mut t.tcb, stamped);
        let Some(frame) = sent_small(t) else { return false };
        let segment = &frame[ethernet::LEN + PlainIpv4::LEN..];
        let (header, header_len) = PlainTcp::parse(segment, segment.len()).expect("plain");
        self.sent.push(Sent::new(&header, &segment[header_len..]));
        true
    }

    fn send_expected(&mut self) -> bool {
        let Some((header, text)) = self.trace.tcb.poll_expected(self.trace.now, 128) else {
            return false;
        };
        self.sent.push(Sent::new(&header, text));
        true
    }

    fn apply(&mut self, event: Event) {
        let t = &mut self.trace;
        let (una, nxt) = (t.tcb.snd.una, t.tcb.snd.nxt);
        let relative = |number: SeqNum| number.get().wrapping_sub(ISS);
        match event {
            Event::Write { len, more } => self.write(len, more),
            Event::Read(len) => self.read(len),
            Event::Send => self.send(),
            Event::Fin { acks } => {
                let ack = relative([una, nxt, una - 1][usize::from(acks)]);
                self.receive("F", 0, &format!("ack {ack}"));
            }
            Event::Shut { close } => {
                let now = t.now;
                let _ = if close { Ok(t.tcb.close(now)) } else { t.tcb.shutdown_write(now) };
            }
            Event::Ack { records, short, text, window, echo } => {
                let ends: Vec<_> = t.tcb.sendq.records.iter().map(|r| r.end()).collect();
                let Some(&end) = ends.get(records - 1) else { return };
                let ack = relative(end) - u32::from(short);
                let echo = if echo { "E" } else { "" };
                self.receive(echo, text, &format!("ack {ack} win {window}"));
            }
            Event::Text(len) => self.receive("", len, &format!("ack {}", relative(una))),
            Event::Sack => {
                let Some(second) = t.tcb.sendq.records.iter().nth(1) else { return };
                let [from, to] = [second.start, second.end()].map(relative);
                self.receive("", 0, &format!("ack {} sack {from}-{to}", relative(una)));
            }
            Event::Wait(us) => {
                t.now += Duration::from_micros(us);
                let _ = t.tcb.handle_timeout(t.now);
            }
        }
    }

    /// All that a segment, a message or a transmission may change.
    fn state(&self) -> String {
        let t = &self.trace.tcb;
        format!(
            "{:?}",
            (
                (t.state, t.pending, t.status, t.dropped, t.poll_at(), t.timers),
                (&t.snd, &t.rcv, t.rtt, t.recovery, &t.controller, &t.sendq.records, t.tally),
                (t.retries, t.probes, t.persist_backoff, t.soft_error, t.bytes_acked),
                (t.bytes_unsent(), t.bytes_unacked(), t.readiness(), t.last_heard, t.undone),
                (t.bytes_received, t.bytes_readable(), t.ts_recent, t.ts_recent_at, t.last_sent),
                (t.more_to_come, t.wants_transmit()),
            )
        )
    }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![2 => Just(Algorithm::NewReno), 2 => Just(Algorithm::Cubic), 1 => Just(Algorithm::Bbr)]
}

/// What the connection has of everything that the short ways ask about.
fn config() -> impl Strategy<Value = TcpConfig> {
    let options = (any::<bool>(), any::<bool>(), any::<bool>());
    let recovery = (algorithm(), any::<bool>(), any::<bool>(), any::<bool>(), 100u64..500);
    let sender = (0u8..4, 0u8..8, prop_oneof![Just(65_535u32), Just(3000), Just(1 << 20)]);
    (options, recovery, sender).prop_map(|(options, recovery, sender)| {
        let (sack, timestamps, window_scale) = options;
        let (congestion, rack_tlp, rto_restart, limited, rto_min_ms) = recovery;
        let (nagle, cork, recv_buffer_bytes) = sender;
        TcpConfig {
            congestion,
            rack_tlp,
            rto_restart,
            rto_min: Duration::from_millis(rto_min_ms),
            user_timeout: limited.then_some(Duration::from_secs(60)),
            sack,
            timestamps,
            window_scale,
            nodelay: nagle > 0,
            cork: cork == 0,
            recv_buffer_bytes,
            ..plain()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_short_way_is_the_long_one(
        events in proptest::collection::vec(event(), 1..100),
        config in config(),
        ecn in (0u8..4).prop_map(|n| n == 0),
    ) {
        let mut sides = ["A", "AU"].map(|flags| Side::new(flags, config.clone(), ecn));
        for event in events {
            for side in &mut sides {
                side.apply(event);
            }
            let [short, long] = &sides;
            prop_assert_eq!(short.state(), long.state(), "after {:?}", event);
            prop_assert_eq!(&short.sent, &long.sent, "after {:?}", event);
            if short.trace.tcb.state() == State::Closed {
                break;
            }
        }
    }
}
