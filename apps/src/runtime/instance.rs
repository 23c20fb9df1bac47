//! A running instance: its handle, its figures and its end.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use barewire_driver::Device;
use barewire_stack::StackCounters;
use barewire_stack::engine::{EngineReport, EngineStats, Engines};
use thiserror::Error;

use super::builder::Builder;
use super::core::Core;
use crate::net::to_io;

/// How much longer than its timeout `ping` waits for its engine.
const PING_SLACK: Duration = Duration::from_secs(1);

struct Inner {
    engines: Engines,
    device: Arc<dyn Device>,
}

/// A running instance: engines on a device. Cloning it gives another handle; when the last one and
/// the last socket are gone, it stops.
#[derive(Clone)]
pub struct Barewire(Arc<Inner>);

/// The instance whose sockets `bind` and `connect` make.
static DEFAULT: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

fn default_slot() -> MutexGuard<'static, Weak<Inner>> {
    DEFAULT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Barewire {
    /// Begins an instance: at least a device and an address are needed.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(engines: Engines, device: Arc<dyn Device>) -> Barewire {
        let instance = Barewire(Arc::new(Inner { engines, device }));
        let mut default = default_slot();
        if default.upgrade().is_none_or(|other| other.engines.is_stopped()) {
            *default = Arc::downgrade(&instance.0);
        }
        instance
    }

    /// Makes this the instance that `bind` and `connect` of [`crate::net`] use.
    pub fn set_default(&self) {
        *default_slot() = Arc::downgrade(&self.0);
    }

    /// The instance that `bind` and `connect` of [`crate::net`] use.
    ///
    /// # Errors
    /// `NotConnected` if none is running.
    pub fn default_instance() -> io::Result<Barewire> {
        let told = "no Barewire instance is running in this process: call Barewire::builder()… \
                    .start() first and keep its handle, or use bind_on and connect_on";
        let instance = default_slot().upgrade().map(Barewire);
        instance.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, told))
    }

    pub(crate) fn engines(&self) -> &Engines {
        &self.0.engines
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.0.device
    }

    /// Engines that run.
    pub fn cores(&self) -> usize {
        self.engines().count()
    }

    /// Calls `handler` on each core and runs what it gives as a task there. Returns when each has
    /// run up to its first wait: a handler that begins by listening is listening then.
    ///
    /// # Errors
    /// `ConnectionAborted` if the instance has stopped; `Unsupported` on a core's own thread.
    pub fn on_core<F, Fut>(&self, handler: F) -> io::Result<()>
    where
        F: Fn(Core) -> Fut + Send + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let (running, all_run) = channel::<()>();
        for index in 0..self.cores() {
            let (handler, running) = (handler.clone(), running.clone());
            let begin = move |core: &barewire_stack::engine::Core| {
                let mut task = Box::pin(handler(Core::new(core.clone())));
                let mut running = Some(running);
                core.spawn(std::future::poll_fn(move |cx| {
                    // Dropped after the first poll, also when that panics.
                    let _first = running.take();
                    task.as_mut().poll(cx)
                }));
            };
            self.engines().run_on(index, begin).map_err(to_io)?;
        }
        drop(running);
        // Nothing is ever sent: it ends when every task has dropped its sender.
        let _ = all_run.recv();
        Ok(())
    }

    /// Sends an ICMP echo request with `size` bytes of payload and gives the time until it was
    /// answered.
    ///
    /// # Errors
    /// `TimedOut`; what ICMP or the neighbour's silence say about the way there.
    pub fn ping(&self, addr: IpAddr, size: usize, timeout: Duration) -> io::Result<Duration> {
        let (tell, told) = channel();
        let begin = move |core: &barewire_stack::engine::Core| {
            let core = Core::new(core.clone());
            let task = core.clone();
            core.spawn(async move {
                // Nobody listens any more: then nobody misses the answer.
                let _ = tell.send(task.ping(addr, size, timeout).await);
            });
        };
        self.engines().run_on(0, begin).map_err(to_io)?;
        match told.recv_timeout(timeout.saturating_add(PING_SLACK)) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// The figures of the engines that run. Asks each for them: not for the hot path.
    pub fn stats(&self) -> Stats {
        Stats { engines: self.engines().stats() }
    }

    /// Why it no longer works, if an engine has ended by itself: its device is gone, most often.
    /// Sockets fail from then on; what is left to do is [`Barewire::stop`].
    pub fn failure(&self) -> Option<String> {
        self.engines().failure()
    }

    /// Stops in order and waits until that is done: nothing more is accepted, calls that wait fail,
    /// handlers end or are dropped, connections close, and every buffer is counted. Called again
    /// it gives the same report.
    pub fn stop(&self) -> StopReport {
        StopReport { engines: self.engines().stop() }
    }
}

impl fmt::Debug for Barewire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Barewire({} cores on {})", self.cores(), self.0.device.name())
    }
}

/// The figures of an instance, by engine.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Of each engine, in order.
    pub engines: Vec<EngineStats>,
}

impl Stats {
    /// The stacks' counters of all engines together.
    pub fn stack(&self) -> StackCounters {
        let mut sum = StackCounters::default();
        self.engines.iter().for_each(|engine| sum.add(&engine.stack));
        sum
    }

    /// Payload bytes that processors have copied, on the engines and on the threads that read and
    /// write.
    pub fn bytes_copied(&self) -> u64 {
        self.engines.iter().map(|engine| engine.pool.bytes_copied).sum()
    }

    /// Entries in the socket tables.
    pub fn sockets(&self) -> usize {
        self.engines.iter().map(|engine| engine.sockets).sum()
    }
}

/// How an instance ended.
#[derive(Clone, Debug, Default)]
#[must_use = "it says whether every buffer came back"]
pub struct StopReport {
    /// Of each engine, in order.
    pub engines: Vec<EngineReport>,
}

/// An engine did not end as it should have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("engine {engine}: {what}")]
pub struct Unclean {
    /// Which engine, from 0.
    pub engine: usize,
    /// What was wrong.
    pub what: String,
}

impl StopReport {
    /// Nothing, if every engine was stopped and every buffer came back.
    ///
    /// # Errors
    /// [`Unclean`] for the first engine that failed or leaked.
    pub fn check(&self) -> Result<(), Unclean> {
        for (engine, report) in self.engines.iter().enumerate() {
            if let Some(failure) = &report.failure {
                return Err(Unclean { engine, what: failure.clone() });
            }
            if !report.audit.all_free() {
                let what = format!("buffers have not come back: {:?}", report.audit);
                return Err(Unclean { engine, what });
            }
        }
        Ok(())
    }
}
