//! ICMP: answering echo requests, sending errors, and what received errors do to sockets.

use std::net::IpAddr;

use barewire_driver::PacketSlice;

use super::input::Transport;
use super::{Socket, Stack};
use crate::icmp::{self, Arrival, Report, ReportKind};
use crate::interface::{Datagram, IfaceId};
use crate::reassembly::Expired;
use crate::socket::SocketKind;
use crate::socket::demux::{FlowKey, Tag};
use crate::tcp::IcmpError;
use crate::time::Instant;
use crate::wire::icmpv4::{Icmpv4Message, TimeExceeded, Unreachable};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::protocol;

/// Bytes of IPv4 and TCP headers without options.
const TCP_IP_LEN: u16 = 40;

impl Stack {
    pub(super) fn input_icmp(&mut self, mut transport: Transport<'_>) {
        self.egress.counters.icmp_received += 1;
        let pieces = transport.pieces.iter().map(|p| &p[..]);
        let Ok(message) = Icmpv4Message::parse_pieces(pieces) else {
            self.egress.counters.icmp_malformed += 1;
            return;
        };
        match message {
            Icmpv4Message::EchoRequest { id, seq } => {
                transport.advance(Icmpv4Message::LEN);
                self.answer_echo(transport, id, seq);
            }
            Icmpv4Message::EchoReply { id, .. } => {
                let owner = id % self.share.engines;
                if self.belongs_elsewhere(&transport, owner) {
                    return;
                }
                transport.advance(Icmpv4Message::LEN);
                let (to, from) = (transport.header.dst, transport.header.src);
                match self.find_datagram_socket(SocketKind::Ping, (to, id), (from, 0)) {
                    Some(socket) => {
                        self.deliver(socket, (from, 0), transport.pieces);
                    }
                    None => self.egress.counters.icmp_unmatched += 1,
                }
            }
            Icmpv4Message::Unreachable(_)
            | Icmpv4Message::TimeExceeded(_)
            | Icmpv4Message::Other { .. } => self.input_icmp_error(transport, message),
        }
    }

    /// RFC 1122 §3.2.2.6: the answer carries all the request's data back; one to a broadcast
    /// address stays unanswered.
    fn answer_echo(&mut self, transport: Transport<'_>, id: u16, seq: u16) {
        let now = self.egress.now;
        let (src, dst) = (transport.header.dst, transport.header.src);
        let arrival = self.arrival(&transport);
        if !icmp::may_answer_echo(transport.header, arrival)
            || !self.egress.has_reply_room(transport.iface)
        {
            return;
        }
        if !self.egress.icmp_limits.allow_echo(now) {
            self.egress.counters.icmp_rate_limited += 1;
            return;
        }
        let payload: Vec<PacketSlice> = std::mem::take(transport.pieces);
        let message = Icmpv4Message::EchoReply { id, seq };
        // Answers that cannot be sent are counted by whoever could not.
        let _sent = self.egress.emit_datagram(Datagram::icmp(src, dst, &message, payload));
    }

    pub(super) fn port_unreachable(&mut self, transport: Transport<'_>) {
        self.send_error(transport, Icmpv4Message::Unreachable(Unreachable::Port));
    }

    pub(super) fn protocol_unreachable(&mut self, transport: Transport<'_>) {
        self.send_error(transport, Icmpv4Message::Unreachable(Unreachable::Protocol));
    }

    /// Reports an error about a packet, quoting its header and 8 bytes (RFC 792), where RFC 1122
    /// §3.2.2 and the rate limit allow it.
    fn send_error(&mut self, transport: Transport<'_>, message: Icmpv4Message) {
        let header = *transport.header;
        let first = transport.pieces.first().map_or(&[][..], |p| &p[..]);
        if !icmp::may_answer_with_error(&header, first, self.arrival(&transport)) {
            return;
        }
        if !self.egress.icmp_limits.allow_error(self.egress.now) {
            self.egress.counters.icmp_rate_limited += 1;
            return;
        }
        if !self.egress.has_reply_room(transport.iface) {
            return;
        }
        let Some(quote) = self.quote(&header, transport.pieces, transport.len) else { return };
        let datagram = Datagram::icmp(header.dst, header.src, &message, vec![quote]);
        let _sent = self.egress.emit_datagram(datagram);
    }

    fn arrival(&self, transport: &Transport<'_>) -> Arrival {
        let ip_broadcast = self.egress.owner_of(transport.header.dst).is_none();
        Arrival { link_group: transport.link_group, ip_broadcast }
    }

    /// The front of a packet, for an error message to quote.
    fn quote(
        &mut self,
        header: &Ipv4Header,
        pieces: &[PacketSlice],
        len: usize,
    ) -> Option<PacketSlice> {
        let Some(mut quote) = self.egress.pool.alloc() else {
            self.egress.counters.tx_no_buffer += 1;
            return None;
        };
        // Options are not kept, so the quoted header has none.
        let mut plain = *header;
        plain.total_len = (Ipv4Header::LEN + len) as u16;
        plain.emit(&mut quote);
        quote.truncate(icmp::quote_len(Ipv4Header::LEN + len));
        let copied = copy_front(pieces, &mut quote[Ipv4Header::LEN..]);
        quote.truncate(Ipv4Header::LEN + copied);
        Some(quote.freeze())
    }

    /// An error about a packet that this host sent, or is said to have sent.
    fn input_icmp_error(&mut self, mut transport: Transport<'_>, message: Icmpv4Message) {
        let mut quote = [0; 128];
        transport.advance(Icmpv4Message::LEN);
        let len = copy_front(transport.pieces, &mut quote);
        let Some(Report { kind, quoted }) = Report::of(&message, &quote[..len]) else {
            self.egress.counters.icmp_unmatched += 1;
            return;
        };
        let key = FlowKey {
            local: quoted.src,
            remote: quoted.dst,
            local_port: quoted.src_port,
            remote_port: quoted.dst_port,
        };
        let owner = match quoted.echo {
            Some((id, _)) => id % self.share.engines,
            None => self.owner(&key),
        };
        if owner != self.share.engine && self.forward_error(&transport, message, owner) {
            return;
        }
        let matched = match (quoted.protocol, quoted.tcp_seq) {
            (protocol::TCP, Some(seq)) => self.tcp_error(&key, seq, kind),
            (protocol::UDP, _) => self.udp_error(&key, kind),
            _ => false,
        };
        if !matched {
            self.egress.counters.icmp_unmatched += 1;
        }
    }

    /// The whole message goes on, so the header that was cut off is made again.
    fn forward_error(
        &mut self,
        transport: &Transport<'_>,
        message: Icmpv4Message,
        owner: u16,
    ) -> bool {
        let Some(mut cell) = self.egress.pool.alloc_cell() else { return true };
        message.emit(transport.pieces.iter().map(|p| &p[..]), &mut cell);
        cell.truncate(Icmpv4Message::LEN);
        let mut pieces = vec![cell.freeze()];
        pieces.extend(transport.pieces.iter().cloned());
        self.belongs_elsewhere(&transport.with(&mut pieces), owner)
    }

    fn tcp_error(&mut self, key: &FlowKey, seq: u32, kind: ReportKind) -> bool {
        let Some(Tag::Connection(index)) = self.flows.get(key) else { return false };
        let error = match kind {
            ReportKind::NetUnreachable => IcmpError::NetworkUnreachable,
            ReportKind::PortUnreachable => IcmpError::PortUnreachable,
            ReportKind::ProtocolUnreachable => IcmpError::ProtocolUnreachable,
            ReportKind::TooLarge { next_hop_mtu } => {
                IcmpError::FragmentationNeeded { mss: next_hop_mtu.saturating_sub(TCP_IP_LEN) }
            }
            ReportKind::HostUnreachable
            | ReportKind::TimeToLiveExceeded
            | ReportKind::ReassemblyTimeExceeded
            | ReportKind::ParameterProblem => IcmpError::HostUnreachable,
        };
        let now = self.egress.now;
        self.with_tcb(index, |tcb| ((), tcb.handle_icmp(now, error, seq)));
        true
    }

    /// A connected UDP socket learns of errors on its next call (RFC 1122 §4.1.3.3).
    fn udp_error(&mut self, key: &FlowKey, kind: ReportKind) -> bool {
        let (to, from) = ((key.local, key.local_port), (key.remote, key.remote_port));
        let Some(id) = self.find_datagram_socket(SocketKind::Udp, to, from) else { return false };
        let Some(Socket::Datagram(socket)) = self.get_mut(id) else { return false };
        if socket.peer.is_some() {
            socket.error = Some(kind.error());
            socket.front.forget();
            self.note_event(id);
        }
        true
    }

    /// Reassemblies that took too long are reported to the sender, if their first fragment came
    /// (RFC 1122 §3.3.2).
    #[inline(always)]
    pub(super) fn reassembly_timeouts(&mut self) {
        let now = self.egress.now;
        if self.reassembler.poll_at().is_some_and(|at| at <= now) {
            self.reassembly_timeouts_now(now);
        }
    }

    #[cold]
    fn reassembly_timeouts_now(&mut self, now: Instant) {
        let mut expired = Vec::new();
        self.reassembler.handle_timeout(now, &mut expired);
        self.egress.counters.reassembly_expired = self.reassembler.counters().timed_out;
        let message = Icmpv4Message::TimeExceeded(TimeExceeded::Reassembly);
        for Expired { header, payload } in expired {
            let Some(iface) = self.egress.owner_of(header.dst) else { continue };
            let mut pieces = vec![payload];
            let transport = Transport::quoting(iface, &header, &mut pieces);
            self.send_error(transport, message);
        }
    }

    /// Neighbours that nobody answered for: who waits for them is told.
    #[inline(always)]
    pub(super) fn neighbor_timeouts(&mut self) {
        let now = self.egress.now;
        if self.egress.any(|iface| iface.neighbors.is_due(now)) {
            self.neighbor_timeouts_now(now);
        }
    }

    #[inline(never)]
    fn neighbor_timeouts_now(&mut self, now: Instant) {
        for at in 0..self.egress.ifaces.len() {
            if !self.egress.ifaces[at].neighbors.is_due(now) {
                continue;
            }
            let mut failed = Vec::new();
            self.egress.ifaces[at].neighbors.handle_timeout(now, &mut failed);
            for (ip, parked) in failed {
                self.egress.counters.tx_no_neighbor += parked.len() as u64;
                if let IpAddr::V4(ip) = ip {
                    self.release_waiting(IfaceId(at as u16), ip);
                }
            }
        }
    }
}

/// Copies what fits of the pieces' bytes, and says how many that were.
fn copy_front(pieces: &[PacketSlice], out: &mut [u8]) -> usize {
    let mut at = 0;
    for piece in pieces {
        let take = piece.len().min(out.len() - at);
        out[at..at + take].copy_from_slice(&piece[..take]);
        at += take;
    }
    at
}
