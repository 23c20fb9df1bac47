//! Instructions an operation: exact where time is not, and so the guard against regressions.
//!
//! Two runs of this program under callgrind, of N and of 2N operations, differ by N operations and
//! nothing else. What our side takes is kept in `benches/instructions.toml`. It depends on the
//! compiler, so a new one needs new figures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use barewire_benches::cores::{self, Load};
use barewire_benches::{Pair, Unit, Workload, ours, peer};

use crate::Side;

/// Operations of the shorter run.
const OPERATIONS: u64 = 2000;

/// What can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Two stacks, of either side.
    Stacks(Workload),
    /// Two of our engines, which take turns on one thread.
    Engines(Load),
}

/// What is counted without being named.
const GUARDED: [Counted; 10] = [
    Counted::Stacks(Workload::Echo),
    Counted::Stacks(Workload::Datagrams),
    Counted::Stacks(Workload::Connections),
    Counted::Stacks(Workload::Bulk1500Checksums),
    Counted::Stacks(Workload::Bulk1500),
    Counted::Stacks(Workload::Bulk9000),
    Counted::Stacks(Workload::Owned1500),
    Counted::Stacks(Workload::BulkSegmentation),
    Counted::Engines(Load::Echo),
    Counted::Engines(Load::Connections),
];

impl Counted {
    /// All of them.
    pub(crate) fn all() -> Vec<Counted> {
        let stacks = Workload::ALL.map(Counted::Stacks).into_iter();
        stacks.chain(Load::ALL.map(Counted::Engines)).collect()
    }

    /// Those that there are of one side: smoltcp has no engines.
    pub(crate) fn of(side: Side) -> Vec<Counted> {
        let has = |counted: &Counted| match counted {
            Counted::Stacks(_) => true,
            Counted::Engines(_) => side == Side::Ours,
        };
        Counted::all().into_iter().filter(has).collect()
    }

    /// Its name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Counted::Stacks(workload) => workload.name(),
            Counted::Engines(load) => load.name(),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Counted::Stacks(workload) => workload.unit(),
            Counted::Engines(_) => Unit::Rounds,
        }
    }

    /// Does so many operations of one side and nothing else.
    pub(crate) fn run(self, side: Side, operations: u64) -> anyhow::Result<()> {
        match (self, side) {
            (Counted::Stacks(workload), Side::Ours) => run_pair::<ours::Pair>(workload, operations),
            (Counted::Stacks(workload), Side::Smoltcp) => {
                run_pair::<peer::Pair>(workload, operations);
            }
            (Counted::Engines(load), Side::Ours) => cores::operations(load, operations),
            (Counted::Engines(load), Side::Smoltcp) => {
                bail!("{} is of engines, which smoltcp has none of", load.name());
            }
        }
        Ok(())
    }
}

fn run_pair<P: Pair>(workload: Workload, operations: u64) {
    let mut pair = P::new(&workload.setup());
    workload.run(&mut pair, operations);
}

/// How far a count may be from the one that is kept, either way.
const TOLERANCE: f64 = 0.03;

/// What stands above the kept figures.
const HEADER: &str = "\
# Instructions an operation takes on our side, both hosts together, counted by callgrind; those of
# bulk transfers by the KiB. Written by `scripts/bench --instructions --write`; `scripts/test` wants
# what it counts to be within 3 %.
";

/// What to do with the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Print them beside the peer's.
    Show,
    /// Fail if they differ from the kept ones.
    Check,
    /// Keep them.
    Write,
}

fn kept_at() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

/// Counts the named workloads, or the guarded ones.
pub(crate) fn run(named: &[Counted], then: Then) -> anyhow::Result<()> {
    let workloads = if named.is_empty() { &GUARDED[..] } else { named };
    match then {
        Then::Show => show(workloads),
        Then::Check => check(workloads),
        Then::Write => write(workloads),
    }
}

fn show(workloads: &[Counted]) -> anyhow::Result<()> {
    println!(
        "{:<25} {:>10} {:>10} {:>7}  an operation",
        "instructions", "ours", "smoltcp", "ratio"
    );
    for &workload in workloads {
        let ours = count(workload, Side::Ours)?;
        let (peer, ratio) = match workload {
            Counted::Stacks(_) => {
                let peer = count(workload, Side::Smoltcp)?;
                (peer.to_string(), format!("{:.2}", peer as f64 / ours as f64))
            }
            Counted::Engines(_) => ("-".to_owned(), "-".to_owned()),
        };
        let unit = match workload.unit() {
            Unit::Rounds => "",
            Unit::Bits => "  (1 KiB)",
        };
        println!("{:<25} {ours:>10} {peer:>10} {ratio:>7}{unit}", workload.name());
    }
    Ok(())
}

fn check(workloads: &[Counted]) -> anyhow::Result<()> {
    let path = kept_at();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: write it with --write", path.display()))?;
    let kept = parse(&text).with_context(|| path.display().to_string())?;
    let mut differ = Vec::new();
    println!("{:<25} {:>10} {:>10}", "instructions", "counted", "kept");
    for &workload in workloads {
        let name = workload.name();
        let Some(&(_, before)) = kept.iter().find(|(kept, _)| *kept == name) else {
            bail!("{} has no {name}: write it with `--write {name}`", path.display());
        };
        let now = count(workload, Side::Ours)?;
        let change = now as f64 / before as f64 - 1.0;
        println!("{name:<25} {now:>10} {before:>10} {:>+6.1} %", change * 100.0);
        if !within(now, before) {
            differ.push(name);
        }
    }
    if !differ.is_empty() {
        bail!(
            "{} differs by more than {} %: if that is meant, or the compiler is another, \
             `scripts/bench --instructions --write`",
            differ.join(", "),
            TOLERANCE * 100.0
        );
    }
    Ok(())
}

/// Keeps the counts of these beside what is kept of others.
fn write(workloads: &[Counted]) -> anyhow::Result<()> {
    let path = kept_at();
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let kept = parse(&before).with_context(|| path.display().to_string())?;
    let mut counted = Vec::new();
    for &workload in workloads {
        counted.push((workload, count(workload, Side::Ours)?));
    }
    let text = merged(&kept, &counted);
    print!("{text}");
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The file with what has been counted anew in place of what was kept, in the order of all workloads.
fn merged(kept: &[(&str, u64)], counted: &[(Counted, u64)]) -> String {
    let mut text = HEADER.to_owned();
    for workload in Counted::all() {
        let new = counted.iter().find(|(counted, _)| *counted == workload).map(|(_, now)| now);
        let old = kept.iter().find(|(name, _)| *name == workload.name()).map(|(_, before)| before);
        if let Some(figure) = new.or(old) {
            text += &format!("{} = {figure}\n", workload.name());
        }
    }
    text
}

fn within(now: u64, before: u64) -> bool {
    now.abs_diff(before) as f64 <= before as f64 * TOLERANCE
}

/// The lines `name = number` of a file that has nothing else but comments.
fn parse(text: &str) -> anyhow::Result<Vec<(&str, u64)>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once('=').context("a line without a figure")?;
            Ok((name.trim(), value.trim().parse().with_context(|| line.to_owned())?))
        })
        .collect()
}

/// Instructions of one operation; of a KiB where bytes are counted.
fn count(workload: Counted, side: Side) -> anyhow::Result<u64> {
    let once = total(workload, side, OPERATIONS)?;
    let twice = total(workload, side, 2 * OPERATIONS)?;
    Ok(twice.saturating_sub(once) / OPERATIONS)
}

/// Instructions of a whole run.
fn total(workload: Counted, side: Side, operations: u64) -> anyhow::Result<u64> {
    let bytes = match workload.unit() {
        Unit::Rounds => 1,
        Unit::Bits => 1024,
    };
    let profile = std::env::temp_dir().join(format!("barewire-bench-{}", std::process::id()));
    let program = std::env::current_exe().context("this program's own file")?;
    let output = Command::new("valgrind")
        // A long copy by `rep movsb`, as glibc makes them, is counted as an instruction a byte.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args([workload.name(), "--side", side.name()])
        .args(["--operations", &(operations * bytes).to_string()])
        .output()
        .context("valgrind, which scripts/setup installs")?;
    let text = std::fs::read_to_string(&profile);
    let _gone_or_never_there = std::fs::remove_file(&profile);
    if !output.status.success() {
        bail!("under callgrind: {}", String::from_utf8_lossy(&output.stderr));
    }
    summary(&text.context("callgrind's profile")?).context("callgrind's profile has no summary")
}

/// The instructions of a profile.
fn summary(profile: &str) -> Option<u64> {
    let figure = |line: &str| {
        let rest = line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:"))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    profile.lines().filter_map(figure).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_end_with_their_sum() {
        assert_eq!(summary("events: Ir\nsummary: 12\nfn=x\n1 12\ntotals: 12\n"), Some(12));
        assert_eq!(summary("events: Ir\n"), None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let text = format!("{HEADER}tcp-echo = 2900\nudp-echo = 1500\n");
        assert_eq!(parse(&text).unwrap(), [("tcp-echo", 2900), ("udp-echo", 1500)]);
        assert!(parse("tcp-echo\n").is_err());
        assert!(parse("tcp-echo = many\n").is_err());
    }

    #[test]
    fn what_is_not_counted_anew_is_kept() {
        let kept = [("tcp-echo", 1), ("udp-echo", 2), ("bulk-tso", 4), ("what-is-gone", 5)];
        let udp = Counted::Stacks(Workload::Datagrams);
        let text = merged(&kept, &[(udp, 20), (Counted::Engines(Load::Echo), 30)]);
        let figures = [("tcp-echo", 1), ("udp-echo", 20), ("bulk-tso", 4), ("cores-echo", 30)];
        assert_eq!(parse(&text).unwrap(), figures);
    }

    #[test]
    fn a_change_of_three_percent_is_seen_either_way() {
        assert!(within(1030, 1000) && within(970, 1000));
        assert!(!within(1031, 1000) && !within(969, 1000));
    }
}
