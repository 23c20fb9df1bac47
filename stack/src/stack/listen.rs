//! Listening: the queue of half-open connections, the queue of completed ones, and SYN cookies.

use std::hint::cold_path;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{Socket, Stack};
use crate::error::SocketError;
use crate::hint::rarely;
use crate::socket::SocketId;
use crate::socket::conn::{Connection, Holder, LazyTimer};
use crate::socket::demux::{FlowKey, Tag};
use crate::socket::listener::{HalfOpenEntry, Listener};
use crate::tcp::{
    HalfOpen, HalfOpenOutcome, HalfOpenTimeout, Open, Segment, SynCookies, Tcb, TcpConfig, cookie,
    cookie::Worth, reset_for,
};
use crate::wire::tcp::TcpHeader;

/// How long after a listener sent its last cookie an ACK may still bring one back.
const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

impl Stack {
    /// Makes a bound TCP socket listen (an unbound one gets an ephemeral port), with up to
    /// `backlog` completed connections that wait for [`Stack::accept`], and as many half-open ones,
    /// at least 128. On a listener it changes the backlog.
    ///
    /// # Errors
    /// [`SocketError::AddrInUse`] if another socket listens there, [`SocketError::InvalidInput`]
    /// for a connected socket, [`SocketError::NotSupported`] for one that is not TCP.
    pub fn listen(&mut self, id: SocketId, backlog: usize) -> Result<(), SocketError> {
        let backlog = backlog.clamp(1, self.limits.backlog);
        match self.get_mut(id).ok_or(SocketError::BadSocket)? {
            Socket::Listener(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            Socket::Connection(_) => return Err(SocketError::InvalidInput),
            Socket::Datagram(_) => return Err(SocketError::NotSupported),
            Socket::Fresh(fresh) if fresh.bound.is_none() => {
                self.bind(id, SocketAddr::from(([0, 0, 0, 0], 0)))?;
            }
            Socket::Fresh(_) => {}
        }
        let Some(Socket::Fresh(fresh)) =
            self.sockets.get_mut(id.index).filter(|s| matches!(s, Socket::Fresh(_)))
        else {
            return Err(SocketError::BadSocket);
        };
        let Some(bound) = fresh.bound.take() else { return Err(SocketError::InvalidInput) };
        if let Err(error) = self.share.ports.listen(&bound.lease) {
            fresh.bound = Some(bound);
            return Err(error);
        }
        let port = bound.lease.port();
        let listener = Listener {
            template: fresh.template.clone(),
            bound,
            backlog,
            half_open: 0,
            accept_queue: Default::default(),
            turned_away: Default::default(),
            cookie_sent: None,
            in_event_list: false,
            fast_open: Default::default(),
        };
        if let Some(socket) = self.get_mut(id) {
            *socket = Socket::Listener(Box::new(listener));
        }
        self.listeners.entry(port).or_default().push(id);
        self.sole_listener = None;
        Ok(())
    }

    /// Takes the connection that has waited longest.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] if none waits, [`SocketError::InvalidInput`] if the socket does
    /// not listen.
    pub fn accept(&mut self, id: SocketId) -> Result<(SocketId, SocketAddr), SocketError> {
        let Socket::Listener(listener) = self.get_mut(id).ok_or(SocketError::BadSocket)? else {
            return Err(SocketError::InvalidInput);
        };
        let accepted = listener.accept_queue.pop_front().ok_or(SocketError::WouldBlock)?;
        let (more, invites) = (!listener.accept_queue.is_empty(), !listener.turned_away.is_empty());
        if rarely(more) {
            self.note_event(id);
        }
        let Some(Socket::Connection(connection)) = self.get_mut(accepted) else {
            return Err(SocketError::ConnectionAborted);
        };
        connection.holder = Holder::Application;
        let peer = connection.key.remote_addr();
        self.follow_up(accepted.index);
        if rarely(invites) {
            self.invite(id);
        }
        Ok((accepted, peer))
    }

    /// There is room in the accept queue: asks one client whose last ACK had to be ignored to send
    /// it again, by repeating the SYN-ACK. Waiting for its own timers would take seconds.
    #[cold]
    fn invite(&mut self, id: SocketId) {
        let now = self.egress.now;
        while let Some(listener) = self.listener_mut(id) {
            let config = listener.template.config.clone();
            let Some(index) = listener.turned_away.pop_front() else { return };
            let Some(entry) = self.half_open.get_mut(index) else { continue };
            if entry.listener == id && std::mem::take(&mut entry.turned_away) {
                let (key, reply) = (entry.key, entry.state.syn_ack(now, &config));
                return self.answer_for(id, key, reply);
            }
        }
    }

    /// The accept queue is full: the last ACK of this half-open connection is ignored.
    #[cold]
    fn turn_away(&mut self, id: SocketId, index: u32) {
        self.egress.counters.accept_overflow += 1;
        let first = match self.half_open.get_mut(index) {
            Some(entry) => !std::mem::replace(&mut entry.turned_away, true),
            None => false,
        };
        if let Some(listener) = self.listener_mut(id).filter(|_| first) {
            listener.turned_away.push_back(index);
        }
    }

    /// The listener for a flow: one on exactly this address before one on the wildcard; several on
    /// one port (`SO_REUSEPORT`) share by the flow's hash.
    #[inline(always)]
    pub(super) fn find_listener(&mut self, key: &FlowKey) -> Option<SocketId> {
        match self.sole_listener {
            Some((port, addr, id)) if port == key.local_port => {
                addr.is_none_or(|addr| addr == key.local).then_some(id)
            }
            Some(_) | None => self.search_listener(key),
        }
    }

    #[inline(never)]
    fn search_listener(&mut self, key: &FlowKey) -> Option<SocketId> {
        let ids = self.listeners.get(&key.local_port)?;
        if let [only] = ids[..] {
            let Some(Socket::Listener(listener)) = self.get(only) else { return None };
            let addr = listener.bound.addr;
            self.sole_listener = Some((key.local_port, addr, only));
            return addr.is_none_or(|addr| addr == key.local).then_some(only);
        }
        let names = |id: &SocketId, exact: bool| match self.get(*id) {
            Some(Socket::Listener(listener)) => match listener.bound.addr {
                Some(addr) => exact && addr == key.local,
                None => !exact,
            },
            Some(Socket::Fresh(_) | Socket::Connection(_) | Socket::Datagram(_)) | None => false,
        };
        [true, false].into_iter().find_map(|exact| {
            let count = ids.iter().filter(|id| names(id, exact)).count();
            let pick = match count {
                0 => return None,
                1 => 0,
                _ => key.hash(self.share.secrets.flows) as usize % count,
            };
            ids.iter().filter(|id| names(id, exact)).nth(pick).copied()
        })
    }

    /// Sends a segment of a half-open connection, with its listener's `IP_TTL` and `IP_TOS`.
    pub(super) fn answer_for(&mut self, id: SocketId, key: FlowKey, reply: TcpHeader) {
        let Some(listener) = self.listener_mut(id) else { return };
        let (ttl, tos) = (listener.template.ttl, listener.template.tos);
        self.egress.emit_control_as(key, reply, ttl, tos);
    }

    pub(super) fn listener_mut(&mut self, id: SocketId) -> Option<&mut Listener> {
        match self.get_mut(id)? {
            Socket::Listener(listener) => Some(listener),
            Socket::Fresh(_) | Socket::Connection(_) | Socket::Datagram(_) => None,
        }
    }

    /// A SYN for a listener (RFC 9293 §3.10.7.2). A full accept queue makes it unheard, so that the
    /// client tries again; a full half-open queue is answered with a cookie. `iss_above` is the
    /// last sequence number of the same flow's TIME-WAIT (RFC 6191).
    pub(super) fn handle_syn(
        &mut self,
        id: SocketId,
        key: FlowKey,
        segment: Segment<'_>,
        iss_above: Option<u32>,
    ) {
        let header = segment.header;
        let (now, mut open) = (self.egress.now, self.open_values(&key));
        if let Some(last) = iss_above {
            cold_path();
            open.iss = last.wrapping_add(64_000).wrapping_add(open.iss % 64_000);
        }
        let table_is_full = self.half_open.is_full();
        let Some(listener) = self.listener_mut(id) else { return };
        if rarely(listener.accept_queue.len() >= listener.backlog) {
            self.egress.counters.listen_overflow += 1;
            return;
        }
        let no_room = table_is_full || listener.is_full_of_half_open();
        let config = Rc::clone(&listener.template.config);
        let mut cookie = None;
        if header.options.fast_open.is_some() {
            cold_path();
            let judged = self.judge_fast_open(id, &key, header.options.fast_open, &config);
            cookie = judged.1;
            if let Some(place) = judged.0 {
                let state = HalfOpen::new(now, header, &config, open);
                return self.open_by_cookie(id, key, state, segment, (place, cookie));
            }
        }
        match config.syn_cookies {
            SynCookies::Off if no_room => self.egress.counters.half_open_full += 1,
            SynCookies::Auto if no_room => self.answer_with_cookie(id, key, header, open),
            SynCookies::Always => self.answer_with_cookie(id, key, header, open),
            SynCookies::Off | SynCookies::Auto => {
                let state = HalfOpen::new(now, header, &config, open);
                if self.remember_half_open(id, key, &state, &config) {
                    let mut reply = state.syn_ack(now, &config);
                    reply.options.fast_open = cookie;
                    self.answer_for(id, key, reply);
                }
            }
        }
    }

    /// Puts a half-open connection of a flow that is not in the table of flows into that of half-open
    /// ones; false if its listener or the table has no room.
    fn remember_half_open(
        &mut self,
        id: SocketId,
        key: FlowKey,
        state: &HalfOpen,
        config: &TcpConfig,
    ) -> bool {
        // As early as the deadline of its first data may be once it is a connection: then the timer
        // need not be moved forward. Until then that costs one look.
        let at = state.poll_at().min(self.egress.now + config.rto_min);
        let (half_open, sockets) = (&mut self.half_open, &mut self.sockets);
        let Some(Socket::Listener(listener)) = sockets.get_held_mut(id.index, id.generation) else {
            return false;
        };
        if rarely(listener.is_full_of_half_open()) {
            return false;
        }
        let placed = half_open.insert_with(|| {
            let timer = LazyTimer::default();
            HalfOpenEntry { key, state: *state, listener: id, timer, turned_away: false }
        });
        let Some((index, _)) = placed else { return false };
        listener.half_open += 1;
        let tag = Tag::HalfOpen(index);
        self.flows.add(key, tag);
        if let Some(entry) = self.half_open.get_mut(index) {
            entry.timer.arm(&mut self.wheel, at, tag.to_bits());
        }
        true
    }

    #[inline(never)]
    fn answer_with_cookie(&mut self, id: SocketId, key: FlowKey, header: &TcpHeader, open: Open) {
        let now = self.egress.now;
        let flow = (key.local_addr(), key.remote_addr());
        let peer_mss = header.options.mss.unwrap_or(536);
        let iss = cookie::make(self.share.secrets.cookies, flow, header.seq, peer_mss, now);
        let Some(listener) = self.listener_mut(id) else { return };
        listener.cookie_sent = Some(now);
        let config = listener.template.config.clone();
        let reply = HalfOpen::cookie_syn_ack(now, header, &config, Open { iss, ..open });
        self.egress.counters.cookies_sent += 1;
        self.answer_for(id, key, reply);
    }

    /// An ACK for a listener, of no connection that is known: perhaps a cookie comes back. True if
    /// it was one and the segment has been dealt with.
    pub(super) fn handle_cookie(
        &mut self,
        id: SocketId,
        key: FlowKey,
        segment: Segment<'_>,
    ) -> bool {
        let now = self.egress.now;
        let Some(listener) = self.listener_mut(id) else { return false };
        let recent = |sent| now.saturating_since(sent) <= COOKIE_LIFETIME;
        if !listener.cookie_sent.is_some_and(recent) {
            return false;
        }
        let full = listener.accept_queue.len() >= listener.backlog;
        let config = listener.template.config.clone();
        let header = segment.header;
        let flow = (key.local_addr(), key.remote_addr());
        let (iss, irs) = (header.ack.wrapping_sub(1), header.seq.wrapping_sub(1));
        let Some(mss) = cookie::check(self.share.secrets.cookies, flow, irs, iss, now) else {
            self.egress.counters.cookies_refused += 1;
            return false;
        };
        let no_room = self.half_open.is_full()
            || self.listener_mut(id).is_none_or(|listener| listener.is_full_of_half_open());
        if full && no_room {
            // Nothing is made of it: it can come back again.
            self.egress.counters.accept_overflow += 1;
            return true;
        }
        if !full && self.sockets.is_full() {
            self.egress.counters.sockets_full += 1;
            return true;
        }
        match self.spent_cookies.spend(self.share.secrets.cookies, flow, irs, now) {
            Worth::Connection => {}
            Worth::Unremembered => self.egress.counters.cookies_unremembered += 1,
            Worth::Nothing => {
                self.egress.counters.cookies_spent += 1;
                return false;
            }
        }
        let open = Open { iss, ..self.open_values(&key) };
        let state = HalfOpen::from_cookie(now, header, mss, &config, open);
        if full {
            self.egress.counters.accept_overflow += 1;
            // The client believes that it is connected and may never send again. The SYN-ACKs of a
            // half-open connection make it.
            self.remember_half_open(id, key, &state, &config);
            return true;
        }
        self.egress.counters.cookies_accepted += 1;
        self.establish(id, key, (&state, LazyTimer::default()), config, segment);
        true
    }

    /// A segment for a half-open connection.
    pub(super) fn handle_half_open(&mut self, index: u32, segment: Segment<'_>) {
        let now = self.egress.now;
        let Some(entry) = self.half_open.get_mut(index) else { return };
        let (id, key) = (entry.listener, entry.key);
        let listener = match self.sockets.get_held(id.index, id.generation) {
            Some(Socket::Listener(listener)) => listener,
            Some(Socket::Fresh(_) | Socket::Connection(_) | Socket::Datagram(_)) | None => {
                cold_path();
                // Its listener has closed: nobody would accept it any more (RFC 9293 §3.10.7.1).
                self.drop_half_open(index);
                return self.refuse(key, segment.header, segment.payload_len);
            }
        };
        let full = listener.accept_queue.len() >= listener.backlog;
        let config = Rc::clone(&listener.template.config);
        let outcome = entry.state.handle_segment(now, segment.header, segment.payload_len, &config);
        match outcome {
            HalfOpenOutcome::Drop => {}
            HalfOpenOutcome::Limited => self.egress.counters.half_open_replies_limited += 1,
            HalfOpenOutcome::Deferred => self.egress.counters.accept_deferred += 1,
            HalfOpenOutcome::Reply(reply) => self.answer_for(id, key, reply),
            HalfOpenOutcome::Reset(reply) => self.send_reset(key, reply),
            HalfOpenOutcome::Remove => {
                self.drop_half_open(index);
            }
            HalfOpenOutcome::Establish if full => self.turn_away(id, index),
            HalfOpenOutcome::Establish => {
                if rarely(self.sockets.is_full()) {
                    self.egress.counters.sockets_full += 1;
                    return;
                }
                if let Some((state, timer)) = self.take_half_open(index) {
                    // The flow stays counted at its port.
                    self.establish(id, key, (&state, timer), config, segment);
                }
            }
        }
    }

    /// Moves a connection whose handshake ends with `segment` into the accept queue.
    fn establish(
        &mut self,
        id: SocketId,
        key: FlowKey,
        (state, timer): (&HalfOpen, LazyTimer),
        config: Rc<TcpConfig>,
        segment: Segment<'_>,
    ) {
        let now = self.egress.now;
        let mut tcb = self.blocks.take(config, state.open(), now);
        let outcome = state.establish(&mut tcb, now, segment);
        if let Some(index) = self.enqueue_accepted(id, key, tcb, timer) {
            self.settle(index, outcome);
        }
    }

    /// Puts a new connection into the socket table and at the end of its listener's accept queue;
    /// gives its index. It takes over the timer that it had before it was one.
    pub(super) fn enqueue_accepted(
        &mut self,
        id: SocketId,
        key: FlowKey,
        tcb: Box<Tcb>,
        mut timer: LazyTimer,
    ) -> Option<u32> {
        let listener = self.listener_mut(id)?;
        let (ttl, tos) = (listener.template.ttl, listener.template.tos);
        let way = (self.egress.path_recent(key.remote), ttl, tos);
        let make = || {
            let connection = Connection::new(key, tcb, Holder::Listener(id), way);
            Socket::Connection(Connection { timer, ..connection })
        };
        let Some((index, generation)) = self.sockets.insert_with(make) else {
            cold_path();
            self.egress.counters.sockets_full += 1;
            timer.cancel(&mut self.wheel);
            return None;
        };
        let tag = Tag::Connection(index);
        timer.rename(&mut self.wheel, tag.to_bits());
        self.share.open_connection(key.local_port, false);
        self.flows.set(key, tag);
        if let Some(listener) = self.listener_mut(id) {
            listener.accept_queue.push_back(SocketId { index, generation });
            if !std::mem::replace(&mut listener.in_event_list, true) {
                self.events.push_back(id);
            }
        }
        Some(index)
    }

    /// Takes an entry out, of which the flow and the timer stay.
    #[inline(always)]
    fn take_half_open(&mut self, index: u32) -> Option<(HalfOpen, LazyTimer)> {
        let told = |entry: &HalfOpenEntry| (entry.listener, entry.state, entry.timer);
        let (listener, state, timer) = self.half_open.discard(index, told)?;
        if let Some(listener) = self.listener_mut(listener) {
            listener.half_open -= 1;
        }
        Some((state, timer))
    }

    #[cold]
    fn drop_half_open(&mut self, index: u32) {
        let Some(key) = self.half_open.get(index).map(|entry| entry.key) else { return };
        if let Some((_, mut timer)) = self.take_half_open(index) {
            timer.cancel(&mut self.wheel);
            self.flows.remove(&key, Tag::HalfOpen(index));
        }
    }

    fn arm_half_open(&mut self, index: u32) {
        if let Some(entry) = self.half_open.get_mut(index) {
            let (at, token) = (entry.state.poll_at(), Tag::HalfOpen(index).to_bits());
            entry.timer.arm(&mut self.wheel, at, token);
        }
    }

    pub(super) fn half_open_timeout(&mut self, index: u32) {
        let now = self.egress.now;
        let Some(entry) = self.half_open.get_mut(index) else { return };
        entry.timer.fired();
        let (id, key) = (entry.listener, entry.key);
        let config = self.listener_mut(id).map(|listener| listener.template.config.clone());
        let timeout = match (config, self.half_open.get_mut(index)) {
            (Some(config), Some(entry)) => entry.state.handle_timeout(now, &config),
            (None, _) | (_, None) => HalfOpenTimeout::GiveUp,
        };
        match timeout {
            HalfOpenTimeout::NotYet => self.arm_half_open(index),
            HalfOpenTimeout::Resend(reply) => {
                self.answer_for(id, key, reply);
                self.arm_half_open(index);
            }
            HalfOpenTimeout::GiveUp if self.keeps_waiting(index) => self.arm_half_open(index),
            HalfOpenTimeout::GiveUp => {
                self.egress.counters.half_open_expired += 1;
                self.drop_half_open(index);
            }
        }
    }

    /// A client whose last ACK was ignored believes that it is connected: forgotten, its data would
    /// be answered with RST. While the accept queue stays full it is kept, within the bounds of the
    /// half-open ones.
    #[cold]
    fn keeps_waiting(&mut self, index: u32) -> bool {
        let (now, sockets) = (self.egress.now, &self.sockets);
        let Some(entry) = self.half_open.get_mut(index).filter(|entry| entry.turned_away) else {
            return false;
        };
        let id = entry.listener;
        match sockets.get_held(id.index, id.generation) {
            Some(Socket::Listener(listener)) if listener.accept_queue.len() >= listener.backlog => {
                entry.state.wait_on(now, &listener.template.config);
                true
            }
            _ => false,
        }
    }

    /// Answers a segment that belongs to nothing with RST, unless it is one.
    pub(super) fn refuse(&mut self, key: FlowKey, header: &TcpHeader, payload_len: u32) {
        if let Some(reply) = reset_for(header, payload_len) {
            self.send_reset(key, reply);
        }
    }

    /// Sends an RST for a segment that no connection wants, if the rate allows it.
    pub(super) fn send_reset(&mut self, key: FlowKey, reply: TcpHeader) {
        let (now, most) = (self.egress.now, self.limits.resets_per_s);
        if self.resets.allow(now, most, &mut self.egress.rng) {
            self.egress.counters.tcp_resets_sent += 1;
            self.egress.emit_control(key, reply);
        } else {
            self.egress.counters.tcp_resets_limited += 1;
        }
    }
}
