//! `latency [--json FILE]`: how long an answer takes over a cable between two cores, under light load
//! and at 80 % of what they can do.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use barewire_benches::arguments::{FiguresFile, number};
use barewire_benches::latency::{Figures, HEAVY, LIGHT, measure};
use barewire_driver::sys;
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

#[derive(Parser)]
#[command(
    bin_name = "scripts/bench latency",
    about = "Latency of 64-byte requests at their own pace, over a cable between two cores"
)]
struct Options {
    /// Seconds in all.
    #[arg(long, default_value_t = 6.0, value_parser = number(0.3..=600.0))]
    seconds: f64,
    /// Writes the figures into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Samples that are to be above a quantile that is told: fewer are chance.
const ABOVE_MIN: f64 = 10.0;

/// What is told of each load, where there are samples enough.
const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The latency that this part of all requests did not exceed, if enough others did.
fn at(latencies: &Histogram<u64>, quantile: f64) -> Option<u64> {
    // Half a sample makes up for what a part of ten thousand is not as a binary fraction.
    let above = (1.0 - quantile) * latencies.len() as f64 + 0.5;
    (above >= ABOVE_MIN).then(|| latencies.value_at_quantile(quantile))
}

fn json(part: f64, figures: &Figures) -> Value {
    let mut row = json!({
        "workload": "latency",
        "load": part,
        "per_second": figures.per_second.round(),
        "samples": figures.latencies.len(),
        "max_ns": figures.latencies.max(),
        "share": (figures.share * 1e3).round() / 1e3,
    });
    for (name, quantile) in QUANTILES {
        row[format!("{name}_ns")] = json!(at(&figures.latencies, quantile));
    }
    row
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let allowed = sys::allowed_cores().context("cannot ask which processors may be used")?;
    let processors =
        *allowed.last_chunk().context("two processors are needed, and one may be used")?;
    let json_file = options.json.as_deref().map(FiguresFile::open).transpose()?;
    let time = Duration::from_secs_f64(options.seconds);
    let latency = measure(processors, time);
    println!("at most {:.0} requests a second", latency.most);
    let names = QUANTILES.map(|(name, _)| format!("{name:>9}")).concat();
    println!("{:>5} {:>10} {:>9}{names} {:>9}  ns", "load", "a second", "samples", "max");
    let loads = [(LIGHT, &latency.light), (HEAVY, &latency.heavy)];
    for (part, figures) in loads {
        let quantiles = QUANTILES.map(|(_, quantile)| match at(&figures.latencies, quantile) {
            Some(ns) => format!("{ns:>9}"),
            None => format!("{:>9}", "-"),
        });
        println!(
            "{:>4.0}% {:>10.0} {:>9}{} {:>9}",
            part * 100.0,
            figures.per_second,
            figures.latencies.len(),
            quantiles.concat(),
            figures.latencies.max(),
        );
    }
    let share = latency.light.share.min(latency.heavy.share);
    println!("the client's thread had its core for {:.0} % of the time", share * 100.0);
    if loads.iter().any(|(_, figures)| at(&figures.latencies, 0.9999).is_none()) {
        println!("-: fewer than {ABOVE_MIN} samples would be above it; give more --seconds");
    }
    if let Some(file) = json_file {
        let rows = loads.map(|(part, figures)| json(part, figures));
        file.write(&format!("{:#}\n", Value::from(rows.to_vec())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_with_too_few_above_it_is_not_told() {
        let mut latencies = Histogram::new(3).unwrap();
        (1..=9_000).for_each(|ns| latencies.record(ns).unwrap());
        assert_eq!(at(&latencies, 0.999), None);
        assert!(at(&latencies, 0.99).is_some_and(|ns| (8_900..=8_920).contains(&ns)));
        (1..=91_000).for_each(|ns| latencies.record(ns).unwrap());
        assert!(at(&latencies, 0.9999).is_some(), "of 100,000 ten are above it");
    }
}
