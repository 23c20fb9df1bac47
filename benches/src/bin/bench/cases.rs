//! What is compared with whom, and what is aimed at.

use std::path::PathBuf;
use std::time::Duration;

use barewire_benches::loss::{Control, Ours, Path, Peer as LossPeer, Role, goodput};
use barewire_benches::measure::{Samples, compare};
use barewire_benches::{Pair, Setup, Unit, Workload, kernel, ours, peer};
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
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Smoltcp => <peer::Pair as Pair>::NAME,
            Peer::Kernel => <kernel::Pair as Pair>::NAME,
            Peer::OursAlone => "ours, none idle",
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

/// All of them, in the table's order.
pub(crate) const CASES: [Case; 17] = [
    rate(Workload::Bulk1500Checksums, Peer::Smoltcp, Target::Times(2.5)),
    rate(Workload::Bulk1500, Peer::Smoltcp, Target::Times(2.5)),
    rate(Workload::Bulk9000Checksums, Peer::Smoltcp, Target::Times(2.0)),
    rate(Workload::Bulk9000, Peer::Smoltcp, Target::Times(2.0)),
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
];

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
}

impl Case {
    pub(crate) fn name(&self) -> &'static str {
        match self.what {
            What::Rate(workload) => workload.name(),
            What::IdleBytes => "idle-memory",
            What::Loss => "loss-1-percent",
        }
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
            Peer::OursAlone => {
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

    #[test]
    fn rows_without_a_kernel_can_all_be_measured() {
        let effort =
            Effort { time: Duration::from_millis(20), turns: 5, idle: 50, namespace: None };
        for case in CASES.iter().filter(|case| case.peer != Peer::Kernel) {
            // Ten thousand connections and seconds of virtual time are for the program itself.
            if matches!(case.what, What::Rate(Workload::EchoIdle) | What::Loss) {
                continue;
            }
            let row = case.measure(&effort);
            assert!(row.ours > 0.0 && row.peer_value > 0.0 && row.ratio > 0.0, "{row:?}");
        }
    }
}
