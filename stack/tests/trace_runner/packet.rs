//! TCP segments and UDP datagrams in the words of a trace, and as packets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::tcp::{
    CHECKSUM_OFFSET, FastOpenCookie, SackBlocks, TcpFlags, TcpHeader, TcpOptions, Timestamps,
};
use barewire_stack::wire::udp::UdpHeader;
use barewire_stack::wire::{protocol, pseudo_header};

use super::bench::Flow;

/// The names of the control bits, in the order in which traces write them.
const FLAGS: [(&str, TcpFlags); 8] = [
    ("SYN", TcpFlags::SYN),
    ("FIN", TcpFlags::FIN),
    ("RST", TcpFlags::RST),
    ("PSH", TcpFlags::PSH),
    ("URG", TcpFlags::URG),
    ("ACK", TcpFlags::ACK),
    ("ECE", TcpFlags::ECE),
    ("CWR", TcpFlags::CWR),
];

/// Where the data offset lies in a TCP header.
const DATA_OFFSET: usize = 12;

/// What a trace says of one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Want<T> {
    /// Nothing.
    #[default]
    Free,
    /// `none`: it must not be there.
    Absent,
    /// `any`: it must be there.
    Any,
    /// This value.
    Is(T),
}

impl<T: PartialEq + Copy> Want<T> {
    fn allows(self, found: Option<T>) -> bool {
        match self {
            Want::Free => true,
            Want::Absent => found.is_none(),
            Want::Any => found.is_some(),
            Want::Is(value) => found == Some(value),
        }
    }

    fn value(self) -> Option<T> {
        match self {
            Want::Is(value) => Some(value),
            Want::Free | Want::Absent | Want::Any => None,
        }
    }
}

/// A sequence number: from the flow's start, or as it stands on the wire (`=N`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Relative(i64),
    Wire(u32),
}

impl Number {
    fn parse(word: &str) -> Option<Number> {
        match word.strip_prefix('=') {
            Some(wire) => wire.parse().ok().map(Number::Wire),
            None => word.parse().ok().map(Number::Relative),
        }
    }

    fn on_wire(self, start: u32) -> u32 {
        match self {
            Number::Relative(offset) => start.wrapping_add(offset as u32),
            Number::Wire(number) => number,
        }
    }
}

/// A TCP segment as a trace writes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) flags: TcpFlags,
    pub(crate) flow: Option<String>,
    pub(crate) seq: Want<Number>,
    pub(crate) ack: Want<Number>,
    pub(crate) win: Want<u16>,
    pub(crate) len: Want<u32>,
    urgent: Want<u16>,
    mss: Want<u16>,
    window_scale: Want<u8>,
    sack_permitted: Want<bool>,
    /// Value and echo.
    ts: Want<(Want<u32>, Want<u32>)>,
    sack: Want<[Option<(Number, Number)>; 4]>,
    fast_open: Want<FastOpenCookie>,
    /// `fo last`: the cookie that the stack gave last.
    last_cookie: bool,
    ttl: Want<u8>,
    tos: Want<u8>,
    ecn: Want<u8>,
    bad_checksum: bool,
    raw_options: Vec<u8>,
    psh_written: bool,
}

fn want<T>(word: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Want<T>> {
    match word {
        "any" => Some(Want::Any),
        "none" => Some(Want::Absent),
        word => parse(word).map(Want::Is),
    }
}

fn plain<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

impl Segment {
    /// Reads `FLAGS [name value]…`; the error says what was not understood.
    pub(crate) fn parse(words: &[String]) -> Result<Segment, String> {
        let (first, rest) = words.split_first().ok_or("which packet?")?;
        let mut segment = Segment::default();
        for name in first.split('+').filter(|name| *name != "NONE") {
            let flag = FLAGS.iter().find(|(flag, _)| *flag == name);
            segment.flags |= flag.ok_or_else(|| format!("no flag is called `{name}`"))?.1;
        }
        segment.psh_written = segment.flags.contains(TcpFlags::PSH);
        let mut rest = rest.iter().map(String::as_str).peekable();
        while let Some(name) = rest.next() {
            match name {
                "sackOK" => {
                    segment.sack_permitted = match rest.next_if(|word| *word == "none") {
                        Some(_) => Want::Absent,
                        None => Want::Is(true),
                    }
                }
                "badsum" => segment.bad_checksum = true,
                "ts" => {
                    let value = rest.next().ok_or("ts VALUE [ECHO]")?;
                    let echo = rest.next_if(|w| {
                        *w == "any" || w.bytes().all(|b| b.is_ascii_digit() || b == b'-')
                    });
                    segment.ts = timestamps(value, echo).ok_or("ts VALUE [ECHO]")?;
                }
                name => {
                    let value = rest.next().ok_or_else(|| format!("`{name}` needs a value"))?;
                    segment
                        .field(name, value)
                        .ok_or_else(|| format!("`{name} {value}` is not understood"))?;
                }
            }
        }
        Ok(segment)
    }

    fn field(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "seq" => self.seq = want(value, Number::parse)?,
            "ack" => self.ack = want(value, Number::parse)?,
            "win" => self.win = want(value, plain)?,
            "len" => self.len = want(value, plain)?,
            "urg" => self.urgent = want(value, plain)?,
            "mss" => self.mss = want(value, plain)?,
            "wscale" => self.window_scale = want(value, plain)?,
            "sack" => self.sack = want(value, blocks)?,
            "fo" if value == "last" => self.last_cookie = true,
            "fo" => self.fast_open = want(value, cookie)?,
            "ttl" => self.ttl = want(value, plain)?,
            "tos" => self.tos = want(value, plain)?,
            "ecn" => self.ecn = Want::Is(codepoint(value)?),
            "opts" => self.raw_options = hex(value)?,
            "on" => self.flow = Some(value.to_owned()),
            _ => return None,
        }
        Some(())
    }

    /// The `i`-th of several segments that follow each other: its data begins where that of the one
    /// before ends.
    pub(crate) fn advanced(mut self, i: u32) -> Segment {
        if let (Want::Is(seq), Want::Is(len)) = (&mut self.seq, self.len) {
            match seq {
                Number::Relative(offset) => *offset += i64::from(len * i),
                Number::Wire(number) => *number = number.wrapping_add(len * i),
            }
        }
        self
    }

    /// The packet that the peer of `flow` sends.
    pub(crate) fn build(&self, flow: &Flow) -> Result<Vec<u8>, String> {
        let has_ack = self.flags.contains(TcpFlags::ACK);
        let seq = self.seq.value().ok_or("an injected segment needs its `seq`")?;
        let ack = match self.ack.value() {
            Some(ack) => ack.on_wire(flow.iss.unwrap_or_default()),
            None if has_ack => return Err("a segment with ACK needs its `ack`".to_owned()),
            None => 0,
        };
        let header = TcpHeader {
            src_port: flow.peer_port,
            dst_port: flow.local_port.ok_or("the flow's local port is not known yet")?,
            seq: seq.on_wire(flow.peer_isn),
            ack,
            flags: self.flags,
            window: self.win.value().unwrap_or(u16::MAX),
            urgent: self.urgent.value().unwrap_or_default(),
            options: self.options(flow),
        };
        let mut tcp = vec![0; header.header_len()];
        header.emit(&mut tcp);
        if !self.raw_options.is_empty() {
            tcp.extend(&self.raw_options);
            tcp.resize(tcp.len().next_multiple_of(4), 0);
            tcp[DATA_OFFSET] = ((tcp.len() / 4) << 4) as u8;
        }
        // The first byte of the stream has sequence number 1, after the SYN.
        let first = header.seq.wrapping_add(u32::from(self.flags.contains(TcpFlags::SYN)));
        let offset = first.wrapping_sub(flow.peer_isn).wrapping_sub(1);
        let len = self.len.value().unwrap_or_default();
        tcp.extend((0..len).map(|i| pattern(offset.wrapping_add(i))));
        if tcp.len() > usize::from(u16::MAX) - Ipv4Header::LEN {
            return Err("larger than an IP packet".to_owned());
        }
        let (peer, local) = (flow.peer, flow.local);
        let sum = checksum(peer, local, protocol::TCP, &tcp) ^ u16::from(self.bad_checksum);
        tcp[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
        let mut ip = Ipv4Header::new(peer, local, protocol::TCP, tcp.len());
        ip.ttl = self.ttl.value().unwrap_or(ip.ttl);
        ip.tos = self.tos.value().unwrap_or_default() | self.ecn.value().unwrap_or_default();
        Ok(packet(&ip, &tcp))
    }

    fn options(&self, flow: &Flow) -> TcpOptions {
        let start = flow.iss.unwrap_or_default();
        let mut sack = SackBlocks::default();
        for (left, right) in self.sack.value().unwrap_or_default().into_iter().flatten() {
            sack.push(left.on_wire(start), right.on_wire(start));
        }
        let timestamps = self.ts.value().map(|(val, ecr)| Timestamps {
            val: val.value().unwrap_or_default(),
            ecr: match ecr {
                Want::Is(echo) => flow.ts_base.unwrap_or_default().wrapping_add(echo),
                Want::Free | Want::Any | Want::Absent => flow.ts_last,
            },
        });
        TcpOptions {
            mss: self.mss.value(),
            window_scale: self.window_scale.value(),
            sack_permitted: self.sack_permitted.value().unwrap_or_default(),
            timestamps,
            sack,
            fast_open: match self.last_cookie {
                true => flow.cookie,
                false => self.fast_open.value(),
            },
        }
    }

    /// What of `sent` is not as the trace says; empty if all is.
    pub(crate) fn differences(&self, sent: &Sent, flow: &Flow) -> Vec<String> {
        let (h, options) = (&sent.header, &sent.header.options);
        let mut found = Vec::new();
        let mut flags = h.flags;
        if !self.psh_written {
            flags -= TcpFlags::PSH;
        }
        let mut check = |right: bool, what: &str| {
            if !right {
                found.push(what.to_owned());
            }
        };
        check(flags == self.flags, "flags");
        let iss = flow.iss.unwrap_or_default();
        check(on_wire(self.seq, iss).allows(Some(h.seq)), "seq");
        let ack = h.flags.contains(TcpFlags::ACK).then_some(h.ack);
        check(on_wire(self.ack, flow.peer_isn).allows(ack), "ack");
        check(self.win.allows(Some(h.window)), "win");
        let len = if self.len == Want::Free { Want::Is(0) } else { self.len };
        check(len.allows(Some(sent.payload.len() as u32)), "len");
        check(self.urgent.allows(Some(h.urgent)), "urg");
        check(self.mss.allows(options.mss), "mss");
        check(self.window_scale.allows(options.window_scale), "wscale");
        check(self.sack_permitted.allows(options.sack_permitted.then_some(true)), "sackOK");
        check(self.timestamps_match(options.timestamps, flow), "ts");
        check(self.sack_matches(options.sack.as_slice(), flow), "sack");
        check(self.fast_open.allows(options.fast_open), "fo");
        check(self.ttl.allows(Some(sent.ip.ttl)), "ttl");
        check(self.tos.allows(Some(sent.ip.tos)), "tos");
        check(self.ecn.allows(Some(sent.ip.tos & 3)), "ecn");
        // The first byte of the stream has sequence number 1, after the SYN.
        let first = h.seq.wrapping_add(u32::from(h.flags.contains(TcpFlags::SYN)));
        let offset = first.wrapping_sub(iss).wrapping_sub(1);
        let expected = |(i, byte): (usize, &u8)| *byte == pattern(offset.wrapping_add(i as u32));
        check(sent.payload.iter().enumerate().all(expected), "payload");
        found
    }

    fn timestamps_match(&self, found: Option<Timestamps>, flow: &Flow) -> bool {
        let Want::Is((val, ecr)) = self.ts else {
            return self.ts.allows(found.map(|_| (Want::Any, Want::Any)));
        };
        let base = flow.ts_base.unwrap_or_default();
        found.is_some_and(|ts| {
            val.allows(Some(ts.val.wrapping_sub(base))) && ecr.allows(Some(ts.ecr))
        })
    }

    fn sack_matches(&self, found: &[(u32, u32)], flow: &Flow) -> bool {
        let edge = |number: Number| number.on_wire(flow.peer_isn);
        match self.sack {
            Want::Free => true,
            Want::Absent => found.is_empty(),
            Want::Any => !found.is_empty(),
            Want::Is(blocks) => {
                let wanted = blocks.into_iter().flatten();
                wanted.map(|(left, right)| (edge(left), edge(right))).eq(found.iter().copied())
            }
        }
    }
}

fn on_wire(want: Want<Number>, start: u32) -> Want<u32> {
    match want {
        Want::Free => Want::Free,
        Want::Absent => Want::Absent,
        Want::Any => Want::Any,
        Want::Is(number) => Want::Is(number.on_wire(start)),
    }
}

fn timestamps(value: &str, echo: Option<&str>) -> Option<Want<(Want<u32>, Want<u32>)>> {
    if value == "none" {
        return Some(Want::Absent);
    }
    let number = |word: &str| word.parse::<i64>().ok().map(|n| n as u32);
    let echo = echo.map_or(Some(Want::Free), |echo| want(echo, number))?;
    match value {
        "any" if echo == Want::Free => Some(Want::Any),
        value => Some(Want::Is((want(value, number)?, echo))),
    }
}

/// `left-right,left-right`, at most four.
fn blocks(word: &str) -> Option<[Option<(Number, Number)>; 4]> {
    let mut blocks = [None; 4];
    for (i, block) in word.split(',').enumerate() {
        let (left, right) = block.split_once('-')?;
        *blocks.get_mut(i)? = Some((Number::parse(left)?, Number::parse(right)?));
    }
    Some(blocks)
}

/// A fast open cookie in hexadecimal digits, or the request for one.
fn cookie(word: &str) -> Option<FastOpenCookie> {
    match word {
        "request" => FastOpenCookie::new(&[]),
        digits => FastOpenCookie::new(&hex(digits)?),
    }
}

fn codepoint(word: &str) -> Option<u8> {
    // RFC 3168 §5.
    let names = [("none", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)];
    names.iter().find(|(name, _)| *name == word).map(|(_, bits)| *bits)
}

fn hex(word: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        word.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect())
}

/// The byte at an offset of every stream and datagram in a trace.
pub(crate) fn pattern(offset: u32) -> u8 {
    (offset % 251) as u8
}

fn checksum(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut sum = pseudo_header(IpAddr::V4(src), IpAddr::V4(dst), protocol, bytes.len() as u32);
    sum.add(bytes);
    sum.finish()
}

/// An IP packet.
pub(crate) fn packet(ip: &Ipv4Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; Ipv4Header::LEN];
    ip.emit(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// A UDP datagram of `len` bytes between two ends.
pub(crate) fn datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), len: u16) -> Vec<u8> {
    let total = UdpHeader::LEN as u16 + len;
    let mut udp = vec![0; UdpHeader::LEN];
    UdpHeader { src_port: from.1, dst_port: to.1, len: total, checksum: 0 }.emit(&mut udp);
    udp.extend((0..u32::from(len)).map(pattern));
    let sum = checksum(from.0, to.0, protocol::UDP, &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(&Ipv4Header::new(from.0, to.0, protocol::UDP, udp.len()), &udp)
}

/// A TCP segment that the stack has sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) ip: Ipv4Header,
    pub(crate) header: TcpHeader,
    pub(crate) payload: Vec<u8>,
}

impl Sent {
    /// Takes a packet apart; the error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Sent, String> {
        let ip = Ipv4Header::parse(bytes, bytes.len()).map_err(|e| format!("IP header: {e}"))?;
        if usize::from(ip.total_len) != bytes.len() {
            return Err(format!("{} bytes, but the header says {}", bytes.len(), ip.total_len));
        }
        if ip.protocol != protocol::TCP {
            return Err(format!("protocol {}", ip.protocol));
        }
        let tcp = &bytes[usize::from(ip.header_len)..];
        if checksum(ip.src, ip.dst, protocol::TCP, tcp) != 0 {
            return Err("the TCP checksum is wrong".to_owned());
        }
        let (header, len) =
            TcpHeader::parse(tcp, tcp.len()).map_err(|e| format!("TCP header: {e}"))?;
        Ok(Sent { ip, header, payload: tcp[len..].to_vec() })
    }

    /// The segment in the words of a trace, its numbers counted from the flow's start.
    pub(crate) fn describe(&self, flow: &Flow) -> String {
        Described { sent: self, flow }.to_string()
    }
}

struct Described<'a> {
    sent: &'a Sent,
    flow: &'a Flow,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Described { sent: Sent { ip, header: h, payload }, flow } = self;
        let names: Vec<_> = FLAGS
            .iter()
            .filter(|(_, flag)| h.flags.contains(*flag))
            .map(|(name, _)| *name)
            .collect();
        let relative = |number: u32, start: u32| number.wrapping_sub(start) as i32;
        let names = if names.is_empty() { "NONE".to_owned() } else { names.join("+") };
        write!(f, "{names} seq {}", relative(h.seq, flow.iss.unwrap_or_default()))?;
        if h.flags.contains(TcpFlags::ACK) {
            write!(f, " ack {}", relative(h.ack, flow.peer_isn))?;
        }
        write!(f, " win {} len {}", h.window, payload.len())?;
        let TcpOptions { mss, window_scale, sack_permitted, timestamps, sack, fast_open } =
            h.options;
        if let Some(mss) = mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(shift) = window_scale {
            write!(f, " wscale {shift}")?;
        }
        if sack_permitted {
            f.write_str(" sackOK")?;
        }
        if let Some(Timestamps { val, ecr }) = timestamps {
            write!(f, " ts {} {ecr}", relative(val, flow.ts_base.unwrap_or_default()))?;
        }
        for (i, (left, right)) in sack.iter().enumerate() {
            let (left, right) = (relative(left, flow.peer_isn), relative(right, flow.peer_isn));
            write!(f, "{}{left}-{right}", if i == 0 { " sack " } else { "," })?;
        }
        if let Some(cookie) = fast_open {
            f.write_str(" fo ")?;
            cookie.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        if h.urgent != 0 {
            write!(f, " urg {}", h.urgent)?;
        }
        if ip.tos != 0 {
            write!(f, " tos {}", ip.tos)?;
        }
        Ok(())
    }
}
