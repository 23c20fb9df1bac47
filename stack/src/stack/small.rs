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
use crate::interface::{DATAGRAM_BACKLOG_FRAMES, Hop, INLINE_PAYLOAD_BYTES, Resolution, UdpPath};
use crate::socket::{SocketId, SocketKind};

impl Stack {
    /// Sends `data` where the last small datagram went, with its headers, if nothing has changed and
    /// nothing stands in its way; false, and nothing is done, otherwise.
    #[inline(always)]
    pub(super) fn send_again(&mut self, id: SocketId, data: &[u8], to: Option<SocketAddr>) -> bool {
        let Some(Socket::Datagram(socket)) = self.sockets.get_held(id.index, id.generation) else {
            return false;
        };
        let to = match (to, socket.peer) {
            (Some(SocketAddr::V4(to)), _) => (*to.ip(), to.port()),
            (None, Some(peer)) => peer,
            (Some(SocketAddr::V6(_)), _) | (None, None) => return false,
        };
        // Without an error, or a direction that is closed, or too little room: headers are kept only
        // as long as nothing is in the way.
        match socket.front.made_for(to) {
            Some(state) if data.len() <= INLINE_PAYLOAD_BYTES => {
                self.egress.emit_datagram_again(state, &socket.front, data)
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
            && let Some((state, ..)) = self.egress.way_state(hop.iface())
        {
            socket.front.make(state, &common, path.dont_fragment);
        }
        true
    }
}
