//! `--stats`: what has been counted, one `stat NAME VALUE` a line, for people and for scripts.
//!
//! The queues' and engines' counters come first, then each queue's own, then the stack's, then the
//! hardware's under their data-sheet names (in capitals, so that none is taken for another).

use std::io;

use barewire::{EngineStats, StopReport};
use barewire_driver::{Device, QueueCounters};

use crate::output;

/// Prints the counters of an instance that has been stopped.
///
/// # Errors
/// When standard output is closed.
pub(super) fn print(report: &StopReport, device: &dyn Device) -> io::Result<()> {
    let engines: Vec<&EngineStats> = report.engines.iter().map(|engine| &engine.stats).collect();
    counted(&engines).into_iter().try_for_each(|(name, value)| print_one(&name, value))?;
    device.statistics().into_iter().try_for_each(|(name, value)| print_one(name, value))
}

/// Prints one counter.
///
/// # Errors
/// When standard output is closed.
pub(super) fn print_one(name: &str, value: u64) -> io::Result<()> {
    output::line(format_args!("stat {name} {value}"))
}

/// What software has counted.
fn counted(engines: &[&EngineStats]) -> Vec<(String, u64)> {
    let mut counters: Vec<(String, u64)> = Vec::new();
    let queues: Vec<_> = engines.iter().map(|engine| by_name(&engine.queue)).collect();
    for (i, (name, _)) in by_name(&QueueCounters::default()).into_iter().enumerate() {
        counters.push((name.to_owned(), queues.iter().map(|queue| queue[i].1).sum()));
    }
    let sum = |of: fn(&EngineStats) -> u64| engines.iter().map(|engine| of(engine)).sum();
    counters.push(("forwarded_in".to_owned(), sum(|engine| engine.run.forwarded_in)));
    counters.push(("forwarded_arp".to_owned(), sum(|engine| engine.run.forwarded_arp)));
    counters.push(("forwarded_out".to_owned(), sum(|engine| engine.run.forwarded_out)));
    counters.push(("forward_dropped".to_owned(), sum(|engine| engine.run.forward_dropped)));
    counters.push(("sleeps".to_owned(), sum(|engine| engine.run.sleeps)));
    counters.push(("bytes_copied".to_owned(), sum(|engine| engine.pool.bytes_copied)));
    for (engine, queue) in engines.iter().zip(queues) {
        let index = engine.index;
        counters.extend(queue.into_iter().map(|(name, n)| (format!("q{index}.{name}"), n)));
    }
    let mut stack = barewire_stack::StackCounters::default();
    engines.iter().for_each(|engine| stack.add(&engine.stack));
    counters.extend(stack.named().map(|(name, value)| (format!("stack.{name}"), value)));
    counters
}

/// The counters of a queue by name; a new one that is not named here does not compile.
pub(super) fn by_name(counters: &QueueCounters) -> [(&'static str, u64); 16] {
    let QueueCounters {
        rx_frames,
        rx_bytes,
        tx_frames,
        tx_bytes,
        rx_no_buffer,
        rx_other_vlan,
        rx_malformed,
        rx_checksum_good,
        rx_checksum_bad,
        tx_errors,
        tx_full,
        tx_stalls,
        device_losses,
        tx_lost,
        tx_linearised,
        syscalls,
    } = *counters;
    [
        ("rx_frames", rx_frames),
        ("rx_bytes", rx_bytes),
        ("tx_frames", tx_frames),
        ("tx_bytes", tx_bytes),
        ("rx_no_buffer", rx_no_buffer),
        ("rx_other_vlan", rx_other_vlan),
        ("rx_malformed", rx_malformed),
        ("rx_checksum_good", rx_checksum_good),
        ("rx_checksum_bad", rx_checksum_bad),
        ("tx_errors", tx_errors),
        ("tx_full", tx_full),
        ("tx_stalls", tx_stalls),
        ("device_losses", device_losses),
        ("tx_lost", tx_lost),
        ("tx_linearised", tx_linearised),
        ("syscalls", syscalls),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_added_up_and_told_one_by_one() {
        let engine = |index, rx_frames| EngineStats {
            index,
            queue: QueueCounters { rx_frames, ..QueueCounters::default() },
            ..EngineStats::default()
        };
        let (mut first, second) = (engine(0, 3), engine(1, 4));
        first.run.forwarded_in = 2;
        first.pool.bytes_copied = 9;
        let counters = counted(&[&first, &second]);
        for (name, value) in [
            ("rx_frames", 7),
            ("q0.rx_frames", 3),
            ("q1.rx_frames", 4),
            ("forwarded_in", 2),
            ("bytes_copied", 9),
            ("stack.tcp_bad_checksum", 0),
        ] {
            let found: Vec<_> = counters.iter().filter(|(n, _)| n == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].1, value, "{name}");
        }
    }
}
