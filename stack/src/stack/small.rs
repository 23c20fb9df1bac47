//! Small datagrams to a neighbour whose address is known: sent without a look at routes, sources
//! and slots.
//!
//! ```text
//!   send_to ─▶ the headers of the last one, if they fit ───────────▶ one cell ─▶ burst
//!                 └─▶ the socket's way to the destination ─▶ headers ──┘
//!                        └── unknown, long, or not so simple ──▶ the long way (`datagram`)
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use super::{Socket, Stack};
use crate::interface::{
    DATAGRAM_BACKLOG_FRAMES, Hop, INLINE_PAYLOAD_BYTES, IfaceId, Resolution, UdpPath,
};
use crate::socket::{SocketId, SocketKind};

impl Stack {
    /// Sends `data` where the last small datagram went, with its headers, if nothing has changed and
    /// nothing stands in its way; false, and nothing is done, otherwise.
    #[inline(always)]
    pub(super) fn send_again(&mut self, id: SocketId, data: &[u8], to: Option<SocketAddr>) -> bool {
        let Some(Socket::Datagram(socket)) = self.sockets.get_held_mut(id.index, id.generation)
        else {
            return false;
        };
        let to = match (to, socket.peer) {
            (Some(SocketAddr::V4(to)), _) => (*to.ip(), to.port()),
            (None, Some(peer)) => peer,
            (Some(SocketAddr::V6(_)), _) | (None, None) => return false,
        };
        let usual = !socket.write_closed
            && socket.error.is_none()
            && data.len() <= INLINE_PAYLOAD_BYTES.min(socket.send_limit_bytes as usize);
        let Some(iface) = socket.front.iface(to, socket.dont_fragment) else { return false };
        let iface = IfaceId(iface);
        match self.egress.front_key(iface, socket.ttl, socket.tos) {
            Some((key, offload)) if usual && socket.front.is_for(&key) => {
                self.egress.emit_datagram_again(iface, &socket.front, offload, data)
            }
            Some(_) | None => false,
        }
    }

    /// Sends `data` if it is small and nothing stands in its way; false if it is the long way's.
    /// The socket may be sent from, and the destination is no port 0.
    pub(super) fn send_small(
        &mut self,
        id: SocketId,
        (dst, dst_port): (Ipv4Addr, u16),
        data: &[u8],
    ) -> bool {
        let Some(Socket::Datagram(socket)) = self.sockets.get_held_mut(id.index, id.generation)
        else {
            return false;
        };
        let (Some(bound), SocketKind::Udp) = (&socket.bound, socket.kind) else { return false };
        let way = &mut socket.way;
        if data.len() > INLINE_PAYLOAD_BYTES || !self.egress.find_way(dst, way) {
            return false;
        }
        let Some(hop @ Hop::Link { .. }) = self.egress.route_cached(dst, &mut way.path) else {
            return false;
        };
        let Resolution::Ready(mac) = self.egress.resolve_at(hop, &mut way.path.neighbor) else {
            return false;
        };
        let path = UdpPath {
            src: self.egress.source_bound(bound.addr).unwrap_or(way.source),
            src_port: bound.lease.port(),
            dst,
            dst_port,
            ttl: socket.ttl,
            tos: socket.tos,
            dont_fragment: socket.dont_fragment,
        };
        let Some(iface) = self.egress.iface(hop.iface()) else { return false };
        let room = iface.burst.len() < DATAGRAM_BACKLOG_FRAMES;
        if !room || !iface.takes_whole(UdpPath::HEADERS_LEN + data.len()) {
            return false;
        }
        self.egress.emit_small_udp(hop.iface(), mac, &path, data);
        self.egress.counters.udp_datagrams_sent += 1;
        if let Some(common) = self.egress.datagram_common(hop.iface(), mac, &path)
            && let Some((key, _)) = self.egress.front_key(hop.iface(), socket.ttl, socket.tos)
        {
            socket.front.make(key, &common, path.dont_fragment);
        }
        true
    }
}
