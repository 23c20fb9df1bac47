//! `latency [--json FILE]`: how long an answer takes over a cable between two cores, under light load
//! and at 80 % of what they can do.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use barewire_benches::latency::{Figures, HEAVY, LIGHT, measure};
use barewire_driver::sys;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Latency of 64-byte requests at their own pace, over a cable between two cores")]
struct Options {
    /// Seconds in all.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// Writes the figures into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is told of each load.
const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

fn json(part: f64, figures: &Figures) -> String {
    let quantiles = QUANTILES.map(|(name, quantile)| {
        format!("\"{name}_ns\": {}", figures.latencies.value_at_quantile(quantile))
    });
    format!(
        "  {{\"workload\": \"latency\", \"load\": {part}, \"per_second\": {:.0}, \
         \"samples\": {}, {}, \"max_ns\": {}, \"share\": {:.3}}}",
        figures.per_second,
        figures.latencies.len(),
        quantiles.join(", "),
        figures.latencies.max(),
        figures.share,
    )
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let allowed = sys::allowed_cores().context("cannot ask which processors may be used")?;
    let processors =
        *allowed.last_chunk().context("two processors are needed, and one may be used")?;
    let time = Duration::from_secs_f64(options.seconds.clamp(0.3, 600.0));
    let latency = measure(processors, time);
    println!("at most {:.0} requests a second", latency.most);
    let names = QUANTILES.map(|(name, _)| format!("{name:>9}")).concat();
    println!("{:>5} {:>10} {:>9}{names} {:>9}  ns", "load", "a second", "samples", "max");
    let loads = [(LIGHT, &latency.light), (HEAVY, &latency.heavy)];
    for (part, figures) in loads {
        let quantiles = QUANTILES
            .map(|(_, quantile)| format!("{:>9}", figures.latencies.value_at_quantile(quantile)));
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
    if let Some(path) = &options.json {
        let rows = loads.map(|(part, figures)| json(part, figures)).join(",\n");
        std::fs::write(path, format!("[\n{rows}\n]\n"))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
