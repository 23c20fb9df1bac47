//! What an engine does while there is nothing to do, and how it is woken.
//!
//! ```text
//!   nothing done ─▶ spin for a while ─▶ announce sleep ─▶ look at the mailboxes again
//!                                        ─▶ arm the queue (it looks again, too)
//!                                        ─▶ ppoll(queue, doorbell) until the next deadline
//! ```
//!
//! There is no periodic tick: an engine without traffic, messages and due timers does not run.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use barewire_driver::sys::{EventFd, poll_readable};

use super::sync::SleepFlag;

/// How long an adaptive engine spins before it sleeps: longer than the gap between the packets of
/// a busy connection, shorter than a scheduler's tick.
pub const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// What an engine does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls always: the lowest latency, at the cost of a whole core.
    Busy,
    /// Polls for `spin` after the last work, then sleeps on the device and its mailboxes.
    Adaptive {
        /// Time without work before it sleeps.
        spin: Duration,
    },
}

impl Default for Idle {
    fn default() -> Self {
        Idle::Adaptive { spin: DEFAULT_SPIN }
    }
}

/// Wakes one engine from any thread; a system call only if it sleeps.
#[derive(Debug)]
pub(crate) struct Doorbell {
    sleeping: SleepFlag,
    event: EventFd,
    /// Times that it took a system call to wake the engine.
    signals: AtomicU64,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Doorbell> {
        Ok(Doorbell {
            sleeping: SleepFlag::default(),
            event: EventFd::new()?,
            signals: AtomicU64::new(0),
        })
    }

    /// Wakes the engine if it sleeps. Call it after the work has been put down.
    pub(crate) fn ring(&self) {
        if self.sleeping.must_wake() {
            self.signals.fetch_add(1, Ordering::Relaxed);
            self.event.signal();
        }
    }

    /// Times that it took a system call to wake the engine.
    pub(crate) fn signals(&self) -> u64 {
        self.signals.load(Ordering::Relaxed)
    }

    /// The engine: it is about to sleep and will look for work once more.
    pub(crate) fn announce(&self) {
        self.sleeping.announce();
    }

    /// The engine: it is awake. Takes back a signal that came meanwhile.
    pub(crate) fn awake(&self) {
        self.sleeping.retract();
        self.event.drain();
    }

    /// Sleeps until somebody rings, `also` is readable, or `timeout_ns` has passed.
    pub(crate) fn sleep(&self, also: Option<RawFd>, timeout_ns: Option<u64>) {
        let own = self.event.as_raw_fd();
        let fds = [own, also.unwrap_or(own)];
        let count = if also.is_some() { 2 } else { 1 };
        // An error here can only be a descriptor that has gone; the queue's next burst reports it.
        let _ = poll_readable(&fds[..count], timeout_ns);
    }

    #[cfg(test)]
    pub(crate) fn sleep_at_most(&self, time: Duration) {
        self.sleep(None, Some(time.as_nanos() as u64));
    }
}
