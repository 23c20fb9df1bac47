//! What a thread and an engine share about one socket.
//!
//! ```text
//!   thread                       Portal + Endpoint                       engine
//!     read  ◀── rx: parcels with data ◀─────────────────────────── read_owned, recv_from
//!     write ──▶ tx: parcels with data ─────────────────────────────▶ write_owned, send_to
//!     write ◀── grants: empty RemoteBufs ◀──────────────────────────── pool
//!     shutdown, close ──▶ wishes (bits) ──▶     status (bits), error ◀── what became of it
//! ```
//!
//! Every ring is bounded, so a thread that stops reading fills `rx`, the engine stops taking data
//! from the connection, and TCP closes its window: nothing is lost. Bytes are copied once, by the
//! thread, but for those of small messages, which need no buffer (`parcel`). Whoever puts something
//! down posts or rings; whoever finds nothing says so first ([`Status::RX_FULL`], `wanted`) and looks
//! again.
//!
//! A UDP socket of several engines has one [`Endpoint`] and a [`Portal`] on each of them.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barewire_driver::RemoteBuf;
use bitflags::bitflags;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::mailbox::Mailbox;
use super::parcel::Parcel;
use super::remote::RemoteStream;
use super::sync::{Bell, PostFlag, Posting};
use crate::error::SocketError;

/// Buffers, and slots in them, that may wait for a thread to read them.
pub const RX_RING_SLOTS: usize = 64;

/// Buffers that a thread may have on their way to its engine, filled or granted and still empty.
pub const TX_RING_SLOTS: usize = 64;

/// Small messages, which need no buffer, that a thread may have on their way to its engine.
pub const TX_RING_SMALL: usize = 64;

bitflags! {
    /// What the engine has told about a socket; bits are set, and only the two marked ones cleared.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Status: u32 {
        /// The connection is open, or the datagram socket bound.
        const CONNECTED = 1 << 0;
        /// Nothing more will be put into `rx`.
        const READ_END = 1 << 1;
        /// Nothing more can be sent.
        const WRITE_END = 1 << 2;
        /// An error waits to be told; cleared by whoever tells it.
        const FAILED = 1 << 3;
        /// The engine has stopped.
        const STOPPED = 1 << 4;
        /// The engine has let go of the socket.
        const CLOSED = 1 << 5;
        /// The engine has more but found `rx` full; cleared by the reader that makes room.
        const RX_FULL = 1 << 6;
    }
}

bitflags! {
    /// What a thread has asked of the engine; bits are only ever set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Wishes: u32 {
        /// Read no more.
        const SHUT_READ = 1 << 0;
        /// Send what is queued, then end the stream.
        const SHUT_WRITE = 1 << 1;
        /// Close gracefully.
        const CLOSE = 1 << 2;
        /// The closing thread waits for [`Status::CLOSED`].
        const LINGER = 1 << 3;
        /// Close with a reset: nobody has had the connection.
        const ABORT = 1 << 4;
    }
}

/// The side of a socket that threads look at.
#[derive(Debug)]
pub(crate) struct Endpoint {
    status: AtomicU32,
    error: Mutex<Option<SocketError>>,
    rx: ArrayQueue<Parcel>,
    filled: CachePadded<Filled>,
    readers: CachePadded<Readers>,
    pub(crate) readable: Bell,
    pub(crate) writable: Bell,
}

/// What the engines that fill an endpoint write: on a cache line that readers leave alone.
#[derive(Debug, Default)]
struct Filled {
    /// Slots that have been put into `rx` so far.
    slots: AtomicUsize,
    /// What `Readers::consumed` was at least; looked up again only when that is not enough.
    consumed: AtomicUsize,
}

/// What readers write: on a cache line that engines rarely look at.
#[derive(Debug, Default)]
struct Readers {
    /// What readers have taken from `rx` and not yet consumed: peeking needs more than the front.
    inbox: Mutex<VecDeque<Parcel>>,
    /// Slots that have been let go of so far.
    consumed: AtomicUsize,
}

impl Endpoint {
    pub(crate) fn new(status: Status) -> Endpoint {
        Endpoint {
            status: AtomicU32::new(status.bits()),
            error: Mutex::default(),
            rx: ArrayQueue::new(RX_RING_SLOTS),
            filled: CachePadded::default(),
            readers: CachePadded::default(),
            readable: Bell::default(),
            writable: Bell::default(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        // Acquire: what the engine put down before it set a bit is seen after it.
        Status::from_bits_truncate(self.status.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, bits: Status) {
        self.status.fetch_or(bits.bits(), Ordering::AcqRel);
    }

    fn clear(&self, bits: Status) -> bool {
        let before = self.status.fetch_and(!bits.bits(), Ordering::AcqRel);
        Status::from_bits_truncate(before).intersects(bits)
    }

    /// Engine: notes an error for the next call to tell.
    pub(crate) fn fail(&self, error: SocketError) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.set(Status::FAILED);
    }

    /// Thread: the error that waits, told once.
    pub(crate) fn take_error(&self) -> Option<SocketError> {
        if !self.status().contains(Status::FAILED) {
            return None;
        }
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear(Status::FAILED);
        error.take()
    }

    /// Engine: wakes everybody who waits for anything.
    pub(crate) fn ring_all(&self) {
        self.readable.ring();
        self.writable.ring();
    }

    /// Engine: true if `slots` more slots fit into `rx`.
    pub(crate) fn has_rx_room(&self, slots: usize) -> bool {
        let filled = self.filled.slots.load(Ordering::Relaxed).wrapping_add(slots);
        let fits = |consumed: usize| filled.wrapping_sub(consumed) <= RX_RING_SLOTS;
        if fits(self.filled.consumed.load(Ordering::Relaxed)) {
            return true;
        }
        // Acquire: the places in `rx` are free that were let go of before.
        let consumed = self.readers.consumed.load(Ordering::Acquire);
        self.filled.consumed.store(consumed, Ordering::Relaxed);
        fits(consumed)
    }

    /// Engine: as [`Endpoint::has_rx_room`], and if not, the next reader that makes room says so.
    pub(crate) fn reserve_rx(&self, slots: usize) -> bool {
        if self.has_rx_room(slots) {
            return true;
        }
        self.set(Status::RX_FULL);
        // Orders the bit before the second look; pairs with the fence in `made_room`.
        fence(Ordering::SeqCst);
        self.has_rx_room(slots)
    }

    /// Engine: puts a parcel down for the readers. It comes back if there is no room.
    pub(crate) fn push_rx(&self, parcel: Parcel) -> Result<(), Parcel> {
        let slots = parcel.places();
        // Before the push: what is consumed is never more than what has been filled.
        self.filled.slots.fetch_add(slots, Ordering::Relaxed);
        self.rx.push(parcel).inspect_err(|_| {
            self.filled.slots.fetch_sub(slots, Ordering::Relaxed);
        })
    }

    /// Reader: true if the engine waits for the room that has just been made.
    pub(crate) fn made_room(&self) -> bool {
        // See `reserve_rx`.
        fence(Ordering::SeqCst);
        self.status().contains(Status::RX_FULL) && self.clear(Status::RX_FULL)
    }

    /// True if a read would not have to wait.
    pub(crate) fn has_news(&self) -> bool {
        let ended = Status::READ_END | Status::FAILED | Status::STOPPED | Status::CLOSED;
        self.status().intersects(ended) || self.has_unread()
    }

    /// True if data waits that no reader has taken.
    pub(crate) fn has_unread(&self) -> bool {
        !self.rx.is_empty() || !self.locked_inbox().is_empty()
    }

    fn locked_inbox(&self) -> MutexGuard<'_, VecDeque<Parcel>> {
        self.readers.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reader: everything that has arrived, in order. What is taken off the front is told to
    /// [`Endpoint::consumed`].
    pub(crate) fn inbox(&self) -> MutexGuard<'_, VecDeque<Parcel>> {
        let mut inbox = self.locked_inbox();
        while let Some(parcel) = self.rx.pop() {
            inbox.push_back(parcel);
        }
        inbox
    }

    /// Reader: `slots` slots of parcels have been let go of.
    pub(crate) fn consumed(&self, slots: usize) {
        self.readers.consumed.fetch_add(slots, Ordering::AcqRel);
    }

    /// Engine: it lets go of the socket; unless that was asked for, everybody who waits fails.
    pub(crate) fn kill_unless_closed(&self) {
        if !self.status().contains(Status::CLOSED) {
            self.kill();
        }
    }

    /// Engine: lets go of all memory and fails everybody who waits.
    pub(crate) fn kill(&self) {
        self.set(Status::STOPPED | Status::CLOSED);
        self.inbox().clear();
        self.ring_all();
    }
}

/// The side of a socket that its engine looks at.
pub(crate) struct Portal {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) key: u32,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Option<SocketAddr>,
    posted: CachePadded<PostFlag>,
    wishes: AtomicU32,
    wanted: AtomicUsize,
    tx: ArrayQueue<Parcel>,
    grants: ArrayQueue<RemoteBuf>,
    /// Buffers granted that have not come back: they lie in `grants` or in `tx`, or a thread is
    /// filling them. There are at most as many as `grants` holds, and `tx` has as many places beside
    /// those for small messages, so neither is ever full. Only the engine looks here.
    granted: CachePadded<AtomicUsize>,
    pub(crate) writers: CachePadded<Writers>,
}

/// What threads write: on a cache line that the engine leaves alone.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    /// Payload bytes that threads copied into or out of packet memory.
    pub(crate) bytes_copied: AtomicU64,
    /// Keeps two writers' buffers from mixing within one call. Held is the number of small messages
    /// that are known to find a place.
    pub(crate) turn: Mutex<usize>,
}

impl Portal {
    pub(crate) fn new(
        mailbox: Arc<Mailbox>,
        key: u32,
        endpoint: Arc<Endpoint>,
        local: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> Portal {
        Portal {
            endpoint,
            mailbox,
            key,
            local,
            peer,
            posted: CachePadded::default(),
            wishes: AtomicU32::new(0),
            wanted: AtomicUsize::new(0),
            tx: ArrayQueue::new(TX_RING_SLOTS + TX_RING_SMALL),
            grants: ArrayQueue::new(TX_RING_SLOTS),
            granted: CachePadded::default(),
            writers: CachePadded::default(),
        }
    }

    /// Engine: hands a datagram to the readers. Several engines fill one endpoint, so the room may
    /// have gone since it was looked for; the datagram is lost then, and counted.
    pub(crate) fn deliver(&self, datagram: Parcel) {
        if self.endpoint.push_rx(datagram).is_err() {
            self.lost_datagram();
        }
    }

    /// Engine: wakes who waits to read.
    pub(crate) fn ring_readable(&self) {
        self.mailbox.count_wakeups(self.endpoint.readable.ring());
    }

    /// Engine: wakes who waits to write.
    pub(crate) fn ring_writable(&self) {
        self.mailbox.count_wakeups(self.endpoint.writable.ring());
    }

    /// Engine: counts a datagram that could not be handed to its readers.
    pub(crate) fn lost_datagram(&self) {
        self.mailbox.datagrams_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn wishes(&self) -> Wishes {
        Wishes::from_bits_truncate(self.wishes.load(Ordering::Acquire))
    }

    /// Thread: asks for something and tells the engine.
    pub(crate) fn wish(&self, wishes: Wishes) {
        self.wishes.fetch_or(wishes.bits(), Ordering::AcqRel);
        self.post();
    }

    /// Thread: tells the engine that there is something to look at.
    pub(crate) fn post(&self) {
        match self.posted.claim() {
            Posting::Queue => self.mailbox.post(self.key),
            Posting::Wake => self.mailbox.doorbell.ring(),
            Posting::Done => {}
        }
    }

    /// Engine: it has taken the portal off the queue, or watches it no more, and is about to look.
    /// True if it was told that there is something.
    pub(crate) fn taken(&self) -> bool {
        self.posted.release()
    }

    /// Engine: it has taken the portal off the queue, is about to look, and does so again and again.
    pub(crate) fn watched(&self) {
        self.posted.watch();
    }

    /// Engine: true if it was told of something at a portal that it watches, and is about to look.
    pub(crate) fn look(&self) -> bool {
        self.posted.look()
    }

    /// Engine: true if it was told of something that it has not looked at.
    pub(crate) fn is_posted(&self) -> bool {
        self.posted.is_posted()
    }

    /// Engine: true if no post is under way any more and none can come: the key is free. To a portal
    /// that it watches none is.
    pub(crate) fn retire(&self, watched: bool) -> bool {
        self.posted.claim() == Posting::Queue || watched
    }

    /// Thread: an empty buffer, if one was granted.
    pub(crate) fn take_grant(&self) -> Option<RemoteBuf> {
        self.grants.pop()
    }

    /// Thread: gives back grants that it did not use.
    pub(crate) fn return_grant(&self, buf: RemoteBuf) {
        let pushed = self.grants.push(buf);
        debug_assert!(pushed.is_ok(), "there are no more grants than have a place");
    }

    /// Thread: asks for empty buffers.
    pub(crate) fn want(&self, slots: usize) {
        self.wanted.fetch_max(slots.min(TX_RING_SLOTS), Ordering::AcqRel);
    }

    /// Engine: how many buffers are asked for.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    /// Engine: how many more buffers the writers may have.
    pub(crate) fn grant_room(&self) -> usize {
        TX_RING_SLOTS.saturating_sub(self.granted.load(Ordering::Relaxed))
    }

    /// Engine: grants an empty buffer.
    pub(crate) fn grant(&self, buf: RemoteBuf) {
        let pushed = self.grants.push(buf);
        debug_assert!(pushed.is_ok(), "there are no more grants than have a place");
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    /// Engine: so many of the buffers that were asked for have been granted.
    pub(crate) fn served(&self, slots: usize) {
        // Threads only ever ask for more.
        self.wanted.fetch_sub(slots, Ordering::AcqRel);
    }

    pub(crate) fn grants(&self) -> usize {
        self.grants.len()
    }

    /// Thread: puts a parcel of granted buffers down for the engine.
    pub(crate) fn push_tx(&self, parcel: Parcel) {
        let pushed = self.tx.push(parcel);
        debug_assert!(pushed.is_ok(), "there are no more grants than have a place");
    }

    /// Thread, in its turn: true if a small message finds a place, which it has then.
    pub(crate) fn take_small_place(&self, known: &mut usize) -> bool {
        if *known == 0 {
            // Whatever lies there counts: of what is small there are never more than places for it.
            *known = TX_RING_SMALL.saturating_sub(self.tx.len());
        }
        let found = *known > 0;
        *known -= usize::from(found);
        found
    }

    /// Engine: the next parcel to send.
    pub(crate) fn pop_tx(&self) -> Option<Parcel> {
        let parcel = self.tx.pop()?;
        self.granted.fetch_sub(parcel.slots(), Ordering::Relaxed);
        Some(parcel)
    }

    pub(crate) fn tx_is_empty(&self) -> bool {
        self.tx.is_empty()
    }

    /// Engine: lets go of all memory that waits on the way in.
    pub(crate) fn drop_buffers(&self) {
        while self.tx.pop().is_some() {}
        while self.grants.pop().is_some() {}
    }
}

impl fmt::Debug for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Portal")
            .field("key", &self.key)
            .field("local", &self.local)
            .field("peer", &self.peer)
            .field("status", &self.endpoint.status())
            .finish_non_exhaustive()
    }
}

/// Accepted connections that wait for a thread to take them; several engines fill one queue.
pub(crate) struct AcceptQueue {
    pub(crate) endpoint: Endpoint,
    ready: ArrayQueue<RemoteStream>,
}

impl Drop for AcceptQueue {
    /// An engine may have filled the queue once more while its listener was being closed.
    fn drop(&mut self) {
        self.clear();
    }
}

impl AcceptQueue {
    /// A queue for `backlog` connections.
    pub(crate) fn new(backlog: usize) -> AcceptQueue {
        AcceptQueue {
            endpoint: Endpoint::new(Status::CONNECTED),
            ready: ArrayQueue::new(backlog.max(1)),
        }
    }

    /// Engine: true if another connection fits; if not, the next `take` says so.
    pub(crate) fn reserve(&self) -> bool {
        if !self.ready.is_full() {
            return true;
        }
        self.endpoint.set(Status::RX_FULL);
        // As in `Endpoint::reserve_rx`.
        fence(Ordering::SeqCst);
        !self.ready.is_full()
    }

    /// Engine: adds a connection, or gives it back if another engine took the last place.
    pub(crate) fn push(&self, stream: RemoteStream) -> Result<(), RemoteStream> {
        let mailbox = stream.mailbox().clone();
        self.ready.push(stream)?;
        mailbox.count_wakeups(self.endpoint.readable.ring());
        Ok(())
    }

    /// Thread: the next connection.
    pub(crate) fn take(&self) -> Option<RemoteStream> {
        self.ready.pop()
    }

    /// True if a connection waits, or never will.
    pub(crate) fn has_news(&self) -> bool {
        let ended = Status::FAILED | Status::STOPPED | Status::CLOSED;
        !self.ready.is_empty() || self.endpoint.status().intersects(ended)
    }

    /// Resets the connections that nobody took: their peers must not believe that what they have
    /// sent was read (RFC 2525 §2.17), nor that an empty answer was meant.
    pub(crate) fn clear(&self) {
        while let Some(stream) = self.ready.pop() {
            stream.abort();
        }
    }
}

impl fmt::Debug for AcceptQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptQueue").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}
