//! Starting, reaching and stopping the engines of one device.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use barewire_driver::mem::PoolConfig;
use barewire_driver::rss::Steering;
use barewire_driver::sys::{self, Clock};
use barewire_driver::{DeviceError, MacAddr, PoolError, QueueSeed};
use thiserror::Error;

use super::core::Core;
use super::executor::on_engine_thread;
use super::idle::Idle;
use super::mailbox::{Answer, Mailbox, Op};
use super::portal::{AcceptQueue, Endpoint, Portal, Status};
use super::remote::{RemoteDatagram, RemoteListener, RemoteStream, Wait};
use super::seed::EngineSeed;
use super::stats::{EngineReport, EngineStats};
use crate::addr::Cidr;
use crate::error::SocketError;
use crate::socket::{SocketKind, SocketOption};
use crate::stack::{Limits, Share};
use crate::tcp::TcpConfig;

/// More data than a SYN ever carries: a segment of the largest packet.
const SYN_DATA_BYTES: usize = 65_535;

/// How the engines of a device are set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The host's addresses, each with the prefix of its network.
    pub addresses: Vec<Cidr>,
    /// The way to everywhere else.
    pub gateway: Option<IpAddr>,
    /// Largest IP packet; `None` takes the device's.
    pub mtu: Option<u16>,
    /// What an engine does while there is nothing to do.
    pub idle: Idle,
    /// The processor for each engine, in order; engines beyond the list are not pinned.
    pub pin: Vec<usize>,
    /// The packet memory of each engine.
    pub pool: PoolConfig,
    /// Settings that TCP sockets start with.
    pub tcp: TcpConfig,
    /// Bounds of each engine's stack.
    pub limits: Limits,
    /// Ports for sockets that do not ask for one.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Most tasks on one engine.
    pub max_tasks: usize,
    /// Most sockets of other threads on one engine.
    pub thread_sockets: usize,
    /// How long tasks may go on after the engine was asked to stop.
    pub drain: Duration,
    /// How long connections may take to end after that.
    pub grace: Duration,
    /// Where the time comes from.
    pub clock: Clock,
    /// Seeds everything random; `None` asks the operating system.
    pub seed: Option<u128>,
    /// How the device deals flows out to the engines, where that is known.
    pub steering: Option<Arc<Steering>>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            addresses: Vec::new(),
            gateway: None,
            mtu: None,
            idle: Idle::default(),
            pin: Vec::new(),
            pool: PoolConfig::default(),
            tcp: TcpConfig::default(),
            limits: Limits::default(),
            ephemeral_ports: 32_768..=65_535,
            max_tasks: 1 << 20,
            thread_sockets: 16 << 10,
            drain: Duration::from_millis(500),
            grace: Duration::from_secs(1),
            clock: Clock::monotonic(),
            seed: None,
            steering: None,
        }
    }
}

/// Why engines could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A device without queues, or more engines than can be numbered.
    #[error("a device has 1 to 65535 queues to run engines on, not {0}")]
    Queues(usize),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was wanted of it.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// There is no such processor, or this process may not use it.
    #[error(
        "cannot run on processor {core}: {source}; `nproc --all` and `taskset -p $$` say which there are"
    )]
    Pin {
        /// The processor.
        core: usize,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The packet memory could not be had.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The queue could not be started.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The stack refused its addresses or routes.
    #[error("the addresses or the gateway cannot be used: {0}")]
    Addresses(SocketError),
    /// The engine ended before it ran.
    #[error("the engine's thread ended while it was starting")]
    Died,
}

/// The running engines of one device. Dropping it stops them.
pub struct Engines {
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<EngineReport>>>,
    reports: Mutex<Vec<EngineReport>>,
    next: AtomicUsize,
    /// Held while a port is looked for and taken on every engine.
    binding: Mutex<()>,
    backlog_max: usize,
    /// Why the first engine that ended by itself did so.
    failure: Arc<OnceLock<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engines {
    /// Starts an engine on a thread of its own for each queue.
    ///
    /// # Errors
    /// [`EngineError`]; what was started is stopped again.
    pub fn start(
        config: &EngineConfig,
        mac: MacAddr,
        queues: Vec<Box<dyn QueueSeed>>,
    ) -> Result<Engines, EngineError> {
        let (engines, seeds) = Engines::prepare(config, mac, queues)?;
        let (started, outcomes) = sync_channel(seeds.len());
        for seed in seeds {
            let started = started.clone();
            let spawned = thread::Builder::new()
                .name(format!("barewire-{}", seed.index()))
                .spawn(move || seed.run(&started));
            match spawned {
                Ok(thread) => locked(&engines.threads).push(thread),
                Err(source) => {
                    return Err(EngineError::Os { what: "cannot start a thread", source });
                }
            }
        }
        drop(started);
        for _ in 0..engines.count() {
            outcomes.recv().unwrap_or(Err(EngineError::Died))?;
        }
        Ok(engines)
    }

    /// Engines for threads that are there already, one for each queue: a seed goes to the thread that
    /// is to drive the engine, and is opened there. A thread may drive several. Calls to an engine wait
    /// until its seed has been opened and its turns are made. Who drops what this gives beside the seeds
    /// stops the engines, whoever drives them.
    ///
    /// # Errors
    /// [`EngineError::Queues`] and [`EngineError::Os`]; the other reasons come when a seed is opened.
    pub fn prepare(
        config: &EngineConfig,
        mac: MacAddr,
        queues: Vec<Box<dyn QueueSeed>>,
    ) -> Result<(Engines, Vec<EngineSeed>), EngineError> {
        let count = u16::try_from(queues.len()).ok().filter(|&n| n > 0);
        let count = count.ok_or(EngineError::Queues(queues.len()))?;
        let os = |what| move |source| EngineError::Os { what, source };
        let seed = match config.seed {
            Some(seed) => seed,
            None => sys::random_u128().map_err(os("cannot get random numbers"))?,
        };
        let mailboxes = (0..count)
            .map(|_| Mailbox::new(config.thread_sockets).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()
            .map_err(os("cannot make an event descriptor"))?;
        let engines = Engines {
            mailboxes: mailboxes.clone(),
            threads: Mutex::default(),
            reports: Mutex::default(),
            next: AtomicUsize::new(0),
            binding: Mutex::default(),
            backlog_max: config.limits.backlog,
            failure: Arc::default(),
        };
        let seeds = queues.into_iter().zip(Share::group(seed, count)).map(|(queue, share)| {
            let failed = engines.failure.clone();
            EngineSeed::new(config, mac, queue, seed, share, &mailboxes, failed)
        });
        let seeds = seeds.collect();
        Ok((engines, seeds))
    }

    /// How many engines there are.
    pub fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// True once an engine has stopped, or died: its sockets fail.
    pub fn is_stopped(&self) -> bool {
        self.mailboxes.iter().any(|mailbox| mailbox.is_dead())
    }

    /// Why the first engine that ended by itself did so: its device is gone, most often. `None`
    /// while all run, and after a stop that was asked for.
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// Runs `f` on the thread of engine `index` and waits until it has returned.
    ///
    /// # Errors
    /// [`SocketError::EngineStopped`]; [`SocketError::InvalidInput`] for an engine that there is
    /// not.
    pub fn run_on(
        &self,
        index: usize,
        f: impl FnOnce(&Core) + Send + 'static,
    ) -> Result<(), SocketError> {
        let mailbox = self.mailboxes.get(index).ok_or(SocketError::InvalidInput)?;
        mailbox.call(Op::Run(Box::new(f))).map(|_| ())
    }

    /// Listens on every engine; accepted connections wait in one queue. At most `backlog` wait,
    /// divided between that queue and those of the engines.
    ///
    /// # Errors
    /// As a socket's `bind` and `listen`; [`SocketError::EngineStopped`].
    pub fn listen(&self, addr: SocketAddr, backlog: usize) -> Result<RemoteListener, SocketError> {
        let _turn = locked(&self.binding);
        let addr = self.probe(SocketKind::Tcp, addr)?;
        let share_port = self.count() > 1;
        let backlog = backlog.clamp(1, self.backlog_max).div_ceil(self.count() + 1);
        let accepts = Arc::new(AcceptQueue::new(backlog));
        let portals = self.on_each(addr, |addr| Op::Listen {
            addr,
            backlog,
            share_port,
            accepts: accepts.clone(),
        });
        let (portals, local, failed) = portals;
        // Made first, so that a failure half-way closes what was opened.
        let listener = RemoteListener::new(accepts, portals, local);
        failed.map_or(Ok(listener), Err)
    }

    /// Binds a UDP socket on every engine; datagrams wait in one queue.
    ///
    /// # Errors
    /// As a socket's `bind`; [`SocketError::EngineStopped`].
    pub fn bind_udp(&self, addr: SocketAddr) -> Result<RemoteDatagram, SocketError> {
        let _turn = locked(&self.binding);
        let addr = self.probe(SocketKind::Udp, addr)?;
        let share_port = self.count() > 1;
        let endpoint = Arc::new(Endpoint::new(Status::CONNECTED));
        let (portals, local, failed) =
            self.on_each(addr, |addr| Op::BindUdp { addr, share_port, endpoint: endpoint.clone() });
        let socket = RemoteDatagram::new(endpoint, portals, local);
        failed.map_or(Ok(socket), Err)
    }

    /// Opens a TCP connection, on the engines in turn.
    ///
    /// # Errors
    /// As a socket's `connect`; [`SocketError::TimedOut`] if `wait` ended first;
    /// [`SocketError::EngineStopped`].
    pub fn connect(&self, to: SocketAddr, wait: Wait) -> Result<RemoteStream, SocketError> {
        self.connect_with(to, &[], &[], wait).map(|(stream, _)| stream)
    }

    /// As [`Engines::connect`], with options that are set before the SYN leaves, and with the front
    /// of `data` in it where the server has given a fast open cookie (RFC 7413). Says how much of
    /// the data was taken; the rest is to be written.
    ///
    /// # Errors
    /// As [`Engines::connect`], and what the options are answered.
    pub fn connect_with(
        &self,
        to: SocketAddr,
        options: &[SocketOption],
        data: &[u8],
        wait: Wait,
    ) -> Result<(RemoteStream, usize), SocketError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.count();
        // More than this never fits a SYN.
        let data = data[..data.len().min(SYN_DATA_BYTES)].to_vec();
        let op = Op::Connect { to, options: options.to_vec(), data };
        let Answer::Opened(portal, taken) = self.mailboxes[turn].call(op)? else {
            return Err(SocketError::InvalidInput);
        };
        let stream = RemoteStream::new(portal);
        match stream.wait_connected(wait) {
            Ok(()) => Ok((stream, taken)),
            Err(SocketError::WouldBlock) => Err(SocketError::TimedOut),
            Err(error) => Err(error),
        }
    }

    /// Finds a port for a socket of several engines, which then all take it. Sharing it is allowed
    /// only among themselves, so whether it is free is asked before, with nobody else in between.
    fn probe(&self, kind: SocketKind, addr: SocketAddr) -> Result<SocketAddr, SocketError> {
        if self.count() == 1 {
            return Ok(addr);
        }
        match self.mailboxes[0].call(Op::Probe { kind, addr })? {
            Answer::Address(addr) => Ok(addr),
            Answer::Done
            | Answer::Portal(_)
            | Answer::Opened(..)
            | Answer::Option(_)
            | Answer::Stats(_) => Err(SocketError::InvalidInput),
        }
    }

    /// Makes the same call on every engine: the portals, the address of the first, and the error
    /// that ended it early, if one did.
    fn on_each(
        &self,
        addr: SocketAddr,
        op: impl Fn(SocketAddr) -> Op,
    ) -> (Vec<Arc<Portal>>, SocketAddr, Option<SocketError>) {
        let mut portals: Vec<Arc<Portal>> = Vec::with_capacity(self.count());
        let mut failed = None;
        for mailbox in &self.mailboxes {
            match mailbox.call(op(addr)).and_then(portal_of) {
                Ok(portal) => portals.push(portal),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let local = portals.first().map_or(addr, |portal| portal.local);
        (portals, local, failed)
    }

    /// The figures of every engine that runs.
    pub fn stats(&self) -> Vec<EngineStats> {
        let ask = |mailbox: &Arc<Mailbox>| match mailbox.call(Op::Stats) {
            Ok(Answer::Stats(stats)) => Some(*stats),
            Ok(
                Answer::Done
                | Answer::Portal(_)
                | Answer::Opened(..)
                | Answer::Address(_)
                | Answer::Option(_),
            )
            | Err(_) => None,
        };
        self.mailboxes.iter().filter_map(ask).collect()
    }

    /// Stops all engines in order: nothing more is accepted, calls of other threads fail, tasks
    /// end or are dropped, connections close, the queue stops, and every buffer is counted. Waits
    /// until that is done. Called again, it gives the same. On an engine's own thread, which it
    /// cannot wait for, and of engines that were [prepared](Engines::prepare), whose threads are not its
    /// own, it only begins the end and gives no reports: [`Engine::run`](super::Engine::run) gives those.
    pub fn stop(&self) -> Vec<EngineReport> {
        self.mailboxes.iter().for_each(|mailbox| mailbox.stop());
        if on_engine_thread() {
            return Vec::new();
        }
        let mut reports = locked(&self.reports);
        let threads = std::mem::take(&mut *locked(&self.threads));
        for thread in threads {
            let died = |_| EngineReport {
                failure: Some("the engine's thread panicked".to_owned()),
                ..EngineReport::default()
            };
            reports.push(thread.join().unwrap_or_else(died));
        }
        reports.clone()
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engines({})", self.count())
    }
}

fn portal_of(answer: Answer) -> Result<Arc<Portal>, SocketError> {
    match answer {
        Answer::Portal(portal) => Ok(portal),
        Answer::Done
        | Answer::Opened(..)
        | Answer::Address(_)
        | Answer::Option(_)
        | Answer::Stats(_) => Err(SocketError::InvalidInput),
    }
}
