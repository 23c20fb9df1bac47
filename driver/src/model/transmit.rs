//! The transmit unit (82576 §7.2): contexts, gathering, checksums, segmentation, reports.

use super::igb::State;
use super::memory::Fault;
use super::packet::{Transport, sum};
use super::registers::{self as reg, Ring, queue};

/// Fields of a descriptor's second word (§7.2.2).
const LENGTH: u64 = 0xffff;
const DTYP: u64 = 0xf << 20;
const DTYP_CONTEXT: u64 = 2 << 20;
const DTYP_DATA: u64 = 3 << 20;
const EOP: u64 = 1 << 24;
const IFCS: u64 = 1 << 25;
const RS: u64 = 1 << 27;
const DEXT: u64 = 1 << 29;
const VLE: u64 = 1 << 30;
const TSE: u64 = 1 << 31;
const IXSM: u64 = 1 << 40;
const TXSM: u64 = 1 << 41;
const DD: u64 = 1 << 32;

/// Most bytes that one frame may gather (§7.2.4.2.1: 18 bits of PAYLEN).
const MOST_BYTES: usize = 1 << 18;

/// A context and the frame being gathered, by queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    set: bool,
    mac_len: usize,
    ip_len: usize,
    l4_len: usize,
    mss: usize,
    vlan: u16,
    ipv4: bool,
    tcp: bool,
    gathered: Vec<u8>,
    /// The second word of the frame's first descriptor.
    first: Option<u64>,
}

impl State {
    /// Sends what is between a queue's head and tail; gives the vectors to send.
    pub(super) fn transmit(&mut self, n: u16) -> u32 {
        let ring = Ring::Tx(n);
        let on = self.file.get(reg::TCTL) & reg::UNIT_EN != 0 && self.file.enabled(ring);
        if !on || !self.may_dma() || !self.link_up() {
            return 0;
        }
        let (len, tail) = (self.file.ring_len(ring), self.file.ring(ring, queue::TAIL));
        let mut vectors = 0;
        for _ in 0..len {
            let head = self.file.ring(ring, queue::HEAD);
            if head == tail {
                break;
            }
            match self.step(n, self.file.descriptor_at(ring, head)) {
                Ok(true) => vectors |= self.raise_queue(ring),
                Ok(false) => {}
                Err(Fault(iova)) => {
                    self.violation(format!("{ring:?}: DMA from {iova:#x}, which is not mapped"));
                }
            }
            self.file.set_ring(ring, queue::HEAD, (head + 1) % len);
        }
        vectors
    }

    /// One descriptor; true if it was reported.
    fn step(&mut self, n: u16, at: u64) -> Result<bool, Fault> {
        let [address, word] = self.memory.read_descriptor(at)?;
        self.dma_accesses += 1;
        if word & DEXT == 0 {
            self.violation("a legacy descriptor among advanced ones".into());
            return Ok(false);
        }
        match word & DTYP {
            DTYP_CONTEXT => self.set_context(n, address, word),
            DTYP_DATA if !self.faults.discard_sent => self.gather(n, address, word)?,
            DTYP_DATA => {}
            other => self.violation(format!("a descriptor of type {:#x}", other >> 20)),
        }
        if word & RS == 0 {
            return Ok(false);
        }
        if self.faults.lost_reports > 0 {
            self.faults.lost_reports -= 1;
            return Ok(false);
        }
        self.memory.write_u64(at + 8, DD)?;
        self.dma_accesses += 1;
        Ok(true)
    }

    fn set_context(&mut self, n: u16, lens: u64, word: u64) {
        if self.contexts[usize::from(n)].first.is_some() {
            self.violation("a context in the middle of a frame".into());
        }
        self.contexts[usize::from(n)] = Context {
            set: true,
            ip_len: (lens & 0x1ff) as usize,
            mac_len: (lens >> 9 & 0x7f) as usize,
            vlan: (lens >> 16) as u16,
            l4_len: (word >> 40 & 0xff) as usize,
            mss: (word >> 48) as usize,
            ipv4: word & 1 << 10 != 0,
            tcp: word & 3 << 11 == 1 << 11,
            gathered: Vec::new(),
            first: None,
        };
    }

    fn gather(&mut self, n: u16, address: u64, word: u64) -> Result<(), Fault> {
        let len = (word & LENGTH) as usize;
        if len == 0 {
            self.violation("a data descriptor without bytes".into());
        }
        let mut bytes = vec![0; len];
        self.memory.read(address, &mut bytes)?;
        self.dma_accesses += 1;
        let context = &mut self.contexts[usize::from(n)];
        context.first.get_or_insert(word);
        if context.gathered.len() + len <= MOST_BYTES {
            context.gathered.extend_from_slice(&bytes);
        }
        if word & EOP == 0 {
            return Ok(());
        }
        let first = context.first.take().unwrap_or(word);
        let frame = std::mem::take(&mut context.gathered);
        let context = context.clone();
        if word & IFCS == 0 {
            self.violation("a frame without a check sequence".into());
        }
        self.finish(&context, first, frame);
        Ok(())
    }

    /// Does to a gathered frame what its first descriptor asks for, and sends it.
    fn finish(&mut self, context: &Context, first: u64, frame: Vec<u8>) {
        let payload_len = (first >> 46) as usize;
        let uses_context = first & (TXSM | IXSM | TSE | VLE) != 0;
        if uses_context && !context.set {
            return self.violation("a frame that needs a context came before any".into());
        }
        let l4_at = context.mac_len + context.ip_len;
        let headers = l4_at + context.l4_len;
        let field = l4_at + context.transport().checksum_offset();
        if first & TXSM != 0 && field + 2 > frame.len() {
            return self.violation("a checksum outside of its frame".into());
        }
        if first & TSE == 0 {
            if payload_len != frame.len() {
                self.violation(format!("PAYLEN {payload_len} for {} bytes", frame.len()));
            }
            let mut frame = frame;
            if first & TXSM != 0 {
                fill_checksum(&mut frame, l4_at, field, 0);
            }
            return self.emit(frame, context, first);
        }
        if payload_len + headers != frame.len() || context.mss == 0 || headers > 240 {
            let len = frame.len();
            return self.violation(format!("PAYLEN {payload_len}, headers {headers}, bytes {len}"));
        }
        self.file.add(reg::TSCTC, 1);
        let (header, payload) = frame.split_at(headers);
        let count = payload.len().div_ceil(context.mss);
        for (i, piece) in payload.chunks(context.mss).enumerate() {
            let mut segment = [header, piece].concat();
            context.rewrite(&mut segment, i, i + 1 == count);
            if first & TXSM != 0 {
                // §7.2.4.7: the length is not in the sum that software left.
                let len = (context.l4_len + piece.len()) as u32;
                fill_checksum(&mut segment, l4_at, field, len);
            }
            self.emit(segment, context, first);
        }
    }

    fn emit(&mut self, mut frame: Vec<u8>, context: &Context, first: u64) {
        if first & VLE != 0 {
            let [high, low] = context.vlan.to_be_bytes();
            frame.splice(12..12, [0x81, 0x00, high, low]);
        }
        if frame.len() < 60 {
            frame.resize(60, 0);
        }
        self.file.add(reg::GPTC, 1);
        self.file.add_pair(reg::GOTC, frame.len() as u64 + 4);
        self.outgoing.push_back(frame);
    }
}

impl Context {
    fn transport(&self) -> Transport {
        if self.tcp { Transport::Tcp } else { Transport::Udp }
    }

    /// Writes what differs from segment to segment (§7.2.4.8 to §7.2.4.10).
    fn rewrite(&self, segment: &mut [u8], index: usize, last: bool) {
        const FIN_PSH: u8 = 0x09;
        const CWR: u8 = 0x80;
        let (ip, l4_at) = (self.mac_len, self.mac_len + self.ip_len);
        let ip_bytes = (segment.len() - ip) as u16;
        if self.ipv4 {
            segment[ip + 2..ip + 4].copy_from_slice(&ip_bytes.to_be_bytes());
            let id = u16::from_be_bytes([segment[ip + 4], segment[ip + 5]]);
            let id = id.wrapping_add(index as u16);
            segment[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
            // What is in the field counts: software has to leave it empty.
            let checksum = !(sum(0, &segment[ip..l4_at]) as u16);
            segment[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            segment[ip + 4..ip + 6].copy_from_slice(&(ip_bytes - 40).to_be_bytes());
        }
        let sequence = &mut segment[l4_at + 4..l4_at + 8];
        let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
        let here = first.wrapping_add((index * self.mss) as u32);
        sequence.copy_from_slice(&here.to_be_bytes());
        if !last {
            segment[l4_at + 13] &= !FIN_PSH;
        }
        if index > 0 {
            segment[l4_at + 13] &= !CWR;
        }
    }
}

/// Sums from the transport header on, with what stands in the field and `more`, and puts the
/// result there.
fn fill_checksum(frame: &mut [u8], l4_at: usize, field: usize, more: u32) {
    let checksum = !(sum((more & 0xffff) + (more >> 16), &frame[l4_at..]) as u16);
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}
