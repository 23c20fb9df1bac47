//! The names of the controllers.

use std::fmt;
use std::str::FromStr;

/// Congestion controllers, by name (`TCP_CONGESTION`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// RFC 5681, RFC 6582 and RFC 3465: `newreno`, also written `reno`.
    NewReno,
    /// RFC 9438 with the slow start of RFC 9406: `cubic`.
    #[default]
    Cubic,
    /// BBR version 1, which models the path and paces: `bbr`.
    Bbr,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 3] = [Algorithm::NewReno, Algorithm::Cubic, Algorithm::Bbr];

    /// The name that `TCP_CONGESTION` gives.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::NewReno => "newreno",
            Algorithm::Cubic => "cubic",
            Algorithm::Bbr => "bbr",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no congestion controller of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no congestion controller has that name: there are newreno, cubic and bbr")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Algorithm, UnknownAlgorithm> {
        match name {
            "newreno" | "reno" => Ok(Algorithm::NewReno),
            "cubic" => Ok(Algorithm::Cubic),
            "bbr" => Ok(Algorithm::Bbr),
            _ => Err(UnknownAlgorithm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_found_by_the_name_that_it_shows() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        assert_eq!("reno".parse(), Ok(Algorithm::NewReno));
        assert_eq!("vegas".parse::<Algorithm>(), Err(UnknownAlgorithm));
        assert_eq!("CUBIC".parse::<Algorithm>(), Err(UnknownAlgorithm));
    }
}
