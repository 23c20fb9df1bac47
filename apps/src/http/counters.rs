//! What a server counts, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one core's server: written by that core, read by whoever shows them.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Count,)* }

        /// The values of [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Figures { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// The values now.
            pub fn figures(&self) -> Figures {
                Figures { $($name: self.$name.get(),)* }
            }
        }

        impl Figures {
            /// The sum of both, for several cores.
            #[must_use]
            pub fn plus(self, other: Figures) -> Figures {
                Figures { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

impl Figures {
    /// Connections that are open. The counters are read one after the other while they go on
    /// counting, so a difference may come out a little wrong, but never below zero.
    pub fn open(&self) -> u64 {
        self.connections.saturating_sub(self.closed)
    }

    /// Answers that are under way; as [`Figures::open`].
    pub fn under_way(&self) -> u64 {
        self.requests.saturating_sub(self.answered)
    }
}

counters! {
    /// Connections begun.
    connections,
    /// Connections ended, however they ended.
    closed,
    /// Requests answered, errors included.
    requests,
    /// Answers that were handed to the transport whole, or given up with their connection.
    answered,
    /// Bytes of heads and bodies handed to the transport.
    bytes_sent,
    /// Answers with a 4xx status.
    client_errors,
    /// Answers with a 5xx status.
    server_errors,
    /// Connections ended because the client was silent or slow.
    timeouts,
    /// Connections that the transport ended with an error, or a file that shrank while it was sent.
    aborted,
    /// Files found in the cache.
    cache_hits,
    /// Files opened.
    cache_misses,
    /// Files dropped from the cache to make room.
    cache_evictions,
}

/// One counter. Written by one thread, so that adding needs no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the owning core may call it: two writers would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_several_cores_add_up() {
        let (a, b) = (Counters::default(), Counters::default());
        a.requests.add(2);
        b.requests.add(3);
        b.timeouts.add(1);
        let sum = a.figures().plus(b.figures());
        assert_eq!((sum.requests, sum.timeouts, sum.connections), (5, 1, 0));
        assert_eq!((sum.under_way(), sum.open()), (5, 0));
        assert_eq!(Figures { closed: 1, answered: 1, ..Figures::default() }.open(), 0);
    }
}
