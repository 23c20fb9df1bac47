//! `barewire bench server`: one port that serves every mode.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use barewire::{AsyncTcpListener, Core, TcpConfig};
use barewire_driver::sys::poll_readable;

use super::answer::answer;
use super::link::{run_blocking, spawn_thread};
use super::report;
use super::tally::{Failure, Recorder};
use crate::cli::{DeviceArgs, ServerArgs};
use crate::commands::start::{BACKLOG, PAUSE, drain, start_with, wait_until_ready, watch};
use crate::output;
use crate::signals::Stop;

/// Connections that the kernel's side serves at a time, each on a thread or two.
const THREADS_MAX: usize = 4096;

/// How often is looked whether the end was asked for.
const STEP: Duration = Duration::from_millis(200);

/// Longest time for connections under way when the end is asked for.
const DRAIN: Duration = Duration::from_secs(1);

/// Length of TIME-WAIT on a device. The server of `conn` ends first and keeps it, for every port that
/// a client has used; the next client process begins with other sequence numbers and timestamps,
/// which may look older there, and would find its ports taken (RFC 6191 §2). Nothing stays on the way
/// between two ends of a bench for long enough that a minute is called for.
const TIME_WAIT: Duration = Duration::from_secs(1);

/// When a server ends.
struct End {
    stop: Stop,
    at: Option<Instant>,
}

impl End {
    fn new(args: &ServerArgs) -> anyhow::Result<End> {
        let stop = Stop::install().context("signals cannot be received")?;
        Ok(End { stop, at: args.seconds.map(|seconds| Instant::now() + seconds.duration()) })
    }

    /// Waits for `time` at most; true once the end has come.
    fn wait(&self, time: Duration) -> bool {
        let left = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        self.stop.wait(left.map_or(time, |left| left.min(time))) || left == Some(Duration::ZERO)
    }
}

pub(super) fn run(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let end = End::new(args)?;
    let recorders = match &args.side.device {
        Some(device) => on_device(device, args.port, &end)?,
        None => on_kernel(args.port, &end)?,
    };
    output::line(report::server(&Recorder::sum(&recorders)))?;
    Ok(ExitCode::SUCCESS)
}

fn on_device(device: &DeviceArgs, port: u16, end: &End) -> anyhow::Result<Vec<Recorder>> {
    let bw = start_with(device, TcpConfig { time_wait: TIME_WAIT, ..TcpConfig::default() })?;
    let address = SocketAddr::from((device.address.addr, port));
    let recorders: Vec<_> = (0..device.cores).map(|_| Recorder::new()).collect();
    let (ready, started) = channel();
    let to = recorders.clone();
    bw.on_core(move |core| {
        let to = to[core.index()].clone();
        listen(core, address, to, ready.clone())
    })?;
    wait_until_ready(&started, device.cores)
        .with_context(|| format!("{address} cannot be listened on"))?;
    output::line(format_args!("listening on {address}  load tool's server on {}", device.device))?;
    while !end.wait(STEP) {
        watch(&bw)?;
    }
    bw.stop().check().context("the engines did not stop cleanly")?;
    Ok(recorders)
}

async fn listen(core: Core, address: SocketAddr, to: Recorder, ready: Sender<io::Result<()>>) {
    let listener = match core.tcp_listen(address, BACKLOG) {
        Ok(listener) => listener,
        Err(error) => {
            // The command may have given up on this core already.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    accept(core, listener, to).await;
}

async fn accept(core: Core, listener: AsyncTcpListener, to: Recorder) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let counted = to.clone();
                let served = core.spawn(async move {
                    match stream.set_nodelay(true) {
                        Ok(()) => answer(&stream, &counted).await,
                        Err(error) => counted.lock().fail(error.into()),
                    }
                });
                if !served {
                    to.lock().fail(Failure::TooMany);
                }
            }
            // An engine that is asked to stop accepts no more: that is no failure.
            Err(_) if core.is_stopping() => return,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                core.sleep(PAUSE).await;
            }
        }
    }
}

/// The same by the kernel, a thread for each connection.
fn on_kernel(port: u16, end: &End) -> anyhow::Result<Vec<Recorder>> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener =
        TcpListener::bind(address).with_context(|| format!("{address} cannot be listened on"))?;
    // Only looked at when it is readable; a connection that has gone by then must not block.
    listener.set_nonblocking(true)?;
    output::line(format_args!(
        "listening on {address}  load tool's server on the kernel's sockets"
    ))?;
    let recorder = Recorder::new();
    let threads = Arc::<AtomicUsize>::default();
    let step = STEP.as_nanos() as u64;
    while !end.wait(Duration::ZERO) {
        if poll_readable(&[listener.as_raw_fd()], Some(step))? == 0 {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => serve_on_thread(stream, &recorder, &threads),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                std::thread::sleep(PAUSE);
            }
        }
    }
    drain(DRAIN, || threads.load(Ordering::Relaxed) == 0);
    Ok(vec![recorder])
}

fn serve_on_thread(stream: TcpStream, to: &Recorder, threads: &Arc<AtomicUsize>) {
    if threads.load(Ordering::Relaxed) >= THREADS_MAX {
        to.lock().fail(Failure::TooMany);
        return;
    }
    threads.fetch_add(1, Ordering::Relaxed);
    let (counted, running) = (to.clone(), Arc::clone(threads));
    let started = spawn_thread(move || {
        match stream.set_nonblocking(false) {
            Ok(()) => run_blocking(answer(&stream, &counted)),
            Err(error) => counted.lock().fail(error.into()),
        }
        running.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = started {
        threads.fetch_sub(1, Ordering::Relaxed);
        to.lock().fail(Failure::Thread(error));
    }
}
