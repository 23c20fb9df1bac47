//! What follows every change of a connection: send, arm the timer, tell the application, let go.

use super::{Socket, Stack};
use crate::error::SocketError;
use crate::interface::{Hop, IfaceId, Resolution, TcpPath};
use crate::socket::SocketId;
use crate::socket::conn::{Connection, Holder};
use crate::socket::demux::Tag;
use crate::socket::listener::TimeWaitEntry;
use crate::tcp::{Outcome, Readiness, Tcb, TxLimits};

impl Stack {
    /// Brings everything around a connection in line with its `Tcb`, after whatever was done to it
    /// with this outcome. Afterwards the entry may be gone.
    pub(super) fn settle(&mut self, index: u32, outcome: Outcome) {
        match outcome {
            Outcome::Continue => {}
            Outcome::Reset(header) => {
                if let Some(key) = self.connection(index).map(|c| c.key) {
                    self.egress.counters.tcp_resets_sent += 1;
                    self.egress.emit_control(key, header);
                }
            }
            Outcome::Closed => self.unlink(index),
            Outcome::TimeWait => {}
        }
        if self.release_if_over(index) {
            return;
        }
        self.queue_transmit(index);
        self.arm(index);
        self.note_growth(index);
    }

    /// Applies `f` to the `Tcb` of a connection and settles what follows.
    pub(super) fn with_tcb<R>(
        &mut self,
        index: u32,
        f: impl FnOnce(&mut Tcb) -> (R, Outcome),
    ) -> Option<R> {
        let connection = self.connection_mut(index)?;
        let (result, outcome) = f(&mut connection.tcb);
        self.settle(index, outcome);
        Some(result)
    }

    /// Puts the connection in the list of those that want to send, once.
    fn queue_transmit(&mut self, index: u32) {
        let Some(connection) = self.connection_mut(index) else { return };
        if connection.tcb.wants_transmit() && !connection.in_tx_list {
            connection.in_tx_list = true;
            self.tx_list.push_back(index);
        }
    }

    /// Makes sure that the wheel fires no later than the `Tcb` needs it.
    fn arm(&mut self, index: u32) {
        let Some(connection) = self.connection(index) else { return };
        let Some(at) = connection.tcb.poll_at() else { return };
        let Some(old) = connection.timer.needs(at) else { return };
        if let Some(key) = old {
            self.wheel.cancel(key);
        }
        let key = self.wheel.insert(at, Tag::Connection(index).to_bits());
        if let Some(connection) = self.connection_mut(index) {
            connection.timer.set(key, at);
        }
    }

    /// Notes an event if the connection's readiness has grown.
    fn note_growth(&mut self, index: u32) {
        let Some(connection) = self.connection_mut(index) else { return };
        let ready = connection.tcb.readiness();
        let grown = !(ready - connection.told).is_empty();
        // What is gone may come again, and is then news.
        connection.told &= ready;
        if grown && connection.holder == Holder::Application {
            let id = self.id_of(index);
            self.note_event(id);
        }
    }

    /// Puts the socket in the list of events, once.
    pub(super) fn note_event(&mut self, id: SocketId) {
        let listed = match self.get_mut(id) {
            Some(Socket::Connection(connection)) => &mut connection.in_event_list,
            Some(Socket::Listener(listener)) => &mut listener.in_event_list,
            Some(Socket::Datagram(socket)) => &mut socket.in_event_list,
            Some(Socket::Fresh(_)) | None => return,
        };
        if !std::mem::replace(listed, true) {
            self.events.push_back(id);
        }
    }

    /// Takes the socket out of the list of events; gives its readiness if it still exists.
    pub(super) fn tell(&mut self, id: SocketId) -> Option<Readiness> {
        match self.get_mut(id)? {
            Socket::Connection(connection) => {
                connection.in_event_list = false;
                connection.told = connection.tcb.readiness();
                Some(connection.told)
            }
            Socket::Listener(listener) => {
                listener.in_event_list = false;
                (!listener.accept_queue.is_empty()).then_some(Readiness::READABLE)
            }
            Socket::Datagram(socket) => {
                socket.in_event_list = false;
                socket.told = socket.readiness();
                Some(socket.told)
            }
            Socket::Fresh(_) => None,
        }
    }

    /// Takes the flow of a connection that is in CLOSED out of the table and gives its port back.
    fn unlink(&mut self, index: u32) {
        let Some(connection) = self.connection_mut(index) else { return };
        if !std::mem::replace(&mut connection.linked, false) {
            return;
        }
        let key = connection.key;
        self.flows.remove(&key, Tag::Connection(index));
        self.share.ports.close_connection(key.local_port);
    }

    /// Frees the entry if nobody holds it and its connection is over: CLOSED with nothing left to
    /// send, or TIME-WAIT, which goes on in a smaller entry.
    fn release_if_over(&mut self, index: u32) -> bool {
        let Some(connection) = self.connection(index) else { return true };
        if connection.holder != Holder::Nobody || connection.tcb.wants_transmit() {
            return false;
        }
        if !connection.linked {
            self.free_connection(index);
            return true;
        }
        let Some(state) = connection.tcb.time_wait() else { return false };
        let key = connection.key;
        let entry = TimeWaitEntry { key, state, timer: Default::default() };
        match self.time_wait.insert(entry) {
            Ok((at, _)) => {
                self.flows.set(key, Tag::TimeWait(at));
                self.arm_time_wait(at);
                if let Some(connection) = self.connection_mut(index) {
                    // The flow and its port belong to the new entry now.
                    connection.linked = false;
                }
            }
            Err(_) => {
                self.egress.counters.time_wait_full += 1;
                self.unlink(index);
            }
        }
        self.free_connection(index);
        true
    }

    fn free_connection(&mut self, index: u32) {
        let Some(Socket::Connection(mut connection)) = self.sockets.remove(index) else { return };
        if let Some(key) = connection.timer.take() {
            self.wheel.cancel(key);
        }
        // Its index may still stand in `tx_list` or among those that wait for a neighbour: whoever
        // has it by then is looked at once more than needed.
        self.orphans -= 1;
    }

    /// Hands a connection over to the background: its application, or its listener, has let go.
    pub(super) fn orphan(&mut self, index: u32) {
        let Some(connection) = self.connection_mut(index) else { return };
        if connection.holder == Holder::Nobody {
            return;
        }
        connection.holder = Holder::Nobody;
        self.orphans += 1;
        let now = self.egress.now;
        let too_many = self.orphans > self.limits.orphans;
        if too_many {
            self.egress.counters.orphans_aborted += 1;
        }
        self.with_tcb(index, |tcb| ((), if too_many { tcb.abort() } else { tcb.close(now) }));
    }

    pub(super) fn connection_timeout(&mut self, index: u32) {
        let now = self.egress.now;
        if let Some(connection) = self.connection_mut(index) {
            let _fired = connection.timer.take();
            self.with_tcb(index, |tcb| ((), tcb.handle_timeout(now)));
        }
    }

    fn arm_time_wait(&mut self, index: u32) {
        let Some(entry) = self.time_wait.get(index) else { return };
        let at = entry.state.deadline(self.egress.now);
        let Some(old) = entry.timer.needs(at) else { return };
        if let Some(key) = old {
            self.wheel.cancel(key);
        }
        let key = self.wheel.insert(at, Tag::TimeWait(index).to_bits());
        if let Some(entry) = self.time_wait.get_mut(index) {
            entry.timer.set(key, at);
        }
    }

    pub(super) fn time_wait_timeout(&mut self, index: u32) {
        let now = self.egress.now;
        let Some(entry) = self.time_wait.get_mut(index) else { return };
        let _fired = entry.timer.take();
        if entry.state.deadline(now) <= now {
            self.end_time_wait(index);
        } else {
            self.arm_time_wait(index);
        }
    }

    pub(super) fn end_time_wait(&mut self, index: u32) {
        let Some(mut entry) = self.time_wait.remove(index) else { return };
        if let Some(key) = entry.timer.take() {
            self.wheel.cancel(key);
        }
        self.flows.remove(&entry.key, Tag::TimeWait(index));
        self.share.ports.close_connection(entry.key.local_port);
    }

    /// Gives one connection its turn to send through `only`. True if the turn was used up, false
    /// if it belongs to another interface and was kept.
    pub(super) fn transmit_one(&mut self, index: u32, only: IfaceId) -> bool {
        let Some(connection) = self.connection(index) else { return true };
        let (key, ttl, tos) = (connection.key, connection.ttl, connection.tos);
        let Some(hop) = self.egress.route(key.remote) else {
            return self.transmit_nowhere(index);
        };
        if hop.iface() != only {
            self.tx_list.push_back(index);
            return false;
        }
        let mac = match (hop, self.egress.resolve(hop)) {
            (Hop::Local { .. }, _) => None,
            (_, Resolution::Ready(mac)) => Some(mac),
            (Hop::Link { iface, next_hop }, Resolution::Pending) => {
                // It stays "in the list", so that it is queued in one place only.
                self.egress.waiting.entry((iface, next_hop)).or_default().push(index);
                return true;
            }
            (_, Resolution::Pending | Resolution::Failed) => return self.transmit_nowhere(index),
        };
        let path = TcpPath { key, ttl, tos, hop, mac };
        self.transmit_segment(index, &path);
        true
    }

    /// There is no way to the peer now. A connection that is being opened fails; what an
    /// established one sends is lost as on a wire, and its timers decide how long it goes on
    /// (RFC 1122 §4.2.3.9).
    fn transmit_nowhere(&mut self, index: u32) -> bool {
        let limits = TxLimits { max_bytes: u32::MAX, max_pieces: u16::MAX };
        let now = self.egress.now;
        self.leave_tx_list(index);
        let lost = self.with_tcb(index, |tcb| {
            if tcb.state().is_opening() {
                return (0, tcb.fail(SocketError::HostUnreachable));
            }
            let mut pieces = Vec::new();
            let lost = tcb.poll_transmit(now, &limits, &mut pieces).is_some();
            (u64::from(lost), Outcome::Continue)
        });
        self.egress.counters.tx_no_neighbor += lost.unwrap_or(0);
        true
    }

    fn transmit_segment(&mut self, index: u32, path: &TcpPath) {
        let (now, limits) = (self.egress.now, self.egress.tcp_limits(path.hop));
        let mut pieces = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connection_mut(index) {
            let segment = connection.tcb.poll_transmit(now, &limits, &mut pieces);
            if let Some(segment) = segment {
                self.egress.emit_tcp(path, &segment, &mut pieces);
            }
        }
        pieces.clear();
        self.scratch = pieces;
        self.leave_tx_list(index);
        self.settle(index, Outcome::Continue);
    }

    fn leave_tx_list(&mut self, index: u32) -> bool {
        if let Some(Connection { in_tx_list, .. }) = self.connection_mut(index) {
            *in_tx_list = false;
        }
        true
    }

    /// Connections that waited for a neighbour get their turn again: it has answered, or it never
    /// will, which they find out then.
    pub(super) fn release_waiting(&mut self, iface: IfaceId, neighbor: std::net::Ipv4Addr) {
        if let Some(indices) = self.egress.waiting.remove(&(iface, neighbor)) {
            self.tx_list.extend(indices);
        }
    }
}
