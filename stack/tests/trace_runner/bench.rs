//! The stack of a trace with its clock, and what the trace calls flows and sockets.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use barewire_stack::wire::pretty;
use barewire_stack::wire::tcp::{FastOpenCookie, TcpFlags};
use barewire_stack::{Instant, SentPacket, Settings, SocketId, Stack};

use super::packet::Sent;

/// Deadlines in one step of the clock after which the stack is taken to spin.
const MAX_STEPS: u32 = 1_000_000;

/// A connection, as the peer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) peer: Ipv4Addr,
    pub(crate) peer_port: u16,
    pub(crate) local: Ipv4Addr,
    /// `None` until the stack's first SYN tells its ephemeral port.
    pub(crate) local_port: Option<u16>,
    /// The peer's initial sequence number.
    pub(crate) peer_isn: u32,
    /// The stack's, from its last SYN.
    pub(crate) iss: Option<u32>,
    /// The stack's first timestamp since its last SYN of a new number.
    pub(crate) ts_base: Option<u32>,
    /// Its latest timestamp.
    pub(crate) ts_last: u32,
    /// The fast open cookie that it gave last.
    pub(crate) cookie: Option<FastOpenCookie>,
}

impl Flow {
    fn learn(&mut self, sent: &Sent) {
        let h = &sent.header;
        if h.flags.contains(TcpFlags::SYN) && self.iss != Some(h.seq) {
            self.iss = Some(h.seq);
            self.ts_base = None;
        }
        self.cookie = h.options.fast_open.or(self.cookie);
        if let Some(ts) = h.options.timestamps {
            self.ts_base = self.ts_base.or(Some(ts.val));
            self.ts_last = ts.val;
        }
    }
}

/// A socket of the trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    pub(crate) id: SocketId,
    /// Bytes of its stream that have been written and read.
    pub(crate) written: u32,
    pub(crate) read: u32,
}

/// A packet that the stack has sent and no line has looked at.
pub(crate) struct Waiting {
    pub(crate) packet: SentPacket,
    /// The flow that it belongs to, and the segment, if it is TCP.
    pub(crate) segment: Option<(String, Sent)>,
}

pub(crate) struct Bench {
    pub(crate) stack: Stack,
    pub(crate) local: Ipv4Addr,
    pub(crate) now: Instant,
    pub(crate) flows: HashMap<String, Flow>,
    pub(crate) sockets: HashMap<String, Socket>,
    pub(crate) sent: VecDeque<Waiting>,
}

impl Bench {
    pub(crate) fn new(settings: &Settings, flows: HashMap<String, Flow>) -> Result<Bench, String> {
        let stack = Stack::raw(settings).map_err(|error| error.to_string())?;
        let local = local_address(settings);
        let (sockets, sent) = (HashMap::new(), VecDeque::new());
        Ok(Bench { stack, local, now: Instant::ZERO, flows, sockets, sent })
    }

    /// Takes what the stack sends now.
    pub(crate) fn collect(&mut self) -> Result<(), String> {
        while let Some(packet) = self.stack.poll_packet() {
            let is_tcp = packet.bytes.get(9) == Some(&6);
            let segment = if is_tcp {
                let sent = Sent::parse(&packet.bytes)
                    .map_err(|why| format!("the stack sent a bad packet: {why}"))?;
                Some((self.flow_of(&sent), sent))
            } else {
                None
            };
            self.sent.push_back(Waiting { packet, segment });
        }
        Ok(())
    }

    /// The name of the flow that a sent segment belongs to.
    fn flow_of(&mut self, sent: &Sent) -> String {
        let (h, ip) = (&sent.header, &sent.ip);
        let mut names: Vec<_> = self.flows.keys().cloned().collect();
        names.sort();
        let matches = |flow: &Flow, local_port: Option<u16>| {
            flow.peer == ip.dst && flow.peer_port == h.dst_port && flow.local_port == local_port
        };
        let found = [Some(h.src_port), None]
            .into_iter()
            .find_map(|port| names.iter().find(|name| matches(&self.flows[*name], port)));
        let Some(name) = found else { return "?".to_owned() };
        if let Some(flow) = self.flows.get_mut(name) {
            flow.local_port = Some(h.src_port);
            flow.learn(sent);
        }
        name.clone()
    }

    /// Moves the clock to `until`, doing what is due on the way, or to the moment at which
    /// something is sent.
    pub(crate) fn advance(&mut self, until: Instant) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            self.collect()?;
            if !self.sent.is_empty() {
                return Ok(());
            }
            match self.stack.poll_at().filter(|&at| at <= until) {
                Some(at) => self.now = at.max(self.now),
                None if self.now >= until => return Ok(()),
                None => self.now = until,
            }
            self.stack.poll(self.now);
        }
        Err(format!("the stack is due again and again at {}", self.now))
    }

    /// A line about a packet that was sent.
    pub(crate) fn describe(&self, waiting: &Waiting) -> String {
        let at = waiting.packet.at;
        match &waiting.segment {
            Some((name, sent)) => match self.flows.get(name) {
                Some(flow) => format!("{at} {} on {name}", sent.describe(flow)),
                None => format!("{at} {} (no flow of this trace)", frame_text(&waiting.packet)),
            },
            None => format!("{at} {}", frame_text(&waiting.packet)),
        }
    }
}

/// The text of a packet: `pretty` takes frames, so it gets one.
fn frame_text(packet: &SentPacket) -> String {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(&packet.bytes);
    pretty::describe(&frame)
}

pub(crate) fn local_address(settings: &Settings) -> Ipv4Addr {
    match settings.get("address") {
        Ok(barewire_stack::Value::Network(cidr)) => match cidr.addr() {
            std::net::IpAddr::V4(addr) => addr,
            std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        },
        _ => Ipv4Addr::UNSPECIFIED,
    }
}

/// The absolute difference of two times.
pub(crate) fn apart(a: Instant, b: Instant) -> Duration {
    a.saturating_since(b).max(b.saturating_since(a))
}
