//! Link headers, and ARP in both directions.

use std::hint::cold_path;

use std::net::{IpAddr, Ipv4Addr};

use barewire_driver::{MacAddr, TxFrame};

use super::{Egress, IfaceId, InterfaceConfig, Medium};
use crate::neighbor::Request;
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet::{EthernetHeader, ethertype};

/// Writes the link header at the front of `out`, if the medium has one; gives its length.
#[inline]
pub(super) fn write(
    config: &InterfaceConfig,
    to: MacAddr,
    ethertype: u16,
    out: &mut [u8],
) -> usize {
    match config.medium {
        Medium::Ip => {
            cold_path();
            0
        }
        Medium::Ethernet => {
            EthernetHeader { dst: to, src: config.mac, ethertype }.emit(out);
            EthernetHeader::LEN
        }
    }
}

impl Egress {
    /// Whether packets to own addresses wait to be taken in, or ARP requests to be sent.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        !self.loopback.is_empty() || self.any(|iface| iface.neighbors.has_requests())
    }

    /// Sends the ARP requests that are due.
    #[inline]
    pub(crate) fn send_due_requests(&mut self) {
        if self.any(|iface| iface.neighbors.has_requests()) {
            self.send_requests();
        }
    }

    #[cold]
    fn send_requests(&mut self) {
        for at in 0..self.ifaces.len() {
            let iface = IfaceId(at as u16);
            while let Some(Request { ip, to }) = self.ifaces[at].neighbors.poll_request() {
                if let IpAddr::V4(target) = ip {
                    self.send_request(iface, target, to.unwrap_or(MacAddr::BROADCAST));
                }
            }
        }
    }

    fn send_request(&mut self, iface: IfaceId, target: Ipv4Addr, to: MacAddr) {
        let hop = super::Hop::Link { iface, next_hop: target };
        let Some(source) = self.source_for(hop) else { return };
        let Some(mac) = self.iface(iface).map(|i| i.config.mac) else { return };
        let request = ArpPacket {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: source,
            target_mac: MacAddr::default(),
            target_ip: target,
        };
        self.counters.arp_requests_sent += 1;
        self.emit_arp(iface, to, &request);
    }

    /// Takes an ARP packet in: learns from it (RFC 826) and answers a request for an own address.
    /// With `learn_only` nothing is answered: the packet is another engine's copy.
    pub(crate) fn handle_arp(&mut self, id: IfaceId, arp: &ArpPacket, learn_only: bool) {
        let now = self.now;
        let Some(iface) = self.iface_mut(id) else { return };
        let for_us = iface.has_address(IpAddr::V4(arp.target_ip));
        let sender = IpAddr::V4(arp.sender_ip);
        if arp.sender_mac.is_group() || arp.sender_ip.is_broadcast() || iface.has_address(sender) {
            // A group address cannot be a sender's, and nobody else has our address: RFC 5227
            // would defend it; here it is counted, for the operator to see.
            self.counters.arp_invalid += 1;
            return;
        }
        if !arp.sender_ip.is_unspecified() {
            let mut ready = Vec::new();
            iface.neighbors.handle_reply(now, sender, arp.sender_mac, for_us, &mut ready);
            self.release_parked(id, arp.sender_mac, ready);
        }
        match arp.operation {
            Operation::Request if for_us && !learn_only => self.answer(id, arp),
            Operation::Request | Operation::Reply => {}
        }
    }

    fn answer(&mut self, id: IfaceId, request: &ArpPacket) {
        let Some(mac) = self.iface(id).map(|i| i.config.mac) else { return };
        let reply = ArpPacket {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: request.target_ip,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        };
        self.emit_arp(id, request.sender_mac, &reply);
    }

    fn emit_arp(&mut self, id: IfaceId, to: MacAddr, packet: &ArpPacket) {
        if !self.has_reply_room(id) {
            return;
        }
        let Some(mut cell) = self.header_cell() else { return };
        let Some(iface) = self.iface_mut(id) else { return };
        write(&iface.config, to, ethertype::ARP, &mut cell);
        packet.emit(&mut cell[EthernetHeader::LEN..]);
        cell.truncate(EthernetHeader::LEN + ArpPacket::LEN);
        iface.burst.push_segment(cell.freeze());
        iface.burst.finish_frame(TxFrame::default());
        self.counters.tx_packets += 1;
    }
}
