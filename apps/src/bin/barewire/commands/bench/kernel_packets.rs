//! The modes without a stack on the kernel's packet sockets: what a device's queue is compared with.
//!
//! A packet socket is asked for one frame at a time, and it gets copies: the kernel's own stack sees
//! what arrives, too, and spends time on it.

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use barewire_driver::MacAddr;
use barewire_driver::device::BURST_FRAMES;
use barewire_driver::sys::{InterfaceControl, PacketSocket};

use super::packets::{Counts, Run, frame, measure, measure_with};
use crate::cli::PktgenArgs;
use crate::output::Advice;

/// The largest that a frame can be, joined by the kernel or the card.
const FRAME_MAX: usize = 64 << 10;

pub(super) fn generate(run: Run<'_>, args: &PktgenArgs) -> anyhow::Result<ExitCode> {
    let name = &args.packets.device;
    let socket = open(name, false)?;
    let from = InterfaceControl::new().and_then(|control| control.hardware_address(name));
    let frame = frame(args, MacAddr(from.with_context(|| name.clone())?));
    measure(run, |counts| {
        let mut sent = 0;
        while sent < BURST_FRAMES && socket.send(&frame)? {
            sent += 1;
        }
        counts.sent += sent as u64;
        counts.bytes += (sent * frame.len()) as u64;
        io::Result::Ok(())
    })
}

pub(super) fn drop_received(run: Run<'_>) -> anyhow::Result<ExitCode> {
    let socket = open(&run.args.device, true)?;
    let mut buffer = vec![0; FRAME_MAX];
    measure_with(run, lost(&[&socket]), |counts| {
        let before = counts.received;
        while counts.received - before < BURST_FRAMES as u64 {
            let Some(len) = socket.receive(&mut buffer)? else { break };
            counts.received += 1;
            counts.bytes += len as u64;
        }
        io::Result::Ok(())
    })
}

pub(super) fn forward(run: Run<'_>, to: &str) -> anyhow::Result<ExitCode> {
    let (one, other) = (open(&run.args.device, true)?, open(to, true)?);
    let mut buffer = vec![0; FRAME_MAX];
    measure_with(run, lost(&[&one, &other]), |counts| {
        pass(&one, &other, &mut buffer, counts)?;
        pass(&other, &one, &mut buffer, counts)
    })
}

/// Asks what has arrived for `sockets` and found no room there.
fn lost(sockets: &[&PacketSocket]) -> impl FnMut() -> io::Result<u64> {
    move || sockets.iter().map(|socket| socket.take_dropped().map(u64::from)).sum()
}

/// Passes a burst on.
fn pass(
    from: &PacketSocket,
    to: &PacketSocket,
    buffer: &mut [u8],
    counts: &mut Counts,
) -> io::Result<()> {
    let before = counts.received;
    while counts.received - before < BURST_FRAMES as u64 {
        let Some(len) = from.receive(buffer)? else { break };
        counts.received += 1;
        counts.bytes += len as u64;
        if to.send(&buffer[..len])? {
            counts.sent += 1;
        } else {
            counts.dropped += 1;
        }
    }
    Ok(())
}

fn open(interface: &str, receives: bool) -> anyhow::Result<PacketSocket> {
    PacketSocket::open(interface, receives).map_err(|error| {
        let what = format!("{interface} gives the kernel no packet socket: {error}");
        let next = "with --kernel give the name of an interface, as in `ip link`, and run as root";
        Advice::new(what, next).into()
    })
}
