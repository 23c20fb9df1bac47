//! `million [--connections N]`: opens so many connections between two stacks, and prints what an
//! idle one costs in memory and what the crowd costs those that talk.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::alloc::System;
use std::time::Duration;

use barewire_benches::arguments::number;
use barewire_benches::handler;
use barewire_benches::million::Crowd;
use cap::Cap;
use clap::Parser;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

#[derive(Parser)]
#[command(
    bin_name = "scripts/bench million",
    about = "Many connections between two stacks: memory and rates"
)]
struct Options {
    /// Connections to open.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(64..=2_000_000))]
    connections: u32,
    /// Seconds for each rate.
    #[arg(long, default_value_t = 2.0, value_parser = number(0.1..=600.0))]
    seconds: f64,
}

/// What one that talks beside the crowd is to keep of its rate.
const KEPT_MIN: f64 = 0.9;

/// Idle handlers whose memory is counted.
const HANDLERS: usize = 5_000;

/// How far apart in memory two connections are that talk one after the other: some six tenths of
/// `count`, and without a common factor with it, so that multiples visit all connections.
fn stride(count: usize) -> usize {
    let coprime = |&step: &usize| {
        let (mut a, mut b) = (step, count);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    (count * 6 / 10..).find(coprime).unwrap_or(1)
}

fn main() {
    let options = Options::parse();
    let count = options.connections as usize;
    let (time, stride) = (Duration::from_secs_f64(options.seconds), stride(count));
    let mut crowd = Crowd::new(count);
    let before = HEAP.allocated();

    crowd.open(1);
    let alone = crowd.rate(0, 1, time);
    crowd.open(count);
    let opened = HEAP.allocated() - before;
    crowd.rest();
    let idle = HEAP.allocated() - before;
    assert!(crowd.packet_memory_is_free(), "idle connections hold packet memory");
    let each = |bytes: usize| bytes as f64 / (2 * count) as f64;
    println!("connections                     {count:>12}");
    println!("bytes each end, just opened     {:>12.1}", each(opened));
    println!("bytes each end, idle            {:>12.1}", each(idle));

    let say = |what: &str, rate: f64| {
        println!("{what:<31} {:>12.1} k/s {:>5.2}", rate / 1e3, rate / alone);
    };
    say("one talks, none idle", alone);
    let beside = crowd.rate(0, 1, time);
    say("one talks, all others idle", beside);
    let met = if beside >= KEPT_MIN * alone { "met" } else { "missed" };
    println!("  at least {KEPT_MIN} of the rate with none: {met} ({:.3})", beside / alone);
    say("all in turn, one at a time", crowd.rate(stride, 1, time));
    say("all in turn, 64 in flight", crowd.rate(stride, 64, time));
    crowd.rest();
    println!("bytes each end, idle again      {:>12.1}", each(HEAP.allocated() - before));

    crowd.close();
    assert!(crowd.packet_memory_is_free(), "closed connections hold packet memory");
    let after = HEAP.allocated().saturating_sub(before);
    println!("bytes left when all are closed  {after:>12}");
    drop(crowd);

    let handler = handler::idle_bytes(HANDLERS, || HEAP.allocated());
    println!(
        "bytes of an idle echo handler   {handler:>12.1}  (apart; its task and a buffer of 4 KiB)"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_of_the_stride_visit_every_connection() {
        for count in [64, 65, 100, 611, 65_536, 100_000, 611_953, 999_983, 1_000_000] {
            let step = stride(count);
            assert!((count / 2..count).contains(&step), "{step} of {count}");
            let mut seen = vec![false; count];
            (0..count).for_each(|n| seen[n * step % count] = true);
            assert!(seen.iter().all(|&seen| seen), "{step} of {count}");
        }
    }
}
