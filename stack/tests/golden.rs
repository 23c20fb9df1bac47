//! What congestion control achieves, in tables that are kept: `stack/tests/golden/*.txt`.
//!
//! Every figure is a run in virtual time, so that it repeats to the last digit. A table changes only
//! together with an explanation in the commit that changes it. Every test run compares some rows;
//! `scripts/golden` compares all of them, and `scripts/golden --write` writes them anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use barewire_stack::sim::Bulk;
use barewire_stack::tcp::Algorithm;

const RATE_BPS: u64 = 100_000_000;
const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.05];
const RTTS_US: [u64; 4] = [100, 1_000, 20_000, 100_000];
const BUFFERS_KIB: [u32; 3] = [64, 512, 4096];
const FLOWS: [u8; 2] = [2, 8];

/// The least that waits before the bottleneck; otherwise it is as much as is under way.
const QUEUE_BYTES_MIN: u64 = 64 << 10;

/// Longest time counted, in which the losses of a short way are many.
const MEASURED: Duration = Duration::from_secs(2);
/// Round trips counted at least.
const MEASURED_RTTS: u32 = 60;

fn bulk(algorithm: Algorithm, rtt_us: u64, buffer_kib: u32) -> Bulk {
    let rtt = Duration::from_micros(rtt_us);
    let under_way = RATE_BPS / 8 * rtt_us / 1_000_000;
    Bulk {
        seed: 1,
        flows: 1,
        algorithm,
        buffer_bytes: buffer_kib << 10,
        rate_bps: RATE_BPS,
        queue_bytes: under_way.max(QUEUE_BYTES_MIN) as usize,
        mark_bytes: None,
        loss: 0.0,
        rtt,
        warm_up: Duration::from_millis(500) + 10 * rtt,
        measured: MEASURED.max(MEASURED_RTTS * rtt),
    }
}

/// One line of a table.
struct Row {
    label: String,
    /// Compared by every test run.
    quick: bool,
    runs: Vec<Bulk>,
    tell: fn(&[Bulk]) -> String,
}

fn goodput_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL {
        let name = algorithm.name();
        for buffer in BUFFERS_KIB {
            for rtt in RTTS_US {
                let bulk = bulk(algorithm, rtt, buffer);
                rows.push(Row {
                    label: format!("{name:<10} {buffer:>10} {:>8}", rtt as f64 / 1e3),
                    quick: buffer == 512 && rtt == 20_000,
                    runs: LOSSES.iter().map(|&loss| Bulk { loss, ..bulk.clone() }).collect(),
                    tell: |runs| {
                        let mut cells = String::new();
                        for bulk in runs {
                            let mbit = bulk.run().unwrap().total_bps() / 1e6;
                            write!(cells, " {mbit:>8.2}").unwrap();
                        }
                        cells
                    },
                });
            }
        }
    }
    rows
}

fn fairness_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL {
        let name = algorithm.name();
        for rtt in RTTS_US {
            for flows in FLOWS {
                let bulk = bulk(algorithm, rtt, 512);
                let measured = bulk.measured * 4;
                rows.push(Row {
                    label: format!("{name:<10} {:>8} {flows:>6}", rtt as f64 / 1e3),
                    quick: rtt == 1_000 && flows == 2,
                    runs: vec![Bulk { flows, measured, ..bulk }],
                    tell: |runs| {
                        let report = runs[0].run().unwrap();
                        format!(" {:>8.2} {:>7.3}", report.total_bps() / 1e6, report.jain())
                    },
                });
            }
        }
    }
    rows
}

/// Runs the rows that are wanted on all processors; the others are empty.
fn lines(rows: &[Row], quick: bool) -> Vec<Option<String>> {
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(vec![None; rows.len()]);
    let work = || {
        while let Some((at, row)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            rows.get(at).map(|row| (at, row))
        } {
            if row.quick || !quick {
                let line = format!("{}{}", row.label, (row.tell)(&row.runs));
                lines.lock().unwrap()[at] = Some(line);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    lines.into_inner().unwrap()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Compares what was computed with the file, or writes the file if that is asked for.
#[track_caller]
fn compare(name: &str, head: &str, rows: &[Row], quick: bool) {
    let writes = std::env::var_os("BAREWIRE_GOLDEN_WRITE").is_some();
    if writes && quick {
        // The test beside this one writes all rows.
        return;
    }
    let now = lines(rows, quick);
    if writes {
        let lines: Vec<_> = now.into_iter().flatten().collect();
        std::fs::write(path(name), format!("{head}\n{}\n", lines.join("\n"))).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(path(name)).unwrap_or_default();
    let Some(kept) = kept.strip_prefix(head) else {
        panic!("{name} has another head; scripts/golden --write makes it anew");
    };
    let kept: Vec<_> = kept.lines().skip(1).collect();
    let mut differences = String::new();
    for (at, now) in now.iter().enumerate() {
        let kept = kept.get(at).copied().unwrap_or("");
        if let Some(now) = now.as_deref().filter(|&now| now != kept) {
            write!(differences, "\n- {kept}\n+ {now}").unwrap();
        }
    }
    let same_rows = kept.len() == rows.len();
    assert!(
        same_rows && differences.is_empty(),
        "{name} has changed (say why in the commit; scripts/golden --write):{differences}"
    );
}

const GOODPUT_HEAD: &str = "\
# Mbit/s that one connection's reader gets over a link of 100 Mbit/s: by controller, socket buffer,
# round trip and share of data frames lost. The queue holds a round trip, and 64 KiB at least.
# What waited behind a gap when the count began is read within it, so that a row may pass the link's
# rate by a little.
# controller buffer KiB   RTT ms      0 %    0.1 %      1 %      5 %";

const FAIRNESS_HEAD: &str = "\
# Flows that share a link of 100 Mbit/s, with buffers of 512 KiB: Mbit/s of all, and Jain's index.
# controller   RTT ms  flows   Mbit/s    Jain";

fn goodput(quick: bool) {
    compare("goodput.txt", GOODPUT_HEAD, &goodput_rows(), quick);
}

fn fairness(quick: bool) {
    compare("fairness.txt", FAIRNESS_HEAD, &fairness_rows(), quick);
}

#[test]
fn some_rows_of_goodput_are_as_they_were() {
    goodput(true);
}

#[test]
fn some_rows_of_fairness_are_as_they_were() {
    fairness(true);
}

#[test]
#[ignore = "minutes in a debug build: scripts/golden"]
fn all_of_goodput_is_as_it_was() {
    goodput(false);
}

#[test]
#[ignore = "minutes in a debug build: scripts/golden"]
fn all_of_fairness_is_as_it_was() {
    fairness(false);
}
