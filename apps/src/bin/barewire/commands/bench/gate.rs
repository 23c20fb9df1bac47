//! Where connections that are open wait until all are, so that all are measured over the same time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::link::Link;

/// Longest wait for the other connections; those that come later have less time left.
const WAIT: Duration = Duration::from_secs(5);

/// How often is looked whether all have come.
const STEP: Duration = Duration::from_millis(3);

#[derive(Debug)]
pub(super) struct Gate {
    expected: u32,
    arrived: AtomicU32,
    /// When the run begins, once that is known.
    begin: OnceLock<Instant>,
}

impl Gate {
    pub(super) fn new(expected: u32) -> Gate {
        Gate { expected, arrived: AtomicU32::new(0), begin: OnceLock::new() }
    }

    /// Says that one more connection is open, or never will be. To be called once for each.
    pub(super) fn arrive(&self) {
        // Nothing but the number is told by it.
        if self.arrived.fetch_add(1, Ordering::Relaxed) + 1 >= self.expected {
            // By then all have looked, and waited for the rest of the time.
            self.begin.get_or_init(|| Instant::now() + 2 * STEP);
        }
    }

    /// When the run begins for connections that wait for nobody: with the first of them.
    pub(super) fn begin(&self) -> Instant {
        *self.begin.get_or_init(Instant::now)
    }

    /// Waits until the run begins; gives when that was.
    pub(super) async fn pass<L: Link>(&self, link: &L) -> Instant {
        let give_up = Instant::now() + WAIT;
        let begin = loop {
            let now = Instant::now();
            if now >= give_up {
                break *self.begin.get_or_init(|| now);
            }
            match self.begin.get() {
                Some(&begin) => break begin,
                None => link.sleep_until(now + STEP).await,
            }
        };
        link.sleep_until(begin).await;
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::link::run_blocking;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn all_begin_at_the_time_of_the_last_to_come() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let gate = Gate::new(2);
        gate.arrive();
        let (first, last) = std::thread::scope(|scope| {
            let first = scope.spawn(|| run_blocking(gate.pass(&link)));
            std::thread::sleep(10 * STEP);
            let last = Instant::now();
            gate.arrive();
            (first.join().unwrap(), last)
        });
        assert!(first >= last);
        assert_eq!(run_blocking(gate.pass(&link)), first, "who comes late has less time");
    }
}
