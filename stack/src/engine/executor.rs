//! The tasks of one engine: futures that never leave their thread, run when they were woken.
//!
//! ```text
//!   wake on the engine's thread ──▶ local run list ──┐
//!                                                    ├─▶ run(budget): poll each once,
//!   wake on any other thread ──▶ remote queue ───────┘   then those that these have started
//!                                 └─▶ doorbell, only if the engine sleeps
//! ```
//!
//! A task is one `Arc` with a flag for each list that says whether it is there, so both are bounded by
//! the tasks alive, those that have ended in the turn, and wakers that outlive theirs. The way of a wake on the engine's own thread, which nearly all are, has no
//! atomic operation but loads and stores. A task that panics is dropped and counted; the others go on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crossbeam::queue::SegQueue;
use slab::Slab;

use super::idle::Doorbell;
use super::sync::QueuedFlag;

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Which task is meant: its place, which another may have later, and how many had been started before
/// it. Who finds another there does nothing, or polls it in vain, after four billion others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    key: u32,
    serial: u32,
}

/// What wakers point to.
struct Header {
    name: Name,
    executor: u64,
    /// It is on the local list. Only the executor's own thread reads and writes this.
    listed: AtomicBool,
    /// It is in the remote queue.
    queued: QueuedFlag,
    remote: Arc<RemoteRuns>,
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        if !push_local(&self) && self.queued.claim() {
            let remote = self.remote.clone();
            remote.woken.push(self);
            remote.doorbell.ring();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !push_local(self) {
            self.clone().wake();
        }
    }
}

/// Wakes from other threads.
struct RemoteRuns {
    woken: SegQueue<Arc<Header>>,
    doorbell: Arc<Doorbell>,
}

/// Wakes from the engine's own thread.
struct LocalRuns {
    executor: u64,
    woken: RefCell<VecDeque<Name>>,
}

impl LocalRuns {
    fn push(&self, header: &Header) {
        if !header.listed.load(Ordering::Relaxed) {
            header.listed.store(true, Ordering::Relaxed);
            self.woken.borrow_mut().push_back(header.name);
        }
    }

    fn pop(&self) -> Option<Name> {
        self.woken.borrow_mut().pop_front()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<LocalRuns>>> = const { RefCell::new(None) };
    /// Engines that live on this thread.
    static RESIDENTS: Cell<usize> = const { Cell::new(0) };
}

/// Puts the task on this thread's list; false if it is not this thread that runs its executor.
fn push_local(header: &Header) -> bool {
    // A waker may be dropped while the thread ends and its locals are gone already.
    let pushed = CURRENT.try_with(|current| {
        let Ok(current) = current.try_borrow() else { return false };
        let Some(runs) = current.as_ref().filter(|runs| runs.executor == header.executor) else {
            return false;
        };
        runs.push(header);
        true
    });
    pushed.unwrap_or(false)
}

/// True on a thread that drives an engine: to wait there for an engine would be to wait for ever.
pub(crate) fn on_engine_thread() -> bool {
    RESIDENTS.try_with(|count| count.get() > 0).unwrap_or(false)
}

/// Says that an engine lives on this thread, between its turns too.
pub(crate) struct Resident(PhantomData<*const ()>);

impl Resident {
    pub(crate) fn new() -> Resident {
        RESIDENTS.with(|count| count.set(count.get() + 1));
        Resident(PhantomData)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = RESIDENTS.try_with(|count| count.set(count.get() - 1));
    }
}

/// While it lives, wakes on this thread go to the executor's local list.
pub(crate) struct Entered(Option<Rc<LocalRuns>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = CURRENT.try_with(|current| *current.borrow_mut() = self.0.take());
    }
}

struct Task {
    header: Arc<Header>,
    /// `None` while it is being polled.
    work: Option<(Work, Waker)>,
}

/// What an executor has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounters {
    /// Tasks started.
    pub spawned: u64,
    /// Tasks that ran to their end.
    pub finished: u64,
    /// Tasks that panicked and were dropped.
    pub panicked: u64,
    /// Tasks refused because the engine had as many as it may, or was stopping.
    pub refused: u64,
    /// Polls.
    pub polls: u64,
}

/// Runs the tasks of one engine.
pub(crate) struct Executor {
    id: u64,
    tasks: RefCell<Slab<Task>>,
    limit: usize,
    local: Rc<LocalRuns>,
    /// Tasks that have never been polled.
    fresh: RefCell<VecDeque<Name>>,
    remote: Arc<RemoteRuns>,
    counters: Cell<TaskCounters>,
    /// No task is accepted any more.
    closed: Cell<bool>,
    /// A panicked task is being dropped: what it owned ends abortively.
    failing: Cell<bool>,
}

impl Executor {
    /// An executor for at most `limit` tasks that wakes its engine through `doorbell`.
    pub(crate) fn new(limit: usize, doorbell: Arc<Doorbell>) -> Executor {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Executor {
            id,
            tasks: RefCell::default(),
            limit: limit.min(u32::MAX as usize),
            local: Rc::new(LocalRuns { executor: id, woken: RefCell::default() }),
            fresh: RefCell::default(),
            remote: Arc::new(RemoteRuns { woken: SegQueue::new(), doorbell }),
            counters: Cell::default(),
            closed: Cell::new(false),
            failing: Cell::new(false),
        }
    }

    /// Makes this thread the executor's own until the result is dropped.
    pub(crate) fn enter(&self) -> Entered {
        Entered(CURRENT.with(|current| current.borrow_mut().replace(self.local.clone())))
    }

    /// Starts a task; false (counted, the future dropped) at the limit and after `drop_all`.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) -> bool {
        if self.closed.get() || self.tasks.borrow().len() >= self.limit {
            self.count(|c| c.refused += 1);
            return false;
        }
        let work: Work = Box::pin(work);
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        // The limit is such that all places have a number.
        let name = Name { key: entry.key() as u32, serial: self.counters.get().spawned as u32 };
        let header = Arc::new(Header {
            name,
            executor: self.id,
            // Nobody has to wake it before its first poll.
            listed: AtomicBool::new(true),
            queued: QueuedFlag::default(),
            remote: self.remote.clone(),
        });
        self.fresh.borrow_mut().push_back(name);
        let waker = Waker::from(header.clone());
        entry.insert(Task { header, work: Some((work, waker)) });
        self.count(|c| c.spawned += 1);
        true
    }

    /// Polls tasks that were woken, and those that have been started meanwhile: what a handler is for
    /// has often arrived with what it was started for. At most `budget`, of which up to half is kept for
    /// those that earlier turns have started and left; returns how many.
    pub(crate) fn run(&self, budget: usize) -> usize {
        self.collect_remote();
        let kept = self.fresh.borrow().len().min(budget / 2);
        // What wakes itself again waits for the next turn.
        let ready = self.local.woken.borrow().len().min(budget - kept);
        for _ in 0..ready {
            let Some(name) = self.local.pop() else { break };
            self.poll_task(name);
        }
        for done in ready..budget {
            let fresh = self.fresh.borrow_mut().pop_front();
            let Some(name) = fresh else { return done };
            self.poll_task(name);
        }
        budget
    }

    /// True if `run` would find something to do.
    pub(crate) fn has_ready(&self) -> bool {
        let here = [&self.local.woken, &self.fresh];
        here.iter().any(|list| !list.borrow().is_empty()) || !self.remote.woken.is_empty()
    }

    /// Tasks alive.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// What has been counted.
    pub(crate) fn counters(&self) -> TaskCounters {
        self.counters.get()
    }

    /// True while a panicked task is dropped.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.get()
    }

    /// Drops all tasks and refuses new ones.
    pub(crate) fn drop_all(&self) {
        self.closed.set(true);
        // One at a time: dropping a task may look at the executor. None is added meanwhile.
        let keys: Vec<usize> = self.tasks.borrow().iter().map(|(key, _)| key).collect();
        for key in keys {
            let task = self.tasks.borrow_mut().try_remove(key);
            if let Some(task) = task {
                self.drop_guarded(task.work.map(|(work, _)| work));
            }
        }
        self.collect_remote();
        self.local.woken.borrow_mut().clear();
        self.fresh.borrow_mut().clear();
    }

    fn collect_remote(&self) {
        if self.remote.woken.is_empty() {
            return;
        }
        // What is pushed while this runs waits for the next turn.
        for _ in 0..self.remote.woken.len() {
            let Some(header) = self.remote.woken.pop() else { break };
            header.queued.release();
            self.local.push(&header);
        }
    }

    /// Polls the task of that name, if there still is one: a waker may outlive its task.
    fn poll_task(&self, name: Name) {
        let key = name.key as usize;
        let (mut work, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(key).filter(|task| task.header.name == name);
            let Some(task) = task else { return };
            task.header.listed.store(false, Ordering::Relaxed);
            let Some(work) = task.work.take() else { return };
            work
        };
        self.count(|c| c.polls += 1);
        let mut context = Context::from_waker(&waker);
        let result = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
        match result {
            Ok(Poll::Pending) => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(key) {
                    task.work = Some((work, waker));
                }
                return;
            }
            Ok(Poll::Ready(())) => self.count(|c| c.finished += 1),
            Err(_) => {
                self.count(|c| c.panicked += 1);
                self.failing.set(true);
            }
        }
        let task = self.tasks.borrow_mut().try_remove(key);
        self.drop_guarded(Some(work));
        self.failing.set(false);
        drop(task);
    }

    /// Drops a future; a panic in one of its destructors stops there.
    fn drop_guarded(&self, work: Option<Work>) {
        if catch_unwind(AssertUnwindSafe(|| drop(work))).is_err() {
            self.count(|c| c.panicked += 1);
        }
    }

    fn count(&self, f: impl FnOnce(&mut TaskCounters)) {
        let mut counters = self.counters.get();
        f(&mut counters);
        self.counters.set(counters);
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
