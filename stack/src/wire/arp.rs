//! ARP packets for IPv4 over Ethernet (RFC 826), through etherparse.

use std::net::Ipv4Addr;

use barewire_driver::MacAddr;
use etherparse::{ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacketSlice, EtherType};

use super::WireError;

/// Bytes of a packet.
pub const LEN: usize = ArpEthIpv4Packet::LEN;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has it.
    Reply,
}

/// An ARP packet as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArpPacket {
    /// What it is for.
    pub operation: Operation,
    /// The sender's hardware address.
    pub sender_mac: MacAddr,
    /// The sender's protocol address; unspecified in an address probe (RFC 5227 §2.1.1).
    pub sender_ip: Ipv4Addr,
    /// The target's hardware address; without meaning in a request.
    pub target_mac: MacAddr,
    /// The target's protocol address.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Bytes of a packet.
    pub const LEN: usize = LEN;

    /// Reads the packet at the front of an Ethernet payload; padding may follow.
    ///
    /// # Errors
    /// [`WireError::Truncated`], and [`WireError::BadField`] for other hardware, another protocol or
    /// another operation.
    pub fn parse(payload: &[u8]) -> Result<ArpPacket, WireError> {
        let packet = ArpPacketSlice::from_slice(payload).map_err(|_| WireError::Truncated)?;
        if packet.hw_addr_type() != ArpHardwareId::ETHERNET
            || packet.proto_addr_type() != EtherType::IPV4
        {
            return Err(WireError::BadField);
        }
        let operation = match packet.operation() {
            ArpOperation::REQUEST => Operation::Request,
            ArpOperation::REPLY => Operation::Reply,
            _ => return Err(WireError::BadField),
        };
        // The lengths of the addresses are fields of the packet, so each is checked here.
        let mac = |bytes: &[u8]| bytes.try_into().map(MacAddr).map_err(|_| WireError::BadField);
        let ip = |bytes: &[u8]| {
            <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).map_err(|_| WireError::BadField)
        };
        Ok(ArpPacket {
            operation,
            sender_mac: mac(packet.sender_hw_addr())?,
            sender_ip: ip(packet.sender_protocol_addr())?,
            target_mac: mac(packet.target_hw_addr())?,
            target_ip: ip(packet.target_protocol_addr())?,
        })
    }

    /// Writes the packet: 28 bytes at the front of `out`.
    ///
    /// # Panics
    /// If `out` has fewer than 28 bytes.
    pub fn emit(&self, out: &mut [u8]) {
        let packet = ArpEthIpv4Packet {
            operation: match self.operation {
                Operation::Request => ArpOperation::REQUEST,
                Operation::Reply => ArpOperation::REPLY,
            },
            sender_mac: self.sender_mac.0,
            sender_ipv4: self.sender_ip.octets(),
            target_mac: self.target_mac.0,
            target_ipv4: self.target_ip.octets(),
        };
        out[..LEN].copy_from_slice(&packet.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> [u8; LEN] {
        let mut bytes = [0; LEN];
        ArpPacket {
            operation: Operation::Request,
            sender_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            sender_ip: [10, 0, 0, 1].into(),
            target_mac: MacAddr([0; 6]),
            target_ip: [10, 0, 0, 2].into(),
        }
        .emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_request_has_the_layout_of_rfc_826() {
        assert_eq!(
            request(),
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]
        );
    }

    #[test]
    fn every_truncation_is_told() {
        for len in 0..LEN {
            assert_eq!(ArpPacket::parse(&request()[..len]), Err(WireError::Truncated), "{len}");
        }
    }

    #[test]
    fn other_hardware_protocols_operations_and_lengths_are_refused() {
        // Hardware, protocol, operation; then lengths that make the packet a shorter one.
        for (at, value) in [(1, 6), (2, 0x86), (7, 3), (7, 0), (4, 5), (5, 3)] {
            let mut bytes = request();
            bytes[at] = value;
            assert_eq!(ArpPacket::parse(&bytes), Err(WireError::BadField), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            reply: bool, sender_mac: [u8; 6], sender: u32, target_mac: [u8; 6], target: u32,
        ) {
            let packet = ArpPacket {
                operation: if reply { Operation::Reply } else { Operation::Request },
                sender_mac: MacAddr(sender_mac),
                sender_ip: sender.into(),
                target_mac: MacAddr(target_mac),
                target_ip: target.into(),
            };
            // Padded, as a frame of 60 bytes would have it.
            let mut bytes = [0xaa; 46];
            packet.emit(&mut bytes);
            prop_assert_eq!(ArpPacket::parse(&bytes), Ok(packet));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..60),
                                       plausible: bool) {
            if plausible {
                let front = bytes.len().min(4);
                bytes[..front].copy_from_slice(&request()[..front]);
            }
            let _ = ArpPacket::parse(&bytes);
        }
    }
}
