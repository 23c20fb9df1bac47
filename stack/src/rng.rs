//! Randomness that the caller seeds: the same seed gives the same run.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// A stream of numbers that cannot be predicted without the seed: SipHash-1-3 of a counter.
///
/// An engine seeds it from the operating system, a simulation with the number that it prints.
#[derive(Clone, Debug)]
pub struct Rng {
    key: (u64, u64),
    counter: u64,
}

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u128) -> Rng {
        Rng { key: (seed as u64, (seed >> 64) as u64), counter: 0 }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write_u64(self.counter);
        self.counter += 1;
        hasher.finish()
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// 128 bits, as a key or a seed for another stream.
    pub fn next_u128(&mut self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for every bound that the stack uses.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `1 / probability` calls.
    pub fn chance(&mut self, probability: f64) -> bool {
        (self.next_u64() >> 11) as f64 * (0.5f64).powi(53) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let take = |seed| {
            (0..8).map(|_| ()).fold((Rng::new(seed), vec![]), |(mut r, mut v), ()| {
                v.push(r.next_u64());
                (r, v)
            })
        };
        assert_eq!(take(7).1, take(7).1);
        assert_ne!(take(7).1, take(8).1);
    }

    #[test]
    fn below_covers_its_range_and_never_leaves_it() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn chance_keeps_its_odds() {
        let mut rng = Rng::new(2);
        let hits = (0..10_000).filter(|_| rng.chance(0.2)).count();
        assert!((1_850..2_150).contains(&hits), "{hits}");
        assert!(!rng.chance(0.0) && rng.chance(1.0));
    }
}
