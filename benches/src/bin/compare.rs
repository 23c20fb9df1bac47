//! `compare [NAME]… [--seconds S] [--turns N]`: a table of our stack against its peer.
//! `compare NAME --rounds N --side ours|smoltcp`: N operations of one side and nothing else, for a
//! tool that counts instructions.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::time::Duration;

use barewire_benches::{Pair, Workload, measure, ours, peer};
use clap::{Parser, ValueEnum};

#[derive(Parser)]
#[command(about = "Measures our stack and its peer in turn, in one process")]
struct Options {
    /// Workloads whose name contains one of these; all without.
    names: Vec<String>,
    /// Seconds for each workload, both sides together.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Turns of each side; the median counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(5..1000))]
    turns: u32,
    /// Only do this many operations of one side, untimed.
    #[arg(long, requires = "side")]
    rounds: Option<u64>,
    /// The side to run with `--rounds`.
    #[arg(long)]
    side: Option<Side>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    Ours,
    Smoltcp,
}

fn main() {
    let options = Options::parse();
    let workloads: Vec<Workload> = Workload::ALL
        .into_iter()
        .filter(|workload| {
            let name = workload.name();
            options.names.is_empty()
                || options.names.iter().any(|wanted| wanted == name)
                || options.names.iter().any(|wanted| name.contains(wanted.as_str()))
        })
        .collect();
    match (options.rounds, options.side) {
        (Some(rounds), Some(side)) => {
            // An exact name wins over names that contain it.
            let exact = |w: &&Workload| options.names.iter().any(|name| name == w.name());
            let Some(&workload) = workloads.iter().find(exact).or(workloads.first()) else {
                return;
            };
            match side {
                Side::Ours => run_only::<ours::Pair>(workload, rounds),
                Side::Smoltcp => run_only::<peer::Pair>(workload, rounds),
            }
        }
        _ => table(&workloads, &options),
    }
}

fn run_only<P: Pair>(workload: Workload, rounds: u64) {
    let mut pair = P::new(&workload.setup());
    workload.run(&mut pair, rounds);
}

fn table(workloads: &[Workload], options: &Options) {
    println!("{:<21} {:>22} {:>22} {:>6}  spread", "workload", "ours", "smoltcp", "ratio");
    for &workload in workloads {
        let total = Duration::from_secs_f64(options.seconds.clamp(0.1, 3600.0));
        let turns = options.turns as usize;
        let result = measure::compare::<ours::Pair, peer::Pair>(workload, turns, total);
        println!(
            "{:<21} {:>22} {:>22} {:>6.2}  {:.0} % / {:.0} %",
            workload.name(),
            result.tell(result.ours.median()),
            result.tell(result.peer.median()),
            result.ratio(),
            result.ours.spread() * 100.0,
            result.peer.spread() * 100.0,
        );
    }
}
