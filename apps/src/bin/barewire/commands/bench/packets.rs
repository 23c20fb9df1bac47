//! `barewire bench pktgen`, `rxdrop` and `forward`: bursts of a device's queue, without a stack.
//!
//! ```text
//!   pktgen    one frame, over and over ──▶ tx_burst
//!   rxdrop    rx_burst ──▶ nowhere
//!   forward   device: rx_burst ──▶ to: tx_burst, and the other way round
//! ```
//!
//! Nothing sleeps. A frame that the sending device has no room for is dropped and counted, so that
//! what is received keeps being looked at. Rates are over the time from the first frames to the last:
//! the silence before and after them is nobody's slowness.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use barewire::DeviceSpec;
use barewire_driver::device::{BURST_FRAMES, RxBurst, TxBurst, TxFrame};
use barewire_driver::vfio::NOIOMMU_WARNING;
use barewire_driver::{
    Device, Features, MacAddr, OpenOptions, Pool, PoolConfig, Queue, QueueError, QueueId,
    open_device,
};
use serde_json::json;

use super::kernel_packets;
use super::report::JsonFile;
use crate::cli::{ForwardArgs, PacketArgs, PktgenArgs};
use crate::commands::start::nobody_at;
use crate::output::{self, Advice};
use crate::signals::Stop;

/// Time for the link to come up.
const LINK_WAIT: Duration = Duration::from_secs(10);
const LINK_STEP: Duration = Duration::from_millis(20);

/// How many bursts apart is looked whether the end was asked for.
const STOP_BURSTS: u64 = 1024;

/// Frames that the device and the bursts may hold at a time.
const POOL: PoolConfig = PoolConfig { slots: 16_384, slot_len: 2048, cells: 64, try_huge: true };

/// IEEE 802 local experimental EtherType 1: a frame that says nothing to anybody.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// One queue of a device, started.
struct Port {
    /// Keeps the device open.
    device: Arc<dyn Device>,
    queue: Box<dyn Queue>,
}

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) bytes: u64,
    /// Not sent on for want of room, or not even received for want of it in a packet socket.
    pub(super) dropped: u64,
}

impl Counts {
    fn moved(&self) -> u64 {
        self.sent.max(self.received)
    }
}

/// When frames were moved. What the first burst has moved came before the time that begins with it,
/// so it counts for no rate.
#[derive(Clone, Copy, Debug, Default)]
struct Active {
    first: Option<(Instant, Counts)>,
    last: Option<Instant>,
}

impl Active {
    /// Takes note of what has been counted by now, if there is more than before.
    fn note(&mut self, now: Instant, before: &Counts, counts: &Counts) {
        if counts.moved() > before.moved() {
            self.first.get_or_insert((now, *counts));
            self.last = Some(now);
        }
    }

    /// Seconds from the first burst to the last, and frames and bytes a second meanwhile; zeros for
    /// fewer than two bursts.
    fn rates(&self, counts: &Counts) -> (f64, f64, f64) {
        let (Some((first, burst)), Some(last)) = (self.first, self.last) else {
            return (0.0, 0.0, 0.0);
        };
        let seconds = (last - first).as_secs_f64();
        let rate = |number: u64| if seconds > 0.0 { number as f64 / seconds } else { 0.0 };
        (seconds, rate(counts.moved() - burst.moved()), rate(counts.bytes - burst.bytes))
    }
}

pub(super) fn generate(args: &PktgenArgs) -> anyhow::Result<ExitCode> {
    let run = Run::new("pktgen", &args.packets, None)?;
    if args.packets.kernel {
        return kernel_packets::generate(run, args);
    }
    let pool = pool()?;
    let mut port = Port::open(&args.packets.device, &pool)?;
    let frame = frame(args, port.device.mac());
    let slice = pool.copy_from(&frame).context("the pool is empty")?.freeze();
    let mut burst = TxBurst::new();
    measure(run, |counts| {
        while burst.len() < BURST_FRAMES {
            burst.push_segment(slice.clone());
            burst.finish_frame(TxFrame::default());
        }
        let sent = port.queue.tx_burst(&mut burst)? as u64;
        counts.sent += sent;
        counts.bytes += sent * frame.len() as u64;
        port.queue.reclaim();
        Ok::<_, QueueError>(())
    })
}

/// What `pktgen` sends.
pub(super) fn frame(args: &PktgenArgs, from: MacAddr) -> Vec<u8> {
    let mut frame = vec![0; usize::from(args.size)];
    frame[..6].copy_from_slice(&args.to.0.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame
}

pub(super) fn drop_received(args: &PacketArgs) -> anyhow::Result<ExitCode> {
    let run = Run::new("rxdrop", args, None)?;
    if args.kernel {
        return kernel_packets::drop_received(run);
    }
    let pool = pool()?;
    let mut port = Port::open(&args.device, &pool)?;
    let mut burst = RxBurst::new();
    measure(run, |counts| {
        let received = port.queue.rx_burst(&mut burst, BURST_FRAMES)?;
        counts.received += received as u64;
        counts.bytes += burst.frames().iter().map(|frame| u64::from(frame.len)).sum::<u64>();
        burst.clear();
        Ok::<_, QueueError>(())
    })
}

pub(super) fn forward(args: &ForwardArgs) -> anyhow::Result<ExitCode> {
    let run = Run::new("forward", &args.packets, Some(&args.to))?;
    if args.packets.kernel {
        return kernel_packets::forward(run, &args.to);
    }
    let pool = pool()?;
    let mut one = Port::open(&args.packets.device, &pool)?;
    let mut other = Port::open(&args.to, &pool)?;
    let (mut rx, mut tx) = (RxBurst::new(), TxBurst::new());
    measure(run, |counts| {
        pass(&mut one, &mut other, &mut rx, &mut tx, counts)?;
        pass(&mut other, &mut one, &mut rx, &mut tx, counts)
    })
}

/// Passes one burst on.
fn pass(
    from: &mut Port,
    to: &mut Port,
    rx: &mut RxBurst,
    tx: &mut TxBurst,
    counts: &mut Counts,
) -> Result<(), QueueError> {
    to.queue.reclaim();
    let received = from.queue.rx_burst(rx, BURST_FRAMES)?;
    if received == 0 {
        return Ok(());
    }
    rx.drain(|frame, segments| {
        counts.bytes += u64::from(frame.len);
        segments.for_each(|segment| tx.push_segment(segment));
        tx.finish_frame(TxFrame::default());
    });
    let sent = to.queue.tx_burst(tx)?;
    tx.clear();
    counts.received += received as u64;
    counts.sent += sent as u64;
    counts.dropped += (received - sent) as u64;
    Ok(())
}

impl Port {
    fn open(device: &str, pool: &Pool) -> anyhow::Result<Port> {
        let spec: DeviceSpec = device.parse().context("--device")?;
        match spec {
            DeviceSpec::PciNoIommu(_) => tracing::warn!("{NOIOMMU_WARNING}"),
            DeviceSpec::Cable(_) => return Err(nobody_at(device).into()),
            _ => {}
        }
        // Frames as they are on the wire: nothing joined, nothing left for the device to fill in.
        let options = OpenOptions { offloads: false, ..OpenOptions::default() };
        let opened = open_device(&spec, &options)
            .with_context(|| format!("{device} could not be opened"))?;
        wait_for_link(&*opened)?;
        let mut queue = opened.queue(QueueId(0))?.open();
        queue.start(pool, Features::empty())?;
        Ok(Port { device: opened, queue })
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

fn pool() -> anyhow::Result<Pool> {
    Pool::new(POOL).context("there is no memory for packets")
}

fn wait_for_link(device: &dyn Device) -> anyhow::Result<()> {
    let end = Instant::now() + LINK_WAIT;
    while !device.link().up {
        if Instant::now() >= end {
            let what = format!("{} has no link after {} s", device.name(), LINK_WAIT.as_secs());
            return Err(Advice::new(what, "plug the cable in, or set the interface up").into());
        }
        thread::sleep(LINK_STEP);
    }
    Ok(())
}

/// What is run, and where.
pub(super) struct Run<'a> {
    mode: &'a str,
    pub(super) args: &'a PacketArgs,
    /// The other device, where there is one.
    to: Option<&'a str>,
    json: Option<JsonFile>,
}

impl<'a> Run<'a> {
    /// # Errors
    /// When the file for the result cannot be written.
    fn new(mode: &'a str, args: &'a PacketArgs, to: Option<&'a str>) -> anyhow::Result<Run<'a>> {
        Ok(Run { mode, args, to, json: JsonFile::create(args.json.as_deref())? })
    }
}

/// Repeats `burst` until the time has passed or the end is asked for; then tells.
pub(super) fn measure<E: Error + Send + Sync + 'static>(
    run: Run<'_>,
    burst: impl FnMut(&mut Counts) -> Result<(), E>,
) -> anyhow::Result<ExitCode> {
    measure_with(run, || Ok(0), burst)
}

/// The same, where frames can be `lost` without being seen: it says how many since it was last asked.
pub(super) fn measure_with<E: Error + Send + Sync + 'static>(
    run: Run<'_>,
    mut lost: impl FnMut() -> Result<u64, E>,
    mut burst: impl FnMut(&mut Counts) -> Result<(), E>,
) -> anyhow::Result<ExitCode> {
    let gone = || format!("{} can no longer be used", run.args.device);
    let (mut counts, mut active) = (Counts::default(), Active::default());
    let stop = Stop::install().context("signals cannot be received")?;
    lost().with_context(gone)?;
    let begin = Instant::now();
    let end = begin + run.args.seconds.duration();
    let (mut now, mut bursts) = (begin, 0_u64);
    while now < end {
        if bursts.is_multiple_of(STOP_BURSTS) {
            // Often enough that no counter runs over.
            counts.dropped += lost().with_context(gone)?;
            if stop.wait(Duration::ZERO) {
                break;
            }
        }
        let before = counts;
        burst(&mut counts).with_context(gone)?;
        now = Instant::now();
        active.note(now, &before, &counts);
        if counts == before {
            thread::yield_now();
        }
        bursts += 1;
    }
    counts.dropped += lost().with_context(gone)?;
    tell(run, (now - begin).as_secs_f64(), &counts, &active)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(run: Run<'_>, seconds: f64, counts: &Counts, active: &Active) -> anyhow::Result<()> {
    let Run { mode, args, to, json } = run;
    let whose = if args.kernel { "the kernel's " } else { "" };
    let and = to.map_or_else(String::new, |to| format!(" and {to}"));
    let devices = format!("{whose}{}{and}", args.device);
    output::line(told(mode, &devices, seconds, counts, active))?;
    let Some(file) = json else { return Ok(()) };
    let Counts { sent, received, bytes, dropped } = *counts;
    let (active_seconds, frames_per_s, bytes_per_s) = active.rates(counts);
    file.write(&json!({
        "mode": mode,
        "side": if args.kernel { "kernel" } else { &args.device },
        "device": args.device,
        "to": to,
        "seconds": seconds,
        "active_seconds": active_seconds,
        "frames_sent": sent,
        "frames_received": received,
        "frames_per_s": frames_per_s,
        "bytes": bytes,
        "bytes_per_s": bytes_per_s,
        "dropped": dropped,
    }))
}

fn told(mode: &str, device: &str, seconds: f64, counts: &Counts, active: &Active) -> String {
    let (active_seconds, frames_per_s, bytes_per_s) = active.rates(counts);
    format!(
        "{mode} on {device}: {seconds:.2} s\n  {} frames received, {} sent, {} dropped\n  \
         {frames_per_s:.0} frames/s, {}, in {active_seconds:.2} s from the first to the last",
        output::count(counts.received),
        output::count(counts.sent),
        output::count(counts.dropped),
        output::bits(bytes_per_s),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::cable::{CableConfig, open_named};

    fn port(name: &str, pool: &Pool) -> Port {
        let device: Arc<dyn Device> = Arc::new(open_named(CableConfig::new(name)).unwrap());
        let mut queue = device.queue(QueueId(0)).unwrap().open();
        queue.start(pool, Features::empty()).unwrap();
        Port { device, queue }
    }

    fn send(port: &mut Port, pool: &Pool, frames: usize) {
        let mut burst = TxBurst::new();
        for _ in 0..frames {
            burst.push_segment(pool.copy_from(&[7; 60]).unwrap().freeze());
            burst.finish_frame(TxFrame::default());
        }
        assert_eq!(port.queue.tx_burst(&mut burst).unwrap(), frames);
    }

    #[test]
    fn a_frame_received_on_one_side_leaves_on_the_other() {
        let pool = pool().unwrap();
        let (mut far_left, mut left) = (port("bench-left", &pool), port("bench-left", &pool));
        let (mut right, mut far_right) = (port("bench-right", &pool), port("bench-right", &pool));
        let (mut rx, mut tx) = (RxBurst::new(), TxBurst::new());
        let mut counts = Counts::default();
        pass(&mut left, &mut right, &mut rx, &mut tx, &mut counts).unwrap();
        assert_eq!(counts, Counts::default());
        send(&mut far_left, &pool, 5);
        pass(&mut left, &mut right, &mut rx, &mut tx, &mut counts).unwrap();
        assert_eq!(counts, Counts { sent: 5, received: 5, bytes: 300, dropped: 0 });
        assert_eq!(far_right.queue.rx_burst(&mut rx, BURST_FRAMES).unwrap(), 5);
    }

    #[test]
    fn a_rate_is_over_the_time_from_the_first_burst_to_the_last() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let received =
            |frames| Counts { received: frames, bytes: frames * 60, ..Counts::default() };
        let mut active = Active::default();
        assert_eq!(active.rates(&received(0)), (0.0, 0.0, 0.0));
        active.note(at(3), &received(0), &received(0));
        active.note(at(5), &received(0), &received(32));
        assert_eq!(active.rates(&received(32)), (0.0, 0.0, 0.0), "there is no time yet");
        active.note(at(7), &received(32), &received(132));
        active.note(at(9), &received(132), &received(132));
        assert_eq!(active.rates(&received(132)), (2.0, 50.0, 3000.0));
        let text = told("rxdrop", "tap:bw0", 9.0, &received(132), &active);
        assert!(text.contains(": 9.00 s\n") && text.contains("50 frames/s, "), "{text}");
    }

    #[test]
    fn a_cable_with_nobody_at_its_other_end_is_refused() {
        let pool = pool().unwrap();
        let error = Port::open("cable:a", &pool).err().unwrap().to_string();
        assert!(error.contains("other end") && error.contains("next: "), "{error}");
    }
}
