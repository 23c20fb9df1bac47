//! The transmit unit (82576 §7.2, 82574 §7.2): contexts, gathering, checksums, segmentation, reports.

use super::context::{self, Context, Data, Descriptor};
use super::memory::Fault;
use super::nic::State;
use super::packet::sum;
use super::registers::{self as reg, Kind, Ring, ext, queue, vf};

const DD: u64 = 1 << 32;

/// Most bytes that one frame may gather (82576 §7.2.4.2.1: 18 bits of PAYLEN).
const MOST_BYTES: usize = 1 << 18;

/// Most bytes of the headers of a frame that is cut up.
const MOST_HEADERS: usize = 240;

/// The frame that a queue's descriptors are making up.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathering {
    bytes: Vec<u8>,
    /// What the frame's first descriptor asks for.
    first: Option<Data>,
}

impl State {
    /// Sends what is between a queue's head and tail; gives the vectors to send.
    pub(super) fn transmit(&mut self, n: u16) -> u32 {
        let ring = Ring::Tx(n);
        if !self.unit_is_on(ring) || !self.takes_part(n) || !self.may_dma() || !self.link_up() {
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

    /// The queue is on; an 82574 arbitrates between those of which TARC says that they take part.
    fn takes_part(&mut self, n: u16) -> bool {
        let on = self.file.enabled(Ring::Tx(n));
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => on,
            Kind::I82574 => {
                let control = self.file.ring(Ring::Tx(n), queue::CONTROL);
                if on && control & ext::TXDCTL_COUNT_DESC == 0 {
                    self.violation(format!("TXDCTL of queue {n} reads {control:#x}"));
                }
                let arbitration = self.file.get(ext::TARC + 0x100 * u32::from(n));
                on && arbitration & ext::TARC_ENABLE != 0
            }
        }
    }

    /// One descriptor; true if it was reported.
    fn step(&mut self, n: u16, at: u64) -> Result<bool, Fault> {
        let [low, word] = self.memory.read_descriptor(at)?;
        self.dma_accesses += 1;
        match Descriptor::of(self.kind, word) {
            Descriptor::Legacy => {
                self.violation("a legacy descriptor where others are expected".into());
                return Ok(false);
            }
            Descriptor::Context => {
                let index = context::index(self.kind, word);
                self.set_context(n, index, Context::of(self.kind, low, word));
            }
            Descriptor::Data(data) if !self.faults.discard_sent => self.gather(n, low, data)?,
            Descriptor::Data(_) => {}
            Descriptor::Unknown(other) => {
                self.violation(format!("a descriptor of type {other:#x}"))
            }
        }
        if !Descriptor::wants_report(word) {
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

    /// The context with this number. An 82576 has two for each queue, of which drivers use the first;
    /// an 82575 has eight for all; an 82574 remembers one, whichever queue it came by (82574 §7.2.6).
    fn context_of(&mut self, n: u16, index: usize) -> &mut Context {
        match self.kind {
            Kind::I82575 => &mut self.contexts[index],
            Kind::I82576 | Kind::Virtual => {
                if index != 0 {
                    self.violation(format!("context {index} of queue {n}"));
                }
                &mut self.contexts[usize::from(n)]
            }
            Kind::I82574 => &mut self.contexts[0],
        }
    }

    fn set_context(&mut self, n: u16, index: usize, context: Context) {
        if self.gathering[usize::from(n)].first.is_some() {
            self.violation("a context in the middle of a frame".into());
        }
        *self.context_of(n, index) = context;
    }

    fn gather(&mut self, n: u16, address: u64, data: Data) -> Result<(), Fault> {
        if data.len == 0 {
            self.violation("a data descriptor without bytes".into());
        }
        let mut bytes = vec![0; data.len];
        self.memory.read(address, &mut bytes)?;
        self.dma_accesses += 1;
        let gathering = &mut self.gathering[usize::from(n)];
        let first = *gathering.first.get_or_insert(data);
        if gathering.bytes.len() + data.len <= MOST_BYTES {
            gathering.bytes.extend_from_slice(&bytes);
        }
        if !data.ends {
            return Ok(());
        }
        let frame = std::mem::take(gathering).bytes;
        if !data.check_sequence {
            self.violation("a frame without a check sequence".into());
        }
        // The tag stands in the context or in the frame's last descriptor.
        let context = self.context_of(n, first.context).clone();
        let tag = data.insert_tag.then(|| data.tag.unwrap_or(context.tag));
        if tag.is_some() && data.tag.is_none() && !context.set {
            self.violation("a frame with a tag came before any context".into());
        }
        if tag.is_some()
            && self.kind != Kind::Virtual
            && self.file.get(reg::CTRL) & reg::CTRL_VME == 0
        {
            self.violation("a tag is to be inserted, and CTRL.VME is not set".into());
        }
        self.finish(n, &context, &first, frame, tag);
        Ok(())
    }

    /// Does to a gathered frame what its first descriptor asks for, and sends it.
    fn finish(
        &mut self,
        n: u16,
        context: &Context,
        first: &Data,
        mut frame: Vec<u8>,
        tag: Option<u16>,
    ) {
        let uses_context = first.l4_checksum || first.ip_checksum || first.segment;
        if uses_context && !context.set {
            return self.violation("a frame that needs a context came before any".into());
        }
        if first.l4_checksum && context.l4_field + 2 > frame.len() {
            return self.violation("a checksum outside of its frame".into());
        }
        if first.segment {
            return self.cut(n, context, first, &frame, tag);
        }
        if first.payload_len.is_some_and(|told| told != frame.len()) {
            self.violation(format!("PAYLEN {:?} for {} bytes", first.payload_len, frame.len()));
        }
        if first.l4_checksum {
            fill_checksum(&mut frame, context.l4_at, context.l4_field, 0);
        }
        self.emit(frame, tag);
    }

    /// Sends a large segment in pieces of the MSS.
    fn cut(&mut self, n: u16, context: &Context, first: &Data, frame: &[u8], tag: Option<u16>) {
        let told = match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => first.payload_len,
            Kind::I82574 => self.context_of(n, first.context).payload_left.take(),
        };
        let Some(told) = told else {
            return self.violation("a large segment without a context of its own".into());
        };
        let headers = context.headers;
        if told + headers != frame.len() || context.mss == 0 || headers > MOST_HEADERS {
            let len = frame.len();
            return self.violation(format!("PAYLEN {told}, headers {headers}, bytes {len}"));
        }
        self.file.add(reg::TSCTC, 1);
        let (header, payload) = frame.split_at(headers);
        let count = payload.len().div_ceil(context.mss);
        for (i, piece) in payload.chunks(context.mss).enumerate() {
            let mut segment = [header, piece].concat();
            context.rewrite(&mut segment, i, i + 1 == count, first.ip_checksum);
            if first.l4_checksum {
                // 82576 §7.2.4.7: the length is not in the sum that software left.
                let len = (headers - context.l4_at + piece.len()) as u32;
                fill_checksum(&mut segment, context.l4_at, context.l4_field, len);
            }
            self.emit(segment, tag);
        }
    }

    fn emit(&mut self, mut frame: Vec<u8>, tag: Option<u16>) {
        if let Some(tag) = tag {
            let [high, low] = tag.to_be_bytes();
            frame.splice(12..12, [0x81, 0x00, high, low]);
        }
        if frame.len() < 60 {
            frame.resize(60, 0);
        }
        let wire_len = frame.len() as u32 + 4;
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::I82574 => {
                self.file.add(reg::GPTC, 1);
                self.file.add_pair(reg::GOTC, u64::from(wire_len));
            }
            Kind::Virtual => {
                self.file.add(vf::VFGPTC, 1);
                self.file.add(vf::VFGOTC, wire_len);
            }
        }
        self.outgoing.push_back(frame);
    }
}

impl Context {
    /// Writes what differs from segment to segment (82576 §7.2.4.8 to §7.2.4.10).
    fn rewrite(&self, segment: &mut [u8], index: usize, last: bool, ip_checksum: bool) {
        const FIN_PSH: u8 = 0x09;
        const CWR: u8 = 0x80;
        let (ip, l4_at) = (self.ip_at, self.l4_at);
        let ip_bytes = (segment.len() - ip) as u16;
        if self.ipv4 {
            segment[ip + 2..ip + 4].copy_from_slice(&ip_bytes.to_be_bytes());
            let id = u16::from_be_bytes([segment[ip + 4], segment[ip + 5]]);
            let id = id.wrapping_add(index as u16);
            segment[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
        } else {
            segment[ip + 4..ip + 6].copy_from_slice(&(ip_bytes - 40).to_be_bytes());
        }
        if ip_checksum {
            // What is in the field counts: software has to leave it empty.
            let checksum = !(sum(0, &segment[ip..self.ip_end]) as u16);
            segment[self.ip_field..self.ip_field + 2].copy_from_slice(&checksum.to_be_bytes());
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
