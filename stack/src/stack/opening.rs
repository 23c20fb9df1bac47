//! The short way out of a SYN: its interface is known, and other connections went that way before.

use super::settle::follow_up_sent;
use super::{Socket, Stack};
use crate::interface::IfaceId;
use crate::socket::SocketId;

impl Stack {
    /// Sends the SYN of a connection that begins, if the way is paved and it is a usual one; otherwise
    /// does nothing and says false.
    #[inline]
    pub(super) fn transmit_syn(&mut self, index: u32, only: IfaceId) -> bool {
        let Some((generation, Socket::Connection(connection))) = self.sockets.entry_mut(index)
        else {
            return false;
        };
        let Some(tcb) = connection.tcb.whole_calm() else { return false };
        if !tcb.sends_usual_syn() {
            return false;
        }
        let (key, ttl, tos) = (connection.key, connection.ttl, connection.tos);
        let Some(hop) = self.egress.route_cached(key.remote, &mut connection.path) else {
            return false;
        };
        if hop.iface() != only || !self.egress.is_paved(hop, ttl, tos) {
            return false;
        }
        let header = tcb.poll_syn(self.egress.now);
        self.egress.emit_syn_again(only, &key, &header);
        connection.in_tx_list = false;
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        if follow_up_sent(list, wheel, pacing, SocketId { index, generation }, connection) {
            self.release(index);
        }
        true
    }
}
