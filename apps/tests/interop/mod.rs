//! What the tests against the Linux kernel share: a namespace of each test's own with our host on a
//! tap in it, a watchdog, streams whose every byte is known, and what is printed when one fails.
//!
//! ```text
//!   test thread ── namespace ──┬── std::net             10.77.0.1 ─┐
//!                              └── Barewire on tap:bw0  10.77.0.2 ─┘
//! ```
//!
//! Threads and processes that a test starts are born in its namespace. A test that cannot have one
//! says by name that it was skipped, and why.

#![allow(dead_code, reason = "each test program uses its own part of this")]

pub(crate) mod conn;
pub(crate) mod linux;
pub(crate) mod program;
pub(crate) mod stream;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use barewire::{Barewire, Builder, Core};
use barewire_driver::middleware::fault::FaultConfig;
use barewire_driver::sys;

/// The kernel's side of the tap.
pub(crate) const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Our side of it.
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Both, on one network.
pub(crate) const PREFIX: &str = "10.77.0.2/24";
/// The device of every test; each has a namespace of its own.
pub(crate) const DEVICE: &str = "tap:bw0";

/// Longest time for one call of a socket. Far more than any should take on a busy machine, and less
/// than the watchdog's.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time for one test.
const WATCHDOG: Duration = Duration::from_secs(180);

/// Held while a test runs, so that what one measures is its own. A process that one test starts
/// has, between `fork` and `exec`, every descriptor of all others, too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The instance of the test that runs, for the watchdog.
static CURRENT: Mutex<Option<Barewire>> = Mutex::new(None);

/// Writes a line past the harness, which shows what a test prints only if it fails.
pub(crate) fn tell(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Runs `test` on a thread in a network namespace of its own, or says why not.
pub(crate) fn in_namespace(name: &'static str, test: impl FnOnce() + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = Instant::now();
    let (done, ended) = channel::<()>();
    let body = move || {
        let _tells_the_end = done;
        if let Err(error) = sys::open_tun() {
            return Err(format!("{} cannot be opened: {error}", sys::TUN_PATH));
        }
        sys::unshare_network().map_err(|e| format!("no network namespace: {e}"))?;
        ip("link set lo up");
        test();
        Ok(())
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body).unwrap();
    if ended.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
        let instance = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).take();
        instance.iter().for_each(dump);
        panic!("{name} did not end within {WATCHDOG:?}");
    }
    match thread.join() {
        Ok(Ok(())) => tell(&format!("{name}: {:.1} s", begin.elapsed().as_secs_f64())),
        Ok(Err(reason)) => tell(&format!("SKIPPED {name}: {reason}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What the kernel's senders use: not whatever the machine's default is. A namespace may not choose
/// CUBIC for all its sockets unless the first namespace allows it, but it may for a route.
pub(crate) const CONGESTION_CONTROL: &str = "congctl cubic";

/// Sets attributes of the kernel's route to us.
pub(crate) fn route(attributes: &str) {
    ip(&format!("route change 10.77.0.0/24 dev bw0 src {KERNEL} {attributes}"));
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// Changes a setting of the namespace below `/proc/sys/net`.
pub(crate) fn set_kernel(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/{setting}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// The faults that `text` describes. `BAREWIRE_SEED=N` makes them happen elsewhere.
pub(crate) fn wire(text: &str) -> FaultConfig {
    let mut faults: FaultConfig = text.parse().unwrap();
    if let Ok(seed) = std::env::var("BAREWIRE_SEED") {
        faults.seed = seed.parse().expect("BAREWIRE_SEED is a number");
    }
    faults
}

/// Our host in the namespace of the test. Prints what is known about it if the test fails.
pub(crate) struct Host {
    bw: Barewire,
}

impl Host {
    /// With the defaults.
    pub(crate) fn start() -> Host {
        Host::with(|builder| builder)
    }

    /// With what `configure` changes.
    pub(crate) fn with(configure: impl FnOnce(Builder) -> Builder) -> Host {
        let device = DEVICE.parse().unwrap();
        let builder = Barewire::builder().device(device).address(PREFIX.parse().unwrap());
        let bw = configure(builder).start().unwrap();
        route(CONGESTION_CONTROL);
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(bw.clone());
        Host { bw }
    }

    pub(crate) fn bw(&self) -> &Barewire {
        &self.bw
    }

    /// Runs what `task` gives on the first core. What it panics with, the test panics with as soon
    /// as it asks for the result.
    pub(crate) fn spawn<T, Fut>(&self, task: impl FnOnce(Core) -> Fut + Send + 'static) -> Task<T>
    where
        T: Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (tell, told) = channel();
        let task = Mutex::new(Some(task));
        let task = std::sync::Arc::new(task);
        let begin = move |core: Core| {
            let (task, tell): (_, Sender<T>) = (task.clone(), tell.clone());
            async move {
                let task = task.lock().unwrap().take();
                let Some(task) = task else { return };
                // A test that has failed already no longer listens.
                let _ = tell.send(task(core).await);
            }
        };
        self.bw.on_core(begin).unwrap();
        Task(told)
    }

    /// Stops, and shows that every engine ended well, every buffer came back, and no connection
    /// was left over.
    #[track_caller]
    pub(crate) fn stop(self) {
        let report = self.bw.stop();
        if let Err(error) = report.check() {
            panic!("{error}: {report:#?}");
        }
        for engine in &report.engines {
            assert_eq!(engine.unfinished, 0, "connections were left over: {engine:#?}");
            assert_eq!(engine.stats.tasks.panicked, 0, "a task has panicked: {engine:#?}");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        CURRENT.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread::panicking() {
            dump(&self.bw);
        }
    }
}

/// What a task on a core will give.
pub(crate) struct Task<T>(Receiver<T>);

impl<T> Task<T> {
    /// Waits for it.
    #[track_caller]
    pub(crate) fn join(self) -> T {
        match self.0.recv_timeout(WATCHDOG) {
            Ok(value) => value,
            Err(RecvTimeoutError::Timeout) => panic!("a task on the core has not ended"),
            Err(RecvTimeoutError::Disconnected) => panic!("a task on the core has panicked"),
        }
    }
}

/// Prints everything that is known about both sides: counters that are not zero, and the kernel's
/// sockets.
pub(crate) fn dump(bw: &Barewire) {
    for engine in bw.stats().engines {
        tell(&format!("engine {}: {:?} {:?}", engine.index, engine.run, engine.tasks));
        tell(&format!("  {:?}\n  {:?}", engine.queue, engine.pool));
        tell(&format!(
            "  {} of {} slots free, {} sockets, {} of threads, {} in TIME-WAIT, {} tasks",
            engine.free_slots,
            engine.total_slots,
            engine.sockets,
            engine.portals,
            engine.time_wait,
            engine.tasks_alive
        ));
        let counted = engine.stack.named().filter(|(_, count)| *count > 0);
        let counted: Vec<_> = counted.map(|(name, count)| format!("{name}={count}")).collect();
        tell(&format!("  {}", counted.join(" ")));
    }
    // The first sockets are enough to see what they wait for.
    let script = "ss -tinmoe | head -40; nstat -asz 2>/dev/null | awk '$2 != 0' | head -80";
    if let Ok(output) = Command::new("sh").args(["-c", script]).output() {
        tell(&String::from_utf8_lossy(&output.stdout));
    }
}

/// An address on the kernel's side.
pub(crate) fn kernel(port: u16) -> SocketAddr {
    (KERNEL, port).into()
}

/// An address on our side.
pub(crate) fn ours(port: u16) -> SocketAddr {
    (OURS, port).into()
}

/// Starts a thread in the test's namespace; a panic of it reaches the test when it joins.
pub(crate) fn start<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::Builder::new().stack_size(256 * 1024).spawn(f).unwrap()
}

/// Waits for a thread and passes its panic on.
#[track_caller]
pub(crate) fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until `done` says so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
