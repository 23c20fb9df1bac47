//! One engine: its loop, its idling and its end.
//!
//! ```text
//!   ┌▶ rx bursts ─▶ frames of others ─▶ events ─▶ tasks ─▶ calls and sockets of threads
//!   │                                                                      │
//!   └─ sleep or spin ◀─ collect buffers ◀─ tx bursts ◀─ forwards ◀─ timers ◀┘
//! ```
//!
//! Run to completion: what has arrived is taken (never waiting for a full batch) and processed to
//! the end before more is taken. Each phase has a budget, so that none can starve the others; what
//! a budget cuts off comes first in the next turn.

use std::fmt;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use barewire_driver::device::BURST_FRAMES;
use barewire_driver::{Arm, Audit, Pool, Queue, QueueError, RxBurst};

use super::core::Core;
use super::executor::Resident;
use super::idle::Idle;
use super::mailbox::{Answer, Mailbox, Op};
use super::owner;
use super::remotes::Remotes;
use super::seed::Lifeline;
use super::stats::{EngineReport, EngineStats, LoopCounters};
use crate::time::Instant;

/// Receive bursts a turn.
pub const RX_BURSTS: usize = 4;
/// Frames taken over from other engines a turn.
const FORWARDED_FRAMES: usize = 256;
/// Events delivered a turn, before the tasks and once more before sending.
const EVENTS: usize = 1024;
/// Task polls a turn.
const TASK_POLLS: usize = 256;
/// Control calls answered a turn.
const REQUESTS: usize = 32;
/// Sockets of other threads served a turn.
const PORTALS: usize = 256;
/// Sleepers woken a turn.
const SLEEPERS: usize = 256;
/// Transmit bursts a turn.
const TX_BURSTS: usize = 8;
/// Steps of conversations within the host a turn.
const LOCAL_ROUNDS: usize = 4;

/// Turns without work before an engine may sleep, however short its spin: what the last phases of
/// one turn set in motion is seen by the next.
const IDLE_TURNS: u32 = 2;

/// Idle turns between two offers of the processor to whoever else wants it. Where an engine has a
/// core of its own nobody does; where it has not, the peer that it waits for may be what it keeps
/// from running.
const YIELD_TURNS: u32 = 8;

/// How soon an engine looks again when frames wait that the device has no room, or the pool no
/// header, for.
const TX_RETRY: Duration = Duration::from_micros(200);

/// How far an engine is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing new is accepted; tasks may end by themselves until then.
    Draining(Instant),
    /// The tasks are gone; connections may end by themselves until then.
    Closing(Instant),
    Over,
}

/// How long the steps of an orderly end may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopTimes {
    pub(super) drain: Duration,
    pub(super) grace: Duration,
}

/// What a turn of an engine came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was something to do, and there may be more.
    Worked,
    /// There was nothing to do.
    Idle,
    /// The engine was asked to stop and has done so, or its device failed: there are no more turns.
    Over,
}

/// One engine, on the thread that drives it: for good with [`Engine::run`], or turn by turn.
///
/// The thread must not wait for one of its own engines. Calls that would, of sockets for other threads
/// and of [`Engines`](super::Engines), say so instead ([`SocketError::NotSupported`]).
///
/// Dropping it ends all its connections at once; [`Engines::stop`](super::Engines::stop) and turns
/// until [`Turn::Over`] end them in order.
///
/// [`SocketError::NotSupported`]: crate::error::SocketError::NotSupported
pub struct Engine {
    core: Core,
    queue: Box<dyn Queue>,
    rx: RxBurst,
    remotes: Remotes,
    engines: Vec<Arc<Mailbox>>,
    idle: Idle,
    stop_times: StopTimes,
    phase: Phase,
    last_work: Instant,
    idle_turns: u32,
    /// Frames that the last turn took.
    taken: usize,
    counters: LoopCounters,
    /// Why the first engine of the group that ended by itself did so.
    failed: Arc<OnceLock<String>>,
    failure: Option<String>,
    _resident: Resident,
    _lifeline: Lifeline,
}

/// What is told of an engine that panicked.
pub(super) const PANICKED: &str = "the engine panicked";

/// How long the end of an engine waits for buffers that other threads are about to give back.
const RETURNS_WAIT: Duration = Duration::from_millis(250);

/// What an engine is made of beside its core.
pub(super) struct Parts {
    pub(super) queue: Box<dyn Queue>,
    pub(super) portals: usize,
    pub(super) engines: Vec<Arc<Mailbox>>,
    pub(super) idle: Idle,
    pub(super) stop_times: StopTimes,
    pub(super) failed: Arc<OnceLock<String>>,
    pub(super) lifeline: Lifeline,
}

impl Engine {
    pub(super) fn new(core: Core, parts: Parts) -> Engine {
        let Parts { queue, portals, engines, idle, stop_times, failed, lifeline } = parts;
        let last_work = core.now();
        Engine {
            remotes: Remotes::new(core.clone(), portals),
            core,
            queue,
            rx: RxBurst::new(),
            engines,
            idle,
            stop_times,
            phase: Phase::Running,
            last_work,
            idle_turns: 0,
            taken: 0,
            counters: LoopCounters::default(),
            failed,
            failure: None,
            _resident: Resident::new(),
            _lifeline: lifeline,
        }
    }

    /// What its tasks see of it: to start the first ones.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// One turn: what has arrived is taken in, tasks run that became ready, calls of other threads are
    /// answered, timers fire, and what there is to send is sent, each within a budget. It never sleeps,
    /// and nobody wakes a thread that does so between two turns.
    pub fn turn(&mut self) -> Turn {
        if self.phase == Phase::Over {
            return Turn::Over;
        }
        let core = self.core.clone();
        let _entered = core.executor().enter();
        let turn = self.step();
        self.advance_phase();
        if self.phase == Phase::Over {
            // Who waits for it elsewhere is told now: its thread may keep it for its figures.
            self.let_go();
            return Turn::Over;
        }
        turn
    }

    /// Makes turns until the engine is stopped or its device fails, idling as it was configured to.
    /// After [`Turn::Over`] it only reports.
    pub fn run(mut self) -> EngineReport {
        let core = self.core.clone();
        let entered = core.executor().enter();
        while self.phase != Phase::Over {
            if self.step() == Turn::Idle {
                self.rest();
            }
            self.advance_phase();
        }
        // Tasks and sockets go before the figures are taken, the queue before the stack.
        self.let_go();
        let (stats, unfinished) = (self.stats(), core.stack().orphans());
        let (failure, pool) = (self.failure.take(), core.pool().clone());
        drop((self, entered, core));
        EngineReport { stats, audit: settled(&pool), unfinished, failure }
    }

    /// Its figures.
    pub fn stats(&self) -> EngineStats {
        let (core, mailbox) = (&self.core, self.core.mailbox());
        let stack = core.stack();
        let portals = &self.remotes.counters;
        let mut pool = core.pool().counters();
        pool.bytes_copied += self.remotes.bytes_copied();
        EngineStats {
            index: core.index() as u16,
            run: LoopCounters {
                portal_turns: portals.portal_turns,
                portals_full: portals.portals_full,
                portals_starved: portals.portals_starved,
                closes_expired: portals.closes_expired,
                datagrams_lost: mailbox.datagrams_lost.load(Ordering::Relaxed),
                engine_wakeups: mailbox.doorbell.signals(),
                thread_wakeups: mailbox.thread_wakeups.load(Ordering::Relaxed),
                ..self.counters
            },
            tasks: core.executor().counters(),
            tasks_alive: core.tasks(),
            stack: *stack.counters(),
            sockets: stack.sockets(),
            portals: self.remotes.len(),
            time_wait: stack.time_wait(),
            queue: self.queue.counters(),
            pool,
            free_slots: core.pool().free_slots(),
            total_slots: core.pool().total_slots(),
        }
    }

    /// A turn with its consequences for the loop, its phase apart.
    fn step(&mut self) -> Turn {
        match self.work() {
            Ok(0) => Turn::Idle,
            Ok(_) => {
                self.counters.busy_turns += 1;
                self.last_work = self.core.now();
                self.idle_turns = 0;
                Turn::Worked
            }
            Err(error) => {
                // The first reason of all engines is there before a socket is told: who is told may
                // ask for it at once.
                let reason = error.to_string();
                let _ = self.failed.set(reason.clone());
                self.failure = Some(reason);
                self.phase = Phase::Over;
                Turn::Over
            }
        }
    }

    /// The work of a turn; says how much it found to do.
    fn work(&mut self) -> Result<usize, QueueError> {
        self.counters.turns += 1;
        let core = self.core.clone();
        let now = core.tick();
        let mut work = self.receive(now)?;
        work += owner::take_in(&core, &mut self.counters, FORWARDED_FRAMES);
        work += core.deliver_events(EVENTS);
        work += core.executor().run(TASK_POLLS);
        work += self.answer_calls();
        work += self.remotes.run(PORTALS);
        core.with_stack(|stack| stack.handle_timeout(now));
        work += core.fire_sleepers(SLEEPERS);
        work += core.deliver_events(EVENTS);
        if self.engines.len() > 1 {
            work += owner::send_out(&core, &self.engines, &mut self.counters, FORWARDED_FRAMES);
        }
        work += self.transmit()?;
        for _ in 0..LOCAL_ROUNDS {
            // What went to an address of this host has arrived already.
            if !core.stack().has_events() {
                break;
            }
            work += core.deliver_events(EVENTS);
            work += core.executor().run(TASK_POLLS);
            work += self.remotes.run(PORTALS);
            work += self.transmit()?;
        }
        core.pool().collect_returns();
        self.queue.reclaim();
        Ok(work)
    }

    fn receive(&mut self, now: Instant) -> Result<usize, QueueError> {
        let iface = self.core.iface();
        let mut frames = 0;
        for _ in 0..RX_BURSTS {
            let n = self.queue.rx_burst(&mut self.rx, BURST_FRAMES)?;
            frames += n;
            if n > 0 {
                self.core.with_stack(|stack| stack.handle_burst(now, iface, &mut self.rx));
                self.rx.clear();
            }
            if n < BURST_FRAMES {
                break;
            }
        }
        if frames > 0 || self.taken > 0 {
            self.taken = frames;
            let most = RX_BURSTS * BURST_FRAMES;
            self.core.with_stack(|stack| stack.note_turn(frames, most));
        }
        Ok(frames)
    }

    fn transmit(&mut self) -> Result<usize, QueueError> {
        let iface = self.core.iface();
        let mut frames = 0;
        for _ in 0..TX_BURSTS {
            let queue = &mut self.queue;
            let (sent, left) = self.core.with_stack(|stack| {
                let burst = stack.poll_transmit(iface);
                if burst.is_empty() {
                    return (Ok(0), 0);
                }
                let sent = queue.tx_burst(burst);
                (sent, burst.len())
            });
            let sent = sent?;
            frames += sent;
            if sent == 0 || left > 0 {
                break;
            }
        }
        Ok(frames)
    }

    fn answer_calls(&mut self) -> usize {
        for done in 0..REQUESTS {
            let Some(mut request) = self.core.mailbox().next_request() else { return done };
            self.counters.requests += 1;
            let Some(op) = request.take_op() else { continue };
            let outcome = match op {
                Op::Run(f) => {
                    // A panic of the function is its own affair; its caller is only told that it
                    // has run.
                    let _ = catch_unwind(AssertUnwindSafe(|| f(&self.core)));
                    Ok(Answer::Done)
                }
                Op::Stats => Ok(Answer::Stats(Box::new(self.stats()))),
                Op::Probe { .. }
                | Op::Listen { .. }
                | Op::Connect { .. }
                | Op::BindUdp { .. }
                | Op::ConnectUdp { .. }
                | Op::SetOption { .. }
                | Op::Option { .. } => self.remotes.call(op),
            };
            request.answer(outcome);
        }
        REQUESTS
    }

    fn rest(&mut self) {
        self.idle_turns = self.idle_turns.saturating_add(1);
        // A turn that finds nothing is pause enough.
        let Idle::Adaptive { spin } = self.idle else { return };
        let idle_for = self.core.now().saturating_since(self.last_work);
        if self.idle_turns >= IDLE_TURNS && idle_for >= spin {
            return self.sleep();
        }
        if self.idle_turns.is_multiple_of(YIELD_TURNS) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }

    /// Sleeps until there is something to do; returns at once if there is.
    fn sleep(&mut self) {
        let mailbox = self.core.mailbox().clone();
        mailbox.doorbell.announce();
        let stop = mailbox.is_stopping() && self.phase == Phase::Running;
        let mail = mailbox.has_mail() || self.core.executor().has_ready();
        if !stop && !mail && !self.remotes.has_work() {
            let armed = self.queue.arm();
            let own = self.next_deadline();
            match armed {
                Arm::Ready => {}
                Arm::Sleep { fd, until_ns } => {
                    let queue = until_ns.map(Instant::from_nanos);
                    self.sleep_until(fd, [queue, own].into_iter().flatten().min());
                }
            }
            self.queue.disarm();
        }
        mailbox.doorbell.awake();
        self.last_work = self.core.tick();
        self.idle_turns = 0;
    }

    fn sleep_until(&mut self, fd: Option<RawFd>, deadline: Option<Instant>) {
        let now = self.core.tick();
        let timeout = deadline.map(|at| at.saturating_since(now).as_nanos() as u64);
        if timeout == Some(0) {
            return;
        }
        self.counters.sleeps += 1;
        self.core.mailbox().doorbell.sleep(fd, timeout);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let (now, stack) = (self.core.now(), self.core.stack());
        let phase = match self.phase {
            Phase::Running | Phase::Over => None,
            Phase::Draining(at) | Phase::Closing(at) => Some(at),
        };
        let stuck = stack.wants_transmit().then(|| now + TX_RETRY);
        let own = [phase, stuck, self.core.next_sleeper(), self.remotes.poll_at()];
        own.into_iter().chain([stack.poll_at()]).flatten().min()
    }

    fn advance_phase(&mut self) {
        let now = self.core.now();
        match self.phase {
            Phase::Running if self.core.mailbox().is_stopping() => {
                self.core.mailbox().die();
                self.core.announce_stop();
                self.remotes.close_all();
                self.core.wake_all();
                self.phase = Phase::Draining(now + self.stop_times.drain);
                self.idle_turns = 0;
            }
            Phase::Running | Phase::Over => {}
            Phase::Draining(until) => {
                if self.core.tasks() == 0 || now >= until {
                    self.core.executor().drop_all();
                    self.phase = Phase::Closing(now + self.stop_times.grace);
                    self.idle_turns = 0;
                }
            }
            Phase::Closing(until) => {
                let over = self.core.stack().orphans() == 0 && !self.core.stack().wants_transmit();
                if over || now >= until {
                    self.phase = Phase::Over;
                }
            }
        }
    }

    fn let_go(&mut self) {
        self.core.mailbox().die();
        self.core.announce_stop();
        self.remotes.close_all();
        self.core.executor().drop_all();
        self.rx.clear();
        self.queue.stop();
    }
}

impl Drop for Engine {
    /// Also when the engine panics: nobody waits for it for ever, and the tasks, which hold the
    /// core, do not keep it alive.
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.failed.set(PANICKED.to_owned());
        }
        // What broke the engine may break this, too; the remotes let their threads go by themselves.
        let _ = catch_unwind(AssertUnwindSafe(|| self.let_go()));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("core", &self.core).finish_non_exhaustive()
    }
}

/// Where an engine's buffers are once it has ended, and other threads have had the time to give back
/// what they held.
pub(super) fn settled(pool: &Pool) -> Audit {
    let deadline = std::time::Instant::now() + RETURNS_WAIT;
    while !pool.audit().all_free() && std::time::Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    pool.audit()
}
