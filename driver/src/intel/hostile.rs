//! A driver on a device that writes whatever it likes into its descriptors, whenever it likes: what
//! is fuzzed, and tested at random, with the register models.
//!
//! ```text
//!   bytes ─▶ steps ─┬─▶ the driver's calls: receive, send, reclaim, sleep, keep, let go
//!                   └─▶ the device's deeds: frames, descriptors written back with any content,
//!                       faults, lost reports
//! ```
//!
//! After every step each slot is where it should be: what we hold is held, once; no more frames come
//! than were asked for, none with a piece that is empty or longer than a slot. At the end every slot
//! is free.
//!
//! What the device writes never names a buffer: a device that sends packets to memory which is mapped
//! for it, and not posted, is beyond what any driver can see.

use std::sync::Arc;

use super::{NicConfig, open};
use crate::device::{Features, MacAddr, Queue, QueueId, RxBurst, TxBurst, TxChecksum, TxFrame};
use crate::mem::{PacketBuf, PacketSlice, Pool, PoolConfig};
use crate::model::{Kind, NicModel, RxFault};

const RING: u16 = 32;
const SLOT: u16 = 2048;
const SLOTS: u32 = 96;
/// Most steps of one run, and most slices kept over a step.
const MOST_STEPS: usize = 512;
const MOST_KEPT: usize = 40;
/// An address bit that no mapping of a model reaches.
const NOWHERE: u64 = 1 << 63;

/// The steps, one after the other; zeros when they have been used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    fn short(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }
}

/// The driver, its device, and what is held of the pool.
struct Rig {
    model: NicModel,
    queue: Box<dyn Queue>,
    pool: Pool,
    kept: Vec<PacketSlice>,
    rx: RxBurst,
    tx: TxBurst,
}

/// Runs the steps that the bytes say.
///
/// # Panics
/// If the driver believes the device something that it must not, or loses a slot.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    // Bring-up takes an 82574 ten times as long, for reasons that are not looked at here.
    let kind = match input.byte() % 8 {
        0 => Kind::I82574,
        1..=6 => Kind::I82576,
        _ => Kind::I82575,
    };
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let Ok(model) = NicModel::new(kind, mac) else { return };
    let config = NicConfig {
        rx_ring: RING,
        tx_ring: RING,
        mtu: 9000,
        vlan: true,
        promiscuous: true,
        ..NicConfig::new(1)
    };
    let nic = open(Arc::new(model.clone()), config).expect("the model answers");
    let memory = PoolConfig { slots: SLOTS, slot_len: SLOT.into(), cells: 8, try_huge: false };
    let pool = Pool::new(memory).expect("memory for a small pool");
    let mut queue = nic.queue(QueueId(0)).expect("there is one").open();
    queue.start(&pool, Features::all()).expect("the model starts it");
    let (rx, tx) = (RxBurst::new(), TxBurst::new());
    let mut rig = Rig { model, queue, pool, kept: Vec::new(), rx, tx };
    for _ in 0..MOST_STEPS {
        if input.0.is_empty() {
            break;
        }
        rig.step(&mut input);
        rig.check();
    }
    drop(nic);
    rig.end();
}

impl Rig {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 10 {
            0 | 1 => self.receive(input.byte()),
            2 => self.model.receive(&frame(input.short() % 9019)),
            3 => {
                let words = [input.word() | NOWHERE, input.word()];
                self.model.scribble_receive(0, input.byte().into(), words);
            }
            4 => {
                // Likely ones: finished, of some length, with or without an end.
                let word = 1 | u64::from(input.byte()) | u64::from(input.short()) << 32;
                self.model.scribble_receive(0, input.byte().into(), [NOWHERE, word]);
            }
            5 => {
                let words = [input.word() | NOWHERE, input.word()];
                self.model.scribble_transmit(0, input.byte().into(), words);
            }
            6 => self.send(input),
            7 => {
                self.queue.reclaim();
                self.kept.truncate(usize::from(input.byte()) % MOST_KEPT);
            }
            8 => {
                self.queue.arm();
                self.queue.disarm();
            }
            _ => self.break_device(input),
        }
    }

    fn receive(&mut self, most: u8) {
        let most = usize::from(most % 65);
        let before = self.queue.counters().rx_frames;
        let received = self.queue.rx_burst(&mut self.rx, most).expect("the device is there");
        assert!(received <= most && self.rx.len() == received, "{received} of {most}");
        assert_eq!(self.queue.counters().rx_frames - before, received as u64);
        for frame in self.rx.frames() {
            let segments = self.rx.segments(frame);
            let len: usize = segments.iter().map(|segment| segment.len()).sum();
            let sound = |segment: &PacketSlice| (1..=usize::from(SLOT)).contains(&segment.len());
            assert!(segments.iter().all(sound) && len >= 14, "{len} bytes");
            assert_eq!(frame.len as usize, len);
            self.kept.extend(segments.iter().take(2).cloned());
        }
        self.kept.truncate(MOST_KEPT);
        self.rx.clear();
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let (shape, len) = (input.byte(), input.short() % SLOT);
        let bytes = frame(len);
        let pieces =
            (0..=shape % 4).map_while(|_| self.pool.copy_from(&bytes[..len.max(1).into()]));
        let pieces: Vec<_> = pieces.map(PacketBuf::freeze).collect();
        if pieces.is_empty() {
            return;
        }
        pieces.into_iter().for_each(|piece| self.tx.push_segment(piece));
        let checksum = match shape >> 2 & 3 {
            0 | 1 => TxChecksum::Complete,
            2 => TxChecksum::Partial { start: 34, offset: 16 },
            _ => TxChecksum::Partial { start: input.short(), offset: input.short() },
        };
        let tso_mss = if shape >> 4 & 3 == 3 { input.short() } else { 0 };
        let vlan = (shape >> 6 == 3).then_some(7);
        let meta = TxFrame { checksum, tso_mss, vlan, header_len: 54, ..TxFrame::default() };
        self.tx.finish_frame(meta);
        let waiting = self.tx.len();
        let sent = self.queue.tx_burst(&mut self.tx).expect("the device is there");
        assert!(sent + self.tx.len() <= waiting);
        self.model.take_sent();
    }

    fn break_device(&mut self, input: &mut Input<'_>) {
        let rx = match input.byte() % 7 {
            0..=2 => RxFault::None,
            3 => RxFault::NoLength,
            4 => RxFault::Length(input.short()),
            5 => RxFault::NoEnd,
            _ => RxFault::Damaged,
        };
        let (lost, hold) = (u32::from(input.byte() % 4), input.byte().is_multiple_of(4));
        self.model.set_faults(|faults| {
            (faults.rx, faults.lost_reports, faults.hold_transmit) = (rx, lost, hold);
        });
        if !hold {
            self.model.run_transmit();
            self.model.take_sent();
        }
    }

    fn check(&self) {
        let audit = self.pool.audit();
        assert!(audit.balanced(), "{audit:?}");
        assert!(audit.posted < RING.into() && self.queue.pending_tx() < RING.into(), "{audit:?}");
    }

    fn end(mut self) {
        self.queue.stop();
        self.tx.clear();
        let (held, kept) = (self.pool.audit().held as usize, self.kept.len());
        assert!(held <= kept, "{held} slots are held by {kept} slices");
        self.kept.clear();
        let audit = self.pool.audit();
        assert!(audit.all_free(), "{audit:?}");
        drop(self.queue);
        assert_eq!(self.model.mapped_regions(), 0);
    }
}

/// A frame of this length, at least a header's: TCP over IPv4 as far as it goes.
fn frame(len: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len.max(14)).map(|n| n as u8).collect();
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 4, 4, 4, 4, 4, 4, 8, 0]);
    if let Some(version) = bytes.get_mut(14) {
        *version = 0x45;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn nothing_that_a_device_writes_back_costs_a_slot(
            data in proptest::collection::vec(any::<u8>(), 0..1500)
        ) {
            run(&data);
        }
    }
}
