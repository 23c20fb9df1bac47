use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use proptest::prelude::*;

fn fire(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
    let mut fired = Vec::new();
    wheel.advance(now, &mut fired);
    fired
}

#[test]
fn a_timer_never_fires_early_and_at_most_a_tick_late() {
    for at in [1, TICK_NS - 1, TICK_NS, TICK_NS + 1, 200_000_000, 86_400_000_000_000] {
        let mut wheel = Wheel::new();
        wheel.insert(Instant::from_nanos(at), 7);
        assert_eq!(fire(&mut wheel, Instant::from_nanos(at - 1)), [], "{at} ns, early");
        assert_eq!(fire(&mut wheel, Instant::from_nanos(at + TICK_NS)), [7], "{at} ns, late");
        assert!(wheel.is_empty());
    }
}

#[test]
fn a_deadline_that_has_passed_fires_at_the_next_advance() {
    let mut wheel = Wheel::new();
    let now = Instant::from_millis(5000);
    assert_eq!(fire(&mut wheel, now), []);
    wheel.insert(Instant::from_millis(4000), 1);
    wheel.insert(Instant::ZERO, 2);
    assert!(wheel.next_deadline().unwrap() <= now, "due at once");
    let mut fired = fire(&mut wheel, now);
    fired.sort_unstable();
    assert_eq!(fired, [1, 2]);
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn a_stale_key_cancels_nothing() {
    let mut wheel = Wheel::new();
    let old = wheel.insert(Instant::from_millis(10), 1);
    assert!(wheel.cancel(old));
    assert!(!wheel.cancel(old), "cancelled before");
    let new = wheel.insert(Instant::from_millis(10), 2);
    assert_eq!(new.node, old.node, "the memory is used again");
    assert!(!wheel.cancel(old), "and the old key does not reach it");
    assert_eq!(fire(&mut wheel, Instant::from_millis(20)), [2]);
    assert!(!wheel.cancel(new), "fired before");
    assert!(!wheel.cancel(TimerKey { node: 1 << 30, generation: NonZeroU32::MIN }));
}

#[test]
fn the_farthest_deadline_waits_without_spinning() {
    let mut wheel = Wheel::new();
    wheel.insert(Instant::FAR_FUTURE, 9);
    let mut steps = 0;
    loop {
        let at = wheel.next_deadline().unwrap();
        let fired = fire(&mut wheel, at);
        steps += 1;
        if fired == [9] {
            break;
        }
        assert!(fired.is_empty() && steps <= LEVELS, "step {steps} at {at}");
        if at == Instant::FAR_FUTURE {
            // The last tick begins after the last representable instant.
            break;
        }
        assert!(wheel.next_deadline().unwrap() > at, "no progress at {at}");
    }
}

#[test]
fn memory_is_used_again() {
    let mut wheel = Wheel::new();
    for round in 0..10u64 {
        let keys: Vec<_> = (0..CHUNK as u32)
            .map(|i| wheel.insert(Instant::from_millis(round * 100 + u64::from(i)), i))
            .collect();
        for key in keys.iter().step_by(2) {
            assert!(wheel.cancel(*key));
        }
        assert_eq!(wheel.len(), CHUNK / 2);
        let fired = fire(&mut wheel, Instant::from_millis(round * 100 + 5000));
        assert_eq!(fired.len(), CHUNK / 2);
        assert!(fired.iter().all(|token| token % 2 == 1));
        assert_eq!(wheel.chunks.len(), 1);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Insert at this distance from now.
    Insert(u64),
    /// Insert at an absolute time, which may have passed.
    InsertAt(u64),
    /// Cancel the timer that was inserted as this one, which may be gone.
    Cancel(usize),
    /// Give the timer that was inserted as this one another time, at this distance from now.
    Reschedule(usize, u64),
    /// Let this much time pass.
    Pass(u64),
    /// Sleep until the wheel's own next deadline.
    Sleep,
}

fn distance() -> impl Strategy<Value = u64> {
    const MS: u64 = 1_000_000;
    prop_oneof![
        0..3 * TICK_NS,
        0..200 * MS,
        0..120_000 * MS,
        0..30 * 86_400_000 * MS,
        (0u64..63).prop_map(|bit| 1 << bit),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => distance().prop_map(Step::Insert),
        1 => distance().prop_map(Step::InsertAt),
        2 => any::<usize>().prop_map(Step::Cancel),
        2 => (any::<usize>(), distance()).prop_map(|(which, after)| Step::Reschedule(which, after)),
        2 => distance().prop_map(Step::Pass),
        2 => Just(Step::Sleep),
    ]
}

/// The wheel beside an ordered map that does the same slowly.
#[derive(Default)]
struct Pair {
    wheel: Wheel,
    reference: BTreeMap<(u64, u32), TimerKey>,
    keys: Vec<(u64, u32, TimerKey)>,
    now: u64,
}

impl Pair {
    fn insert(&mut self, at: u64) {
        let token = self.keys.len() as u32;
        let key = self.wheel.insert(Instant::from_nanos(at), token);
        self.reference.insert((at, token), key);
        self.keys.push((at, token, key));
    }

    fn cancel(&mut self, which: usize) -> Result<(), TestCaseError> {
        if let Some(&(at, token, key)) = self.keys.get(which % self.keys.len().max(1)) {
            let there = self.reference.remove(&(at, token)).is_some();
            prop_assert_eq!(self.wheel.cancel(key), there);
        }
        Ok(())
    }

    fn reschedule(&mut self, which: usize, new: u64) -> Result<(), TestCaseError> {
        let which = which % self.keys.len().max(1);
        if let Some((at, token, key)) = self.keys.get_mut(which) {
            let there = self.reference.remove(&(*at, *token)).is_some();
            if there {
                self.reference.insert((new, *token), *key);
                *at = new;
            }
            prop_assert_eq!(self.wheel.reschedule(*key, Instant::from_nanos(new)), there);
        }
        Ok(())
    }

    fn advance(&mut self, now: u64) -> Result<(), TestCaseError> {
        self.now = self.now.max(now);
        let fired = fire(&mut self.wheel, Instant::from_nanos(self.now));
        let mut last_tick = 0;
        for &token in &fired {
            let at = self.keys[token as usize].0;
            prop_assert!(self.reference.remove(&(at, token)).is_some(), "{} fired twice", token);
            prop_assert!(at <= self.now, "{} fired early", token);
            let tick = at.div_ceil(TICK_NS);
            // Timers that were due when they were inserted come first, in any order.
            if at + TICK_NS > self.now {
                prop_assert!(tick >= last_tick, "{} fired out of order", token);
                last_tick = tick;
            }
        }
        if let Some(&(at, token)) = self.reference.keys().next() {
            prop_assert!(self.now - at.min(self.now) < TICK_NS, "{} is late", token);
            let next = self.wheel.next_deadline().unwrap().as_nanos();
            prop_assert!(next <= at.div_ceil(TICK_NS).saturating_mul(TICK_NS), "slept through");
            prop_assert!(next > self.now || next == u64::MAX, "a busy loop");
        } else {
            prop_assert_eq!(self.wheel.next_deadline(), None);
        }
        prop_assert_eq!(self.wheel.len(), self.reference.len());
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_wheel_fires_as_an_ordered_map_would(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut pair = Pair::default();
        for step in steps {
            match step {
                Step::Insert(after) => pair.insert(pair.now.saturating_add(after)),
                Step::InsertAt(at) => pair.insert(at),
                Step::Cancel(which) => pair.cancel(which)?,
                Step::Reschedule(which, after) => {
                    pair.reschedule(which, pair.now.saturating_add(after))?;
                }
                Step::Pass(time) => pair.advance(pair.now.saturating_add(time))?,
                Step::Sleep => {
                    if let Some(at) = pair.wheel.next_deadline() {
                        pair.advance(at.as_nanos())?;
                    }
                }
            }
            prop_assert_eq!(pair.wheel.len(), pair.reference.len());
        }
    }

    #[test]
    fn sleeping_until_the_next_deadline_finds_every_timer_in_few_wakes(
        after in proptest::collection::vec(distance(), 1..20),
    ) {
        let mut wheel = Wheel::new();
        let start = Instant::from_millis(123_456);
        fire(&mut wheel, start);
        for (token, &after) in after.iter().enumerate() {
            // A year is far enough, and its last tick is representable.
            let after = after.min(365 * 86_400_000_000_000);
            wheel.insert(start + Duration::from_nanos(after), token as u32);
        }
        let mut wakes = 0;
        let mut fired = Vec::new();
        while let Some(at) = wheel.next_deadline() {
            wheel.advance(at, &mut fired);
            wakes += 1;
        }
        prop_assert_eq!(fired.len(), after.len());
        prop_assert!(wakes <= after.len() * LEVELS, "{} wakes", wakes);
    }
}

#[test]
fn after_idleness_a_near_deadline_is_told_exactly() {
    let mut wheel = Wheel::new();
    let now = Instant::from_millis(86_400_000);
    fire(&mut wheel, now);
    let at = now + Duration::from_millis(10);
    wheel.insert(at, 1);
    let next = wheel.next_deadline().unwrap();
    assert!(next >= at && next - at < Duration::from_nanos(TICK_NS), "{next} for {at}");
}

#[test]
fn keys_and_timers_are_small() {
    assert_eq!(size_of::<Option<TimerKey>>(), 8);
    assert_eq!(size_of::<Node>(), 24);
}

#[test]
fn memory_is_given_back_and_old_keys_stay_old() {
    let mut wheel = Wheel::new();
    let keys: Vec<_> =
        (0..10_000u32).map(|n| wheel.insert(Instant::from_millis(u64::from(n)), n)).collect();
    let mut fired = Vec::new();
    wheel.advance(Instant::from_millis(20_000), &mut fired);
    assert_eq!((fired.len(), wheel.chunks.len()), (10_000, 0));
    for n in 0..10_000 {
        wheel.insert(Instant::from_millis(30_000), n);
    }
    assert!(keys.iter().all(|&key| !wheel.cancel(key)));
    assert_eq!(wheel.len(), 10_000);
}
