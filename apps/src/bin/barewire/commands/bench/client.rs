//! `barewire bench client`: loads a server and tells how much it took.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use barewire::Core;

use super::BLOCK_BYTES;
use super::gate::Gate;
use super::hello::{Hello, Mode};
use super::link::{CoreDialer, KernelDialer, run_blocking, spawn_thread};
use super::report::{JsonFile, Run};
use super::tally::{Failure, Recorder, Tally};
use super::work::{Pace, Plan};
use crate::cli::{ClientArgs, ClientCommand, DeviceArgs};
use crate::commands::ping::resolve;
use crate::commands::start::{start, watch};
use crate::output::Advice;
use crate::signals::Stop;

/// Connections of a run on the kernel's sockets, each on a thread or two.
const KERNEL_CONNECTIONS_MAX: u32 = 1024;

/// Tallies that the threads of such a run share.
const KERNEL_TALLIES: u32 = 16;

/// How often the device is looked at meanwhile.
const STEP: Duration = Duration::from_millis(200);

pub(super) fn run(command: &ClientCommand) -> anyhow::Result<ExitCode> {
    let (args, plan) = plan(command)?;
    let server = SocketAddr::new(resolve(&args.server)?, args.port);
    let json = JsonFile::create(args.json.as_deref())?;
    let stop = Stop::install().context("signals cannot be received")?;
    let plan = Arc::new(plan);
    let (tally, end) = match &args.side.device {
        Some(device) => on_device(device, &plan, server, &stop)?,
        None => on_kernel(&plan, server, &stop)?,
    };
    if tally.connections == 0 {
        let next = format!(
            "start `barewire bench server` there, and look whether {server} can be reached from here"
        );
        let why = tally.first_error.map_or_else(|| "nobody says why".into(), |e| e.to_string());
        return Err(Advice::new(format!("nothing was measured: {why}"), next).into());
    }
    let side = args.side.device.as_ref().map_or("kernel", |device| &device.device);
    let cut = end == End::Asked;
    Run { side, server, plan: &plan, tally: &tally, cut }.tell(json)?;
    anyhow::ensure!(!cut, "the run was ended before its time");
    Ok(if tally.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the arguments ask for, where it can be done.
fn plan(command: &ClientCommand) -> anyhow::Result<(&ClientArgs, Plan)> {
    let (args, mode, owned, sizes, pace) = match command {
        ClientCommand::Stream(args) => {
            let mode = Mode::Stream(args.direction);
            (&args.client, mode, args.owned, None, Pace::Closed { pipeline: 1 })
        }
        ClientCommand::Rr(args) => {
            let pace = match args.rate {
                Some(rate) => Pace::Open { rate },
                None => Pace::Closed { pipeline: args.pipeline },
            };
            (&args.client, Mode::Requests, false, Some(args.sizes), pace)
        }
        ClientCommand::Conn(args) => {
            (&args.client, Mode::Once, false, Some(args.sizes), Pace::Closed { pipeline: 1 })
        }
    };
    let size = sizes.map_or(1, |sizes| sizes.size);
    let answer = sizes.and_then(|sizes| sizes.answer).unwrap_or(size);
    if let Pace::Closed { pipeline: pipeline @ 2.. } = pace
        && u64::from(pipeline) * u64::from(size.max(answer)) > BLOCK_BYTES as u64
    {
        // More may fill every buffer on the way, and then both sides would wait to write.
        let what = format!("{pipeline} requests under way are more than {BLOCK_BYTES} bytes");
        return Err(Advice::new(what, "lower --pipeline, --size or --answer").into());
    }
    if args.side.kernel && args.connections > KERNEL_CONNECTIONS_MAX {
        let what = format!(
            "each connection of --kernel has a thread, and {} are too many",
            args.connections
        );
        return Err(Advice::new(what, format!("give up to {KERNEL_CONNECTIONS_MAX}")).into());
    }
    let time = args.seconds.duration();
    // An hour at most, so it fits.
    let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let hello = Hello { mode, owned, size, answer, millis };
    let gate = Gate::new(args.connections);
    Ok((args, Plan { hello, time, connections: args.connections, pace, gate }))
}

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All connections have.
    Done,
    /// The user has asked for it.
    Asked,
}

/// Waits until every connection has dropped its sender of `all_ended`, over which nothing is ever
/// sent, or the user asks for the end.
fn wait(
    all_ended: &Receiver<()>,
    stop: &Stop,
    mut meanwhile: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    while all_ended.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
        meanwhile()?;
        if stop.wait(Duration::ZERO) {
            return Ok(End::Asked);
        }
    }
    Ok(End::Done)
}

fn on_device(
    args: &DeviceArgs,
    plan: &Arc<Plan>,
    server: SocketAddr,
    stop: &Stop,
) -> anyhow::Result<(Tally, End)> {
    let bw = start(args)?;
    let recorders: Vec<_> = (0..args.cores).map(|_| Recorder::new()).collect();
    let (running, all_ended) = channel::<()>();
    let (to, own) = (recorders.clone(), Arc::clone(plan));
    bw.on_core(move |core| {
        let to = to[core.index()].clone();
        let (plan, running) = (Arc::clone(&own), running.clone());
        async move { connect_all(&core, &plan, server, &to, &running) }
    })?;
    let end = wait(&all_ended, stop, || watch(&bw))?;
    bw.stop().check().context("the engines did not stop cleanly")?;
    Ok((Recorder::sum(&recorders), end))
}

/// Starts the connections that are this core's share.
fn connect_all(
    core: &Core,
    plan: &Arc<Plan>,
    server: SocketAddr,
    to: &Recorder,
    running: &Sender<()>,
) {
    for index in (core.index()..plan.connections as usize).step_by(core.engines()) {
        let dialer = CoreDialer { core: core.clone(), server };
        let (plan, counted, running) = (Arc::clone(plan), to.clone(), running.clone());
        let own = Arc::clone(&plan);
        let started = core.spawn(async move {
            let run = own.run(&dialer, index as u32, &counted);
            if dialer.core.timeout(own.limit(), run).await.is_err() {
                counted.lock().fail(Failure::TimedOut);
            }
            drop(running);
        });
        if !started {
            plan.gate.arrive();
            to.lock().fail(Failure::TooMany);
        }
    }
}

/// The same by the kernel, a thread for each connection.
fn on_kernel(plan: &Arc<Plan>, server: SocketAddr, stop: &Stop) -> anyhow::Result<(Tally, End)> {
    let (running, all_ended) = channel::<()>();
    let recorders: Vec<_> = (0..KERNEL_TALLIES).map(|_| Recorder::new()).collect();
    let mut threads = Vec::with_capacity(plan.connections as usize);
    for index in 0..plan.connections {
        let to = recorders[(index % KERNEL_TALLIES) as usize].clone();
        let (own, counted) = (Arc::clone(plan), to.clone());
        let dialer = KernelDialer { server, limit: plan.limit() };
        let running = running.clone();
        let work = move || {
            run_blocking(own.run(&dialer, index, &counted));
            drop(running);
        };
        match spawn_thread(work) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                plan.gate.arrive();
                to.lock().fail(Failure::Thread(error));
            }
        }
    }
    drop(running);
    let end = wait(&all_ended, stop, || Ok(()))?;
    match end {
        End::Done => {
            for thread in threads {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        }
        // Threads that wait in a call of the kernel's end with the process.
        End::Asked => recorders.iter().for_each(|to| to.lock().cut(Instant::now())),
    }
    Ok((Recorder::sum(&recorders), end))
}
