//! What every command that sends packets does first and last.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Context;
use barewire::{Barewire, DeviceSpec, TcpConfig};
use barewire_driver::sys::allowed_cores;
use barewire_driver::vfio::NOIOMMU_WARNING;

use crate::cli::{DeviceArgs, Idle};
use crate::output::{self, Advice};
use crate::signals::Stop;

/// Completed connections that may wait for `accept`.
pub(super) const BACKLOG: usize = 1024;

/// Pause after a failed call, so that running out of something is not made worse by a loop.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Longest time for every core to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How often the device is looked at while nothing else is to be done.
const WATCH_STEP: Duration = Duration::from_millis(200);

/// How often is looked whether everything under way has ended.
const DRAIN_STEP: Duration = Duration::from_millis(10);

/// Starts the engines on the device that `args` name.
pub(super) fn start(args: &DeviceArgs) -> anyhow::Result<Barewire> {
    start_with(args, TcpConfig::default())
}

/// The same, with other settings for its connections.
pub(super) fn start_with(args: &DeviceArgs, tcp: TcpConfig) -> anyhow::Result<Barewire> {
    let device = args.device.parse().context("--device")?;
    match device {
        DeviceSpec::PciNoIommu(_) => tracing::warn!("{NOIOMMU_WARNING}"),
        DeviceSpec::Cable(_) => return Err(nobody_at(&args.device).into()),
        _ => {}
    }
    let processors = allowed_cores().context("cannot ask which processors may be used")?.len();
    if usize::from(args.cores) > processors {
        let cores = args.cores;
        let s = if processors == 1 { "" } else { "s" };
        tracing::warn!("{cores} engines share {processors} processor{s}: that makes none faster");
    }
    let address = args.address.to_string().parse().context("--address")?;
    let idle = match args.idle {
        Idle::Busy => barewire::Idle::Busy,
        Idle::Adaptive => barewire::Idle::default(),
    };
    let builder = Barewire::builder().device(device).address(address).cores(args.cores);
    let mut builder = builder.idle(idle).tcp(tcp);
    if let Some(gateway) = args.gateway {
        builder = builder.gateway(gateway);
    }
    if let Some(mtu) = args.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(path) = &args.capture {
        builder = builder.capture(path);
    }
    if let Some(spec) = &args.faults {
        builder = builder.faults(spec.parse().context("--faults")?);
    }
    builder.start().with_context(|| format!("{} could not be started", args.device))
}

/// Why a cable is refused: both its ends are in one process, and a command has only one of them.
pub(super) fn nobody_at(device: &str) -> Advice {
    let what = format!("{device} ends in this process, where nobody has its other end");
    Advice::new(what, "give a tap: or a pci: device")
}

/// Waits until each of `cores` has said that it listens, or why it cannot.
pub(super) fn wait_until_ready(
    started: &Receiver<io::Result<()>>,
    cores: u16,
) -> anyhow::Result<()> {
    for _ in 0..cores {
        started.recv_timeout(START_LIMIT).context("an engine did not start in time")??;
    }
    Ok(())
}

/// Waits until the end is asked for, and calls `each_second` meanwhile. What the link does is
/// logged.
///
/// # Errors
/// When an engine has ended by itself.
pub(super) fn run_until(
    stop: &Stop,
    bw: &Barewire,
    mut each_second: impl FnMut(),
) -> anyhow::Result<()> {
    let mut shown = Instant::now();
    loop {
        watch(bw)?;
        if stop.wait(WATCH_STEP) {
            return Ok(());
        }
        if shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            each_second();
        }
    }
}

/// One look at the device.
///
/// # Errors
/// When an engine has ended by itself: nothing more will come of it.
pub(super) fn watch(bw: &Barewire) -> anyhow::Result<()> {
    if let Some(failure) = bw.failure() {
        let what = format!("{} can no longer be used: {failure}", bw.device().name());
        let next = "look at `dmesg` for what happened to it, and start again when it is back";
        return Err(Advice::new(what, next).into());
    }
    if let Some(link) = bw.device().poll_link() {
        tracing::info!("link of {} is {}", bw.device().name(), output::link(link));
    }
    Ok(())
}

/// Waits until `done` says so, `limit` at most; false if the time ran out.
pub(super) fn drain(limit: Duration, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(DRAIN_STEP);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_core_that_cannot_listen_is_enough_to_fail() {
        let (tell, started) = channel();
        tell.send(Ok(())).unwrap();
        tell.send(Err(io::ErrorKind::AddrInUse.into())).unwrap();
        assert!(wait_until_ready(&started, 1).is_ok());
        assert!(wait_until_ready(&started, 1).is_err());
        drop(tell);
        assert!(wait_until_ready(&started, 1).is_err(), "an engine that died says nothing");
    }

    #[test]
    fn draining_ends_with_the_work_or_with_the_time() {
        assert!(drain(Duration::from_secs(60), || true));
        assert!(!drain(Duration::ZERO, || false));
    }
}
