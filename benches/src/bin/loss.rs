//! `loss`: goodput at 10 Gbit/s, 1 ms and 1 % of all frames lost, ours and the peer's.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use barewire_benches::arguments::number;
use barewire_benches::loss::{Control, Ours, Path, Peer, Role, goodput};
use barewire_stack::tcp::Algorithm;
use clap::Parser;

const CONTROLS: [(&str, Control); 2] = [("reno", Control::Reno), ("cubic", Control::Cubic)];

/// What ratios are to.
const REFERENCE: &str = "cubic";

/// More, and connections open by luck.
const LOSS_PERCENT_MAX: f64 = 20.0;

#[derive(Debug, Parser)]
#[command(
    bin_name = "scripts/bench loss",
    about = "Goodput of one connection over a virtual link that loses frames"
)]
struct Options {
    /// Share of frames lost, both ways, in percent.
    #[arg(long, default_value_t = 1.0, value_parser = number(0.0..=LOSS_PERCENT_MAX))]
    loss: f64,
    /// Round trip in milliseconds.
    #[arg(long, default_value_t = 1.0, value_parser = number(0.0..=1000.0))]
    rtt: f64,
    /// Rate of the link in Gbit/s.
    #[arg(long, default_value_t = 10.0, value_parser = number(0.001..=1000.0))]
    rate: f64,
    /// Seeds whose mean counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
}

fn mean(seeds: u64, path: &Path, run: impl Fn(&Path) -> f64) -> f64 {
    let each = (1..=seeds).map(|seed| run(&Path { seed, ..path.clone() }));
    each.sum::<f64>() / seeds as f64
}

fn main() {
    let options = Options::parse();
    let path = Path {
        loss: options.loss / 100.0,
        rtt: std::time::Duration::from_secs_f64(options.rtt / 1e3),
        rate_bps: (options.rate * 1e9) as u64,
        ..Path::default()
    };
    println!(
        "goodput over {} Gbit/s, {} ms, {} % of all frames lost; mean of {} seeds",
        options.rate, options.rtt, options.loss, options.seeds
    );
    let mut reference = f64::NAN;
    let tell = |name: &str, bps: f64, reference: f64| {
        println!(
            "{name:<16} {:>9.1} Mbit/s  {:>5.1} % of the link  {:>6.2} x smoltcp {REFERENCE}",
            bps / 1e6,
            100.0 * bps / path.rate_bps as f64,
            bps / reference
        );
    };
    let mut peers = Vec::new();
    for (name, control) in CONTROLS {
        let bps = mean(options.seeds, &path, |path| {
            let end = |role| Peer::new(path, role, control);
            goodput(path, end(Role::Sender), end(Role::Receiver))
        });
        if name == REFERENCE {
            reference = bps;
        }
        peers.push((name, bps));
    }
    for (name, bps) in peers {
        tell(&format!("smoltcp {name}"), bps, reference);
    }
    for algorithm in Algorithm::ALL {
        let bps = mean(options.seeds, &path, |path| {
            let end = |role| Ours::new(path, role, algorithm);
            goodput(path, end(Role::Sender), end(Role::Receiver))
        });
        tell(&format!("barewire {algorithm}"), bps, reference);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_cannot_be_are_refused() {
        for wrong in ["--rtt=nan", "--rtt=-1", "--rate=0", "--rate=inf", "--loss=200", "--seeds=0"]
        {
            assert!(Options::try_parse_from(["loss", wrong]).is_err(), "{wrong}");
        }
        assert!(Options::try_parse_from(["loss", "--rtt=0", "--loss=0", "--rate=0.001"]).is_ok());
    }
}
