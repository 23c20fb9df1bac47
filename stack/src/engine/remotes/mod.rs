//! The engine's side of the sockets that other threads hold.
//!
//! ```text
//!   posts, events ─▶ marked (each key once) ─▶ serve(key):
//!       connecting?  ─▶ tell the thread how it ended
//!       pull: stack ─▶ rx      push: tx ─▶ stack      grant: pool ─▶ grants      close
//! ```
//!
//! Serving a socket moves what can be moved and returns; whatever has to wait is waited for by an
//! event of the stack, a post of the thread, or, where the pool is empty, by a short retry.

mod datagram;
mod stream;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barewire_driver::{PacketSlice, Pool, RemoteBuf};
use slab::Slab;

use crate::engine::core::Core;
use crate::engine::mailbox::{Answer, Op};
use crate::engine::parcel::Buffers;
use crate::engine::portal::{AcceptQueue, Endpoint, Portal, Status, Wishes};
use crate::engine::remote::{MAX_DATAGRAM_BYTES, RemoteStream};
use crate::engine::stats::LoopCounters;
use crate::error::SocketError;
use crate::socket::{Family, SocketId, SocketKind, SocketOption};
use crate::stack::Stack;
use crate::time::Instant;

/// How long a closed socket may take to hand its last data to the stack before it is aborted; the
/// stack's own limits begin after that.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// Buffers that a new connection is granted at once, so that its first write need not ask.
const FIRST_GRANTS: usize = 2;

/// One part in this many of the pool is never granted: receiving has to go on.
const RESERVED_PART: usize = 8;

/// How soon sockets are served again that found the pool empty or wait for a peer's last ACK.
const RETRY: Duration = Duration::from_millis(1);

enum Role {
    Stream {
        /// Taken from the stack and not handed over yet: no slot was free for a copy.
        inbound: Option<PacketSlice>,
        /// Taken from the thread; the stack had no room for it.
        outbound: Option<stream::Piece>,
        /// Buffers that came back filled and are to be granted again.
        spent: usize,
        connected: bool,
        read_done: bool,
        write_done: bool,
    },
    Listener {
        accepts: Arc<AcceptQueue>,
        /// Accepted; another engine took the last place in the queue.
        spare: Option<RemoteStream>,
    },
    Datagram {
        /// Taken from the thread; the stack had no room for it.
        outbound: Option<Buffers>,
    },
}

struct Entry {
    portal: Arc<Portal>,
    socket: SocketId,
    role: Role,
    marked: bool,
    /// Payload bytes that the engine copied on their way to the thread.
    bytes_copied: u64,
    /// When a closed socket that still has data to hand over is aborted.
    closing: Option<Instant>,
    /// The stack has closed it; only the thread's last post keeps the key from being free.
    gone: bool,
}

/// What serving a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Done,
    /// Serve it again soon.
    Retry,
    /// Closed by the thread, but what it wrote is not all handed over: an event will tell.
    Draining,
    /// A listener has to wait until another socket goes.
    TableFull,
    /// The socket is closed: forget it.
    Gone,
}

/// All sockets of one engine that other threads hold.
pub(in crate::engine) struct Remotes {
    core: Core,
    entries: Slab<Entry>,
    limit: usize,
    marked: VecDeque<u32>,
    watch: watch::Watch,
    retries: Vec<u32>,
    retry_at: Instant,
    /// In the order of their deadlines, for the limit is the same for all.
    closing: VecDeque<(Instant, u32)>,
    /// Listeners that wait for a place in `entries`.
    crowded: Vec<u32>,
    touched: Vec<u32>,
    scratch: Box<[u8]>,
    /// Payload bytes that were copied at sockets that have been closed.
    gone_bytes_copied: u64,
    pub(in crate::engine) counters: LoopCounters,
}

impl Remotes {
    pub(in crate::engine) fn new(core: Core, limit: usize) -> Remotes {
        Remotes {
            core,
            entries: Slab::new(),
            limit,
            marked: VecDeque::new(),
            watch: watch::Watch::default(),
            retries: Vec::new(),
            retry_at: Instant::ZERO,
            closing: VecDeque::new(),
            crowded: Vec::new(),
            touched: Vec::new(),
            scratch: vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice(),
            gone_bytes_copied: 0,
            counters: LoopCounters::default(),
        }
    }

    /// Payload bytes that were copied between threads and packet memory, at all sockets there were.
    pub(in crate::engine) fn bytes_copied(&self) -> u64 {
        let each = Entry::all_bytes_copied;
        self.gone_bytes_copied + self.entries.iter().map(|(_, entry)| each(entry)).sum::<u64>()
    }

    /// Sockets held.
    pub(in crate::engine) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Answers a control call that is about sockets.
    pub(in crate::engine) fn call(&mut self, op: Op) -> Result<Answer, SocketError> {
        match op {
            Op::Probe { kind, addr } => self.probe(kind, addr).map(Answer::Address),
            Op::Listen { addr, backlog, share_port, accepts } => {
                self.listen(addr, backlog, share_port, accepts).map(Answer::Portal)
            }
            Op::Connect { to, options, data } => {
                let (portal, taken) = self.connect(to, &options, &data)?;
                Ok(Answer::Opened(portal, taken))
            }
            Op::BindUdp { addr, share_port, endpoint } => {
                self.bind_udp(addr, share_port, endpoint).map(Answer::Portal)
            }
            Op::ConnectUdp { key, to } => {
                let socket = self.socket_of(key)?;
                self.core.with_stack(|s| s.connect(socket, to)).map(|()| Answer::Done)
            }
            Op::SetOption { key, option } => {
                let socket = self.socket_of(key)?;
                self.core.with_stack(|s| s.set_option(socket, option)).map(|()| Answer::Done)
            }
            Op::Option { key, name } => {
                let socket = self.socket_of(key)?;
                self.core.with_stack(|s| s.option(socket, name)).map(Answer::Option)
            }
            // The engine answers these two itself.
            Op::Run(_) | Op::Stats => Err(SocketError::InvalidInput),
        }
    }

    fn socket_of(&self, key: u32) -> Result<SocketId, SocketError> {
        self.entries.get(key as usize).map(|entry| entry.socket).ok_or(SocketError::BadSocket)
    }

    /// Opens a socket, lets `set_up` do the rest, and closes it again if that fails.
    fn open<T>(
        &self,
        kind: SocketKind,
        addr: SocketAddr,
        share_port: bool,
        set_up: impl FnOnce(&mut Stack, SocketId) -> Result<T, SocketError>,
    ) -> Result<(SocketId, T), SocketError> {
        let family = if addr.is_ipv4() { Family::V4 } else { Family::V6 };
        self.core.with_stack(|stack| {
            let id = stack.socket(kind, family)?;
            let mut prepared = Ok(());
            if kind == SocketKind::Tcp {
                // As std's listeners have it: a restart does not wait for lingering connections.
                prepared = stack.set_option(id, SocketOption::ReuseAddr(true));
            }
            if share_port {
                prepared =
                    prepared.and_then(|()| stack.set_option(id, SocketOption::ReusePort(true)));
            }
            match prepared.and_then(|()| set_up(stack, id)) {
                Ok(value) => Ok((id, value)),
                Err(error) => {
                    let _ = stack.close(id);
                    Err(error)
                }
            }
        })
    }

    fn probe(&self, kind: SocketKind, addr: SocketAddr) -> Result<SocketAddr, SocketError> {
        let (id, local) = self.open(kind, addr, false, |stack, id| {
            stack.bind(id, addr)?;
            stack.local_addr(id)
        })?;
        self.core.with_stack(|s| s.close(id)).map(|()| local)
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        backlog: usize,
        share_port: bool,
        accepts: Arc<AcceptQueue>,
    ) -> Result<Arc<Portal>, SocketError> {
        self.check_room()?;
        let (socket, local) = self.open(SocketKind::Tcp, addr, share_port, |stack, id| {
            stack.bind(id, addr)?;
            stack.listen(id, backlog)?;
            stack.local_addr(id)
        })?;
        let endpoint = Arc::new(Endpoint::new(Status::CONNECTED));
        let role = Role::Listener { accepts, spare: None };
        Ok(self.insert(socket, endpoint, role, local, None))
    }

    /// Opens a connection; gives how much of `data` went with its SYN, too.
    fn connect(
        &mut self,
        to: SocketAddr,
        options: &[SocketOption],
        data: &[u8],
    ) -> Result<(Arc<Portal>, usize), SocketError> {
        self.check_room()?;
        let (socket, (local, taken, waits_for_data)) =
            self.open(SocketKind::Tcp, to, false, |stack, id| {
                options.iter().try_for_each(|&option| stack.set_option(id, option))?;
                let connected = match data {
                    [] => stack.connect(id, to).map(|()| 0),
                    data => stack.connect_with(id, to, data),
                };
                let (taken, waits_for_data) = match connected {
                    Ok(taken) => (taken, data.is_empty()),
                    Err(SocketError::InProgress) => (0, false),
                    Err(error) => return Err(error),
                };
                Ok((stack.local_addr(id)?, taken, waits_for_data))
            })?;
        // One that waits for its first write is as good as connected to who is to write.
        Ok((self.insert_stream(socket, waits_for_data, local, to), taken))
    }

    fn bind_udp(
        &mut self,
        addr: SocketAddr,
        share_port: bool,
        endpoint: Arc<Endpoint>,
    ) -> Result<Arc<Portal>, SocketError> {
        self.check_room()?;
        let (socket, local) = self.open(SocketKind::Udp, addr, share_port, |stack, id| {
            stack.bind(id, addr)?;
            stack.local_addr(id)
        })?;
        let role = Role::Datagram { outbound: None };
        Ok(self.insert(socket, endpoint, role, local, None))
    }

    fn check_room(&mut self) -> Result<(), SocketError> {
        if self.entries.len() < self.limit {
            return Ok(());
        }
        self.counters.portals_full += 1;
        Err(SocketError::TooManySockets)
    }

    fn insert_stream(
        &mut self,
        socket: SocketId,
        connected: bool,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Arc<Portal> {
        let status = if connected { Status::CONNECTED } else { Status::empty() };
        let role = Role::Stream {
            inbound: None,
            outbound: None,
            spent: 0,
            connected,
            read_done: false,
            write_done: false,
        };
        let endpoint = Arc::new(Endpoint::new(status));
        let portal = self.insert(socket, endpoint, role, local, Some(peer));
        portal.want(FIRST_GRANTS);
        portal
    }

    fn insert(
        &mut self,
        socket: SocketId,
        endpoint: Arc<Endpoint>,
        role: Role,
        local: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> Arc<Portal> {
        let slot = self.entries.vacant_entry();
        let key = slot.key() as u32;
        let mailbox = self.core.mailbox().clone();
        let portal = Arc::new(Portal::new(mailbox, key, endpoint, local, peer));
        slot.insert(Entry {
            portal: portal.clone(),
            socket,
            role,
            marked: false,
            bytes_copied: 0,
            closing: None,
            gone: false,
        });
        self.core.watch_for_portal(socket, key);
        self.mark(key);
        portal
    }

    fn mark(&mut self, key: u32) {
        if let Some(entry) = self.entries.get_mut(key as usize)
            && !std::mem::replace(&mut entry.marked, true)
        {
            self.marked.push_back(key);
        }
    }

    /// Collects who has to be served, from posts, events and due retries, and serves at most
    /// `budget` of them. Returns how many.
    pub(in crate::engine) fn run(&mut self, budget: usize) -> usize {
        let core = self.core.clone();
        let mut keys = std::mem::take(&mut self.touched);
        self.watch.look(|key| keys.push(key));
        for _ in 0..budget {
            let Some(key) = core.mailbox().next_post() else { break };
            if let Some(entry) = self.entries.get(key as usize) {
                self.watch.take_in(&entry.portal, |key| keys.push(key));
            }
            keys.push(key);
        }
        core.take_touched(&mut keys);
        if self.retry_at <= core.now() {
            keys.append(&mut self.retries);
        }
        keys.drain(..).for_each(|key| self.mark(key));
        self.touched = keys;
        self.expire_closes();
        let count = self.marked.len().min(budget);
        for _ in 0..count {
            let Some(key) = self.marked.pop_front() else { break };
            self.serve(key);
        }
        count
    }

    /// True if `run` would find something to do.
    pub(in crate::engine) fn has_work(&self) -> bool {
        !self.marked.is_empty() || self.watch.has_work()
    }

    /// When `run` has to be called next at the latest.
    pub(in crate::engine) fn poll_at(&self) -> Option<Instant> {
        let retry = (!self.retries.is_empty()).then_some(self.retry_at);
        let close = self.closing.front().map(|(at, _)| *at);
        [retry, close].into_iter().flatten().min()
    }

    fn serve(&mut self, key: u32) {
        self.counters.portal_turns += 1;
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        entry.marked = false;
        let served = match &entry.role {
            _ if entry.gone => Served::Gone,
            Role::Stream { .. } => entry.serve_stream(&self.core),
            Role::Datagram { .. } => entry.serve_datagram(&self.core, &mut self.scratch),
            Role::Listener { .. } => self.serve_listener(key),
        };
        match served {
            Served::Done => {}
            Served::Retry => self.retry(key),
            Served::Draining => self.limit_close(key),
            Served::TableFull => {
                self.counters.portals_full += 1;
                if !self.crowded.contains(&key) {
                    self.crowded.push(key);
                }
            }
            Served::Gone => self.remove(key),
        }
    }

    fn retry(&mut self, key: u32) {
        self.counters.portals_starved += 1;
        if self.retries.is_empty() {
            self.retry_at = self.core.now() + RETRY;
        }
        if !self.retries.contains(&key) {
            self.retries.push(key);
        }
        self.limit_close(key);
    }

    /// Gives a closed socket a time by which it has to be gone: the one that it lingers for, or
    /// else a limit of ours.
    fn limit_close(&mut self, key: u32) {
        let now = self.core.now();
        if let Some(entry) = self.entries.get_mut(key as usize)
            && entry.portal.wishes().contains(Wishes::CLOSE)
            && entry.closing.is_none()
        {
            let lingers = entry.portal.wishes().contains(Wishes::LINGER);
            let time = if lingers { entry.linger(&self.core) } else { None };
            let deadline = now + time.unwrap_or(CLOSE_LIMIT);
            entry.closing = Some(deadline);
            // The limit is the same for all, so that nearly all go to the end.
            let place = self.closing.partition_point(|(at, _)| *at <= deadline);
            self.closing.insert(place, (deadline, key));
        }
    }

    fn remove(&mut self, key: u32) {
        let Some(entry) = self.entries.get_mut(key as usize) else { return };
        entry.gone = true;
        // While a post of the thread that closed it is under way the key must not be given to
        // another socket: that post is the last, and leads here again.
        let watched = self.watch.forget(&entry.portal);
        if !entry.portal.retire(watched) {
            return;
        }
        let entry = self.entries.remove(key as usize);
        self.gone_bytes_copied += entry.all_bytes_copied();
        entry.portal.endpoint.set(Status::CLOSED);
        entry.portal.endpoint.ring_all();
        drop(entry);
        for listener in std::mem::take(&mut self.crowded) {
            self.mark(listener);
        }
    }

    fn expire_closes(&mut self) {
        while let Some(&(at, key)) = self.closing.front() {
            if at > self.core.now() {
                break;
            }
            self.closing.pop_front();
            let expired = self.entries.get_mut(key as usize).filter(|e| e.closing == Some(at));
            if let Some(entry) = expired {
                self.counters.closes_expired += 1;
                let socket = entry.socket;
                self.core.forget(socket);
                let _ = self.core.with_stack(|s| s.abort(socket));
                self.remove(key);
            }
        }
    }

    fn serve_listener(&mut self, key: u32) -> Served {
        loop {
            let Some(entry) = self.entries.get_mut(key as usize) else { return Served::Done };
            let (socket, local) = (entry.socket, entry.portal.local);
            let closing = entry.portal.wishes().contains(Wishes::CLOSE);
            let Role::Listener { accepts, spare } = &mut entry.role else { return Served::Done };
            let accepts = accepts.clone();
            if closing {
                spare.take().into_iter().for_each(RemoteStream::abort);
                self.core.forget(socket);
                let _ = self.core.with_stack(|s| s.close(socket));
                return Served::Gone;
            }
            if !accepts.reserve() {
                return Served::Done;
            }
            if let Some(stream) = spare.take() {
                *spare = accepts.push(stream).err();
                continue;
            }
            if self.entries.len() >= self.limit {
                return Served::TableFull;
            }
            let (id, peer) = match self.core.with_stack(|s| s.accept(socket)) {
                Ok(accepted) => accepted,
                Err(SocketError::WouldBlock) => return Served::Done,
                Err(SocketError::ConnectionAborted) => continue,
                Err(error) => {
                    accepts.endpoint.fail(error);
                    accepts.endpoint.readable.ring();
                    return Served::Done;
                }
            };
            let local = self.core.with_stack(|s| s.local_addr(id)).unwrap_or(local);
            let stream = RemoteStream::new(self.insert_stream(id, true, local, peer));
            if let Err(stream) = accepts.push(stream)
                && let Some(entry) = self.entries.get_mut(key as usize)
                && let Role::Listener { spare, .. } = &mut entry.role
            {
                *spare = Some(stream);
            }
        }
    }

    /// Closes all listeners: nothing is accepted any more.
    pub(in crate::engine) fn close_listeners(&mut self) {
        let core = self.core.clone();
        for (_, entry) in &mut self.entries {
            let socket = entry.socket;
            let Role::Listener { accepts, spare } = &mut entry.role else { continue };
            spare.take().into_iter().for_each(RemoteStream::abort);
            accepts.endpoint.kill();
            accepts.clear();
            core.forget(socket);
            let _ = core.with_stack(|s| s.close(socket));
        }
    }

    /// Fails every thread that waits, hands what they have written to the stack and closes all
    /// sockets gracefully.
    pub(in crate::engine) fn close_all(&mut self) {
        self.close_listeners();
        let core = self.core.clone();
        self.gone_bytes_copied = self.bytes_copied();
        self.watch.clear();
        for mut entry in self.entries.drain() {
            entry.portal.endpoint.set(Status::STOPPED);
            if let Role::Stream { .. } = entry.role {
                entry.push(&core);
                entry.portal.endpoint.kill();
                core.forget(entry.socket);
                let abort = entry.portal.wishes().contains(Wishes::ABORT);
                let end = if abort { Stack::abort } else { Stack::close };
                let _ = core.with_stack(|s| end(s, entry.socket));
            } else if let Role::Datagram { .. } = entry.role {
                core.forget(entry.socket);
                let _ = core.with_stack(|s| s.close(entry.socket));
            }
        }
    }
}

impl Drop for Remotes {
    /// Also when the engine dies: nobody waits for it for ever.
    fn drop(&mut self) {
        for (_, entry) in &self.entries {
            if let Role::Listener { accepts, .. } = &entry.role {
                accepts.endpoint.kill();
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.portal.endpoint.kill_unless_closed();
        // Pairs with the fence of the writers: see `remote::push_tx`.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.portal.drop_buffers();
    }
}

/// Makes a slice of this engine's pool one that may cross to another thread. It comes back if the
/// pool has no slot for the copy that a shared one needs.
pub(in crate::engine) fn into_remote(
    pool: &Pool,
    slice: PacketSlice,
) -> Result<RemoteBuf, PacketSlice> {
    let slice = match slice.into_remote() {
        Ok(remote) => return Ok(remote),
        Err(shared) => shared,
    };
    match pool.copy_from(&slice).map(|buf| buf.into_remote()) {
        Some(Ok(remote)) => Ok(remote),
        Some(Err(_)) | None => Err(slice),
    }
}

fn may_grant(pool: &Pool) -> bool {
    pool.free_slots() > pool.total_slots() / RESERVED_PART
}

impl Entry {
    /// Payload bytes that the threads and the engine copied between them.
    fn all_bytes_copied(&self) -> u64 {
        self.bytes_copied + self.portal.writers.bytes_copied.load(Ordering::Relaxed)
    }

    /// Grants what the thread has asked for or used; true if the pool had too little to spare.
    fn grant(&mut self, pool: &Pool) -> bool {
        let Entry { portal, role, .. } = self;
        let mut none = 0;
        let spent = if let Role::Stream { spent, .. } = role { spent } else { &mut none };
        let wanted = portal.wanted();
        let due = wanted.max(*spent).min(portal.grant_room());
        let mut granted = 0;
        while granted < due && may_grant(pool) {
            let Some(Ok(remote)) = pool.alloc().map(|buf| buf.into_remote()) else { break };
            portal.grant(remote);
            granted += 1;
        }
        *spent = spent.saturating_sub(granted);
        if granted > 0 {
            if wanted > 0 {
                portal.served(wanted.min(granted));
            }
            portal.ring_writable();
        }
        granted < due
    }
}
