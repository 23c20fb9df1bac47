//! Figures for people: a live line once a second, and the numbers in it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line at the bottom of a terminal that shows what happens now. On anything that is no
/// terminal it prints nothing.
pub(crate) struct LiveLine {
    on: bool,
    shown: bool,
}

impl LiveLine {
    pub(crate) fn new() -> LiveLine {
        LiveLine { on: io::stderr().is_terminal(), shown: false }
    }

    /// Replaces the line.
    pub(crate) fn show(&mut self, text: &str) {
        if self.on {
            // A terminal that has gone is no reason to stop serving.
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{text}");
            let _ = io::stderr().flush();
            self.shown = true;
        }
    }

    /// Takes the line away, so that other output starts at the left.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Turns totals into rates.
pub(crate) struct Rates<const N: usize> {
    last: [u64; N],
    at: Instant,
}

impl<const N: usize> Rates<N> {
    pub(crate) fn new(totals: [u64; N], now: Instant) -> Rates<N> {
        Rates { last: totals, at: now }
    }

    /// What was added a second since the last call.
    pub(crate) fn per_second(&mut self, totals: [u64; N], now: Instant) -> [f64; N] {
        let seconds = now.duration_since(self.at).max(Duration::from_millis(1)).as_secs_f64();
        let rates =
            std::array::from_fn(|i| totals[i].saturating_sub(self.last[i]) as f64 / seconds);
        (self.last, self.at) = (totals, now);
        rates
    }
}

/// A number with commas between its thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the largest binary unit that leaves it above 1.
pub(crate) fn bytes(number: u64) -> String {
    scaled(number as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A rate of bytes as bits a second.
pub(crate) fn bits(bytes_per_second: f64) -> String {
    scaled(bytes_per_second * 8.0, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut at = 0;
    while number >= step && at + 1 < units.len() {
        number /= step;
        at += 1;
    }
    match at {
        0 => format!("{number:.0} {}", units[0]),
        _ => format!("{number:.2} {}", units[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(256 << 20), "256.00 MiB");
        assert_eq!(bytes(u64::MAX), "16.00 EiB");
        assert_eq!(bits(0.0), "0 bit/s");
        assert_eq!(bits(1.25e9), "10.00 Gbit/s");
    }

    #[test]
    fn rates_are_differences_over_time() {
        let start = Instant::now();
        let mut rates = Rates::new([10, 0], start);
        let later = start + Duration::from_secs(2);
        assert_eq!(rates.per_second([30, 7], later), [10.0, 3.5]);
        let [again, _] = rates.per_second([20, 7], later + Duration::from_secs(1));
        assert_eq!(again, 0.0, "a total that was reset gives no rate, not a huge one");
    }
}
