//! The rate limit of RSTs for segments that belong to no connection (a port scan, mostly).
//!
//! Nobody may learn from it what others are doing. A limit that is the same number every second can
//! be counted down: an attacker sends forged segments with another's address, then his own, and sees
//! by how many RSTs come back how many the forged ones used up. So the number differs from second
//! to second, by an eighth, at random.

use crate::rng::Rng;
use crate::time::Instant;

/// What is left of this second's RSTs.
#[derive(Debug, Default)]
pub(crate) struct ResetLimit {
    second: Option<u64>,
    left: u32,
}

impl ResetLimit {
    /// True if an RST may be sent now, of about `most` in each second.
    pub(crate) fn allow(&mut self, now: Instant, most: u32, rng: &mut Rng) -> bool {
        let second = now.as_millis() / 1000;
        if self.second != Some(second) {
            self.second = Some(second);
            let spread = most / 8;
            self.left = most - spread + rng.below(2 * u64::from(spread) + 1) as u32;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_second_has_its_own_number_around_the_limit() {
        let (mut limit, mut rng) = (ResetLimit::default(), Rng::new(3));
        let mut now = Instant::ZERO;
        let mut counts = Vec::new();
        for _ in 0..50 {
            counts.push((0..1000).filter(|_| limit.allow(now, 400, &mut rng)).count());
            now += Duration::from_secs(1);
        }
        assert!(counts.iter().all(|n| (350..=450).contains(n)), "{counts:?}");
        counts.sort_unstable();
        counts.dedup();
        assert!(counts.len() > 25, "predictable: {counts:?}");
        assert!((0..9).all(|_| !limit.allow(now, 0, &mut rng)), "zero sends none");
    }
}
