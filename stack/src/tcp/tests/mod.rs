//! Packet traces: one line a segment, as tcpdump prints them.
//!
//! `rx` is what arrives, `tx` what must leave next. Numbers are relative to the initial sequence
//! number of their side, so a SYN is 0 and the first byte 1. `FLAGS from[:to] ack N`, then any of
//! `win N`, `mss N`, `ws N`, `ts VAL/ECR`, `sackok yes` and `sack FROM-TO,…` (blocks as the
//! receiver of the data counts; `sack none` in `tx` is no block), `ip ect0` or `ip ce` (the ECN
//! field); in `tx` what is not named is not looked at, and `step N`
//! is the payload of a wire segment in a super-segment. Payload bytes are a function of their
//! position, so that every trace checks the stream's contents, too.

mod arbitrary;
mod autotune;
mod close;
mod ecn;
mod fast_open;
mod handshake;
mod hostile;
mod limits;
mod loss;
mod pacing;
mod path_mtu;
mod pipe;
mod rack;
mod sack;
mod short_ways;
mod spurious;
mod timers;
mod transfer;
mod transitions;
mod windows;

use std::net::Ipv4Addr;
use std::rc::Rc;

use barewire_driver::{MacAddr, PacketSlice, Pool, PoolConfig, TxBurst};

use super::*;
use crate::SocketError;
use crate::time::Instant;
use crate::wire::front::{FrontKey, Pattern, WayState};
use crate::wire::tcp::{SackBlocks, TcpOptions, Timestamps};

pub(super) const ISS: u32 = 1_000_000;
pub(super) const IRS: u32 = 5_000_000;

/// The byte at `position` of a stream (the first is 1, as after a SYN).
pub(super) fn byte_at(position: u32) -> u8 {
    (position.wrapping_mul(31) ^ (position >> 8).wrapping_mul(17)) as u8
}

pub(super) fn bytes(from: u32, to: u32) -> Vec<u8> {
    (from..to).map(byte_at).collect()
}

/// No options, no quick ACKs' end to wait for: what most traces want.
pub(super) fn plain() -> TcpConfig {
    TcpConfig {
        window_scale: false,
        timestamps: false,
        mtu_probing: true,
        recv_buffer_bytes: 65_535,
        recv_autotune: false,
        send_autotune: false,
        nodelay: true,
        // The numbers of traces are those of RFC 5681.
        congestion: Algorithm::NewReno,
        ..TcpConfig::default()
    }
}

pub(super) struct Trace {
    pub(super) tcb: Tcb,
    pub(super) pool: Pool,
    pub(super) now: Instant,
    pub(super) limits: TxLimits,
    pub(super) iss: u32,
    pub(super) irs: u32,
    written: u32,
    read: u32,
}

/// A line of a trace.
#[derive(Debug)]
struct Line {
    flags: TcpFlags,
    from: u32,
    len: u32,
    ack: Option<u32>,
    win: Option<u16>,
    mss: Option<u16>,
    ws: Option<u8>,
    ts: Option<Timestamps>,
    sack_ok: Option<bool>,
    sack: Option<Vec<(u32, u32)>>,
    step: Option<u16>,
    ip: Option<Ecn>,
}

impl Line {
    #[track_caller]
    fn parse(text: &str) -> Line {
        let mut words = text.split_whitespace();
        let flags = words.next().expect("flags").chars().fold(TcpFlags::empty(), |f, c| {
            f | match c {
                'S' => TcpFlags::SYN,
                'A' => TcpFlags::ACK,
                'F' => TcpFlags::FIN,
                'R' => TcpFlags::RST,
                'P' => TcpFlags::PSH,
                'U' => TcpFlags::URG,
                'E' => TcpFlags::ECE,
                'W' => TcpFlags::CWR,
                '.' => TcpFlags::empty(),
                _ => panic!("flag {c} in {text}"),
            }
        });
        let range = words.next().expect("sequence number");
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        let (from, to): (u32, u32) = (number(from), number(to));
        let mut line = Line {
            flags,
            from,
            len: to.wrapping_sub(from),
            ack: None,
            win: None,
            mss: None,
            ws: None,
            ts: None,
            sack_ok: None,
            sack: None,
            step: None,
            ip: None,
        };
        while let Some(word) = words.next() {
            let value = words.next().expect("a value");
            match word {
                "ip" => {
                    line.ip = Some(match value {
                        "ect0" => Ecn::Ect0,
                        "ce" => Ecn::Ce,
                        "none" => Ecn::NotEct,
                        _ => panic!("{value} in {text}"),
                    });
                }
                "ack" => line.ack = Some(number(value)),
                "win" => line.win = Some(number(value) as u16),
                "mss" => line.mss = Some(number(value) as u16),
                "ws" => line.ws = Some(number(value) as u8),
                "step" => line.step = Some(number(value) as u16),
                "sackok" => line.sack_ok = Some(value == "yes"),
                "sack" => line.sack = Some(blocks(value)),
                "ts" => {
                    let (val, ecr) = value.split_once('/').expect("VAL/ECR");
                    line.ts = Some(Timestamps { val: number(val), ecr: number(ecr) });
                }
                _ => panic!("{word} in {text}"),
            }
        }
        line
    }
}

/// `FROM-TO,FROM-TO` or `none`.
#[track_caller]
fn blocks(text: &str) -> Vec<(u32, u32)> {
    let block = |b: &str| {
        let (from, to) = b.split_once('-').expect("FROM-TO");
        (number(from), number(to))
    };
    if text == "none" { vec![] } else { text.split(',').map(block).collect() }
}

/// A number; `-1` is the one before 0 on the circle.
#[track_caller]
fn number(text: &str) -> u32 {
    text.parse::<i64>().expect("a number") as u32
}

/// Has the connection keep the headers of its messages, as the stack does that knows the way.
pub(super) fn keep_headers(tcb: &mut Tcb, stamped: bool) {
    let state = WayState { routing: 0, neighbors: 0, iface: 0 };
    let key = FrontKey::new(state, 64, 0);
    let (src_mac, dst_mac) = (MacAddr::local(1), MacAddr::local(2));
    let (src, dst) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let mut pattern = Pattern::default();
    pattern.make(key, dst, (src_mac, dst_mac), stamped);
    tcb.front.make(&pattern, (src, dst), (80, 4000));
}

/// The frame of the small message that waits, if it leaves by the short way.
pub(super) fn sent_small(t: &mut Trace) -> Option<PacketSlice> {
    let mut burst = TxBurst::new();
    let sent = t.tcb.send_small(t.now, false, &mut burst);
    let frame = burst.front().map(|(_, pieces)| pieces[0].clone());
    assert_eq!(sent, frame.is_some());
    frame
}

/// A block of relative numbers, as on the wire.
fn shifted((from, to): (u32, u32), origin: u32) -> (u32, u32) {
    (origin.wrapping_add(from), origin.wrapping_add(to))
}

impl Trace {
    fn with(tcb: Tcb, pool: Pool, now: Instant) -> Trace {
        Trace {
            tcb,
            pool,
            now,
            limits: TxLimits { max_bytes: 65_536, max_pieces: 64, cut: Cut::default() },
            iss: ISS,
            irs: IRS,
            written: 0,
            read: 0,
        }
    }

    pub(super) fn pool() -> Pool {
        Pool::new(PoolConfig { slots: 2048, slot_len: 2048, cells: 1, try_huge: false }).unwrap()
    }

    /// An active open whose SYN is still to be sent.
    pub(super) fn connecting(config: TcpConfig) -> Trace {
        let now = Instant::from_millis(100_000);
        let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
        Trace::with(Tcb::connect(Rc::new(config), open, now), Trace::pool(), now)
    }

    /// An open connection with a peer window of 65,535 and no options but an MSS of 1460.
    #[track_caller]
    pub(super) fn established(config: TcpConfig) -> Trace {
        let mut t = Trace::connecting(config);
        t.tx("S 0");
        t.rx("SA 0 ack 1 win 65535 mss 1460");
        t.tx("A 1 ack 1");
        t.state("ESTABLISHED");
        t
    }

    /// As `established`, with SACK.
    #[track_caller]
    pub(super) fn with_sack(config: TcpConfig) -> Trace {
        let mut t = Trace::connecting(config);
        t.tx("S 0 sackok yes");
        t.now += Duration::from_millis(20);
        t.rx("SA 0 ack 1 win 65535 mss 1460 sackok yes");
        t.tx("A 1 ack 1");
        t.tcb.rcv.quick_acks = 0;
        t
    }

    /// An open connection that has used up its quick ACKs.
    #[track_caller]
    pub(super) fn settled(config: TcpConfig) -> Trace {
        let mut t = Trace::established(config);
        t.tcb.rcv.quick_acks = 0;
        t
    }

    /// A segment arrives and the connection goes on.
    #[track_caller]
    pub(super) fn rx(&mut self, text: &str) {
        assert_eq!(self.rx_outcome(text), Outcome::Continue, "{text}");
    }

    #[track_caller]
    pub(super) fn rx_outcome(&mut self, text: &str) -> Outcome {
        let line = Line::parse(text);
        let data = bytes(line.from, line.from.wrapping_add(line.len));
        self.rx_data(text, &data)
    }

    /// As `rx`, with other payload bytes than those of the position.
    #[track_caller]
    pub(super) fn rx_data(&mut self, text: &str, data: &[u8]) -> Outcome {
        let line = Line::parse(text);
        let header = TcpHeader {
            seq: self.irs.wrapping_add(line.from),
            ack: line.ack.map_or(0, |a| self.iss.wrapping_add(a)),
            flags: line.flags,
            window: line.win.unwrap_or(65_535),
            options: TcpOptions {
                mss: line.mss,
                window_scale: line.ws,
                timestamps: line.ts,
                sack_permitted: line.sack_ok.unwrap_or(false),
                sack: line.sack.iter().flatten().map(|b| shifted(*b, self.iss)).collect(),
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        };
        let mut payload: Vec<PacketSlice> =
            data.chunks(1500).map(|c| self.pool.copy_from(c).expect("a slot").freeze()).collect();
        let wire_segments = line.len.div_ceil(1460).max(1) as u16;
        let segment = Segment {
            header: &header,
            payload: &mut payload,
            payload_len: line.len,
            wire_segments,
            ecn: line.ip.unwrap_or_default(),
            memory: Memory::Plenty,
        };
        self.tcb.handle_segment(self.now, segment)
    }

    /// An ACK with these pieces at `from` arrives, and the connection goes on.
    #[track_caller]
    pub(super) fn rx_slices(
        &mut self,
        from: u32,
        mut pieces: Vec<PacketSlice>,
        len: u32,
        memory: Memory,
    ) {
        let header = TcpHeader {
            seq: self.irs.wrapping_add(from),
            ack: self.tcb.snd.una.get(),
            flags: TcpFlags::ACK,
            window: 65_535,
            ..TcpHeader::default()
        };
        let segment = Segment {
            ecn: Ecn::NotEct,
            header: &header,
            payload: &mut pieces,
            payload_len: len,
            wire_segments: 1,
            memory,
        };
        assert_eq!(self.tcb.handle_segment(self.now, segment), Outcome::Continue);
    }

    /// What leaves next, or `None`.
    pub(super) fn poll(&mut self) -> Option<(Transmit, Vec<u8>)> {
        let wanted = self.tcb.wants_transmit();
        let mut pieces = Vec::new();
        let transmit = self.tcb.poll_transmit(self.now, &self.limits, &mut pieces);
        assert!(wanted || transmit.is_none(), "sent {transmit:?} without having asked to");
        assert!(pieces.len() <= self.limits.max_pieces as usize);
        let data = pieces.iter().flat_map(|p| p.iter().copied()).collect::<Vec<u8>>();
        if let Some(t) = &transmit {
            assert_eq!(data.len(), t.payload_len as usize);
        } else {
            assert!(!self.tcb.wants_transmit(), "asks for polls that send nothing");
        }
        transmit.map(|t| (t, data))
    }

    /// The next segment to leave is the one described, and has the right bytes.
    #[track_caller]
    pub(super) fn tx(&mut self, text: &str) {
        let Some((sent, data)) = self.poll() else { panic!("nothing left, expected {text}") };
        self.compare(&sent.header, sent.payload_len, text);
        let line = Line::parse(text);
        assert_eq!(data, bytes(line.from, line.from.wrapping_add(line.len)), "payload of {text}");
        if let Some(step) = line.step {
            assert_eq!(sent.mss, step, "wire segment size");
        }
        if let Some(ip) = line.ip {
            assert_eq!(sent.ecn, ip, "ECN field of {text}");
        }
    }

    #[track_caller]
    fn compare(&self, h: &TcpHeader, len: u32, text: &str) {
        let line = Line::parse(text);
        let from = h.seq.wrapping_sub(self.iss);
        let ack = h.flags.contains(TcpFlags::ACK).then(|| h.ack.wrapping_sub(self.irs));
        let seen = (h.flags, from, len, ack);
        assert_eq!(seen, (line.flags, line.from, line.len, line.ack), "expected {text}");
        let same = |expected: bool, what: &str| assert!(expected, "{what} of {h:?}, not {text}");
        same(line.win.is_none_or(|w| w == h.window), "window");
        same(line.mss.is_none_or(|m| Some(m) == h.options.mss), "MSS");
        same(line.ws.is_none_or(|s| Some(s) == h.options.window_scale), "scale");
        same(line.ts.is_none_or(|t| Some(t) == h.options.timestamps), "timestamps");
        same(line.sack_ok.is_none_or(|s| s == h.options.sack_permitted), "SACK permitted");
        let sack = line.sack.map(|s| s.iter().map(|b| shifted(*b, self.irs)).collect());
        same(sack.is_none_or(|s: SackBlocks| s == h.options.sack), "SACK blocks");
    }

    /// Nothing leaves now.
    #[track_caller]
    pub(super) fn quiet(&mut self) {
        if let Some((sent, _)) = self.poll() {
            panic!("sent {sent:?}, expected nothing");
        }
    }

    /// Everything that leaves now, as (from, to) of the payload.
    pub(super) fn drain(&mut self) -> Vec<(u32, u32)> {
        let iss = self.iss;
        std::iter::from_fn(|| self.poll())
            .map(|(t, _)| {
                let from = t.header.seq.wrapping_sub(iss);
                (from, from + t.payload_len)
            })
            .collect()
    }

    #[track_caller]
    pub(super) fn state(&self, name: &str) {
        assert_eq!(self.tcb.state().to_string(), name);
    }

    /// Lets time pass and the connection goes on.
    #[track_caller]
    pub(super) fn wait(&mut self, ms: u64) {
        assert_eq!(self.wait_outcome(ms), Outcome::Continue);
    }

    /// Lets time pass, firing every timer at its own moment, until something is to be sent.
    pub(super) fn wait_outcome(&mut self, ms: u64) -> Outcome {
        let until = self.now + Duration::from_millis(ms);
        let mut outcome = Outcome::Continue;
        while let Some(at) = self.tcb.poll_at().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            outcome = self.tcb.handle_timeout(self.now);
            if outcome != Outcome::Continue || self.tcb.wants_transmit() {
                break;
            }
        }
        if !self.tcb.wants_transmit() && outcome == Outcome::Continue {
            self.now = until;
        }
        outcome
    }

    /// Lets time pass until a timer has something to say, and tells how many milliseconds that took.
    #[track_caller]
    pub(super) fn wait_for_timer(&mut self) -> u64 {
        let before = self.now;
        loop {
            self.now = self.now.max(self.tcb.poll_at().expect("a deadline"));
            let outcome = self.tcb.handle_timeout(self.now);
            if outcome != Outcome::Continue || self.tcb.wants_transmit() {
                return (self.now - before).as_millis() as u64;
            }
        }
    }

    /// Writes the next `n` bytes of the stream.
    #[track_caller]
    pub(super) fn write(&mut self, n: u32) {
        let data = bytes(1 + self.written, 1 + self.written + n);
        assert_eq!(self.tcb.write(&self.pool, &data), Ok(n as usize));
        self.written += n;
    }

    /// Reads `n` bytes and checks them.
    #[track_caller]
    pub(super) fn read(&mut self, n: u32) {
        let mut out = vec![0; n as usize];
        let mut filled = 0;
        while filled < out.len() {
            filled += self.tcb.read(&mut out[filled..]).expect("data");
        }
        assert!(out == bytes(1 + self.read, 1 + self.read + n), "bytes of the stream");
        self.read += n;
    }

    #[track_caller]
    pub(super) fn read_is(&mut self, expected: Result<usize, SocketError>) {
        assert_eq!(self.tcb.read(&mut [0; 16]), expected);
    }

    /// Ends the trace: every buffer is free once the connection is gone.
    #[track_caller]
    pub(super) fn end(self) {
        drop(self.tcb);
        assert!(self.pool.audit().all_free(), "{:?}", self.pool.audit());
    }
}
