//! Looking ahead: with a crowd of connections that take turns, the state of each lies in memory that
//! no cache has. Whoever takes one after the other waits for each; asked for together, they come
//! together.
//!
//! ```text
//!   burst   ─▶ every flow looked up ─┐
//!   sockets ─────────────────────────┴─▶ their entries fetched ─▶ their blocks fetched ─▶ one by one
//! ```
//!
//! It is done for bursts of more than one frame, where there are so many flows that it pays.

use arrayvec::ArrayVec;
use barewire_driver::RxBurst;
use barewire_driver::device::BURST_FRAMES;
use barewire_driver::mem::prefetch_value;

use super::{Socket, Stack};
use crate::interface::{IfaceId, Medium};
use crate::socket::SocketId;
use crate::socket::demux::{FlowKey, Tag};
use crate::wire::plain::PlainIpv4;
use crate::wire::{ethernet, protocol};

/// The state of fewer flows is in the cache anyway.
const FLOWS_MIN: usize = 4096;

impl Stack {
    /// Has the memory of these sockets fetched, which will be written to or read from next: all at
    /// once, instead of each when it is its turn. It changes nothing, and pays where there are
    /// thousands of sockets that take turns.
    pub fn look_ahead(&self, sockets: &[SocketId]) {
        for some in sockets.chunks(BURST_FRAMES) {
            some.iter().for_each(|id| self.sockets.prefetch(id.index));
            some.iter().for_each(|id| self.fetch_block(id.index));
        }
    }

    /// Has the memory fetched that the frames of a burst will need.
    #[inline]
    pub(super) fn look_into(&mut self, iface: IfaceId, burst: &RxBurst) {
        if burst.len() > 1 && self.flows.len() >= FLOWS_MIN {
            self.fetch_flows(iface, burst);
        }
    }

    #[inline(never)]
    fn fetch_flows(&mut self, iface: IfaceId, burst: &RxBurst) {
        let Some(iface) = self.egress.iface(iface) else { return };
        let link_len = match iface.config.medium {
            Medium::Ip => 0,
            Medium::Ethernet => ethernet::LEN,
        };
        let first = |frame| burst.segments(frame).first();
        let keys = burst.frames().iter().filter_map(first).filter_map(|piece| {
            let packet = piece.get(link_len..)?;
            flow_of(packet)
        });
        let mut found = ArrayVec::<u32, BURST_FRAMES>::new();
        self.flows.find_each(keys, |tag| {
            if let Tag::Connection(index) = tag {
                self.sockets.prefetch(index);
                found.push(index);
            }
        });
        found.into_iter().for_each(|index| self.fetch_block(index));
    }

    fn fetch_block(&self, index: u32) {
        if let Some(Socket::Connection(connection)) = self.sockets.get(index)
            && let Some(tcb) = connection.tcb.whole()
        {
            prefetch_value(tcb);
        }
    }
}

/// The flow that an IP packet seems to be of. Whether it is right is found out when it is its turn.
#[inline]
fn flow_of(packet: &[u8]) -> Option<FlowKey> {
    let (ip, ports) = packet.split_first_chunk::<{ PlainIpv4::LEN }>()?;
    let &[0x45, _, _, _, _, _, _, _, _, protocol::TCP, _, _, a, b, c, d, e, f, g, h] = ip else {
        return None;
    };
    let &[remote_high, remote_low, local_high, local_low, ..] = ports else { return None };
    Some(FlowKey {
        local: [e, f, g, h].into(),
        remote: [a, b, c, d].into(),
        local_port: u16::from_be_bytes([local_high, local_low]),
        remote_port: u16::from_be_bytes([remote_high, remote_low]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_told_from_the_front_of_a_packet() {
        let mut packet = [0u8; 40];
        (packet[0], packet[9]) = (0x45, protocol::TCP);
        packet[12..24].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80]);
        let key = FlowKey {
            local: [10, 0, 0, 2].into(),
            remote: [10, 0, 0, 1].into(),
            local_port: 80,
            remote_port: 0x1234,
        };
        assert_eq!(flow_of(&packet), Some(key));
        assert_eq!((flow_of(&packet[..24]), flow_of(&packet[..23])), (Some(key), None));
        packet[9] = protocol::UDP;
        assert_eq!(flow_of(&packet), None);
        (packet[0], packet[9]) = (0x46, protocol::TCP);
        assert_eq!(flow_of(&packet), None, "ports are somewhere else behind options");
    }
}
