//! What a link does wrong, and how a command line says it.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// What one direction of a link does to frames. All probabilities are between 0 and 1 and are drawn
/// for each frame independently.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct FaultRates {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that a frame is held back until 1 to [`MAX_REORDER_FRAMES`] later ones have
    /// overtaken it, or for [`MAX_REORDER_HOLD`] if fewer come.
    pub reorder: f64,
    /// Probability that one bit of a frame is flipped.
    pub corrupt: f64,
    /// Time that every frame is under way.
    pub delay: Duration,
    /// Time of 0 to this much that is added to the delay. Frames stay in order: only `reorder`
    /// changes that.
    pub jitter: Duration,
    /// Bytes a second that the link carries; a frame that would wait longer than
    /// [`MAX_RATE_BACKLOG`] is dropped.
    pub rate: Option<u64>,
}

/// Most frames that overtake one that is held back.
pub const MAX_REORDER_FRAMES: u64 = 4;

/// How long a frame is held back if no others overtake it.
pub const MAX_REORDER_HOLD: Duration = Duration::from_millis(10);

/// How much a throttled link queues before it drops, in time.
pub const MAX_RATE_BACKLOG: Duration = Duration::from_millis(100);

/// Most frames that one direction holds at a time, delayed or held back; beyond it they are dropped
/// and counted. Each holds slots of a pool, so the pool is the other limit.
pub const MAX_HELD_FRAMES: usize = 4096;

/// Faults of both directions, and the seed that makes them repeat.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct FaultConfig {
    /// The same seed and the same frames give the same faults; each queue and direction draws its
    /// own numbers from it.
    pub seed: u64,
    /// What happens to received frames.
    pub rx: FaultRates,
    /// What happens to sent frames.
    pub tx: FaultRates,
}

/// Why a string describes no faults.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "`{part}` describes no fault: {why}; for example \
     `loss=2%,reorder=1%,duplicate=1%,corrupt=0.1%,delay=10ms,jitter=2ms,rate=10MB,seed=7`, \
     each with rx. or tx. before it for one direction only"
)]
pub struct FaultSyntaxError {
    /// The part that was not understood.
    pub part: String,
    why: &'static str,
}

impl FromStr for FaultConfig {
    type Err = FaultSyntaxError;

    /// Reads `KEY=VALUE` parts between commas; a later part overrides an earlier one.
    fn from_str(text: &str) -> Result<FaultConfig, FaultSyntaxError> {
        let mut config = FaultConfig::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |why| FaultSyntaxError { part: part.to_owned(), why };
            let (key, value) = part.split_once('=').ok_or(wrong("there is no `=`"))?;
            let (key, value) = (key.trim(), value.trim());
            let (key, rx, tx) = match key.split_once('.') {
                Some(("rx", key)) => (key, true, false),
                Some(("tx", key)) => (key, false, true),
                Some(_) => return Err(wrong("only rx. and tx. stand before a key")),
                None => (key, true, true),
            };
            if key == "seed" {
                config.seed = value.parse().map_err(|_| wrong("a seed is a whole number"))?;
                continue;
            }
            let set = setting(key, value).map_err(wrong)?;
            if rx {
                set.apply(&mut config.rx);
            }
            if tx {
                set.apply(&mut config.tx);
            }
        }
        Ok(config)
    }
}

enum Setting {
    Loss(f64),
    Duplicate(f64),
    Reorder(f64),
    Corrupt(f64),
    Delay(Duration),
    Jitter(Duration),
    Rate(u64),
}

impl Setting {
    fn apply(&self, rates: &mut FaultRates) {
        match *self {
            Setting::Loss(p) => rates.loss = p,
            Setting::Duplicate(p) => rates.duplicate = p,
            Setting::Reorder(p) => rates.reorder = p,
            Setting::Corrupt(p) => rates.corrupt = p,
            Setting::Delay(time) => rates.delay = time,
            Setting::Jitter(time) => rates.jitter = time,
            Setting::Rate(rate) => rates.rate = Some(rate),
        }
    }
}

fn setting(key: &str, value: &str) -> Result<Setting, &'static str> {
    Ok(match key {
        "loss" => Setting::Loss(probability(value)?),
        "duplicate" => Setting::Duplicate(probability(value)?),
        "reorder" => Setting::Reorder(probability(value)?),
        "corrupt" => Setting::Corrupt(probability(value)?),
        "delay" => Setting::Delay(time(value)?),
        "jitter" => Setting::Jitter(time(value)?),
        "rate" => Setting::Rate(bytes_a_second(value)?),
        _ => return Err("the key is not known"),
    })
}

fn probability(value: &str) -> Result<f64, &'static str> {
    const WHY: &str = "a probability is 0% to 100%, or 0 to 1";
    let (number, scale) = match value.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (value, 1.0),
    };
    let p = number.trim().parse::<f64>().map_err(|_| WHY)? / scale;
    if (0.0..=1.0).contains(&p) { Ok(p) } else { Err(WHY) }
}

/// Splits a number from the unit behind it.
fn number_and_unit(value: &str) -> Option<(f64, &str)> {
    let end = value.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(value.len());
    let number: f64 = value[..end].trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some((number, &value[end..]))
}

fn time(value: &str) -> Result<Duration, &'static str> {
    const WHY: &str = "a time is a number with us, ms or s, and at most 60 s";
    let (number, unit) = number_and_unit(value).ok_or(WHY)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        _ => return Err(WHY),
    };
    if seconds <= 60.0 { Ok(Duration::from_secs_f64(seconds)) } else { Err(WHY) }
}

fn bytes_a_second(value: &str) -> Result<u64, &'static str> {
    const WHY: &str = "a rate is bytes a second, with kB, MB or GB, and at least 1 kB";
    let (number, unit) = number_and_unit(value).ok_or(WHY)?;
    let bytes = match unit {
        "" | "B" => number,
        "kB" => number * 1e3,
        "MB" => number * 1e6,
        "GB" => number * 1e9,
        _ => return Err(WHY),
    };
    if (1e3..=1e12).contains(&bytes) { Ok(bytes as u64) } else { Err(WHY) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_a_command_line() {
        let text = "loss=2%, tx.loss=0.5,reorder=1%,rx.delay=1.5ms,jitter=20us,rate=10MB,seed=7";
        let config: FaultConfig = text.parse().unwrap();
        let both = FaultRates {
            loss: 0.02,
            reorder: 0.01,
            jitter: Duration::from_micros(20),
            rate: Some(10_000_000),
            ..FaultRates::default()
        };
        let rx = FaultRates { delay: Duration::from_micros(1500), ..both };
        assert_eq!(config, FaultConfig { seed: 7, rx, tx: FaultRates { loss: 0.5, ..both } });
        assert_eq!("".parse(), Ok(FaultConfig::default()));
    }

    #[test]
    fn what_is_not_understood_is_named_with_an_example() {
        for (text, part) in [
            ("loss=2%,lost=1%", "lost=1%"),
            ("loss", "loss"),
            ("loss=101%", "loss=101%"),
            ("loss=-1", "loss=-1"),
            ("loss=NaN", "loss=NaN"),
            ("up.loss=1%", "up.loss=1%"),
            ("delay=10", "delay=10"),
            ("delay=61s", "delay=61s"),
            ("delay=-1ms", "delay=-1ms"),
            ("rate=10", "rate=10"),
            ("rate=1TB", "rate=1TB"),
            ("seed=x", "seed=x"),
        ] {
            let error = text.parse::<FaultConfig>().unwrap_err();
            assert_eq!(error.part, part);
            assert!(error.to_string().contains("for example `loss=2%"), "{error}");
        }
    }
}
