//! Frames that came to an engine and belong to another.
//!
//! ```text
//!   engine that got it                            engine that owns the flow
//!     stack.poll_forward ─▶ RemoteBufs ─▶ inbox ─▶ copy into its own pool ─▶ handle_forwarded
//! ```
//!
//! Which engine owns a flow is one function of the 4-tuple that every stack computes, so nobody is
//! asked: the device's where it is fixed and known (RSS), else a hash of ours. ARP goes to all
//! engines, since each has its own neighbour cache. A device that spreads flows by a function that
//! is not known (a tap, the kernel's hash) therefore makes the engines slower, never wrong: what
//! lands elsewhere is carried over and counted.

use std::sync::Arc;

use barewire_driver::{PacketSlice, Pool, RemoteBuf};

use super::core::Core;
use super::mailbox::{Forwarded, Mailbox};
use super::remotes::into_remote;
use super::stats::LoopCounters;
use crate::stack::{ForwardKind, Stack};

/// Hands at most `budget` frames to the engines that own them; returns how many.
pub(super) fn send_out(
    core: &Core,
    engines: &[Arc<Mailbox>],
    counters: &mut LoopCounters,
    budget: usize,
) -> usize {
    for done in 0..budget {
        let Some(forward) = core.with_stack(Stack::poll_forward) else { return done };
        let pieces = forward.packet.into_iter().map(|piece| into_remote(core.pool(), piece).ok());
        let packet = pieces.collect::<Option<Vec<RemoteBuf>>>();
        let owner = engines.get(usize::from(forward.engine));
        let (Some(packet), Some(owner)) = (packet, owner) else {
            counters.forward_dropped += 1;
            continue;
        };
        let (kind, checksum_good) = (forward.kind, forward.checksum_good);
        if owner.forward(Forwarded { kind, checksum_good, packet }) {
            counters.forwarded_out += 1;
        } else {
            counters.forward_dropped += 1;
        }
    }
    budget
}

/// Takes in at most `budget` frames that other engines got for this one; returns how many.
pub(super) fn take_in(core: &Core, counters: &mut LoopCounters, budget: usize) -> usize {
    for done in 0..budget {
        let Some(frame) = core.mailbox().next_forwarded() else { return done };
        let Some(packet) = copied(core.pool(), &frame.packet) else {
            counters.forward_dropped += 1;
            continue;
        };
        counters.forwarded_in += 1;
        counters.forwarded_arp += u64::from(frame.kind == ForwardKind::Arp);
        let (now, iface) = (core.now(), core.iface());
        core.with_stack(|stack| {
            stack.handle_forwarded(now, iface, frame.kind, &packet, frame.checksum_good);
        });
    }
    budget
}

/// The frame in slots of this engine's pool: slots of another can't stay, for they would be counted
/// and freed on the wrong thread.
fn copied(pool: &Pool, packet: &[RemoteBuf]) -> Option<Vec<PacketSlice>> {
    packet.iter().map(|piece| Some(pool.copy_from(piece)?.freeze())).collect()
}
