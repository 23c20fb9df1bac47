//! How other threads talk to an engine.
//!
//! ```text
//!   thread                                              engine
//!     control call ──▶ requests (bounded, waits) ─────▶ answered at once, through the reply slot
//!     "socket 7 has something" ──▶ posts (once each) ─▶ looks at that socket's rings
//!   other engine
//!     frame of a flow that is not its own ──▶ forwarded (bounded, drops counted)
//! ```
//!
//! A post is a number, the key of a [`Portal`], and each portal is queued at
//! most once, so `posts` has room for every one there can be and cannot fill. The few that the engine
//! watches (`remotes::watch`) are not queued at all. Payload never passes through here: it lies in the
//! rings of each portal. A request that is dropped unanswered, because its engine stops or dies, answers
//! [`SocketError::EngineStopped`] by itself.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use barewire_driver::RemoteBuf;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::core::Core;
use super::executor::on_engine_thread;
use super::idle::Doorbell;
use super::portal::{AcceptQueue, Endpoint, Portal};
use super::stats::EngineStats;
use super::sync::Bell;
use crate::error::SocketError;
use crate::socket::{OptionName, SocketKind, SocketOption};
use crate::stack::ForwardKind;

/// Control calls that may wait for one engine at a time; further callers wait their turn.
pub const MAX_REQUESTS: usize = 256;

/// Frames that may wait to be taken over from other engines; more are dropped and counted.
pub const MAX_FORWARDED: usize = 1024;

/// A control call.
pub(crate) enum Op {
    /// Finds out whether a socket could be bound there, and to which port.
    Probe { kind: SocketKind, addr: SocketAddr },
    /// Opens a listener whose connections go to a queue that threads share.
    Listen { addr: SocketAddr, backlog: usize, share_port: bool, accepts: Arc<AcceptQueue> },
    /// Opens a connection with these options; the portal tells when it is there. Of the data the
    /// front goes with the SYN where fast open allows it.
    Connect { to: SocketAddr, options: Vec<SocketOption>, data: Vec<u8> },
    /// Opens a UDP socket that delivers to an endpoint which several engines may share.
    BindUdp { addr: SocketAddr, share_port: bool, endpoint: Arc<Endpoint> },
    /// Sets a UDP socket's peer.
    ConnectUdp { key: u32, to: SocketAddr },
    /// Sets an option.
    SetOption { key: u32, option: SocketOption },
    /// Reads an option.
    Option { key: u32, name: OptionName },
    /// Runs a function on the engine's thread.
    Run(Box<dyn FnOnce(&Core) + Send>),
    /// Takes the figures.
    Stats,
}

/// What a control call answers.
pub(crate) enum Answer {
    Done,
    Portal(Arc<Portal>),
    /// A connection, and how much data went with its SYN.
    Opened(Arc<Portal>, usize),
    Address(SocketAddr),
    Option(SocketOption),
    Stats(Box<EngineStats>),
}

type Outcome = Result<Answer, SocketError>;

#[derive(Default)]
struct ReplySlot {
    outcome: Mutex<Option<Outcome>>,
    bell: Bell,
}

impl ReplySlot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A control call on its way, with the place for its answer.
pub(crate) struct Request {
    op: Option<Op>,
    reply: Arc<ReplySlot>,
}

impl Request {
    /// Takes the call out; `answer` must follow.
    pub(crate) fn take_op(&mut self) -> Option<Op> {
        self.op.take()
    }

    /// Answers it.
    pub(crate) fn answer(self, outcome: Outcome) {
        *self.reply.lock() = Some(outcome);
        // Dropping it rings.
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.reply.lock().get_or_insert(Err(SocketError::EngineStopped));
        self.reply.bell.ring();
    }
}

/// A frame that another engine received for this one.
pub(crate) struct Forwarded {
    pub(crate) kind: ForwardKind,
    pub(crate) checksum_good: bool,
    pub(crate) packet: Vec<RemoteBuf>,
}

/// What any thread can reach of an engine.
pub(crate) struct Mailbox {
    pub(crate) doorbell: Arc<Doorbell>,
    requests: ArrayQueue<Request>,
    request_room: Bell,
    posts: ArrayQueue<u32>,
    forwarded: ArrayQueue<Forwarded>,
    /// Frames dropped because `forwarded` was full.
    pub(crate) forward_full: AtomicU64,
    /// Datagrams that could not be handed to the threads that read them.
    pub(crate) datagrams_lost: AtomicU64,
    /// Times that it took a system call to wake a thread that slept at a socket.
    pub(crate) thread_wakeups: AtomicU64,
    /// Read in every turn of the engine's loop: on a cache line that nobody writes to meanwhile.
    end: CachePadded<End>,
}

/// How far an engine's end is.
#[derive(Default)]
struct End {
    stopping: AtomicBool,
    dead: AtomicBool,
}

impl Mailbox {
    /// A mailbox for an engine with at most `portals` sockets of other threads.
    pub(crate) fn new(portals: usize) -> io::Result<Mailbox> {
        Ok(Mailbox {
            doorbell: Arc::new(Doorbell::new()?),
            requests: ArrayQueue::new(MAX_REQUESTS),
            request_room: Bell::default(),
            posts: ArrayQueue::new(portals.max(1)),
            forwarded: ArrayQueue::new(MAX_FORWARDED),
            forward_full: AtomicU64::new(0),
            datagrams_lost: AtomicU64::new(0),
            thread_wakeups: AtomicU64::new(0),
            end: CachePadded::default(),
        })
    }

    /// Thread: makes a control call and waits for its answer. On an engine's own thread it answers
    /// [`SocketError::NotSupported`] instead of waiting for itself.
    pub(crate) fn call(&self, op: Op) -> Outcome {
        if on_engine_thread() {
            return Err(SocketError::NotSupported);
        }
        let reply = Arc::new(ReplySlot::default());
        let mut request = Request { op: Some(op), reply: reply.clone() };
        while let Err(full) = self.requests.push(request) {
            request = full;
            self.request_room.wait_until(None, || !self.requests.is_full() || self.is_dead());
            if self.is_dead() {
                return Err(SocketError::EngineStopped);
            }
        }
        self.doorbell.ring();
        // Orders the push before the look at `dead`; pairs with the fence in `die`, which orders
        // the store of `dead` before the last look at the queue. One of the two sides finds it.
        fence(Ordering::SeqCst);
        if self.is_dead() {
            self.refuse_requests();
        }
        reply.bell.wait_until(None, || reply.lock().is_some());
        let outcome = reply.lock().take();
        outcome.unwrap_or(Err(SocketError::EngineStopped))
    }

    /// Thread: says that a portal has something for the engine. Called by the portal when it has
    /// claimed its place.
    pub(crate) fn post(&self, key: u32) {
        let pushed = self.posts.push(key);
        debug_assert!(pushed.is_ok(), "every portal has its place in the queue of posts");
        self.doorbell.ring();
    }

    /// Other engine: hands a frame over; false if it had to be dropped, which is counted here.
    pub(crate) fn forward(&self, frame: Forwarded) -> bool {
        if self.is_dead() || self.forwarded.push(frame).is_err() {
            self.forward_full.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.doorbell.ring();
        true
    }

    /// Engine: counts a ring that a sleeping thread was woken by.
    pub(crate) fn count_wakeups(&self, woken: bool) {
        if woken {
            self.thread_wakeups.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Engine: the next control call.
    pub(crate) fn next_request(&self) -> Option<Request> {
        let request = pop(&self.requests)?;
        self.request_room.ring();
        Some(request)
    }

    /// Engine: the key of the next portal that has something.
    pub(crate) fn next_post(&self) -> Option<u32> {
        pop(&self.posts)
    }

    /// Engine: the next frame from another engine.
    pub(crate) fn next_forwarded(&self) -> Option<Forwarded> {
        pop(&self.forwarded)
    }

    /// Engine: true if anything waits here.
    pub(crate) fn has_mail(&self) -> bool {
        !self.requests.is_empty() || !self.posts.is_empty() || !self.forwarded.is_empty()
    }

    /// Asks the engine to stop.
    pub(crate) fn stop(&self) {
        self.end.stopping.store(true, Ordering::Release);
        self.doorbell.ring();
    }

    /// True once somebody has asked it to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.end.stopping.load(Ordering::Acquire)
    }

    /// True once it takes no more calls.
    pub(crate) fn is_dead(&self) -> bool {
        self.end.dead.load(Ordering::Acquire)
    }

    /// Engine: takes no more calls; those that wait fail.
    pub(crate) fn die(&self) {
        self.end.dead.store(true, Ordering::Release);
        // See `call`.
        fence(Ordering::SeqCst);
        self.refuse_requests();
        while self.forwarded.pop().is_some() {}
        self.request_room.ring();
    }

    fn refuse_requests(&self) {
        while self.requests.pop().is_some() {}
        self.request_room.ring();
    }
}

/// Looks before it pops: a pop that finds nothing has a fence in it, and an engine looks here in
/// every turn.
fn pop<T>(queue: &ArrayQueue<T>) -> Option<T> {
    if queue.is_empty() { None } else { queue.pop() }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("dead", &self.is_dead()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> Arc<Mailbox> {
        Arc::new(Mailbox::new(4).unwrap())
    }

    #[test]
    fn calls_from_many_threads_are_all_answered() {
        const THREADS: usize = 8;
        const CALLS: usize = 500;
        const LONG: std::time::Duration = std::time::Duration::from_secs(10);
        let mailbox = mailbox();
        let callers: Vec<_> = (0..THREADS)
            .map(|_| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    (0..CALLS).filter(|_| mailbox.call(Op::Stats).is_ok()).count()
                })
            })
            .collect();
        for _ in 0..THREADS * CALLS {
            let request = loop {
                mailbox.doorbell.announce();
                if !mailbox.has_mail() {
                    let asleep = std::time::Instant::now();
                    mailbox.doorbell.sleep_at_most(LONG);
                    assert!(asleep.elapsed() < LONG, "a ring of the doorbell was lost");
                }
                mailbox.doorbell.awake();
                if let Some(request) = mailbox.next_request() {
                    break request;
                }
            };
            request.answer(Ok(Answer::Done));
        }
        let answered: usize = callers.into_iter().map(|c| c.join().unwrap()).sum();
        assert_eq!(answered, THREADS * CALLS);
    }

    #[test]
    fn a_dying_engine_fails_calls_before_during_and_after() {
        for round in 0..200 {
            let mailbox = mailbox();
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    let mailbox = mailbox.clone();
                    std::thread::spawn(move || mailbox.call(Op::Stats).err())
                })
                .collect();
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            mailbox.die();
            for caller in callers {
                assert_eq!(caller.join().unwrap(), Some(SocketError::EngineStopped));
            }
            assert_eq!(mailbox.call(Op::Stats).err(), Some(SocketError::EngineStopped));
        }
    }

    #[test]
    fn frames_for_a_full_inbox_are_dropped_and_counted() {
        let mailbox = mailbox();
        let frame =
            || Forwarded { kind: ForwardKind::Ip, checksum_good: false, packet: Vec::new() };
        for _ in 0..MAX_FORWARDED {
            assert!(mailbox.forward(frame()));
        }
        assert!(!mailbox.forward(frame()));
        assert_eq!(mailbox.forward_full.load(Ordering::Relaxed), 1);
    }
}
