//! `million [--connections N]`: opens so many connections between two stacks, and prints what an
//! idle one costs in memory and what the crowd costs those that talk.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::alloc::System;
use std::time::Duration;

use barewire_benches::million::Crowd;
use cap::Cap;
use clap::Parser;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

#[derive(Parser)]
#[command(about = "Many connections between two stacks: memory and rates")]
struct Options {
    /// Connections to open.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(64..))]
    connections: u32,
    /// Seconds for each rate.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// No factor of it is one of the usual numbers of connections, so its multiples visit all of them,
/// and neighbours in time are no neighbours in memory.
const STRIDE: usize = 611_953;

fn main() {
    let options = Options::parse();
    let count = options.connections as usize;
    let time = Duration::from_secs_f64(options.seconds.clamp(0.1, 600.0));
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
    say("one talks, all others idle", crowd.rate(0, 1, time));
    say("all in turn, one at a time", crowd.rate(STRIDE, 1, time));
    say("all in turn, 64 in flight", crowd.rate(STRIDE, 64, time));
    crowd.rest();
    println!("bytes each end, idle again      {:>12.1}", each(HEAP.allocated() - before));

    crowd.close();
    assert!(crowd.packet_memory_is_free(), "closed connections hold packet memory");
    let after = HEAP.allocated().saturating_sub(before);
    println!("bytes left when all are closed  {after:>12}");
}
