//! An engine on its way to the thread that is to drive it.
//!
//! ```text
//!   Engines::prepare ─▶ EngineSeed ═ any thread ═▶ open: pool, queue, stack ─▶ Engine: run or turn
//! ```
//!
//! Nothing of an engine may change its thread, so it is made where it lives.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use barewire_driver::{Features, MacAddr, Pool, QueueSeed, sys};

use super::core::{self, Core};
use super::executor::Executor;
use super::group::{EngineConfig, EngineError};
use super::mailbox::Mailbox;
use super::run::{Engine, PANICKED, Parts, StopTimes, settled};
use super::stats::{EngineReport, EngineStats};
use crate::addr::Cidr;
use crate::interface::{IfaceId, InterfaceConfig, Medium};
use crate::neighbor::NeighborConfig;
use crate::stack::{Share, Stack, StackConfig};

/// Fails whoever waits for an engine once nothing is left that could become, or is, that engine.
pub(super) struct Lifeline(Arc<Mailbox>);

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.0.die();
    }
}

/// An engine that has not been opened yet; see [`Engines::prepare`](super::Engines::prepare). Dropped
/// before that it is as an engine that has stopped.
pub struct EngineSeed {
    config: EngineConfig,
    mac: MacAddr,
    queue: Box<dyn QueueSeed>,
    /// Of everything random in this engine.
    seed: u128,
    share: Share,
    mailboxes: Vec<Arc<Mailbox>>,
    failed: Arc<OnceLock<String>>,
    lifeline: Lifeline,
}

impl EngineSeed {
    /// The engine of `share`; `seed` is the group's.
    pub(super) fn new(
        config: &EngineConfig,
        mac: MacAddr,
        queue: Box<dyn QueueSeed>,
        seed: u128,
        share: Share,
        mailboxes: &[Arc<Mailbox>],
        failed: Arc<OnceLock<String>>,
    ) -> EngineSeed {
        let index = share.engine();
        EngineSeed {
            config: config.clone(),
            mac,
            queue,
            seed: seed.wrapping_add(u128::from(index) + 1),
            share: share.steered_by(config.steering.clone()),
            mailboxes: mailboxes.to_vec(),
            failed,
            lifeline: Lifeline(mailboxes[usize::from(index)].clone()),
        }
    }

    /// Which engine it will be, from 0.
    pub fn index(&self) -> usize {
        usize::from(self.share.engine())
    }

    /// Makes the engine on this thread, which is pinned first if the configuration says so.
    ///
    /// # Errors
    /// [`EngineError`], but for its device having no queues.
    pub fn open(self) -> Result<Engine, EngineError> {
        let EngineSeed { config, mac, queue, seed, share, mailboxes, failed, lifeline } = self;
        let (index, engines) = (share.engine(), share.engines());
        if let Some(&core) = config.pin.get(usize::from(index)) {
            sys::pin_to_core(core).map_err(|source| EngineError::Pin { core, source })?;
        }
        let pool = Pool::new(config.pool)?;
        let mut queue = queue.open();
        let granted = queue.start(&pool, Features::all())?;
        let offered = queue.capabilities();
        let settings = StackConfig {
            seed,
            tcp: config.tcp.clone(),
            limits: config.limits,
            ephemeral_ports: config.ephemeral_ports.clone(),
            share,
        };
        let mut stack = Stack::new(settings, pool);
        let interface = InterfaceConfig {
            mac,
            addresses: config.addresses.clone(),
            mtu: config.mtu.unwrap_or(offered.mtu).min(offered.mtu),
            medium: Medium::Ethernet,
            features: granted,
            tso_max_bytes: offered.tso_max_bytes,
            tx_max_segs: offered.tx_max_segs,
            neighbor: NeighborConfig::default(),
        };
        let iface = with_routes(&mut stack, interface, &config)?;
        let mailbox = mailboxes[usize::from(index)].clone();
        let executor = Executor::new(config.max_tasks, mailbox.doorbell.clone());
        let clock = config.clock;
        let parts = core::Parts { stack, executor, clock, iface, index, engines, mailbox };
        Ok(Engine::new(
            Core::new(parts),
            Parts {
                queue,
                portals: config.thread_sockets,
                engines: mailboxes,
                idle: config.idle,
                stop_times: StopTimes { drain: config.drain, grace: config.grace },
                failed,
                lifeline,
            },
        ))
    }

    /// An engine's own thread, from its start to its report.
    pub(super) fn run(self, started: &SyncSender<Result<(), EngineError>>) -> EngineReport {
        let index = self.share.engine();
        let engine = match self.open() {
            Ok(engine) => engine,
            Err(error) => {
                let failure = Some(error.to_string());
                let _ = started.send(Err(error));
                return EngineReport { failure, ..EngineReport::default() };
            }
        };
        let _ = started.send(Ok(()));
        let pool = engine.core().pool().clone();
        let ended = catch_unwind(AssertUnwindSafe(|| engine.run()));
        ended.unwrap_or_else(|_| EngineReport {
            stats: EngineStats { index, ..EngineStats::default() },
            audit: settled(&pool),
            unfinished: 0,
            failure: Some(PANICKED.to_owned()),
        })
    }
}

impl fmt::Debug for EngineSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineSeed").field("index", &self.index()).finish_non_exhaustive()
    }
}

/// The stack's one interface, and its way to everywhere else.
fn with_routes(
    stack: &mut Stack,
    interface: InterfaceConfig,
    config: &EngineConfig,
) -> Result<IfaceId, EngineError> {
    let iface = stack.add_interface(interface).map_err(EngineError::Addresses)?;
    if let Some(gateway) = config.gateway {
        let everything = Cidr::everything(gateway);
        let added = stack.add_route(everything, Some(gateway), iface);
        added.map_err(EngineError::Addresses)?;
    }
    Ok(iface)
}

#[cfg(test)]
#[path = "seed_tests.rs"]
mod tests;
