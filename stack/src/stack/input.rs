//! From frames to sockets.
//!
//! ```text
//!   frame ─▶ link header ─┬─▶ ARP
//!                         └─▶ IP header ─▶ (reassembly) ─▶ whose flow? ─┬─▶ TCP, UDP, ICMP
//!                                                          another engine's └─▶ poll_forward
//! ```

use std::net::IpAddr;

use barewire_driver::{PacketSlice, RxChecksum, RxFrame};

use super::Stack;
use crate::error::SocketError;
use crate::hint::rarely;
use crate::interface::{IfaceId, Medium};
use crate::socket::demux::{FlowKey, Tag};
use crate::tcp::{Memory, Segment, Tcb, TimeWaitOutcome};
use crate::time::Instant;
use crate::wire::arp::ArpPacket;
use crate::wire::ethernet::{EthernetHeader, ethertype};
use crate::wire::ipv4::{Ecn, Ipv4Header};
use crate::wire::tcp::{TcpFlags, TcpHeader};
use crate::wire::{self, protocol};

/// What a forwarded packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardKind {
    /// An IP packet, whole, without its link header.
    Ip,
    /// An ARP packet without its link header: to be learned from, not to be answered.
    Arp,
}

/// A packet that came to this engine and belongs to another, which takes it in with
/// [`Stack::handle_forwarded`].
#[derive(Debug)]
pub struct Forward {
    /// The engine that it belongs to.
    pub engine: u16,
    /// What it is.
    pub kind: ForwardKind,
    /// The interface that it came in on.
    pub iface: IfaceId,
    /// Its bytes, in this engine's pool.
    pub packet: Vec<PacketSlice>,
    /// Its transport checksum has been verified.
    pub checksum_good: bool,
}

/// What a segment has done to a flow in TIME-WAIT.
enum AfterTimeWait {
    /// It has been dealt with.
    Answered,
    /// TIME-WAIT has ended, and the segment is one for no connection. A new one starts above this
    /// sequence number (RFC 6191).
    Over { above: Option<u32> },
}

/// How an IP packet lay in its frame.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Bytes before the IP header.
    skip: usize,
    /// The frame was sent to a group address.
    group: bool,
    /// Another engine has taken it in first.
    forwarded: bool,
}

/// An IP packet on its way in.
struct Packet<'a> {
    iface: IfaceId,
    header: Ipv4Header,
    /// From the IP header on.
    whole: &'a [PacketSlice],
    /// Bytes before the IP header in the first piece.
    skip: usize,
    checksum: RxChecksum,
    gso_bytes: u16,
    link_group: bool,
    /// Another engine has looked whose it is.
    forwarded: bool,
}

/// A transport payload on its way in: the pieces behind the IP header.
pub(super) struct Transport<'a> {
    pub(super) iface: IfaceId,
    pub(super) header: &'a Ipv4Header,
    pub(super) pieces: &'a mut Vec<PacketSlice>,
    pub(super) len: usize,
    pub(super) checksum: RxChecksum,
    /// It was sent to a group address of the link.
    pub(super) link_group: bool,
    gso_bytes: u16,
    forwarded: bool,
}

impl<'a> Transport<'a> {
    /// A packet to report an error about, of which only these pieces are there.
    pub(super) fn quoting(
        iface: IfaceId,
        header: &'a Ipv4Header,
        pieces: &'a mut Vec<PacketSlice>,
    ) -> Transport<'a> {
        let len = pieces.iter().map(|p| p.len()).sum();
        let checksum = RxChecksum::Good;
        Transport {
            iface,
            header,
            pieces,
            len,
            checksum,
            link_group: false,
            gso_bytes: 0,
            forwarded: true,
        }
    }

    /// The same packet with other pieces.
    pub(super) fn with<'b>(&'b self, pieces: &'b mut Vec<PacketSlice>) -> Transport<'b> {
        let len = pieces.iter().map(|p| p.len()).sum();
        Transport { len, pieces, header: self.header, ..*self }
    }

    /// True if the checksum is right, or was found right before.
    pub(super) fn verify(&self, with_pseudo_header: bool) -> bool {
        match self.checksum {
            RxChecksum::Good => true,
            RxChecksum::Bad => false,
            RxChecksum::Unknown => {
                let (src, dst) = (IpAddr::V4(self.header.src), IpAddr::V4(self.header.dst));
                let mut sum = if with_pseudo_header {
                    wire::pseudo_header(src, dst, self.header.protocol, self.len as u32)
                } else {
                    barewire_driver::mem::Checksum::new()
                };
                for piece in self.pieces.iter() {
                    sum.add(piece);
                }
                sum.finish() == 0
            }
        }
    }

    /// Cuts `bytes` off the front, leaving no empty piece there.
    pub(super) fn advance(&mut self, bytes: usize) {
        let mut left = bytes;
        let mut gone = 0;
        for piece in self.pieces.iter_mut() {
            let cut = left.min(piece.len());
            piece.advance(cut);
            left -= cut;
            if !piece.is_empty() {
                break;
            }
            gone += 1;
        }
        self.pieces.drain(..gone);
        self.len -= bytes - left;
    }
}

impl Stack {
    /// Takes one frame in, in the pieces that it arrived in.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        iface: IfaceId,
        pieces: &[PacketSlice],
        meta: &RxFrame,
    ) {
        self.move_clock(now);
        self.input_frame(iface, pieces, meta);
        self.drain_loopback();
    }

    /// Takes the bytes of one frame (or IP packet, as the interface's medium is) in, copying them
    /// into the pool. They may be longer than the MTU.
    ///
    /// # Errors
    /// [`SocketError::NoBuffers`] if the pool has no room; nothing has been taken in then.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        iface: IfaceId,
        bytes: &[u8],
    ) -> Result<(), SocketError> {
        let pool = self.egress.pool.clone();
        let mut pieces = Vec::new();
        for chunk in bytes.chunks(pool.slot_len()) {
            pieces.push(pool.copy_from(chunk).ok_or(SocketError::NoBuffers)?.freeze());
        }
        self.handle_frame(now, iface, &pieces, &RxFrame::default());
        Ok(())
    }

    /// Takes in a packet that another engine of this host got, in pieces of this engine's pool.
    pub fn handle_forwarded(
        &mut self,
        now: Instant,
        iface: IfaceId,
        kind: ForwardKind,
        packet: &[PacketSlice],
        checksum_good: bool,
    ) {
        self.move_clock(now);
        let checksum = if checksum_good { RxChecksum::Good } else { RxChecksum::Unknown };
        let meta = RxFrame { checksum, ..RxFrame::default() };
        match kind {
            ForwardKind::Ip => {
                let link = Link { forwarded: true, ..Link::default() };
                self.input_ip(iface, packet, link, &meta);
            }
            ForwardKind::Arp => self.input_arp(iface, packet, 0, true),
        }
    }

    pub(super) fn input_frame(&mut self, id: IfaceId, pieces: &[PacketSlice], meta: &RxFrame) {
        self.egress.counters.rx_frames += 1;
        let (Some(iface), Some(first)) = (self.egress.iface(id), pieces.first()) else { return };
        if iface.config.medium == Medium::Ip {
            return self.input_ip(id, pieces, Link::default(), meta);
        }
        let Ok(header) = EthernetHeader::parse(first) else {
            self.egress.counters.rx_link_malformed += 1;
            return;
        };
        if header.dst != iface.config.mac && !header.dst.is_group() {
            self.egress.counters.rx_other_host += 1;
            return;
        }
        match header.ethertype {
            ethertype::IPV4 => {
                let (skip, group) = (EthernetHeader::LEN, header.dst.is_group());
                self.input_ip(id, pieces, Link { skip, group, forwarded: false }, meta);
            }
            ethertype::ARP => self.input_arp(id, pieces, EthernetHeader::LEN, false),
            _ => self.egress.counters.rx_unknown_ethertype += 1,
        }
    }

    fn input_arp(&mut self, id: IfaceId, pieces: &[PacketSlice], skip: usize, forwarded: bool) {
        let Some(first) = pieces.first() else { return };
        let Ok(arp) = ArpPacket::parse(&first[skip..]) else {
            self.egress.counters.arp_invalid += 1;
            return;
        };
        if !forwarded {
            let own = self.share.engine;
            for engine in (0..self.share.engines).filter(|&engine| engine != own) {
                let packet = vec![first.slice(skip..first.len())];
                self.forward(Forward {
                    engine,
                    kind: ForwardKind::Arp,
                    iface: id,
                    packet,
                    checksum_good: true,
                });
            }
        }
        self.egress.handle_arp(id, &arp, forwarded);
        self.release_waiting(id, arp.sender_ip);
    }

    fn forward(&mut self, forward: Forward) {
        if self.forwards.len() >= self.limits.forwards {
            self.egress.counters.forward_full += 1;
        } else {
            self.egress.counters.forwarded += 1;
            self.forwards.push_back(forward);
        }
    }

    /// Takes in what was sent to own addresses.
    #[inline]
    pub(super) fn drain_loopback(&mut self) {
        if !self.egress.loopback.is_empty() {
            self.drain_loopback_now();
        }
    }

    #[cold]
    fn drain_loopback_now(&mut self) {
        // What is answered meanwhile waits for the next turn: no conversation holds the loop.
        for _ in 0..self.egress.loopback.len() {
            let Some((iface, packet)) = self.egress.loopback.pop_front() else { return };
            let meta = RxFrame { checksum: RxChecksum::Good, ..RxFrame::default() };
            self.input_ip(iface, &packet, Link::default(), &meta);
        }
    }

    fn input_ip(&mut self, iface: IfaceId, whole: &[PacketSlice], link: Link, meta: &RxFrame) {
        let skip = link.skip;
        let Some(first) = whole.first().filter(|first| first.len() >= skip) else { return };
        let len = whole.iter().map(|p| p.len()).sum::<usize>() - skip;
        let header = match Ipv4Header::parse(&first[skip..], len) {
            Ok(header) => header,
            Err(_) => {
                self.egress.counters.ip_malformed += 1;
                return;
            }
        };
        if header.source_routed {
            self.egress.counters.ip_source_routed += 1;
            return;
        }
        let Some(own) = self.egress.iface(iface) else { return };
        if own.is_bad_source(header.src) {
            self.egress.counters.ip_bad_source += 1;
            return;
        }
        if self.egress.owner_of(header.dst).is_none() && !own.is_broadcast(header.dst) {
            self.egress.counters.ip_not_ours += 1;
            return;
        }
        let (checksum, gso_bytes) = (meta.checksum, meta.gso_bytes);
        let Link { skip, group: link_group, forwarded } = link;
        self.input_packet(Packet {
            iface,
            header,
            whole,
            skip,
            checksum,
            gso_bytes,
            link_group,
            forwarded,
        });
    }

    fn input_packet(&mut self, packet: Packet<'_>) {
        let Packet { iface, mut header, whole, skip, mut checksum, .. } = packet;
        let Packet { gso_bytes, link_group, forwarded, .. } = packet;
        let mut pieces = std::mem::take(&mut self.scratch);
        pieces.clear();
        collect(&header, whole, skip, &mut pieces);
        if header.is_fragment() {
            self.egress.counters.fragments_received += 1;
            let now = self.egress.now;
            let fragment = std::mem::take(&mut pieces);
            let Some(datagram) = self.reassembler.insert(now, &header, fragment) else {
                self.scratch = pieces;
                return;
            };
            self.egress.counters.reassembled += 1;
            pieces.extend(datagram.payload);
            header = datagram.header;
            // What the device said about one fragment says nothing about the whole.
            checksum = RxChecksum::Unknown;
        }
        let len = pieces.iter().map(|p| p.len()).sum();
        let pieces_ref = &mut pieces;
        let transport = Transport {
            iface,
            header: &header,
            pieces: pieces_ref,
            len,
            checksum,
            link_group,
            gso_bytes,
            forwarded,
        };
        match header.protocol {
            protocol::TCP => self.input_tcp(transport),
            protocol::UDP => self.input_udp(transport),
            protocol::ICMP => self.input_icmp(transport),
            _ => {
                self.egress.counters.ip_unknown_protocol += 1;
                self.protocol_unreachable(transport);
            }
        }
        pieces.clear();
        self.scratch = pieces;
    }

    /// True if the packet has to be forwarded to its owner.
    fn is_anothers(&self, transport: &Transport<'_>, owner: u16) -> bool {
        self.share.engines > 1 && !transport.forwarded && owner != self.share.engine
    }

    /// True if the packet is another engine's; it is on its way there then.
    pub(super) fn belongs_elsewhere(&mut self, transport: &Transport<'_>, owner: u16) -> bool {
        if !self.is_anothers(transport, owner) {
            return false;
        }
        let Some(mut cell) = self.egress.pool.alloc_cell() else {
            self.egress.counters.forward_full += 1;
            return true;
        };
        let mut header = *transport.header;
        header.total_len = (Ipv4Header::LEN + transport.len) as u16;
        header.emit(&mut cell);
        cell.truncate(Ipv4Header::LEN);
        let mut packet = Vec::with_capacity(1 + transport.pieces.len());
        packet.push(cell.freeze());
        packet.extend(transport.pieces.iter().cloned());
        let checksum_good = transport.checksum == RxChecksum::Good;
        let (kind, iface) = (ForwardKind::Ip, transport.iface);
        self.forward(Forward { engine: owner, kind, iface, packet, checksum_good });
        true
    }

    fn input_tcp(&mut self, mut transport: Transport<'_>) {
        self.egress.counters.tcp_segments_received += 1;
        let front = transport.pieces.first().map_or(&[][..], |piece| piece);
        let parsed = TcpHeader::parse(front, transport.len);
        // By reference: the header is large enough for its copies to be seen in profiles.
        let Ok((header, header_len)) = &parsed else {
            self.egress.counters.tcp_malformed += 1;
            return;
        };
        let key = FlowKey {
            local: transport.header.dst,
            remote: transport.header.src,
            local_port: header.dst_port,
            remote_port: header.src_port,
        };
        // RFC 9293 §3.9.2.3: segments to broadcast addresses are dropped without an answer.
        if self.egress.owner_of(key.local).is_none() {
            self.egress.counters.ip_not_ours += 1;
            return;
        }
        let owner = self.owner(&key);
        // An engine that is behind spares itself the forwarding, too.
        if self.is_anothers(&transport, owner) && self.sheds(header) {
            return;
        }
        if self.belongs_elsewhere(&transport, owner) {
            return;
        }
        if !transport.verify(true) {
            self.egress.counters.tcp_bad_checksum += 1;
            return;
        }
        transport.advance(*header_len);
        let payload_len = transport.len as u32;
        let wire_segments = wire_segments(payload_len, transport.gso_bytes);
        let ecn = Ecn::of_tos(transport.header.tos);
        let payload = transport.pieces;
        let memory = Memory::Plenty;
        let segment = Segment { header, payload, payload_len, wire_segments, ecn, memory };
        self.deliver_tcp(key, segment);
    }

    /// Gives a segment that is right to whatever there is of its flow. All ways in meet here, so that
    /// one draw decides whether a SYN is shed.
    pub(super) fn deliver_tcp(&mut self, key: FlowKey, segment: Segment<'_>) {
        if rarely(self.sheds(segment.header)) {
            return;
        }
        let mut iss_above = None;
        match self.flows.find(&key) {
            Some(Tag::Connection(index))
                if segment.header.flags & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
                    && self.makes_room_for(index, &key, segment.header, &mut iss_above) => {}
            Some(Tag::Connection(index)) => {
                let memory = if segment.payload_len > 0 {
                    self.memory_for(index, segment.header.seq)
                } else {
                    Memory::Plenty
                };
                return self.deliver_to(index, Segment { memory, ..segment });
            }
            Some(Tag::HalfOpen(index)) => return self.handle_half_open(index, segment),
            Some(Tag::TimeWait(index)) => match self.handle_time_wait(index, key, &segment) {
                AfterTimeWait::Answered => return,
                AfterTimeWait::Over { above } => iss_above = above,
            },
            None => {}
        }
        let (header, payload_len) = (segment.header, segment.payload_len);
        let flags = header.flags;
        let listener = self.find_listener(&key);
        match listener {
            Some(_) if flags.contains(TcpFlags::RST) => {}
            Some(id) if flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK) => {
                self.handle_syn(id, key, segment, iss_above);
            }
            Some(id) if flags.contains(TcpFlags::ACK) && !flags.contains(TcpFlags::SYN) => {
                if !self.handle_cookie(id, key, segment) {
                    self.egress.counters.tcp_no_socket += 1;
                    self.refuse(key, header, payload_len);
                }
            }
            // RFC 9293 §3.10.7.2, fourth: nothing else is for a listener, nor answered by it.
            Some(_) if !flags.intersects(TcpFlags::ACK | TcpFlags::SYN) => {
                self.egress.counters.tcp_no_socket += 1;
            }
            Some(_) | None => {
                self.egress.counters.tcp_no_socket += 1;
                self.refuse(key, header, payload_len);
            }
        }
    }

    fn deliver_to(&mut self, index: u32, segment: Segment<'_>) {
        let now = self.egress.now;
        let wire_segments = segment.wire_segments;
        let dropped = self.with_tcb(index, |tcb| {
            let outcome = tcb.handle_segment(now, segment);
            (tcb.take_drop(), outcome)
        });
        if let Some(Some(reason)) = dropped {
            self.egress.counters.tcp_dropped(reason, wire_segments);
        }
    }

    /// Whether there is memory for this data. When little is left, none for what has to wait: behind
    /// a gap, or behind data that the application has not read.
    fn memory_for(&mut self, index: u32, seq: u32) -> Memory {
        let memory = self.memory();
        if memory != Memory::Exhausted {
            return memory;
        }
        let waits = |tcb: &Tcb| !tcb.continues_at(seq) || tcb.bytes_readable() > 0;
        if self.connection(index).is_some_and(|c| c.tcb.look(waits)) {
            self.egress.counters.rx_memory_pressure += 1;
            return Memory::Exhausted;
        }
        Memory::Scarce
    }

    /// True if the connection is in TIME-WAIT, still held by its application, and this SYN is a
    /// newer one that a listener can take: the connection is over then.
    #[cold]
    fn makes_room_for(
        &mut self,
        index: u32,
        key: &FlowKey,
        syn: &TcpHeader,
        iss_above: &mut Option<u32>,
    ) -> bool {
        if self.find_listener(key).is_none() {
            return false;
        }
        let now = self.egress.now;
        let Some(connection) = self.connection_mut(index) else { return false };
        let Some((above, outcome)) = connection.tcb.wake().yield_to(now, syn) else { return false };
        *iss_above = Some(above);
        self.settle(index, outcome);
        true
    }

    /// A segment for a flow in TIME-WAIT.
    #[inline(never)]
    fn handle_time_wait(
        &mut self,
        index: u32,
        key: FlowKey,
        segment: &Segment<'_>,
    ) -> AfterTimeWait {
        let now = self.egress.now;
        let over = AfterTimeWait::Over { above: None };
        let Some(entry) = self.time_wait.get_mut(index) else { return over };
        let mut outcome = entry.state.handle_segment(now, segment.header, segment.payload_len);
        if let TimeWaitOutcome::Reuse { .. } = outcome
            && self.find_listener(&key).is_none()
        {
            // Only a listener can take the new connection; without one the old stays.
            let Some(entry) = self.time_wait.get_mut(index) else { return over };
            outcome = entry.state.answer(now);
        }
        match outcome {
            TimeWaitOutcome::Drop => AfterTimeWait::Answered,
            TimeWaitOutcome::Limited => {
                self.egress.counters.time_wait_replies_limited += 1;
                AfterTimeWait::Answered
            }
            TimeWaitOutcome::Ack(reply) => {
                self.egress.emit_control(key, reply);
                AfterTimeWait::Answered
            }
            TimeWaitOutcome::Remove => {
                self.end_time_wait(index);
                over
            }
            TimeWaitOutcome::Reuse { iss_above } => {
                self.end_time_wait(index);
                AfterTimeWait::Over { above: Some(iss_above) }
            }
        }
    }
}

/// Wire segments that the device joined into one of `payload_len` bytes, `gso_bytes` in each.
#[inline]
pub(super) fn wire_segments(payload_len: u32, gso_bytes: u16) -> u16 {
    match u32::from(gso_bytes) {
        0 => 1,
        each => payload_len.div_ceil(each).max(1) as u16,
    }
}

/// The payload of an IP packet: its pieces without the headers in front and the padding behind.
fn collect(header: &Ipv4Header, whole: &[PacketSlice], skip: usize, out: &mut Vec<PacketSlice>) {
    let mut skip = skip + usize::from(header.header_len);
    let mut left = header.payload_len();
    for piece in whole {
        let cut = skip.min(piece.len());
        skip -= cut;
        let take = left.min(piece.len() - cut);
        if take > 0 {
            out.push(piece.slice(cut..cut + take));
            left -= take;
        }
    }
}
