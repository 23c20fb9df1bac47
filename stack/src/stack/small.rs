//! Small datagrams to a neighbour whose address is known: sent without a look at routes, sources
//! and slots.
//!
//! ```text
//!   send_to ─▶ the socket's way to the destination ─▶ one cell ─▶ burst
//!                 └── unknown, long, or not so simple ──▶ the long way (`datagram`)
//! ```

use std::net::Ipv4Addr;

use super::{Socket, Stack};
use crate::interface::{DATAGRAM_BACKLOG_FRAMES, Hop, INLINE_PAYLOAD_BYTES, Resolution, UdpPath};
use crate::socket::{SocketId, SocketKind};

impl Stack {
    /// Sends `data` if it is small and nothing stands in its way; false if it is the long way's.
    /// The socket may be sent from, and the destination is no port 0.
    #[inline]
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
            src: bound.addr.unwrap_or(way.source),
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
        true
    }
}
