//! Timing two things against each other: interleaved, so that what the machine does meanwhile
//! happens to both.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{Pair, Workload};

/// Figures of one side, one of each round.
#[derive(Clone, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// The middle one.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    /// The range of the rounds in parts of the median: how far a figure can be trusted.
    pub fn spread(&self) -> f64 {
        let most = self.0.iter().copied().fold(f64::MIN, f64::max);
        let least = self.0.iter().copied().fold(f64::MAX, f64::min);
        (most - least) / self.median()
    }
}

impl From<Vec<f64>> for Samples {
    fn from(samples: Vec<f64>) -> Samples {
        Samples(samples)
    }
}

/// Both sides of a workload.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The first side.
    pub ours: Samples,
    /// The second side.
    pub peer: Samples,
}

impl Comparison {
    /// The median of the ratios of neighbouring rounds: slow drift of the machine cancels out.
    pub fn ratio(&self) -> f64 {
        self.ratios().median()
    }

    /// The range of the ratios of neighbouring rounds in parts of their median: how far the ratio
    /// can be trusted.
    pub fn spread(&self) -> f64 {
        self.ratios().spread()
    }

    fn ratios(&self) -> Samples {
        Samples(self.ours.0.iter().zip(&self.peer.0).map(|(ours, peer)| ours / peer).collect())
    }
}

/// Measures both sides in turn, `rounds` times each within about `total`.
pub fn compare<A: Pair, B: Pair>(
    workload: Workload,
    (ours, peer): (&mut A, &mut B),
    rounds: usize,
    total: Duration,
) -> Comparison {
    let slice = total / (2 * rounds as u32);
    // The first turns warm up and say how much fits a slice.
    let ours_operations = calibrate(workload, ours, slice);
    let peer_operations = calibrate(workload, peer, slice);
    alternate(
        rounds,
        || rate(workload, ours, ours_operations),
        || rate(workload, peer, peer_operations),
    )
}

/// Takes a figure of each side in turn, `rounds` times.
pub fn alternate(
    rounds: usize,
    mut ours: impl FnMut() -> f64,
    mut peer: impl FnMut() -> f64,
) -> Comparison {
    let (ours, peer) = (0..rounds).map(|_| (ours(), peer())).unzip();
    Comparison { ours: Samples(ours), peer: Samples(peer) }
}

/// Operations a second.
fn rate<P: Pair>(workload: Workload, pair: &mut P, operations: u64) -> f64 {
    let start = Instant::now();
    workload.run(pair, operations);
    operations as f64 / start.elapsed().as_secs_f64()
}

/// How many operations take about `slice`, found by doubling up to a quarter of it.
fn calibrate<P: Pair>(workload: Workload, pair: &mut P, slice: Duration) -> u64 {
    let mut operations = workload.a_few();
    loop {
        let per_second = rate(workload, pair, operations);
        let fits = per_second * slice.as_secs_f64();
        if operations as f64 * 4.0 >= fits {
            return (fits as u64).max(operations);
        }
        operations *= 2;
    }
}

/// Processor time that this thread has had.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbouring_rounds() {
        let comparison = Comparison {
            ours: Samples(vec![10.0, 20.0, 40.0]),
            peer: Samples(vec![5.0, 10.0, 10.0]),
        };
        assert_eq!(comparison.ratio(), 2.0);
        assert_eq!(comparison.spread(), 1.0);
        assert_eq!(comparison.ours.median(), 20.0);
        assert_eq!(comparison.ours.spread(), 1.5);
    }
}
