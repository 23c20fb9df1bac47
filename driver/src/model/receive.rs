//! The receive unit (82576 §7.1, 82574 §7.1): filters, flows, buffers, write-back.

use super::memory::Fault;
use super::nic::{RxFault, State};
use super::packet::{self, Packet, Transport};
use super::registers::{self as reg, Kind, Ring, ext, queue, vf};

const VLAN_TYPE: [u8; 2] = [0x81, 0x00];

/// Bits of the second word of a written-back descriptor (§7.1.5).
const DD: u64 = 1 << 0;
const EOP: u64 = 1 << 1;
const VP: u64 = 1 << 3;
const UDPCS: u64 = 1 << 4;
const L4CS: u64 = 1 << 5;
const IPCS: u64 = 1 << 6;
const L4E: u64 = 1 << 29;
const IPE: u64 = 1 << 30;
const RXE: u64 = 1 << 31;

/// What is written back with a frame's last descriptor.
#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    status: u64,
    vlan: u16,
    hash: u32,
    hash_type: u8,
}

impl State {
    /// Takes a frame from the wire; gives the vectors to send.
    pub(super) fn receive(&mut self, frame: &[u8]) -> u32 {
        let on = self.unit_is_on(Ring::Rx(0)) && self.link_up();
        if self.faults.gone || !on || frame.len() < 14 {
            return 0;
        }
        // §7.1.1: length, then addresses, then tags.
        let with_fcs = frame.len() as u32 + 4;
        if with_fcs > self.longest() || !self.address_passes(frame) {
            return 0;
        }
        let mut frame = frame.to_vec();
        let mut verdict = Verdict::default();
        if frame.len() >= 18 && frame[12..14] == VLAN_TYPE {
            let tag = u16::from_be_bytes([frame[14], frame[15]]);
            if !self.tag_passes(tag) {
                return 0;
            }
            if self.file.get(reg::CTRL) & reg::CTRL_VME != 0 {
                frame.drain(12..16);
                verdict.vlan = tag;
                verdict.status |= VP;
            }
        }
        // The check sequence counts as padding does: nothing under 60 bytes is on the wire.
        if frame.len() < 60 {
            frame.resize(60, 0);
        }
        let parsed = Packet::parse(&frame);
        let mut queue = 0;
        if let Some(parsed) = &parsed {
            verdict.status |= self.checksum_status(parsed, &frame);
            if let Some((hash, kind)) = self.hash(parsed, &frame) {
                (verdict.hash, verdict.hash_type) = (hash, kind);
                queue = self.file.redirection(hash);
            }
        }
        if self.faults.rx == RxFault::WrongQueue {
            queue ^= 1;
        }
        self.store(queue, &frame, verdict)
    }

    /// Bytes of the longest frame that is let in, its check sequence included: an 82574 knows two
    /// bounds (82574 §10.2.5.1).
    fn longest(&self) -> u32 {
        match self.kind {
            Kind::I82575 | Kind::I82576 => self.file.get(reg::RLPML),
            Kind::I82574 if self.file.get(reg::RCTL) & ext::RCTL_LPE == 0 => 1522,
            Kind::I82574 => 9234,
            Kind::Virtual => self.mail.longest,
        }
    }

    fn address_passes(&mut self, frame: &[u8]) -> bool {
        const UPE: u32 = 1 << 3;
        const MPE: u32 = 1 << 4;
        const BAM: u32 = 1 << 15;
        if self.kind == Kind::Virtual {
            return frame[..6] == [0xff; 6] || frame[..6] == self.mac.0;
        }
        let rctl = self.file.get(reg::RCTL);
        if frame[..6] == [0xff; 6] {
            self.file.add(reg::BPRC, 1);
            return rctl & BAM != 0;
        }
        let ours = (0..16).any(|i| {
            let high = self.file.get(reg::RAH + i * 8);
            let low = self.file.get(reg::RAL + i * 8).to_le_bytes();
            high >> 31 == 1 && low == frame[..4] && high.to_le_bytes()[..2] == frame[4..6]
        });
        if frame[0] & 1 == 0 {
            return ours || rctl & UPE != 0;
        }
        // §8.10.17 with MO = 0: the upper twelve bits of the address.
        let hash = u32::from(u16::from_le_bytes([frame[4], frame[5]]) >> 4);
        let listed = self.file.get(reg::MTA + (hash >> 5) * 4) >> (hash & 31) & 1 == 1;
        let passes = ours || listed || rctl & MPE != 0;
        self.file.add(reg::MPRC, u32::from(passes));
        passes
    }

    fn tag_passes(&self, tag: u16) -> bool {
        const VFE: u32 = 1 << 18;
        let vlan = u32::from(tag & 0xfff);
        let listed = self.file.get(reg::VFTA + (vlan >> 5) * 4) >> (vlan & 31) & 1 == 1;
        listed || self.file.get(reg::RCTL) & VFE == 0
    }

    fn checksum_status(&self, parsed: &Packet, frame: &[u8]) -> u64 {
        const IPOFL: u32 = 1 << 8;
        const TUOFL: u32 = 1 << 9;
        let wanted = match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::I82574 => self.file.get(reg::RXCSUM),
            // As the physical function has set it.
            Kind::Virtual => IPOFL | TUOFL,
        };
        let mut status = 0;
        if wanted & IPOFL != 0 && parsed.ipv4 {
            status |= IPCS | if parsed.ip_checksum_holds(frame) { 0 } else { IPE };
        }
        if let (true, Some(transport)) = (wanted & TUOFL != 0, parsed.transport) {
            status |= L4CS | if parsed.l4_checksum_holds(frame) { 0 } else { L4E };
            status |= if transport == Transport::Udp { UDPCS } else { 0 };
        }
        status
    }

    fn hash(&self, parsed: &Packet, frame: &[u8]) -> Option<(u32, u8)> {
        const PCSD: u32 = 1 << 13;
        let mrqc = self.file.get(reg::MRQC);
        let dealt = match self.kind {
            Kind::I82575 | Kind::I82576 => mrqc & 7 == 2,
            Kind::I82574 => mrqc & 3 == 1,
            Kind::Virtual => false,
        };
        if !dealt || self.file.get(reg::RXCSUM) & PCSD == 0 {
            return None;
        }
        let (input, kind) = parsed.hash_input(frame, mrqc)?;
        Some((packet::toeplitz(&self.file.rss_key(), &input), kind))
    }

    /// Descriptors that the device may use.
    fn available(&self, ring: Ring) -> u32 {
        let len = self.file.ring_len(ring);
        let (head, tail) = (self.file.ring(ring, queue::HEAD), self.file.ring(ring, queue::TAIL));
        if len == 0 { 0 } else { (tail + len - head) % len }
    }

    fn buffer_len(&self, ring: Ring) -> usize {
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => {
                match (self.file.ring(ring, queue::SRRCTL) & 0x7f) as usize * 1024 {
                    0 => 2048,
                    bytes => bytes,
                }
            }
            // 82574 §10.2.5.1: one size for both rings; BSIZE 0 to 3, sixteen times that with BSEX.
            Kind::I82574 => {
                let rctl = self.file.get(reg::RCTL);
                let bytes = 2048 >> (rctl >> 16 & 3);
                if rctl & ext::RCTL_BSEX != 0 { bytes * 16 } else { bytes }
            }
        }
    }

    fn store(&mut self, queue: u16, frame: &[u8], verdict: Verdict) -> u32 {
        let ring = Ring::Rx(queue);
        let size = self.buffer_len(ring);
        let needed = frame.len().div_ceil(size) as u32;
        if !self.file.enabled(ring) {
            self.file.add(reg::MPC, 1);
            return 0;
        }
        if !self.may_dma() {
            return 0;
        }
        if self.available(ring) < needed {
            self.file.add(reg::RNBC, 1);
            return 0;
        }
        let pieces = frame.chunks(size);
        let last = pieces.len() - 1;
        for (i, piece) in pieces.enumerate() {
            if let Err(Fault(iova)) = self.store_piece(ring, piece, (i == last).then_some(verdict))
            {
                self.violation(format!("{ring:?}: DMA to {iova:#x}, which is not mapped"));
                return 0;
            }
        }
        let wire_len = frame.len() as u32 + 4;
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::I82574 => {
                self.file.add(reg::GPRC, 1);
                self.file.add_pair(reg::GORC, u64::from(wire_len));
            }
            Kind::Virtual => {
                self.file.add(vf::VFGPRC, 1);
                self.file.add(vf::VFGORC, wire_len);
                self.file.add(vf::VFMPRC, u32::from(frame[0] & 1));
            }
        }
        self.raise_queue(ring)
    }

    fn store_piece(
        &mut self,
        ring: Ring,
        piece: &[u8],
        verdict: Option<Verdict>,
    ) -> Result<(), Fault> {
        let head = self.file.ring(ring, queue::HEAD);
        let at = self.file.descriptor_at(ring, head);
        let [buffer, _] = self.memory.read_descriptor(at)?;
        self.memory.write(buffer, piece)?;
        self.dma_accesses += 3;
        if self.kind == Kind::I82574 && self.file.get(ext::RFCTL) & ext::RFCTL_EXSTEN == 0 {
            self.violation("receive descriptors of the legacy form".into());
        }
        let mut words = [0, DD | (piece.len() as u64) << 32];
        if let Some(verdict) = verdict {
            words[0] = u64::from(verdict.hash) << 32 | u64::from(verdict.hash_type);
            words[1] |= EOP | verdict.status | u64::from(verdict.vlan) << 48;
        }
        let len = self.file.ring_len(ring);
        let mut target = at;
        match self.faults.rx {
            RxFault::None | RxFault::WrongQueue => {}
            RxFault::NoLength => words[1] &= !(0xffff << 32),
            RxFault::Length(claimed) => {
                words[1] = words[1] & !(0xffff << 32) | u64::from(claimed) << 32;
            }
            RxFault::NoEnd => words[1] &= !EOP,
            RxFault::WrongDescriptor => target = self.file.descriptor_at(ring, (head + 1) % len),
            RxFault::Damaged => words[1] |= RXE,
        }
        self.memory.write_u64(target, words[0])?;
        self.memory.write_u64(target + 8, words[1])?;
        self.file.set_ring(ring, queue::HEAD, (head + 1) % len);
        Ok(())
    }

    pub(super) fn complete_receive(&mut self, queue: u16, count: u32, len: u16) -> u32 {
        let ring = Ring::Rx(queue);
        let count = count.min(self.available(ring));
        let ring_len = self.file.ring_len(ring);
        for _ in 0..count {
            let head = self.file.ring(ring, queue::HEAD);
            let at = self.file.descriptor_at(ring, head);
            // As for a TCP segment over IPv4 with right checksums; each a flow of its own.
            let hash = u64::from(head.wrapping_mul(0x9e37_79b9)) << 32 | 1;
            let word = DD | EOP | L4CS | IPCS | u64::from(len) << 32;
            let written = self.memory.write_u64(at, hash);
            if written.and_then(|()| self.memory.write_u64(at + 8, word)).is_err() {
                self.violation(format!("{ring:?} is not mapped"));
                return 0;
            }
            self.file.set_ring(ring, queue::HEAD, (head + 1) % ring_len);
        }
        count
    }
}
