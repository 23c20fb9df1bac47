//! The largest value of the last so many rounds, in constant space: the best, and the best since the
//! second and the third of them (K. Nichols' windowed filter).

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    round: u32,
    value: u64,
}

/// The maximum over a window of rounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxFilter([Sample; 3]);

impl MaxFilter {
    /// The maximum; 0 before the first sample.
    pub(super) fn get(&self) -> u64 {
        self.0[0].value
    }

    /// Takes a sample of `round`, which never goes back, and forgets what is more than `window`
    /// rounds old.
    pub(super) fn update(&mut self, window: u32, round: u32, value: u64) {
        let new = Sample { round, value };
        let [best, second, third] = &mut self.0;
        if value >= best.value || round.wrapping_sub(third.round) > window {
            self.0 = [new; 3];
            return;
        }
        if value >= second.value {
            (*second, *third) = (new, new);
        } else if value >= third.value {
            *third = new;
        }
        let age = round.wrapping_sub(best.round);
        if age > window {
            (*best, *second, *third) = (*second, *third, new);
            if round.wrapping_sub(best.round) > window {
                (*best, *second) = (*second, *third);
            }
        } else if second.round == best.round && age > window / 4 {
            // Nothing better in a quarter of the window: whatever there is stands second.
            (*second, *third) = (new, new);
        } else if third.round == second.round && age > window / 2 {
            *third = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_kept_for_the_window_and_then_the_next_best() {
        let mut filter = MaxFilter::default();
        for (round, value) in [(0, 50), (1, 90), (2, 40), (4, 70), (7, 60)] {
            filter.update(10, round, value);
        }
        assert_eq!(filter.get(), 90);
        filter.update(10, 11, 30);
        assert_eq!(filter.get(), 90, "ten rounds old");
        filter.update(10, 12, 30);
        assert_eq!(filter.get(), 70);
        filter.update(10, 40, 5);
        assert_eq!(filter.get(), 5, "all are old");
    }

    #[test]
    fn what_came_later_takes_the_place_of_the_best() {
        let filtered = |samples: &[(u32, u64)]| {
            let mut filter = MaxFilter::default();
            samples.iter().for_each(|&(round, value)| filter.update(10, round, value));
            filter.get()
        };
        let mut samples = vec![(0, 90), (3, 50), (4, 70), (5, 40), (6, 30)];
        samples.push((11, 20));
        assert_eq!(filtered(&samples), 70, "the best of those after it");
        let mut samples = vec![(0, 90), (3, 70), (7, 60), (11, 5)];
        assert_eq!(filtered(&samples), 70);
        samples.push((14, 4));
        assert_eq!(filtered(&samples), 60, "the best of the second half");
    }

    #[test]
    fn it_is_the_maximum_of_a_window_that_rises() {
        let mut filter = MaxFilter::default();
        for round in 0..100 {
            filter.update(10, round, u64::from(round));
            assert_eq!(filter.get(), u64::from(round));
        }
    }
}
