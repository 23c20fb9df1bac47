//! [`Core`]: what the tasks of an engine see of it.
//!
//! Everything a handler needs, on the handler's own thread: the stack, wake-ups when a socket's
//! readiness grows, tasks, timers. Nothing here is `Send`, nothing is locked. The stack is borrowed
//! for the length of one call, never across an `await`.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use barewire_driver::Pool;
use barewire_driver::sys::Clock;
use slab::Slab;
use thiserror::Error;

use super::executor::Executor;
use super::mailbox::Mailbox;
use super::waiters::{Direction, Waiters};
use crate::error::SocketError;
use crate::interface::IfaceId;
use crate::socket::SocketId;
use crate::stack::{Event, Stack};
use crate::tcp::Readiness;
use crate::time::Instant;

/// The time that `Core::timeout` allowed has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("timed out")]
pub struct Elapsed;

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// Who hears of a socket's events.
#[derive(Default)]
enum Watcher {
    #[default]
    Nobody,
    Tasks(Waiters),
    /// A thread, through the portal with this key.
    Portal(u32),
}

/// Timers of tasks, ordered by deadline. There is one at most for each `Sleep` alive.
#[derive(Default)]
struct Sleepers {
    by_deadline: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

struct Inner {
    stack: RefCell<Stack>,
    pool: Pool,
    /// By the socket's index, and so bounded by the stack's socket limit.
    watchers: RefCell<Vec<Watcher>>,
    /// Portals whose sockets have had an event; each is told apart by `Remotes`.
    touched: RefCell<Vec<u32>>,
    executor: Executor,
    sleepers: RefCell<Sleepers>,
    clock: Clock,
    now: Cell<Instant>,
    iface: IfaceId,
    index: u16,
    engines: u16,
    mailbox: Arc<Mailbox>,
    stopping: Cell<bool>,
    until_stop: RefCell<Slab<Waker>>,
}

/// A handle on the engine that the calling task runs on. Cloning it is cheap.
#[derive(Clone)]
pub struct Core(Rc<Inner>);

/// What a core is made of.
pub(crate) struct Parts {
    pub(crate) stack: Stack,
    pub(crate) executor: Executor,
    pub(crate) clock: Clock,
    pub(crate) iface: IfaceId,
    pub(crate) index: u16,
    pub(crate) engines: u16,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Core {
        let Parts { stack, executor, clock, iface, index, engines, mailbox } = parts;
        let now = Instant::from_nanos(clock.now_ns());
        Core(Rc::new(Inner {
            pool: stack.pool().clone(),
            stack: RefCell::new(stack),
            watchers: RefCell::default(),
            touched: RefCell::default(),
            executor,
            sleepers: RefCell::default(),
            clock,
            now: Cell::new(now),
            iface,
            index,
            engines,
            mailbox,
            stopping: Cell::new(false),
            until_stop: RefCell::default(),
        }))
    }

    /// Calls `f` with the stack.
    ///
    /// # Panics
    /// If `f` calls it again: the stack is borrowed for the length of one call.
    pub fn with_stack<R>(&self, f: impl FnOnce(&mut Stack) -> R) -> R {
        f(&mut self.0.stack.borrow_mut())
    }

    /// Wakes the task behind `waker` once, when the readiness of `socket` has grown. Call it after
    /// the socket has answered [`SocketError::WouldBlock`], in the same poll.
    pub fn register(&self, socket: SocketId, direction: Direction, waker: &Waker) {
        let mut watchers = self.0.watchers.borrow_mut();
        if watchers.len() <= socket.index() {
            watchers.resize_with(socket.index() + 1, Watcher::default);
        }
        let watcher = &mut watchers[socket.index()];
        if !matches!(watcher, Watcher::Tasks(_)) {
            *watcher = Watcher::Tasks(Waiters::default());
        }
        let Watcher::Tasks(waiters) = watcher else { return };
        waiters.add(direction, waker);
    }

    /// Forgets who waits for `socket`, and wakes them: its owner is about to close it.
    pub fn forget(&self, socket: SocketId) {
        let watcher = self
            .0
            .watchers
            .borrow_mut()
            .get_mut(socket.index())
            .map(std::mem::take)
            .unwrap_or_default();
        match watcher {
            Watcher::Nobody | Watcher::Portal(_) => {}
            Watcher::Tasks(mut waiters) => waiters.wake_all(),
        }
    }

    /// Lets the events of `socket` go to a portal.
    pub(crate) fn watch_for_portal(&self, socket: SocketId, key: u32) {
        let mut watchers = self.0.watchers.borrow_mut();
        if watchers.len() <= socket.index() {
            watchers.resize_with(socket.index() + 1, Watcher::default);
        }
        watchers[socket.index()] = Watcher::Portal(key);
    }

    /// Repeats `attempt` until it answers something else than [`SocketError::WouldBlock`], waiting
    /// for `socket` in between.
    ///
    /// # Errors
    /// What `attempt` answers; [`SocketError::EngineStopped`] once the engine is stopping and has
    /// closed the listener that is waited for.
    pub async fn ready<T>(
        &self,
        socket: SocketId,
        direction: Direction,
        mut attempt: impl FnMut(&mut Stack) -> Result<T, SocketError>,
    ) -> Result<T, SocketError> {
        std::future::poll_fn(|cx| self.poll_ready(cx, socket, direction, &mut attempt)).await
    }

    /// One step of [`Core::ready`].
    pub fn poll_ready<T>(
        &self,
        cx: &mut Context<'_>,
        socket: SocketId,
        direction: Direction,
        attempt: impl FnOnce(&mut Stack) -> Result<T, SocketError>,
    ) -> Poll<Result<T, SocketError>> {
        match self.with_stack(attempt) {
            Err(SocketError::WouldBlock) => {
                self.register(socket, direction, cx.waker());
                Poll::Pending
            }
            outcome => Poll::Ready(outcome),
        }
    }

    /// Starts a task on this engine; false (and the future dropped, counted) when it has as many
    /// as its limit allows or is stopping. A panic in it ends it alone: the connections that it
    /// owns are reset.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> bool {
        self.0.executor.spawn(task)
    }

    /// Completes after `duration`.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.clock_now() + duration)
    }

    /// Completes at `deadline`.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { core: self.clone(), deadline, key: None }
    }

    /// Gives `future` at most `duration`.
    ///
    /// # Errors
    /// [`Elapsed`] if the time passed first; the future is dropped then.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut sleep = self.sleep(duration);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Lets other tasks and the network have a turn.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Completes when the engine has been asked to stop. Tasks have a short time from then on to
    /// end by themselves.
    pub async fn stopping(&self) {
        Stopping { core: self, place: None }.await;
    }

    /// True once the engine has been asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.get()
    }

    /// The time of this turn of the engine's loop.
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// The pool that this engine's packets lie in.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Which engine this is, from 0.
    pub fn index(&self) -> usize {
        usize::from(self.0.index)
    }

    /// How many engines there are.
    pub fn engines(&self) -> usize {
        usize::from(self.0.engines)
    }

    /// True while a task that panicked is dropped: what it owns is to be reset, not closed.
    pub fn is_failing(&self) -> bool {
        std::thread::panicking() || self.0.executor.is_failing()
    }

    /// Tasks alive on this engine.
    pub fn tasks(&self) -> usize {
        self.0.executor.tasks()
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.0.executor
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.0.mailbox
    }

    pub(crate) fn iface(&self) -> IfaceId {
        self.0.iface
    }

    pub(crate) fn stack(&self) -> Ref<'_, Stack> {
        self.0.stack.borrow()
    }

    fn clock_now(&self) -> Instant {
        Instant::from_nanos(self.0.clock.now_ns())
    }

    /// Reads the clock for a new turn.
    pub(crate) fn tick(&self) -> Instant {
        let now = self.clock_now();
        self.0.now.set(now);
        now
    }

    /// Hands at most `budget` events of the stack to those who wait for them; returns how many.
    pub(crate) fn deliver_events(&self, budget: usize) -> usize {
        for done in 0..budget {
            let event = self.with_stack(Stack::poll_event);
            let Some(Event { socket, ready }) = event else { return done };
            self.deliver(socket, ready);
        }
        budget
    }

    fn deliver(&self, socket: SocketId, ready: Readiness) {
        let mut watchers = self.0.watchers.borrow_mut();
        let Some(watcher) = watchers.get_mut(socket.index()) else { return };
        match watcher {
            Watcher::Nobody => {}
            Watcher::Portal(key) => self.0.touched.borrow_mut().push(*key),
            Watcher::Tasks(waiters) => {
                let reads = Readiness::READABLE | Readiness::READ_CLOSED | Readiness::ERROR;
                let writes = Readiness::WRITABLE | Readiness::WRITE_CLOSED | Readiness::ERROR;
                if ready.intersects(reads) {
                    waiters.wake(Direction::Read);
                }
                if ready.intersects(writes) {
                    waiters.wake(Direction::Write);
                }
            }
        }
    }

    /// Portals whose sockets have had an event, into `keys`.
    pub(crate) fn take_touched(&self, keys: &mut Vec<u32>) {
        keys.append(&mut self.0.touched.borrow_mut());
    }

    /// Wakes the tasks whose sleep has ended, at most `budget`; returns how many.
    pub(crate) fn fire_sleepers(&self, budget: usize) -> usize {
        let now = self.now();
        for done in 0..budget {
            let due = {
                let mut sleepers = self.0.sleepers.borrow_mut();
                let first = sleepers.by_deadline.first_entry();
                first.filter(|entry| entry.key().0 <= now).map(|entry| entry.remove())
            };
            let Some(waker) = due else { return done };
            waker.wake();
        }
        budget
    }

    /// When the next sleep ends.
    pub(crate) fn next_sleeper(&self) -> Option<Instant> {
        self.0.sleepers.borrow().by_deadline.first_key_value().map(|(key, _)| key.0)
    }

    /// Tells the tasks that the engine is about to stop.
    pub(crate) fn announce_stop(&self) {
        self.0.stopping.set(true);
        let waiting = std::mem::take(&mut *self.0.until_stop.borrow_mut());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes everybody who waits for any socket.
    pub(crate) fn wake_all(&self) {
        let mut watchers = self.0.watchers.borrow_mut();
        for watcher in watchers.iter_mut() {
            match watcher {
                Watcher::Nobody => {}
                Watcher::Portal(key) => self.0.touched.borrow_mut().push(*key),
                Watcher::Tasks(waiters) => waiters.wake_all(),
            }
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Core({} of {})", self.0.index, self.0.engines)
    }
}

/// Completes at its deadline; see [`Core::sleep`].
#[derive(Debug)]
pub struct Sleep {
    core: Core,
    deadline: Instant,
    /// Where its waker stands among the core's sleepers.
    key: Option<(Instant, u64)>,
}

impl Sleep {
    fn withdraw(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.0.sleepers.borrow_mut().by_deadline.remove(&key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.now() >= self.deadline {
            self.withdraw();
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        let key = {
            let mut sleepers = self.core.0.sleepers.borrow_mut();
            let key = self.key.unwrap_or_else(|| {
                sleepers.next += 1;
                (deadline, sleepers.next)
            });
            sleepers.by_deadline.insert(key, cx.waker().clone());
            key
        };
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// What [`Core::stopping`] waits with: one place among those that are woken, given back when the
/// wait is given up.
struct Stopping<'a> {
    core: &'a Core,
    place: Option<usize>,
}

impl Future for Stopping<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.is_stopping() {
            return Poll::Ready(());
        }
        let mut waiting = self.core.0.until_stop.borrow_mut();
        match self.place.and_then(|place| waiting.get_mut(place)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                let place = waiting.insert(cx.waker().clone());
                drop(waiting);
                self.place = Some(place);
            }
        }
        Poll::Pending
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        // Once the engine stops, all wakers have been taken together.
        if let Some(place) = self.place.filter(|_| !self.core.is_stopping()) {
            self.core.0.until_stop.borrow_mut().try_remove(place);
        }
    }
}
