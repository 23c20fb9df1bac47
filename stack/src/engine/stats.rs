//! What an engine has counted, and what it reports when it ends.

use barewire_driver::mem::PoolCounters;
use barewire_driver::{Audit, QueueCounters};

use super::executor::TaskCounters;
use crate::counters::StackCounters;

/// What the loop and its mailboxes have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopCounters {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that found something to do.
    pub busy_turns: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Times that others made a system call to wake it.
    pub engine_wakeups: u64,
    /// Times that a thread which slept at a socket was woken by a system call.
    pub thread_wakeups: u64,
    /// Control calls answered.
    pub requests: u64,
    /// Looks at sockets of other threads.
    pub portal_turns: u64,
    /// Sockets of other threads that could not be opened because there were too many.
    pub portals_full: u64,
    /// Times a socket of another thread had to wait because the pool had no slot to spare.
    pub portals_starved: u64,
    /// Datagrams lost because the pool or the ring of the threads that read them was full.
    pub datagrams_lost: u64,
    /// Connections of other threads aborted because their last data could not be sent in time.
    pub closes_expired: u64,
    /// Frames handed to the engine that their flow belongs to.
    pub forwarded_out: u64,
    /// Frames taken over from other engines.
    pub forwarded_in: u64,
    /// ARP frames among them: every engine gets those, for each has its own neighbour cache.
    pub forwarded_arp: u64,
    /// Frames for other engines that were dropped because memory or their inbox was full.
    pub forward_dropped: u64,
}

/// The figures of one engine.
#[derive(Clone, Debug, Default)]
pub struct EngineStats {
    /// Which engine, from 0.
    pub index: u16,
    /// Its loop.
    pub run: LoopCounters,
    /// Its tasks.
    pub tasks: TaskCounters,
    /// Tasks alive.
    pub tasks_alive: usize,
    /// Its stack.
    pub stack: StackCounters,
    /// Entries in the socket table.
    pub sockets: usize,
    /// Sockets that other threads hold.
    pub portals: usize,
    /// Connections in TIME-WAIT.
    pub time_wait: usize,
    /// Its queue.
    pub queue: QueueCounters,
    /// Its pool. `bytes_copied` includes what other threads copied in `read` and `write`.
    pub pool: PoolCounters,
    /// Slots free now.
    pub free_slots: usize,
    /// Slots in the pool.
    pub total_slots: usize,
}

/// How one engine ended.
#[derive(Clone, Debug, Default)]
pub struct EngineReport {
    /// Its last figures.
    pub stats: EngineStats,
    /// Where its buffers were at the very end: all free, or something leaked.
    pub audit: Audit,
    /// Connections that had not ended when the time for it was over.
    pub unfinished: usize,
    /// Why it ended by itself, if it did.
    pub failure: Option<String>,
}

impl EngineReport {
    /// True if the engine was stopped, and every buffer came back.
    pub fn is_clean(&self) -> bool {
        self.failure.is_none() && self.audit.all_free()
    }
}
