//! `barewire bench pktgen`, `rxdrop` and `forward`: bursts of a device's queue, without a stack.
//!
//! ```text
//!   pktgen    one frame, over and over ──▶ tx_burst
//!   rxdrop    rx_burst ──▶ nowhere
//!   forward   device: rx_burst ──▶ to: tx_burst, and the other way round
//! ```
//!
//! Nothing sleeps. A frame that the sending device has no room for is dropped and counted, so that
//! what is received keeps being looked at.

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
    /// Received, and not sent on for want of room.
    pub(super) dropped: u64,
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
        Ok::<_, QueueError>(sent > 0)
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
        Ok::<_, QueueError>(received > 0)
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
        let there = pass(&mut one, &mut other, &mut rx, &mut tx, counts)?;
        let back = pass(&mut other, &mut one, &mut rx, &mut tx, counts)?;
        Ok::<_, QueueError>(there || back)
    })
}

/// Passes one burst on; true if there was anything.
fn pass(
    from: &mut Port,
    to: &mut Port,
    rx: &mut RxBurst,
    tx: &mut TxBurst,
    counts: &mut Counts,
) -> Result<bool, QueueError> {
    to.queue.reclaim();
    let received = from.queue.rx_burst(rx, BURST_FRAMES)?;
    if received == 0 {
        return Ok(false);
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
    Ok(true)
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

/// Repeats `burst`, which says whether it moved anything, until the time has passed or the end is
/// asked for; then tells.
pub(super) fn measure<E: Error + Send + Sync + 'static>(
    run: Run<'_>,
    mut burst: impl FnMut(&mut Counts) -> Result<bool, E>,
) -> anyhow::Result<ExitCode> {
    let Run { mode, args, to, json } = run;
    let mut counts = Counts::default();
    let stop = Stop::install().context("signals cannot be received")?;
    let begin = Instant::now();
    let end = begin + args.seconds.duration();
    let (mut now, mut bursts) = (begin, 0_u64);
    while now < end && !(bursts.is_multiple_of(STOP_BURSTS) && stop.wait(Duration::ZERO)) {
        if !burst(&mut counts).with_context(|| format!("{} can no longer be used", args.device))? {
            thread::yield_now();
        }
        bursts += 1;
        now = Instant::now();
    }
    let seconds = (now - begin).as_secs_f64();
    let whose = if args.kernel { "the kernel's " } else { "" };
    let and = to.map_or_else(String::new, |to| format!(" and {to}"));
    let devices = format!("{whose}{}{and}", args.device);
    output::line(told(mode, &devices, seconds, &counts))?;
    if let Some(file) = json {
        let Counts { sent, received, bytes, dropped } = counts;
        let value = json!({
            "mode": mode,
            "side": if args.kernel { "kernel" } else { &args.device },
            "device": args.device,
            "to": to,
            "seconds": seconds,
            "frames_sent": sent,
            "frames_received": received,
            "frames_per_s": sent.max(received) as f64 / seconds,
            "bytes": bytes,
            "bytes_per_s": bytes as f64 / seconds,
            "dropped": dropped,
        });
        file.write(&value)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(mode: &str, device: &str, seconds: f64, counts: &Counts) -> String {
    format!(
        "{mode} on {device}: {seconds:.2} s\n  {} frames received, {} sent, {} dropped\n  \
         {:.0} frames/s, {}",
        output::count(counts.received),
        output::count(counts.sent),
        output::count(counts.dropped),
        counts.sent.max(counts.received) as f64 / seconds,
        output::bits(counts.bytes as f64 / seconds),
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
        assert!(!pass(&mut left, &mut right, &mut rx, &mut tx, &mut counts).unwrap());
        send(&mut far_left, &pool, 5);
        assert!(pass(&mut left, &mut right, &mut rx, &mut tx, &mut counts).unwrap());
        assert_eq!(counts, Counts { sent: 5, received: 5, bytes: 300, dropped: 0 });
        assert_eq!(far_right.queue.rx_burst(&mut rx, BURST_FRAMES).unwrap(), 5);
    }

    #[test]
    fn a_cable_with_nobody_at_its_other_end_is_refused() {
        let pool = pool().unwrap();
        let error = Port::open("cable:a", &pool).err().unwrap().to_string();
        assert!(error.contains("other end") && error.contains("next: "), "{error}");
    }
}
