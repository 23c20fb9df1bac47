//! SYNs and SYN-ACKs on the way that the last connections took: no look at routes and neighbours.
//!
//! ```text
//!   cell   link │ IPv4 ·· length, sum, addresses │ TCP with the four usual options
//!          └── of the pattern ──┘
//! ```
//!
//! As long as the [pattern](Pattern) of an interface is the one that would be made now, what a lookup
//! would find is what it was made of.

use barewire_driver::TxFrame;
use barewire_driver::device::{Features, TxChecksum};

use super::{Egress, Hop, IfaceId, REPLY_BACKLOG_FRAMES};
use crate::hint::{rarely, usually};
use crate::socket::demux::FlowKey;
use crate::wire::front::{FrontKey, Pattern, SYN_FRAME_LEN, WayState};
use crate::wire::tcp::TcpHeader;

impl Egress {
    /// True if SYNs for `hop` may leave by [`Egress::emit_syn_again`].
    #[inline]
    pub(crate) fn is_paved(&self, hop: Hop, ttl: u8, tos: u8) -> bool {
        let Hop::Link { iface, next_hop } = hop else { return false };
        let Some(interface) = self.iface(iface) else { return false };
        let (routing, neighbors) = (self.routing_changes, interface.neighbors.changes());
        let key = FrontKey::new(WayState { routing, neighbors, iface: iface.0 }, ttl, tos);
        // Those with timestamps are what usual SYNs ask for.
        interface.pattern.is_for(&key, next_hop, true)
    }

    /// Sends a SYN-ACK of a half-open connection, with this TTL and TOS, if its way is
    /// [paved](Egress::is_paved), there is room for it, and its options are usual; otherwise does
    /// nothing and says false.
    #[inline]
    pub(super) fn answer_syn(
        &mut self,
        flow: &FlowKey,
        header: &TcpHeader,
        (ttl, tos): (u8, u8),
    ) -> bool {
        let Some(hop) = self.hop_recent(flow.remote) else { return false };
        let room = self.iface(hop.iface()).is_some_and(|i| i.burst.len() < REPLY_BACKLOG_FRAMES);
        let usual = room && header.is_usual_syn() && self.is_paved(hop, ttl, tos);
        if usual {
            self.emit_syn_again(hop.iface(), flow, header);
        }
        usual
    }

    /// Sends a SYN with the usual options by the interface's pattern. If there is no cell for it, it is
    /// lost as on a wire, and counted.
    pub(crate) fn emit_syn_again(&mut self, id: IfaceId, flow: &FlowKey, header: &TcpHeader) {
        let Some(mut cell) = usually(self.header_cell()) else { return };
        let Some(interface) = usually(self.iface_mut(id)) else { return };
        let offload = interface.config.features.contains(Features::TX_CHECKSUM);
        let (ends, ports) = ((flow.local, flow.remote), (flow.local_port, flow.remote_port));
        let Some(frame) = usually(cell.first_chunk_mut()) else { return };
        let written = interface.pattern.write_syn(frame, ends, ports, header, offload);
        debug_assert!(written, "whoever calls has looked at the options");
        if rarely(!written) {
            return;
        }
        cell.truncate(SYN_FRAME_LEN);
        let checksum = if offload { Pattern::PARTIAL_SUM } else { TxChecksum::Complete };
        let header_len = SYN_FRAME_LEN as u16;
        let meta = TxFrame { checksum, header_len, ..TxFrame::default() };
        interface.burst.push_single(cell.freeze(), meta);
        self.counters.tcp_segments_sent += 1;
        self.counters.tx_packets += 1;
    }
}
