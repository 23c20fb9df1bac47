//! What is compared with whom, and what is aimed at.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use barewire_benches::cores::{Fleet, Load};
use barewire_benches::loss::{Control, Ours, Path, Peer as LossPeer, Role, goodput};
use barewire_benches::measure::{Samples, alternate, compare};
use barewire_benches::overload::{self, Cost, Offer};
use barewire_benches::threads::{self, Asker};
use barewire_benches::{MESSAGE_BYTES, Pair, Setup, Unit, Workload, kernel, ours, peer};
use barewire_stack::engine::Idle;
use barewire_stack::tcp::Algorithm;

use crate::memory;
use crate::report::{Row, Target};

/// Seeds of the losses, whose mean counts.
const LOSS_SEEDS: std::ops::RangeInclusive<u64> = 1..=10;

/// Who is measured in turn with our stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Smoltcp,
    /// The kernel over a veth pair.
    Kernel,
    /// Our stack without the idle connections.
    OursAlone,
    /// Our stack on one of the cores.
    OursOneCore,
    /// Our stack at the load that it carries best.
    OursAtBest,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Smoltcp => <peer::Pair as Pair>::NAME,
            Peer::Kernel => <kernel::Pair as Pair>::NAME,
            Peer::OursAlone => "ours, none idle",
            Peer::OursOneCore => "ours, one core",
            Peer::OursAtBest => "ours, at its best",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Operations a second.
    Rate(Workload),
    /// Bytes of an idle connection's end.
    IdleBytes,
    /// Goodput over a link that loses one frame in a hundred, in virtual time.
    Loss,
    /// Operations a second of two cores.
    Cores(Load),
    /// Round trips a second of a thread with what answers on another core.
    Threads,
    /// Connections answered a second at twice the load that can be carried.
    Overload,
}

/// A row of the table to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) what: What,
    pub(crate) peer: Peer,
    target: Target,
}

const fn rate(workload: Workload, peer: Peer, target: Target) -> Case {
    Case { what: What::Rate(workload), peer, target }
}

const fn cores(load: Load) -> Case {
    Case { what: What::Cores(load), peer: Peer::OursOneCore, target: Target::Times(1.8) }
}

/// All of them, in the table's order.
pub(crate) const CASES: [Case; 25] = [
    rate(Workload::Bulk1500Checksums, Peer::Smoltcp, Target::Times(2.5)),
    rate(Workload::Bulk1500, Peer::Smoltcp, Target::Times(2.5)),
    rate(Workload::Bulk9000Checksums, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Bulk9000, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Owned1500Checksums, Peer::Smoltcp, Target::Times(2.5)),
    rate(Workload::Owned1500, Peer::Smoltcp, Target::Times(2.5)),
    rate(Workload::Owned9000Checksums, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Owned9000, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::BulkSegmentation, Peer::Smoltcp, Target::Times(3.0)),
    rate(Workload::BulkSegmentation, Peer::Kernel, Target::None),
    rate(Workload::Echo, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Echo, Peer::Kernel, Target::None),
    rate(Workload::EchoIdle, Peer::OursAlone, Target::Times(0.9)),
    rate(Workload::EchoIdle, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Datagrams, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Datagrams, Peer::Kernel, Target::None),
    rate(Workload::Connections, Peer::Smoltcp, Target::Times(1.3)),
    rate(Workload::Connections, Peer::Kernel, Target::Times(20.0)),
    Case { what: What::IdleBytes, peer: Peer::Smoltcp, target: Target::AtMost(512.0) },
    Case { what: What::IdleBytes, peer: Peer::Smoltcp, target: Target::AtMost(256.0) },
    Case { what: What::Loss, peer: Peer::Smoltcp, target: Target::Times(2.5) },
    cores(Load::Echo),
    cores(Load::Connections),
    Case { what: What::Threads, peer: Peer::Kernel, target: Target::Times(3.0) },
    Case { what: What::Overload, peer: Peer::OursAtBest, target: Target::Times(0.9) },
];

/// Connections a second with which the search for a server's best begins.
const FIRST_OFFER: f64 = 20_000.0;

/// A thread that has run for less of the time than this has had to share its core.
const QUIET_SHARE: f64 = 0.95;

/// How long and where.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// Both sides of one row together.
    pub(crate) time: Duration,
    /// Turns of each side.
    pub(crate) turns: usize,
    /// Idle connections whose memory is counted.
    pub(crate) idle: usize,
    /// The namespace of the kernel's server.
    pub(crate) namespace: Option<PathBuf>,
    /// Processors that may be used.
    pub(crate) processors: Vec<usize>,
}

impl Effort {
    /// The last two processors, if there are so many.
    fn two_processors(&self) -> Option<[usize; 2]> {
        self.processors.last_chunk().copied()
    }
}

impl Case {
    pub(crate) fn name(&self) -> &'static str {
        match self.what {
            What::Rate(workload) => workload.name(),
            What::IdleBytes => "idle-memory",
            What::Loss => "loss-1-percent",
            What::Cores(load) => load.name(),
            What::Threads => "threads-echo",
            What::Overload => "overload",
        }
    }

    /// What this row cannot be measured for want of, if anything.
    pub(crate) fn missing(&self, effort: &Effort) -> Option<&'static str> {
        if self.peer == Peer::Kernel && effort.namespace.is_none() {
            return Some("a namespace for the kernel's server");
        }
        let alone = matches!(self.what, What::Cores(_) | What::Threads)
            && effort.two_processors().is_none();
        alone.then_some("a second processor")
    }

    /// Measures both sides.
    pub(crate) fn measure(&self, effort: &Effort) -> Row {
        match self.what {
            What::Rate(workload) => self.rate(workload, effort),
            What::IdleBytes => {
                let ours = memory::endpoint_bytes::<ours::Pair>(effort.idle);
                let peer = memory::endpoint_bytes::<peer::Pair>(effort.idle);
                self.row("bytes", (ours, peer), ours / peer, 0.0)
            }
            What::Loss => self.loss(),
            What::Cores(load) => self.cores(load, effort),
            What::Threads => self.threads(effort),
            What::Overload => self.overload(effort),
        }
    }

    fn row(&self, unit: &'static str, sides: (f64, f64), ratio: f64, spread: f64) -> Row {
        Row {
            workload: self.name(),
            peer: self.peer.name(),
            unit,
            ours: sides.0,
            peer_value: sides.1,
            ratio,
            spread,
            target: self.target,
            note: None,
        }
    }

    fn rate(&self, workload: Workload, effort: &Effort) -> Row {
        let setup = workload.setup();
        let mut pair = ours::Pair::new(&setup);
        let (turns, time) = (effort.turns, effort.time);
        let result = match self.peer {
            Peer::Smoltcp => {
                let mut peer = peer::Pair::new(&setup);
                compare(workload, (&mut pair, &mut peer), turns, time)
            }
            Peer::Kernel => {
                let namespace = effort.namespace.clone();
                let mut peer = kernel::Pair::new(&Setup { namespace, ..setup });
                compare(workload, (&mut pair, &mut peer), turns, time)
            }
            Peer::OursAlone | Peer::OursOneCore | Peer::OursAtBest => {
                let mut alone = ours::Pair::new(&Setup { idle: 0, ..setup });
                compare(workload, (&mut pair, &mut alone), turns, time)
            }
        };
        let (unit, scale) = match workload.unit() {
            Unit::Bits => ("Gbit/s", 8.0 / 1e9),
            Unit::Rounds => ("op/s", 1.0),
        };
        let sides = (result.ours.median() * scale, result.peer.median() * scale);
        self.row(unit, sides, result.ratio(), result.spread())
    }

    /// Two cores against one of them.
    fn cores(&self, load: Load, effort: &Effort) -> Row {
        let processors = effort.two_processors().expect("rows without are left out");
        let (mut both, mut one) = (Fleet::new(&processors), Fleet::new(&processors[1..]));
        let slice = effort.time / (2 * effort.turns as u32 + 2);
        let shares = RefCell::new(Vec::new());
        let rate = |fleet: &mut Fleet| {
            let rate = fleet.run(load, slice);
            shares.borrow_mut().push(rate.share);
            rate.per_second
        };
        // The first turns warm up.
        let _ = (rate(&mut both), rate(&mut one));
        let result = alternate(effort.turns, || rate(&mut both), || rate(&mut one));
        let sides = (result.ours.median(), result.peer.median());
        // Of the middle turn, as the rates are.
        let share = Samples::from(shares.into_inner()).median();
        let note = (share < QUIET_SHARE).then(|| {
            format!(
                "there were no two idle cores: a thread had its core for only {:.0} % of a turn; \
                 rates are of the time that threads had",
                share * 100.0
            )
        });
        Row { note, ..self.row("op/s", sides, result.ratio(), result.spread()) }
    }

    /// A thread and what answers it on another core.
    fn threads(&self, effort: &Effort) -> Row {
        let [here, there] = effort.two_processors().expect("rows without are left out");
        let slice = effort.time / (2 * effort.turns as u32);
        let (mut rounds, mut costs) = (0.0, threads::Costs::default());
        // Made anew for each turn: what spins must not do so in the other's.
        let result = alternate(
            effort.turns,
            || {
                let mut ours = threads::Ours::new(there, Idle::Busy);
                let rate = ours.rate(here, slice);
                rounds += rate * slice.as_secs_f64();
                costs = costs + ours.costs();
                rate
            },
            || threads::Kernel::new(there, effort.namespace.clone()).rate(here, slice),
        );
        let sides = (result.ours.median(), result.peer.median());
        let note = format!(
            "a round trip of {:.0} ns to the peer's {:.0}; wake-ups in it {:.4} of the engine and \
             {:.4} of the thread; {:.0} bytes copied for one of {MESSAGE_BYTES} there and back",
            1e9 / sides.0,
            1e9 / sides.1,
            costs.engine_wakeups as f64 / rounds,
            costs.thread_wakeups as f64 / rounds,
            costs.bytes_copied as f64 / rounds,
        );
        let note = Some(note);
        Row { note, ..self.row("op/s", sides, result.ratio(), result.spread()) }
    }

    /// A server at twice the load that it can carry.
    fn overload(&self, effort: &Effort) -> Row {
        let (cost, time) = (Cost::Measured, effort.time.div_f64(20.0));
        let time = time.clamp(Duration::from_millis(20), Duration::from_millis(500));
        let best = overload::best(cost, time / 2, FIRST_OFFER);
        let offer = |per_second: f64| Offer { per_second, time, cost, shedding: true };
        let mut last = None;
        let result = alternate(
            effort.turns,
            || last.insert(overload::run(&offer(2.0 * best.good))).good,
            || overload::run(&offer(best.offered)).good,
        );
        let sides = (result.ours.median(), result.peer.median());
        let note = last.map(|outcome| {
            format!(
                "offered {:.0} a second; those answered waited {:?} at the median and {:?} at the \
                 99th percentile; {} SYNs shed, {} frames lost before the server; the operator had \
                 {} answers and missed {}",
                outcome.offered,
                outcome.latency(0.5),
                outcome.latency(0.99),
                outcome.server.listen_shed,
                outcome.ring_dropped,
                outcome.operator_ns.len(),
                outcome.operator_failed,
            )
        });
        Row { note, ..self.row("op/s", sides, result.ratio(), result.spread()) }
    }

    /// Our default controller against the peer's best. Where the losses fall matters more than
    /// anything else, and no seed is the same to both: the mean counts.
    fn loss(&self) -> Row {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for seed in LOSS_SEEDS {
            let path = Path { seed, ..Path::default() };
            let end = |role| Ours::new(&path, role, Algorithm::default());
            ours.push(goodput(&path, end(Role::Sender), end(Role::Receiver)) / 1e9);
            let end = |role| LossPeer::new(&path, role, Control::Cubic);
            peer.push(goodput(&path, end(Role::Sender), end(Role::Receiver)) / 1e9);
        }
        let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
        let sides = (mean(&ours), mean(&peer));
        self.row("Gbit/s", sides, sides.0 / sides.1, Samples::from(ours).spread())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit of a row's figures, and what they are within on any machine and in any build: what
    /// a wrong unit, a lost factor or a run of nothing are outside of.
    fn plausible(what: What) -> (&'static str, std::ops::Range<f64>) {
        match what {
            What::Rate(workload) => match workload.unit() {
                Unit::Bits => ("Gbit/s", 0.01..100_000.0),
                Unit::Rounds => ("op/s", 500.0..1e8),
            },
            // Of few connections, so that what tables have grown ahead counts for much.
            What::IdleBytes => ("bytes", 100.0..20_000.0),
            What::Loss => ("Gbit/s", 0.001..10.0),
            What::Cores(_) | What::Threads | What::Overload => ("op/s", 500.0..1e8),
        }
    }

    #[test]
    fn rows_without_a_kernel_can_all_be_measured() {
        let effort = Effort {
            time: Duration::from_millis(20),
            turns: 5,
            idle: 50,
            namespace: None,
            processors: barewire_driver::sys::allowed_cores().unwrap(),
        };
        for case in CASES.iter().filter(|case| case.missing(&effort).is_none()) {
            // Ten thousand connections and seconds of virtual time are for the program itself.
            if matches!(case.what, What::Rate(Workload::EchoIdle) | What::Loss) {
                continue;
            }
            let row = case.measure(&effort);
            let (unit, range) = plausible(case.what);
            assert_eq!((row.unit, row.workload), (unit, case.name()));
            assert!(range.contains(&row.ours) && range.contains(&row.peer_value), "{row:?}");
            // The ratio of the medians is among the ratios of turns, whose range the spread is.
            let apart = (row.ours / row.peer_value - row.ratio).abs();
            assert!(apart <= row.spread * row.ratio + 1e-9, "{row:?}");
            assert!(row.ratio > 0.0 && row.spread.is_finite(), "{row:?}");
        }
    }
}
