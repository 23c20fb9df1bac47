//! What is measured, by name.

use crate::{Pair, Setup};

/// How a result is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Payload bits a second, in Gbit/s; one operation is one byte.
    Bits,
    /// Operations a second, in thousands.
    Rounds,
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// 64-byte request and answer over one connection.
    Echo,
    /// The same beside 10,000 idle connections.
    EchoIdle,
    /// 64-byte datagram and answer.
    Datagrams,
    /// Connect, request, answer, close.
    Connections,
    /// A stream of 1,500-byte frames, checksums in software.
    Bulk1500Checksums,
    /// The same on a wire that is trusted.
    Bulk1500,
    /// A stream of 9,000-byte frames, checksums in software.
    Bulk9000Checksums,
    /// The same on a wire that is trusted.
    Bulk9000,
    /// As [`Workload::Bulk1500Checksums`], without copies to or from the application: it lends what is
    /// sent, and what arrives is lent to it.
    Owned1500Checksums,
    /// The same on a wire that is trusted.
    Owned1500,
    /// As [`Workload::Owned1500Checksums`] in 9,000-byte frames.
    Owned9000Checksums,
    /// The same on a wire that is trusted.
    Owned9000,
    /// A stream of 64 KiB frames on a wire that is trusted, without copies where the stack can do
    /// without. The peer cannot cut segments: its MTU is 65,535.
    BulkSegmentation,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 13] = [
        Workload::Echo,
        Workload::EchoIdle,
        Workload::Datagrams,
        Workload::Connections,
        Workload::Bulk1500Checksums,
        Workload::Bulk1500,
        Workload::Bulk9000Checksums,
        Workload::Bulk9000,
        Workload::Owned1500Checksums,
        Workload::Owned1500,
        Workload::Owned9000Checksums,
        Workload::Owned9000,
        Workload::BulkSegmentation,
    ];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Echo => "tcp-echo",
            Workload::EchoIdle => "tcp-echo-10000-idle",
            Workload::Datagrams => "udp-echo",
            Workload::Connections => "connect-close",
            Workload::Bulk1500Checksums => "bulk-1500-checksums",
            Workload::Bulk1500 => "bulk-1500",
            Workload::Bulk9000Checksums => "bulk-9000-checksums",
            Workload::Bulk9000 => "bulk-9000",
            Workload::Owned1500Checksums => "bulk-1500-checksums-owned",
            Workload::Owned1500 => "bulk-1500-owned",
            Workload::Owned9000Checksums => "bulk-9000-checksums-owned",
            Workload::Owned9000 => "bulk-9000-owned",
            Workload::BulkSegmentation => "bulk-tso",
        }
    }

    /// How its result is told.
    pub fn unit(self) -> Unit {
        match self {
            Workload::Echo | Workload::EchoIdle | Workload::Datagrams | Workload::Connections => {
                Unit::Rounds
            }
            Workload::Bulk1500Checksums
            | Workload::Bulk1500
            | Workload::Bulk9000Checksums
            | Workload::Bulk9000
            | Workload::Owned1500Checksums
            | Workload::Owned1500
            | Workload::Owned9000Checksums
            | Workload::Owned9000
            | Workload::BulkSegmentation => Unit::Bits,
        }
    }

    /// The hosts that it needs.
    pub fn setup(self) -> Setup {
        let base = Setup::default();
        match self {
            Workload::Echo | Workload::Bulk1500Checksums => base,
            Workload::Datagrams => Setup { connected: false, ..base },
            Workload::Connections => Setup { connected: false, buffer_bytes: 16 << 10, ..base },
            Workload::EchoIdle => Setup { buffer_bytes: 4 << 10, idle: 10_000, ..base },
            Workload::Bulk1500 => Setup { software_checksums: false, ..base },
            Workload::Bulk9000Checksums => Setup { mtu: 9000, ..base },
            Workload::Bulk9000 => Setup { mtu: 9000, software_checksums: false, ..base },
            Workload::Owned1500Checksums => {
                Setup { in_place: true, ..Workload::Bulk1500Checksums.setup() }
            }
            Workload::Owned1500 => Setup { in_place: true, ..Workload::Bulk1500.setup() },
            Workload::Owned9000Checksums => {
                Setup { in_place: true, ..Workload::Bulk9000Checksums.setup() }
            }
            Workload::Owned9000 => Setup { in_place: true, ..Workload::Bulk9000.setup() },
            Workload::BulkSegmentation => Setup {
                software_checksums: false,
                segmentation: true,
                in_place: true,
                buffer_bytes: 512 << 10,
                ..base
            },
        }
    }

    /// Operations that are enough to show that it works, in a blink.
    pub fn a_few(self) -> u64 {
        match self.unit() {
            Unit::Rounds => 20,
            Unit::Bits => 1 << 20,
        }
    }

    /// Does `operations` of it.
    pub fn run<P: Pair>(self, pair: &mut P, operations: u64) {
        match self {
            Workload::Echo | Workload::EchoIdle => pair.echo(operations),
            Workload::Datagrams => pair.datagrams(operations),
            Workload::Connections => pair.connections(operations),
            Workload::Bulk1500Checksums
            | Workload::Bulk1500
            | Workload::Bulk9000Checksums
            | Workload::Bulk9000
            | Workload::Owned1500Checksums
            | Workload::Owned1500
            | Workload::Owned9000Checksums
            | Workload::Owned9000
            | Workload::BulkSegmentation => pair.bulk(operations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel, ours, peer};

    /// Every workload compares what it moves: echoes always, streams under `verify`.
    fn moves_the_right_bytes<P: Pair>(idle: usize) {
        for workload in Workload::ALL {
            let setup =
                Setup { verify: true, idle: workload.setup().idle.min(idle), ..workload.setup() };
            let mut pair = P::new(&setup);
            workload.run(&mut pair, workload.a_few());
            workload.run(&mut pair, workload.a_few() + 1);
        }
    }

    #[test]
    fn ours_moves_the_right_bytes() {
        moves_the_right_bytes::<ours::Pair>(20);
    }

    #[test]
    fn the_peer_moves_the_right_bytes() {
        moves_the_right_bytes::<peer::Pair>(600);
    }

    #[test]
    fn the_kernel_moves_the_right_bytes() {
        moves_the_right_bytes::<kernel::Pair>(0);
    }

    #[test]
    #[should_panic(expected = "the stream differs")]
    fn a_changed_byte_is_seen() {
        let pattern = crate::pattern();
        let mut copy = pattern.clone();
        copy[100] ^= 1;
        crate::check_pattern(&pattern, 0, &copy);
    }
}
