//! What is checked on the wire: windows, FIN, segment sizes, checksums, and the digest of a run.
//!
//! For every connection the check keeps the right edge of the window that its host has been
//! *delivered*, not the one that the peer has sent: a sender may know no more than what arrived.
//! What it remembers is an upper bound (old and reordered segments count, too), so that a violation
//! is never a false alarm.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;

use barewire_driver::device::TxChecksum;
use barewire_driver::{PacketSlice, RxFrame, TxFrame};
use siphasher::sip::SipHasher13;

use super::world::Watch;
use crate::time::Instant;
use crate::wire::ethernet::{EthernetHeader, ethertype};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::tcp::{TcpFlags, TcpHeader};
use crate::wire::{self, protocol};

/// Most complaints that are kept; the first one is what matters.
const MAX_VIOLATIONS: usize = 3;

/// A connection as one host sees it: the host's number, its address and port, and the peer's.
type Flow = (usize, (Ipv4Addr, u16), (Ipv4Addr, u16));

/// Most SYNs of other incarnations that are remembered for a connection.
const MAX_KNOCKS: usize = 8;

/// What a SYN of the peer said.
#[derive(Clone, Copy, Debug)]
struct Told {
    irs: u32,
    shift: Option<u8>,
    mss: u16,
}

/// What one host has sent and been told in one incarnation of a connection.
#[derive(Debug, Default)]
struct Seen {
    /// The initial sequence number of its own SYN, and the shift that this carried.
    iss: Option<u32>,
    own_shift: Option<u8>,
    /// The peer's SYN.
    told: Option<Told>,
    /// SYNs that were delivered and belong to no incarnation that the host knows of. It may go on
    /// with what it has, whatever they say, until it answers one of them.
    knocks: Vec<Told>,
    /// The largest right edge that was delivered.
    edge: Option<u32>,
    /// The right edge that this host has advertised.
    advertised: Option<u32>,
    /// The sequence number of this host's FIN.
    fin: Option<u32>,
    /// What acknowledges the peer's FIN: its window does not matter any more.
    peer_fin: Option<u32>,
    /// The end of what this host has sent.
    max: Option<u32>,
}

impl Seen {
    fn shifts(&self) -> (u8, u8) {
        match (self.own_shift, self.told.and_then(|told| told.shift)) {
            (Some(own), Some(peer)) => (own.min(14), peer.min(14)),
            _ => (0, 0),
        }
    }

    /// This host sends a SYN, with which an incarnation begins unless it is a repetition. One that
    /// acknowledges belongs to the peer's SYN that lies next before what it acknowledges.
    fn opens(&mut self, iss: u32, ack: Option<u32>) {
        if self.iss == Some(iss) {
            return;
        }
        let old = std::mem::take(self);
        self.iss = Some(iss);
        if let Some(ack) = ack {
            let told = old.knocks.iter().chain(&old.told);
            self.told = told.min_by_key(|told| ack.wrapping_sub(told.irs)).copied();
            self.knocks = old.knocks;
        }
    }

    /// A SYN of the peer was delivered: an answer to this host's, or one that crosses it, or one
    /// that this host has yet to answer.
    fn is_told(&mut self, told: Told, answers: bool) {
        let crosses = self.iss.is_some() && self.told.is_none();
        if answers || crosses {
            self.told = Some(told);
        } else if self.told.is_none_or(|old| old.irs != told.irs) {
            self.knocks.retain(|knock| knock.irs != told.irs);
            if self.knocks.len() == MAX_KNOCKS {
                self.knocks.remove(0);
            }
            self.knocks.push(told);
        }
    }

    /// Notes what a segment with this ACK and window offers; true if that is less than was offered
    /// before (RFC 9293 §3.8.6.2.1, SHLD-14), but for what scaling rounds away.
    fn offers_less(&mut self, ack: u32, window: u16, syn: bool) -> bool {
        let shift = if syn { 0 } else { self.shifts().0 };
        let edge = ack.wrapping_add(u32::from(window) << shift);
        let back = self.advertised.map_or(0, |old| old.wrapping_sub(edge) as i32);
        if back < 0 || self.advertised.is_none() {
            self.advertised = Some(edge);
        }
        // RFC 7323 §2.2: a SYN that leaves again cannot say more, whatever was offered since.
        let says_all = !syn || window < u16::MAX;
        says_all && back >= 1 << shift && self.peer_fin != Some(ack)
    }
}

/// A TCP segment as it lies in a frame.
struct Parsed {
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    /// Where its header begins in the frame.
    at: usize,
    header: TcpHeader,
    header_len: usize,
    payload_len: u32,
}

impl Parsed {
    /// True if its checksum is right, in the frame of these pieces.
    fn is_right<P: Deref<Target = [u8]>>(&self, pieces: &[P]) -> bool {
        let (src, dst) = (IpAddr::V4(self.src.0), IpAddr::V4(self.dst.0));
        let len = self.header_len + self.payload_len as usize;
        let mut sum = wire::pseudo_header(src, dst, protocol::TCP, len as u32);
        let (mut skip, mut left) = (self.at, len);
        for piece in pieces {
            let cut = skip.min(piece.len());
            let take = left.min(piece.len() - cut);
            sum.add(&piece[cut..cut + take]);
            (skip, left) = (skip - cut, left - take);
        }
        left == 0 && sum.finish() == 0
    }
}

/// Watches all frames of a run.
#[derive(Debug)]
pub struct WireCheck {
    flows: BTreeMap<Flow, Seen>,
    violations: Vec<String>,
    digest: SipHasher13,
    /// Frames sent by hosts, and those that arrived at one.
    pub frames_sent: u64,
    /// Frames that arrived at a host.
    pub frames_received: u64,
    /// Segments sent that carry data or FIN.
    pub data_segments: u64,
    /// Segments that were sent again, or in part: what they begin with had been sent.
    pub retransmissions: u64,
}

impl Default for WireCheck {
    fn default() -> WireCheck {
        WireCheck {
            flows: BTreeMap::new(),
            violations: Vec::new(),
            digest: SipHasher13::new_with_keys(0, 0),
            frames_sent: 0,
            frames_received: 0,
            data_segments: 0,
            retransmissions: 0,
        }
    }
}

impl WireCheck {
    /// A hash of every frame that was sent or received, and when.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// What was wrong, first thing first.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn complain(&mut self, now: Instant, flow: Flow, what: &str, segment: &Parsed) {
        if self.violations.len() < MAX_VIOLATIONS {
            let (host, (src, sport), (dst, dport)) = flow;
            let TcpHeader { seq, ack, flags, window, .. } = segment.header;
            let seen = self.flows.get(&flow);
            self.violations.push(format!(
                "host {host} at {now:?}: {what}: {src}:{sport} > {dst}:{dport} seq {seq} ack {ack} \
                 {flags:?} win {window} len {} while {seen:?}",
                segment.payload_len
            ));
        }
    }

    fn absorb(&mut self, now: Instant, host: usize, way: u8, pieces: &[PacketSlice]) {
        self.digest.write_u64(now.as_nanos());
        self.digest.write_u64((host as u64) << 8 | u64::from(way));
        for piece in pieces {
            self.digest.write(piece);
        }
    }

    fn sent_segment(&mut self, now: Instant, host: usize, tso_mss: u16, segment: &Parsed) {
        let flow = (host, segment.src, segment.dst);
        let TcpHeader { seq, ack, flags, window, options, .. } = segment.header;
        if flags.contains(TcpFlags::RST) {
            return;
        }
        if flags.contains(TcpFlags::SYN) {
            let seen = self.flows.entry(flow).or_default();
            seen.opens(seq, flags.contains(TcpFlags::ACK).then_some(ack));
            seen.own_shift = options.window_scale;
        }
        let (fin, len) = (u32::from(flags.contains(TcpFlags::FIN)), segment.payload_len);
        self.data_segments += u64::from(len + fin > 0);
        let mut wrong = Vec::new();
        let Some(seen) = self.flows.get_mut(&flow) else { return };
        let syn = flags.contains(TcpFlags::SYN);
        let seq = seq.wrapping_add(u32::from(syn));
        let end = seq.wrapping_add(len);
        // A probe of a closed window repeats on purpose.
        if let Some(max) = seen.max.filter(|_| len > 1)
            && (seq.wrapping_sub(max) as i32) < 0
        {
            self.retransmissions += 1;
        }
        if len > 0 && seen.max.is_none_or(|max| (end.wrapping_sub(max) as i32) > 0) {
            seen.max = Some(end);
        }
        if let Some(edge) = seen.edge.filter(|_| len + fin > 0) {
            let beyond = end.wrapping_add(fin).wrapping_sub(edge) as i32;
            // RFC 9293 §3.8.6.1: one byte may probe a closed window.
            if beyond > 0 && !((len, fin) == (1, 0) && beyond == 1) {
                wrong.push("beyond the peer's window");
            }
        }
        if let Some(at) = seen.fin.filter(|_| len + fin > 0)
            && ((end.wrapping_sub(at) as i32) > 0 || fin == 1 && end != at)
        {
            wrong.push("data behind the FIN");
        }
        if fin == 1 {
            seen.fin.get_or_insert(end);
        }
        let each = if tso_mss > 0 { u32::from(tso_mss).min(len) } else { len };
        let options_len = segment.header_len as u32 - 20;
        // RFC 7413 §4.1.3: data that goes with a SYN is cut by what the peer announced before.
        let most = u32::from(seen.told.map_or(536, |told| told.mss));
        if len > 0 && !syn && each + options_len > most {
            wrong.push("larger than the peer's MSS");
        }
        if flags.contains(TcpFlags::ACK) && seen.offers_less(ack, window, syn) {
            wrong.push("the window was taken back");
        }
        for what in wrong {
            self.complain(now, flow, what, segment);
        }
    }

    fn received_segment(&mut self, host: usize, segment: &Parsed) {
        let flow = (host, segment.dst, segment.src);
        let TcpHeader { seq, ack, flags, window, options, .. } = segment.header;
        if flags.contains(TcpFlags::RST) {
            return;
        }
        let syn = flags.contains(TcpFlags::SYN);
        if syn {
            let mss = options.mss.unwrap_or(536);
            let told = Told { irs: seq, shift: options.window_scale, mss };
            let answers = flags.contains(TcpFlags::ACK);
            self.flows.entry(flow).or_default().is_told(told, answers);
        }
        let Some(seen) = self.flows.get_mut(&flow) else { return };
        if flags.contains(TcpFlags::FIN) {
            let end = seq.wrapping_add(segment.payload_len).wrapping_add(1);
            seen.peer_fin = Some(end);
        }
        if flags.contains(TcpFlags::ACK) {
            let shift = if syn { 0 } else { seen.shifts().1 };
            let edge = ack.wrapping_add(u32::from(window) << shift);
            let further = seen.edge.is_none_or(|old| (edge.wrapping_sub(old) as i32) > 0);
            if further {
                seen.edge = Some(edge);
            }
        }
    }
}

impl Watch for WireCheck {
    fn sent(&mut self, now: Instant, host: usize, frame: &TxFrame, pieces: &[PacketSlice]) {
        self.frames_sent += 1;
        self.absorb(now, host, 0, pieces);
        if let Some(segment) = parse(pieces) {
            if frame.checksum == TxChecksum::Complete && !segment.is_right(pieces) {
                let flow = (host, segment.src, segment.dst);
                self.complain(now, flow, "sent with a wrong checksum", &segment);
            }
            self.sent_segment(now, host, frame.tso_mss, &segment);
        }
    }

    fn received(&mut self, now: Instant, host: usize, _: &RxFrame, pieces: &[PacketSlice]) {
        self.frames_received += 1;
        self.absorb(now, host, 1, pieces);
        if let Some(segment) = parse(pieces).filter(|segment| segment.is_right(pieces)) {
            self.received_segment(host, &segment);
        }
    }
}

/// Header and payload length of the TCP segment in a frame, if there is one.
pub(super) fn segment_of(frame: &[u8]) -> Option<(TcpHeader, u32)> {
    parse(&[frame]).map(|segment| (segment.header, segment.payload_len))
}

/// The TCP segment in a frame, if there is one.
fn parse<P: Deref<Target = [u8]>>(pieces: &[P]) -> Option<Parsed> {
    let first = pieces.first()?;
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    let link = EthernetHeader::parse(first).ok()?;
    if link.ethertype != ethertype::IPV4 {
        return None;
    }
    let ip_len = len.checked_sub(EthernetHeader::LEN)?;
    let ip = Ipv4Header::parse(first.get(EthernetHeader::LEN..)?, ip_len).ok()?;
    if ip.protocol != protocol::TCP || ip.is_fragment() {
        return None;
    }
    let at = EthernetHeader::LEN + usize::from(ip.header_len);
    let segment_len = ip.payload_len();
    let (header, header_len) = TcpHeader::parse(first.get(at..)?, segment_len).ok()?;
    Some(Parsed {
        src: (ip.src, header.src_port),
        dst: (ip.dst, header.dst_port),
        at,
        header,
        header_len,
        payload_len: (segment_len - header_len) as u32,
    })
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
