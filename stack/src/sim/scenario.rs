//! From a seed to a network, and from the network to a verdict.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use barewire_driver::cable::CableConfig;
use barewire_driver::middleware::fault::{FaultConfig, FaultRates};
use barewire_driver::{Features, PoolConfig};

use super::app::{
    App, Chatter, Client, ClientPlan, Context, ECHO_PORT, Echo, Server, ServerPlan,
};
use super::host::{Host, HostConfig};
use super::oracle::{Figures, Oracle, states_fit};
use super::window::WireCheck;
use super::world::World;
use crate::rng::Rng;
use crate::socket::SocketKind;
use crate::tcp::Keepalive;
use crate::time::Instant;

/// Longest run in virtual time: two hours of work and the ends of all connections.
const MAX_VIRTUAL_TIME: Duration = Duration::from_secs(4 * 3600);

/// Most rounds of a run, and most at one moment of it.
const MAX_ROUNDS: u64 = 3_000_000;
const MAX_ROUNDS_AT_ONCE: u32 = 20_000;

/// Rounds between two looks at the states of all connections.
const STATE_CHECK_ROUNDS: u64 = 64;

/// How long after the last application's end everything must be gone: orphans, FIN-WAIT-2 and
/// TIME-WAIT after the longest series of retransmissions.
const END_TIME: Duration = Duration::from_secs(3600);

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Frames arrive at once, in order and whole.
    Calm,
    /// Every fault, to a degree that depends on the seed.
    Foul,
}

/// A network made from a seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    seed: u64,
    weather: Weather,
    rude: bool,
    hosts: u8,
    capture: Option<std::path::PathBuf>,
}

/// What a run was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// A hash of every frame with its time: two runs of one seed have the same.
    pub digest: u64,
    /// What the applications did.
    pub figures: Figures,
    /// Segments that were sent again, by all connections together.
    pub retransmissions: u64,
    /// Frames that the hosts sent.
    pub frames: u64,
    /// Virtual time that passed.
    pub time: Duration,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl Scenario {
    /// The network of `seed`: two to ten hosts in foul weather, some of them rude.
    pub fn foul(seed: u64) -> Scenario {
        let mut rng = Rng::new(u128::from(seed));
        let hosts = 2 + rng.below(9) as u8;
        let rude = rng.chance(0.5);
        Scenario { seed, weather: Weather::Foul, rude, hosts, capture: None }
    }

    /// Two hosts that finish what they begin, on a wire without faults.
    pub fn calm(seed: u64) -> Scenario {
        Scenario { seed, weather: Weather::Calm, rude: false, hosts: 2, capture: None }
    }

    /// Writes what every card sends and receives to a pcapng file.
    pub fn capture(mut self, path: std::path::PathBuf) -> Scenario {
        self.capture = Some(path);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`Failure`] says what was wrong first.
    pub fn run(&self) -> Result<Report, Failure> {
        Run::new(self)?.run()
    }
}
