//! `balance [--connections N]`: how evenly connections fall to 4 to 64 engines, simulated.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use barewire_benches::balance::simulate;
use clap::Parser;

const ENGINES: [u16; 5] = [4, 8, 16, 32, 64];

#[derive(Parser)]
#[command(
    bin_name = "scripts/bench balance",
    about = "Connections and frames of many engines, in virtual time"
)]
struct Options {
    /// Connections that each client engine opens.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
}

fn main() {
    let options = Options::parse();
    println!(
        "{:>7}  {:<14} {:>6} {:>8} {:>6} {:>9} {:>10} {:>9}",
        "engines", "device", "min", "mean", "max", "max/mean", "frames", "crossing"
    );
    for engines in ENGINES {
        for told in [true, false] {
            let balance = simulate(engines, options.connections as usize, told);
            let (min, max) = (balance.accepted.iter().min(), balance.accepted.iter().max());
            let (min, max) = (min.copied().unwrap_or(0), max.copied().unwrap_or(0));
            println!(
                "{engines:>7}  {:<14} {min:>6} {:>8.1} {max:>6} {:>9.2} {:>10} {:>9}",
                if told { "tells its hash" } else { "does not tell" },
                balance.mean(),
                max as f64 / balance.mean(),
                balance.frames,
                balance.crossing,
            );
        }
    }
}
