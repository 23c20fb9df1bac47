//! The wake-up protocols between threads, each small enough to be checked by a model checker.
//!
//! ```text
//!   producer                         consumer
//!     put the work down                announce: flag = true
//!     ── fence ──                      ── fence ──
//!     read the flag: asleep? wake      look again; nothing there? sleep
//! ```
//!
//! Either the producer sees the flag or the consumer sees the work: both fences are sequentially
//! consistent, so the two reads cannot both miss. With `--cfg loom` the same code runs on loom's
//! atomics, and the tests in `model` try every order of its steps.

use std::sync::PoisonError;
use std::time::Instant;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};

/// Says that a consumer sleeps, or is about to.
#[derive(Debug, Default)]
pub(crate) struct SleepFlag(AtomicBool);

impl SleepFlag {
    /// Consumer: from now on every producer wakes it. It must look for work once more after this
    /// and before it sleeps.
    pub(crate) fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
        // Orders the flag's store (consumer) before the consumer's second look at the queues;
        // pairs with the fence in `must_wake`, which orders the producer's push before its load.
        fence(Ordering::SeqCst);
    }

    /// Consumer: it is awake.
    pub(crate) fn retract(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Producer, after it has put its work down: true for exactly one of those who find the
    /// consumer asleep, and that one wakes it.
    pub(crate) fn must_wake(&self) -> bool {
        // See `announce`.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// Says that something is in a queue already, so that it is queued at most once.
#[derive(Debug, Default)]
pub(crate) struct QueuedFlag(AtomicBool);

impl QueuedFlag {
    /// Producer, after it has put its work down: true if it has to queue the thing.
    pub(crate) fn claim(&self) -> bool {
        // Release: whoever releases the flag later sees the work that was put down before.
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Consumer, after it took the thing off the queue and before it looks at its work. Work put
    /// down after this queues the thing again.
    pub(crate) fn release(&self) {
        // A swap, not a store: it reads the last producer's swap and so synchronises with it even
        // when that producer did not queue anything.
        self.0.swap(false, Ordering::AcqRel);
    }
}

/// As [`QueuedFlag`], for a thing that its consumer may also watch: it looks at the flag all the time,
/// and nobody has to queue the thing. One cache line less changes hands each way.
#[derive(Debug, Default)]
pub(crate) struct PostFlag(AtomicU8);

/// What a producer has to do for its work to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posting {
    /// To queue the thing, and to wake the consumer.
    Queue,
    /// To wake the consumer, who watches.
    Wake,
    /// Nothing: another producer did.
    Done,
}

impl PostFlag {
    /// Neither in the queue nor watched.
    const IDLE: u8 = 0;
    /// Watched, without work that the consumer has not seen.
    const WATCHED: u8 = 1;
    /// In the queue, or watched and with work.
    const POSTED: u8 = 2;

    /// Producer, after it has put its work down.
    pub(crate) fn claim(&self) -> Posting {
        // Release: whoever takes the flag down later sees the work that was put down before.
        match self.0.swap(PostFlag::POSTED, Ordering::AcqRel) {
            PostFlag::IDLE => Posting::Queue,
            PostFlag::WATCHED => Posting::Wake,
            _ => Posting::Done,
        }
    }

    /// Consumer, after it took the thing off the queue, or stops watching, and before it looks at its
    /// work. Work put down after this queues the thing. True if there is work that was put down before.
    pub(crate) fn release(&self) -> bool {
        // A swap, not a store: it reads the last producer's swap and so synchronises with it even
        // when that producer did not queue anything.
        self.0.swap(PostFlag::IDLE, Ordering::AcqRel) == PostFlag::POSTED
    }

    /// As [`PostFlag::release`], but from now on the consumer watches: it calls [`PostFlag::look`].
    pub(crate) fn watch(&self) {
        self.0.swap(PostFlag::WATCHED, Ordering::AcqRel);
    }

    /// Consumer, while it watches: true if there is work, at which it is about to look.
    pub(crate) fn look(&self) -> bool {
        let posted = self.is_posted();
        if posted {
            self.watch();
        }
        posted
    }

    /// Consumer: true if there is work that it has not seen.
    pub(crate) fn is_posted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PostFlag::POSTED
    }
}

/// Where application threads wait for an engine. Ringing it costs a fence and a load while nobody
/// waits.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    waiting: AtomicU32,
    lock: Mutex<()>,
    condition: Condvar,
}

impl Bell {
    /// Waits until `ready` holds: true, or false if `deadline` passed first. It spins for a while
    /// and sleeps after that. `ready` is called with the bell's lock held and must not ring it.
    pub(crate) fn wait_until(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) -> bool {
        if ready() || spin_until(deadline, &mut ready) {
            return true;
        }
        let mut guard = self.locked();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Orders the waiter's count before its next look at `ready`; pairs with the fence in
        // `ring`, which orders the engine's work before its load of the count.
        fence(Ordering::SeqCst);
        let outcome = loop {
            if ready() {
                break true;
            }
            let Some(deadline) = deadline else {
                guard = self.condition.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            guard =
                self.condition.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(guard);
        outcome
    }

    /// Wakes all who wait, after what they wait for has been put down; true if anybody slept.
    pub(crate) fn ring(&self) -> bool {
        // See `wait_until`.
        fence(Ordering::SeqCst);
        let asleep = self.waiting.load(Ordering::Relaxed) > 0;
        if asleep {
            // Taken and let go: a waiter that has looked but does not sleep yet still holds it.
            drop(self.locked());
            self.condition.notify_all();
        }
        asleep
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a thread spins before it sleeps: what a busy engine needs for a few turns, and less than
/// falling asleep and waking up costs it and its engine together.
#[cfg(not(loom))]
const SPIN: Duration = Duration::from_micros(20);

/// How long it keeps the processor to itself meanwhile. After that it offers it to others: where a
/// thread has to share it with its engine, the engine is who it waits for.
#[cfg(not(loom))]
const SPIN_ALONE: Duration = Duration::from_micros(5);

/// Looks between two at the clock.
#[cfg(not(loom))]
const SPIN_LOOKS: u32 = 16;

/// Looks at `ready` for a while; true once it holds.
#[cfg(not(loom))]
fn spin_until(deadline: Option<Instant>, ready: &mut impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..SPIN_LOOKS {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        let now = Instant::now();
        let spun = now - start;
        if spun >= SPIN || deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        if spun >= SPIN_ALONE {
            std::thread::yield_now();
        }
    }
}

/// The model has every order of steps without it.
#[cfg(loom)]
fn spin_until(_: Option<Instant>, _: &mut impl FnMut() -> bool) -> bool {
    false
}

#[cfg(all(test, loom))]
mod model {
    //! Every order of the steps that the memory model allows.

    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    #[test]
    fn a_producer_wakes_the_sleeper_or_the_sleeper_sees_the_work() {
        loom::model(|| {
            let shared = Arc::new((SleepFlag::default(), AtomicUsize::new(0)));
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                theirs.1.store(1, Ordering::Relaxed);
                theirs.0.must_wake()
            });
            shared.0.announce();
            let seen = shared.1.load(Ordering::Relaxed) == 1;
            let woken = producer.join().unwrap();
            assert!(seen || woken, "it would sleep over the work");
        });
    }

    #[test]
    fn of_two_producers_only_one_pays_for_the_wake_up() {
        loom::model(|| {
            let flag = Arc::new(SleepFlag::default());
            flag.announce();
            let theirs = flag.clone();
            let other = thread::spawn(move || theirs.must_wake());
            let (one, two) = (flag.must_wake(), other.join().unwrap());
            assert!(one != two);
        });
    }

    #[test]
    fn work_put_down_before_a_failed_claim_is_seen_by_the_one_who_releases() {
        loom::model(|| {
            let shared = Arc::new((QueuedFlag::default(), AtomicUsize::new(0)));
            assert!(shared.0.claim(), "it is in the queue");
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                theirs.1.store(1, Ordering::Relaxed);
                theirs.0.claim()
            });
            shared.0.release();
            let seen = shared.1.load(Ordering::Relaxed) == 1;
            let queued_again = producer.join().unwrap();
            assert!(seen || queued_again, "the work would be forgotten");
        });
    }

    #[test]
    fn work_for_a_watcher_is_seen_or_queued() {
        loom::model(|| {
            let shared = Arc::new((PostFlag::default(), AtomicUsize::new(0)));
            assert_eq!(shared.0.claim(), Posting::Queue);
            shared.0.watch();
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                theirs.1.store(1, Ordering::Relaxed);
                theirs.0.claim()
            });
            // It looks once, and stops watching.
            let looked = shared.0.look() && shared.1.load(Ordering::Relaxed) == 1;
            let left = shared.0.release() && shared.1.load(Ordering::Relaxed) == 1;
            match producer.join().unwrap() {
                Posting::Wake => assert!(looked || left, "the work would be forgotten"),
                Posting::Queue => assert!(!looked && !left, "it was not watched any more"),
                Posting::Done => panic!("there is one producer"),
            }
        });
    }

    #[test]
    fn a_watcher_that_falls_asleep_is_woken_or_sees_the_work() {
        loom::model(|| {
            let shared = Arc::new((PostFlag::default(), SleepFlag::default()));
            shared.0.watch();
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                assert_eq!(theirs.0.claim(), Posting::Wake);
                theirs.1.must_wake()
            });
            shared.1.announce();
            let seen = shared.0.is_posted();
            let woken = producer.join().unwrap();
            assert!(seen || woken, "it would sleep over the work");
        });
    }

    #[test]
    fn of_two_who_post_to_a_watcher_one_wakes_it() {
        loom::model(|| {
            let flag = Arc::new(PostFlag::default());
            flag.watch();
            let theirs = flag.clone();
            let other = thread::spawn(move || theirs.claim());
            let mut claims = [flag.claim(), other.join().unwrap()];
            claims.sort_by_key(|claim| *claim == Posting::Done);
            assert_eq!(claims, [Posting::Wake, Posting::Done]);
            assert!(flag.look() && !flag.look());
        });
    }

    #[test]
    fn a_ring_reaches_whoever_waits() {
        loom::model(|| {
            let shared = Arc::new((Bell::default(), AtomicUsize::new(0)));
            let theirs = shared.clone();
            let ringer = thread::spawn(move || {
                theirs.1.store(1, Ordering::Relaxed);
                theirs.0.ring();
            });
            // A ring that is lost leaves this waiting, and loom reports the deadlock.
            assert!(shared.0.wait_until(None, || shared.1.load(Ordering::Relaxed) == 1));
            ringer.join().unwrap();
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn of_several_producers_one_wakes_the_sleeper() {
        let flag = SleepFlag::default();
        assert!(!flag.must_wake());
        flag.announce();
        assert!(flag.must_wake());
        assert!(!flag.must_wake());
        flag.announce();
        flag.retract();
        assert!(!flag.must_wake());
    }

    #[test]
    fn a_bell_loses_no_ring() {
        const ROUNDS: usize = 20_000;
        let bell = Arc::new((Bell::default(), AtomicUsize::new(0), Bell::default()));
        let there = bell.clone();
        let echo = std::thread::spawn(move || {
            for round in 0..ROUNDS {
                let reached = || there.1.load(Ordering::Acquire) == 2 * round + 1;
                there.0.wait_until(None, reached);
                there.1.store(2 * round + 2, Ordering::Release);
                there.2.ring();
            }
        });
        for round in 0..ROUNDS {
            bell.1.store(2 * round + 1, Ordering::Release);
            bell.0.ring();
            let deadline = Instant::now() + Duration::from_secs(20);
            let answered = || bell.1.load(Ordering::Acquire) == 2 * round + 2;
            assert!(bell.2.wait_until(Some(deadline), answered), "a ring was lost");
        }
        echo.join().unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let bell = Bell::default();
        let start = Instant::now();
        assert!(!bell.wait_until(Some(start + Duration::from_millis(20)), || false));
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
