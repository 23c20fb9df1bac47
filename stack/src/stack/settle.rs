//! What follows every change of a connection: send, arm the timer, tell the application, let go.

use std::hint::cold_path;

use super::pacing::PacingQueue;
use super::{Socket, Stack};
use crate::error::SocketError;
use crate::hint::{rarely, usually};
use crate::interface::{Hop, INLINE_PAYLOAD_BYTES, IfaceId, Resolution, TcpPath};
use crate::socket::SocketId;
use crate::socket::block::Block;
use crate::socket::conn::{Connection, Holder, LazyTimer};
use crate::socket::demux::{FlowKey, Tag};
use crate::socket::line::Line;
use crate::socket::listener::TimeWaitEntry;
use crate::socket::udp::DatagramSocket;
use crate::tcp::{Cut, Outcome, Readiness, State, Tcb, TimeWait, TxLimits};
use crate::timer::Wheel;
use crate::wire::front::FrontKey;
use crate::wire::ipv4::Ecn;
use crate::wire::tcp::TcpHeader;

impl Stack {
    /// Brings everything around a connection in line with its `Tcb`, after whatever was done to it
    /// with this outcome. Afterwards the entry may be gone.
    #[inline]
    pub(super) fn settle(&mut self, index: u32, outcome: Outcome) {
        match outcome {
            Outcome::Continue | Outcome::TimeWait => {}
            Outcome::Reset(header) => self.refuse_segment(index, header),
            Outcome::Closed => {
                cold_path();
                self.unlink(index);
            }
        }
        self.follow_up(index);
    }

    #[cold]
    fn refuse_segment(&mut self, index: u32, header: TcpHeader) {
        if let Some(key) = self.connection(index).map(|c| c.key) {
            self.send_reset(key, header);
        }
    }

    pub(super) fn follow_up(&mut self, index: u32) {
        let Some((generation, Socket::Connection(connection))) = self.sockets.entry_mut(index)
        else {
            cold_path();
            return;
        };
        let id = SocketId { index, generation };
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        match connection.holder {
            Holder::Nobody => {
                if follow_up_orphan(list, wheel, pacing, id, connection) {
                    self.release(index);
                }
            }
            Holder::Listener(_) => {
                // Whoever accepts it is told then.
                schedule(list, wheel, index, connection);
                pace(pacing, id, connection);
            }
            Holder::Application => {
                if follow_up_held(list, wheel, pacing, &mut self.events, id, connection) {
                    self.release_held_back(index);
                }
            }
        }
    }

    /// The same after a call of the application that cannot make the socket readier or end its
    /// connection: nobody needs to be told.
    #[inline(always)]
    pub(super) fn follow_up_call(
        list: &mut Line<u32>,
        wheel: &mut Wheel,
        index: u32,
        connection: &mut Connection,
    ) {
        let tcb = connection.tcb.wake_calm();
        connection.told &= tcb.readiness();
        // Whether anything may leave is found out once, when it is its turn.
        if !connection.in_tx_list && tcb.may_want_transmit() {
            connection.in_tx_list = true;
            list.push_back(index);
        }
        // A call that woke the connection brought its deadlines back, the next rest's among them.
        let (at, token) = (tcb.quiet_until(), Tag::Connection(index).to_bits());
        connection.timer.arm(wheel, at, token);
    }

    /// Applies `f` to the `Tcb` of a connection and settles what follows.
    #[inline]
    pub(super) fn with_tcb<R>(
        &mut self,
        index: u32,
        f: impl FnOnce(&mut Tcb) -> (R, Outcome),
    ) -> Option<R> {
        let connection = self.connection_mut(index)?;
        let (result, outcome) = f(connection.tcb.wake());
        self.settle(index, outcome);
        Some(result)
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

    /// As [`Stack::tell`], of a datagram socket, or a connection on which nothing unusual goes on.
    #[inline(always)]
    pub(super) fn tell_calm(&mut self, id: SocketId) -> Option<Readiness> {
        // One after the other: to tell all kinds apart at once takes longer.
        let entry = self.sockets.get_held_mut(id.index, id.generation)?;
        if let Socket::Connection(connection) = entry {
            let ready = connection.tcb.whole_calm()?.calm_readiness()?;
            connection.in_event_list = false;
            connection.told = ready;
            return Some(ready);
        }
        let Socket::Datagram(socket) = entry else { return None };
        let socket: &mut DatagramSocket = socket;
        socket.in_event_list = false;
        Some(socket.readiness())
    }

    /// Takes the socket out of the list of events; gives its readiness if it still exists.
    #[inline]
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
            Socket::Datagram(_) => self.tell_calm(id),
            Socket::Fresh(_) => None,
        }
    }

    /// Takes the flow of a connection that is in CLOSED out of the table and gives its port back.
    fn unlink(&mut self, index: u32) {
        let Some(connection) = self.connection_mut(index) else { return };
        if rarely(!std::mem::replace(&mut connection.linked, false)) {
            return;
        }
        let key = connection.key;
        self.flows.remove(&key, Tag::Connection(index));
        self.share.close_connection(key.local_port);
    }

    /// Frees the entry of a connection that is over and that nobody holds.
    #[inline(never)]
    pub(super) fn release(&mut self, index: u32) {
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            cold_path();
            return;
        };
        if connection.linked
            && let Some(state) = connection.tcb.whole().and_then(|tcb| tcb.time_wait())
        {
            let (key, timer) = (connection.key, std::mem::take(&mut connection.timer));
            self.begin_time_wait(index, key, state, timer);
        } else {
            connection.timer.cancel(&mut self.wheel);
        }
        self.free_connection(index);
    }

    /// Makes an entry of a connection that enters TIME-WAIT, which takes over its flow, its port and
    /// its timer.
    #[inline(always)]
    fn begin_time_wait(&mut self, index: u32, key: FlowKey, state: TimeWait, mut timer: LazyTimer) {
        let at = state.deadline(self.egress.now);
        let flow = self.flows.hashed(&key);
        let Some((place, _)) = self.time_wait.insert_with(|| TimeWaitEntry {
            flow,
            state,
            timer: LazyTimer::default(),
        }) else {
            cold_path();
            self.egress.counters.time_wait_full += 1;
            timer.cancel(&mut self.wheel);
            return self.unlink(index);
        };
        let tag = Tag::TimeWait(place);
        self.flows.set_hashed(flow, tag);
        let timer = timer.handed_over(&mut self.wheel, at, tag.to_bits());
        if let Some(entry) = self.time_wait.get_mut(place) {
            entry.timer = timer;
        }
    }

    fn free_connection(&mut self, index: u32) {
        let block = self.sockets.remove_with(index, |socket| match socket {
            Socket::Connection(Connection { tcb: Block::Whole(tcb), .. }) => Some(tcb),
            Socket::Connection(_)
            | Socket::Fresh(_)
            | Socket::Listener(_)
            | Socket::Datagram(_) => None,
        });
        if let Some(Some(tcb)) = block {
            self.blocks.put_back(tcb);
        }
        // Its index may still stand in `tx_list` or among those that wait for a neighbour: whoever
        // has it by then is looked at once more than needed.
        self.orphans -= 1;
    }

    /// Hands a connection over to the background: its application has let go.
    #[inline(always)]
    pub(super) fn orphan(&mut self, index: u32) {
        // The generation moves on with the handle, not with the connection's end. What waits under
        // the old one will not find the connection any more.
        let Some((generation, Socket::Connection(connection))) = self.sockets.renew(index) else {
            cold_path();
            return;
        };
        connection.in_pacing = false;
        if rarely(connection.holder == Holder::Nobody) {
            return;
        }
        connection.holder = Holder::Nobody;
        self.orphans += 1;
        let tcb = connection.tcb.wake();
        let outcome = if self.orphans > self.limits.orphans {
            cold_path();
            self.egress.counters.orphans_aborted += 1;
            tcb.abort()
        } else {
            tcb.close(self.egress.now)
        };
        if rarely(outcome != Outcome::Continue) {
            return self.settle(index, outcome);
        }
        // It goes on: there is something to send, or to wait for.
        schedule(&mut self.tx_list, &mut self.wheel, index, connection);
        pace(&mut self.pacing, SocketId { index, generation }, connection);
    }

    pub(super) fn connection_timeout(&mut self, index: u32) {
        let now = self.egress.now;
        if let Some(connection) = self.connection_mut(index) {
            connection.timer.fired();
            self.with_tcb(index, |tcb| ((), tcb.handle_timeout(now)));
        }
        if let Some(connection) = self.connection_mut(index) {
            connection.rest(now);
        }
    }

    fn arm_time_wait(&mut self, index: u32) {
        if let Some(entry) = self.time_wait.get_mut(index) {
            let (at, token) = (entry.state.deadline(self.egress.now), Tag::TimeWait(index));
            entry.timer.arm(&mut self.wheel, at, token.to_bits());
        }
    }

    pub(super) fn time_wait_timeout(&mut self, index: u32) {
        let now = self.egress.now;
        let Some(entry) = self.time_wait.get_mut(index) else { return };
        entry.timer.fired();
        if entry.state.deadline(now) <= now {
            self.end_time_wait(index);
        } else {
            self.arm_time_wait(index);
        }
    }

    pub(super) fn end_time_wait(&mut self, index: u32) {
        let told = |entry: &TimeWaitEntry| (entry.flow, entry.timer);
        let Some((flow, mut timer)) = self.time_wait.discard(index, told) else { return };
        timer.cancel(&mut self.wheel);
        self.flows.remove_hashed(&flow, Tag::TimeWait(index));
        self.share.close_connection(flow.key().local_port);
    }

    /// Sends the small message of a connection on which nothing unusual goes on, or an ACK or FIN
    /// alone, if that is all that it has to send and its way is known; otherwise does nothing and
    /// says false.
    #[inline(always)]
    pub(super) fn transmit_small(&mut self, index: u32, only: IfaceId) -> bool {
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            cold_path();
            return false;
        };
        let Some(tcb) = usually(connection.tcb.whole_calm()) else { return false };
        let now = self.egress.now;
        let way = usually(self.egress.way_state(only));
        let Some((state, offload, burst)) = way else { return false };
        if !tcb.front.is_current(&state) {
            return self.transmit_small_anew(index, only);
        }
        if !tcb.send_small(now, offload, burst) {
            return self.transmit_bare(index, only, offload);
        }
        self.egress.counters.tcp_segments_sent += 1;
        self.egress.counters.tx_packets += 1;
        connection.in_tx_list = false;
        let token = Tag::Connection(index).to_bits();
        connection.timer.arm(&mut self.wheel, tcb.quiet_until(), token);
        true
    }

    /// The same, with headers that are to be made first.
    #[inline(never)]
    fn transmit_small_anew(&mut self, index: u32, only: IfaceId) -> bool {
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            return false;
        };
        let Some(tcb) = connection.tcb.whole_calm() else { return false };
        let Some(stamped) = tcb.is_stamped() else { return false };
        let Some((state, ..)) = self.egress.way_state(only) else { return false };
        let (path, flow) = (&connection.path, &connection.key);
        let key = FrontKey::new(state, connection.ttl, connection.tos);
        self.egress.make_front(&mut tcb.front, key, path, flow, stamped)
            && self.transmit_small(index, only)
    }

    /// Sends an ACK or FIN alone with the headers that the connection keeps, which are those for
    /// `only`. False, and nothing is done, if it has to send anything else.
    #[inline(never)]
    fn transmit_bare(&mut self, index: u32, only: IfaceId, offload: bool) -> bool {
        let Some((generation, Socket::Connection(connection))) = self.sockets.entry_mut(index)
        else {
            cold_path();
            return false;
        };
        let Some(tcb) = usually(connection.tcb.whole_calm()) else { return false };
        let Some(header) = tcb.poll_control(self.egress.now) else { return false };
        self.egress.push_bare(only, &tcb.front, &header, offload);
        connection.in_tx_list = false;
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        if follow_up_sent(list, wheel, pacing, SocketId { index, generation }, connection) {
            self.release(index);
        }
        true
    }

    /// Gives one connection its turn to send through `only`. True if the turn was used up, false
    /// if it belongs to another interface and was kept.
    #[inline(never)]
    pub(super) fn transmit_one(&mut self, index: u32, only: IfaceId) -> bool {
        if self.transmit_syn(index, only) {
            return true;
        }
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            cold_path();
            return true;
        };
        let (key, ttl, tos) = (connection.key, connection.ttl, connection.tos);
        let Some(hop) = self.egress.route_cached(key.remote, &mut connection.path) else {
            cold_path();
            return self.transmit_nowhere(index);
        };
        if hop.iface() != only {
            self.tx_list.push_back(index);
            return false;
        }
        let place = connection.path.neighbor;
        let resolution = self.egress.resolve_at(hop, &mut connection.path.neighbor);
        if rarely(connection.path.neighbor != place) {
            self.egress.note_place(key.remote, connection.path.neighbor);
        }
        let mac = match (hop, resolution) {
            (Hop::Local { .. }, _) => None,
            (_, Resolution::Ready(mac)) => Some(mac),
            (Hop::Link { iface, next_hop }, Resolution::Pending) => {
                self.egress.wait_for_neighbor((iface, next_hop), index);
                return true;
            }
            (_, Resolution::Pending | Resolution::Failed) => {
                cold_path();
                return self.transmit_nowhere(index);
            }
        };
        let path = TcpPath { key, ttl, tos: Ecn::NotEct.in_tos(tos), hop, mac };
        self.transmit_segment(index, &path);
        true
    }

    /// There is no way to the peer now. A connection that is being opened fails; what an
    /// established one sends is lost as on a wire, and its timers decide how long it goes on
    /// (RFC 1122 §4.2.3.9).
    #[cold]
    fn transmit_nowhere(&mut self, index: u32) -> bool {
        let limits = TxLimits { max_bytes: u32::MAX, max_pieces: u16::MAX, cut: Cut::Device };
        let now = self.egress.now;
        self.leave_tx_list(index);
        let lost = self.with_tcb(index, |tcb| {
            if tcb.is_connecting() {
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
        let now = self.egress.now;
        let Some((generation, Socket::Connection(connection))) = self.sockets.entry_mut(index)
        else {
            cold_path();
            return;
        };
        connection.in_tx_list = false;
        let tcb = connection.tcb.wake_calm();
        if let Some(mac) = path.mac
            && let Some((header, payload)) = tcb.poll_expected(now, INLINE_PAYLOAD_BYTES)
        {
            self.egress.emit_small_tcp(path, mac, header, payload);
        } else {
            let alone = self.tx_list.is_empty();
            let limits = self.egress.tcp_limits(path.hop, alone, tcb.mss());
            let pieces = &mut self.scratch;
            if let Some(segment) = tcb.poll_transmit(now, &limits, pieces) {
                self.egress.emit_tcp(path, &segment, pieces);
            }
            pieces.clear();
        }
        let (list, wheel, pacing) = (&mut self.tx_list, &mut self.wheel, &mut self.pacing);
        if follow_up_sent(list, wheel, pacing, SocketId { index, generation }, connection) {
            self.release(index);
        }
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

/// What follows a change of a connection that somebody holds. True if a writer may be waiting for
/// memory that the connection has let go of.
#[inline(always)]
pub(super) fn follow_up_held(
    list: &mut Line<u32>,
    wheel: &mut Wheel,
    pacing: &mut PacingQueue,
    events: &mut Line<SocketId>,
    id: SocketId,
    connection: &mut Connection,
) -> bool {
    let Connection { tcb, timer, told, in_tx_list, in_pacing, .. } = connection;
    // Looked at once: what has just happened to it has woken it.
    let ready = match tcb {
        Block::Whole(tcb) => {
            schedule_whole(list, wheel, id.index, tcb, timer, in_tx_list);
            pace_whole(pacing, id, tcb, in_pacing);
            tcb.readiness()
        }
        Block::AtRest(_) => tcb.readiness(),
    };
    if ready != *told {
        let grown = !(ready - *told).is_empty();
        // What is gone may come again, and is then news.
        *told &= ready;
        if grown && connection.holder == Holder::Application && !connection.in_event_list {
            connection.in_event_list = true;
            events.push_back(id);
        }
    }
    connection.held_back
}

/// What follows when a connection has sent something. True if it is over, and to be released:
/// sending makes nobody readier, but an orphan may have sent its last.
#[inline(always)]
pub(super) fn follow_up_sent(
    list: &mut Line<u32>,
    wheel: &mut Wheel,
    pacing: &mut PacingQueue,
    id: SocketId,
    connection: &mut Connection,
) -> bool {
    if connection.holder == Holder::Nobody {
        return follow_up_orphan(list, wheel, pacing, id, connection);
    }
    schedule(list, wheel, id.index, connection);
    pace(pacing, id, connection);
    false
}

/// What follows a change of a connection that there is nobody to tell of. True if it is over, and to
/// be released. That is CLOSED with nothing left to send, or TIME-WAIT, which goes on in a smaller
/// entry.
#[inline(always)]
fn follow_up_orphan(
    list: &mut Line<u32>,
    wheel: &mut Wheel,
    pacing: &mut PacingQueue,
    id: SocketId,
    connection: &mut Connection,
) -> bool {
    let Connection { tcb: Block::Whole(tcb), timer, linked, in_tx_list, in_pacing, .. } =
        connection
    else {
        return false;
    };
    if (!*linked || tcb.state() == State::TimeWait) && !tcb.wants_transmit() {
        return true;
    }
    schedule_whole(list, wheel, id.index, tcb, timer, in_tx_list);
    pace_whole(pacing, id, tcb, in_pacing);
    false
}

/// Queues the connection if it wants to send, and makes sure that the wheel fires no later than it
/// needs.
#[inline(always)]
fn schedule(list: &mut Line<u32>, wheel: &mut Wheel, index: u32, connection: &mut Connection) {
    let Connection { tcb: Block::Whole(tcb), timer, in_tx_list, .. } = connection else { return };
    schedule_whole(list, wheel, index, tcb, timer, in_tx_list);
}

#[inline(always)]
fn schedule_whole(
    list: &mut Line<u32>,
    wheel: &mut Wheel,
    index: u32,
    tcb: &Tcb,
    timer: &mut LazyTimer,
    in_tx_list: &mut bool,
) {
    if !*in_tx_list && tcb.wants_transmit() {
        *in_tx_list = true;
        list.push_back(index);
    }
    timer.arm(wheel, tcb.quiet_until(), Tag::Connection(index).to_bits());
}

/// Has the connection looked at again when pacing lets it send.
#[inline(always)]
fn pace(queue: &mut PacingQueue, id: SocketId, connection: &mut Connection) {
    let Connection { tcb: Block::Whole(tcb), in_pacing, .. } = connection else { return };
    pace_whole(queue, id, tcb, in_pacing);
}

#[inline(always)]
fn pace_whole(queue: &mut PacingQueue, id: SocketId, tcb: &Tcb, in_pacing: &mut bool) {
    if let Some(at) = tcb.paced_until()
        && !*in_pacing
    {
        *in_pacing = true;
        queue.push(at, id);
    }
}
