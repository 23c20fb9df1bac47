//! The register file: storage, and which bits do something.

/// Bytes of BAR 0.
pub(super) const BAR_LEN: u32 = 0x2_0000;

pub(super) const CTRL: u32 = 0x0000;
pub(super) const STATUS: u32 = 0x0008;
pub(super) const EECD: u32 = 0x0010;
pub(super) const CTRL_EXT: u32 = 0x0018;
pub(super) const MDIC: u32 = 0x0020;
pub(super) const VET: u32 = 0x0038;
pub(super) const ICR: u32 = 0x00c0;
pub(super) const IMS: u32 = 0x00d0;
pub(super) const IMC: u32 = 0x00d8;
pub(super) const RCTL: u32 = 0x0100;
pub(super) const TCTL: u32 = 0x0400;
pub(super) const GPIE: u32 = 0x1514;
pub(super) const EICS: u32 = 0x1520;
pub(super) const EIMS: u32 = 0x1524;
pub(super) const EIMC: u32 = 0x1528;
pub(super) const EIAC: u32 = 0x152c;
pub(super) const EICR: u32 = 0x1580;
pub(super) const IVAR: u32 = 0x1700;
pub(super) const IVAR_MISC: u32 = 0x1740;
pub(super) const RXCSUM: u32 = 0x5000;
pub(super) const RLPML: u32 = 0x5004;
pub(super) const MTA: u32 = 0x5200;
pub(super) const RAL: u32 = 0x5400;
pub(super) const RAH: u32 = 0x5404;
pub(super) const VFTA: u32 = 0x5600;
pub(super) const MRQC: u32 = 0x5818;
pub(super) const RETA: u32 = 0x5c00;
pub(super) const RSSRK: u32 = 0x5c80;

/// Statistics that the model keeps; reading clears all of 0x4000 to 0x4124.
pub(super) const MPC: u32 = 0x4010;
pub(super) const GPRC: u32 = 0x4074;
pub(super) const BPRC: u32 = 0x4078;
pub(super) const MPRC: u32 = 0x407c;
pub(super) const GPTC: u32 = 0x4080;
pub(super) const GORC: u32 = 0x4088;
pub(super) const GOTC: u32 = 0x4090;
pub(super) const RNBC: u32 = 0x40a0;
pub(super) const TSCTC: u32 = 0x40f8;
const STATISTICS: std::ops::RangeInclusive<u32> = 0x4000..=0x4124;

pub(super) const CTRL_MASTER_DISABLE: u32 = 1 << 2;
pub(super) const CTRL_SLU: u32 = 1 << 6;
pub(super) const CTRL_RST: u32 = 1 << 26;
pub(super) const CTRL_VME: u32 = 1 << 30;
pub(super) const STATUS_FD: u32 = 1 << 0;
pub(super) const STATUS_LU: u32 = 1 << 1;
pub(super) const STATUS_SPEED_1000: u32 = 2 << 6;
pub(super) const STATUS_MASTER: u32 = 1 << 19;
pub(super) const UNIT_EN: u32 = 1 << 1;
pub(super) const QUEUE_ENABLE: u32 = 1 << 25;
pub(super) const ICR_LSC: u32 = 1 << 2;
pub(super) const GPIE_MSIX: u32 = 1 << 4;

/// Semaphores, which outlast a reset.
pub(super) const EXTCNF_CTRL: u32 = 0x0f00;
pub(super) const SWSM: u32 = 0x5b50;
pub(super) const SW_FW_SYNC: u32 = 0x5b5c;
pub(super) const SMBI: u32 = 1 << 0;
pub(super) const SWESMBI: u32 = 1 << 1;
pub(super) const SYNC_PHY: u32 = 1 << 1;
pub(super) const MDIO_SW_OWNERSHIP: u32 = 1 << 5;

/// Queues of the kind that has most.
pub(super) const MOST_QUEUES: u16 = 16;

/// What only an 82574 has.
pub(super) mod ext {
    pub(in crate::model) const ICS: u32 = 0x00c8;
    pub(in crate::model) const EIAC: u32 = 0x00dc;
    pub(in crate::model) const IAM: u32 = 0x00e0;
    pub(in crate::model) const IVAR: u32 = 0x00e4;
    pub(in crate::model) const PBA: u32 = 0x1000;
    pub(in crate::model) const TARC: u32 = 0x3840;
    pub(in crate::model) const RFCTL: u32 = 0x5008;
    /// Where an 82576 has its further queues.
    pub(in crate::model) const NOTHING: std::ops::Range<u32> = 0xc000..0xe400;

    /// Causes in ICR.
    pub(in crate::model) const RXQ0: u32 = 1 << 20;
    pub(in crate::model) const TXQ0: u32 = 1 << 22;
    pub(in crate::model) const OTHER: u32 = 1 << 24;
    /// Those that have a vector, in the order of IVAR.
    pub(in crate::model) const CAUSES: [u32; 5] = [RXQ0, RXQ0 << 1, TXQ0, TXQ0 << 1, OTHER];

    pub(in crate::model) const CTRL_EXT_EIAME: u32 = 1 << 24;
    pub(in crate::model) const DCTL_GRAN: u32 = 1 << 24;
    pub(in crate::model) const TXDCTL_COUNT_DESC: u32 = 1 << 22;
    pub(in crate::model) const TARC_ENABLE: u32 = 1 << 10;
    pub(in crate::model) const RFCTL_EXSTEN: u32 = 1 << 15;
    pub(in crate::model) const RCTL_LPE: u32 = 1 << 5;
    pub(in crate::model) const RCTL_BSEX: u32 = 1 << 25;
}

/// What only an 82575 has.
pub(super) mod first {
    /// Causes of EICR that a vector is sent for, by vector.
    pub(in crate::model) const MSIXBM: u32 = 0x1600;
    pub(in crate::model) const EIAM: u32 = 0x1530;
    /// The bit of EICR of everything but queues.
    pub(in crate::model) const OTHER: u32 = 31;
    pub(in crate::model) const CTRL_EXT_EIAME: u32 = 1 << 24;
    pub(in crate::model) const CTRL_EXT_PBA_CLR: u32 = 1 << 31;

    /// True where its successors have registers and it has none.
    pub(in crate::model) fn lacks(offset: u32) -> bool {
        matches!(offset, super::GPIE | 0x1700..0x1748 | 0x54e0..0x5520 | 0xc000..0xe400)
    }
}

/// What only a virtual function has (82576 §8.14).
pub(super) mod vf {
    pub(in crate::model) const VMBMEM: u32 = 0x0800;
    pub(in crate::model) const V2PMAILBOX: u32 = 0x0c40;
    pub(in crate::model) const VFGPRC: u32 = 0x0f10;
    pub(in crate::model) const VFGPTC: u32 = 0x0f14;
    pub(in crate::model) const VFGORC: u32 = 0x0f18;
    pub(in crate::model) const VFGOTC: u32 = 0x0f34;
    pub(in crate::model) const VFMPRC: u32 = 0x0f3c;

    /// True if there is a register that may be written, rings aside.
    pub(in crate::model) fn may_write(offset: u32) -> bool {
        matches!(
            offset,
            super::CTRL
                | super::EICS..=0x1530
                | super::EICR
                | 0x1680..=0x1688
                | super::IVAR
                | super::IVAR_MISC
                | VMBMEM..0x0840
                | V2PMAILBOX
        )
    }
}

/// What a model is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82575: igb before vectors were allotted by a table.
    I82575,
    /// 82576: igb, advanced descriptors.
    I82576,
    /// 82574L: e1000e, extended descriptors.
    I82574,
    /// A virtual function of an 82576, whose physical function is a few fields of the model.
    Virtual,
}

impl Kind {
    /// Queue pairs.
    pub fn queues(self) -> u16 {
        match self {
            Kind::I82575 => 4,
            Kind::I82576 => MOST_QUEUES,
            Kind::I82574 | Kind::Virtual => 2,
        }
    }

    /// MSI-X vectors, for an 82576 as many as in the emulated machine.
    pub fn vectors(self) -> u16 {
        match self {
            Kind::I82575 | Kind::I82576 => 10,
            Kind::I82574 => 5,
            Kind::Virtual => 3,
        }
    }

    /// PCI device id.
    pub fn device_id(self) -> u16 {
        match self {
            Kind::I82575 => 0x10a7,
            Kind::I82576 => 0x10c9,
            Kind::I82574 => 0x10d3,
            Kind::Virtual => 0x10ca,
        }
    }

    /// Name of the controller.
    pub fn name(self) -> &'static str {
        match self {
            Kind::I82575 => "82575",
            Kind::I82576 => "82576",
            Kind::I82574 => "82574",
            Kind::Virtual => "82576 virtual function",
        }
    }

    /// The ring and the offset of a register behind its base, for an address that is a ring's. Of an
    /// 82576 the first four queues have theirs in two places.
    pub(super) fn ring_of(self, offset: u32) -> Option<(Ring, u32)> {
        let low = |base: u32| (((offset - base) / 0x100) as u16, (offset - base) % 0x100);
        let high = |base: u32| (((offset - base) / 0x40) as u16, (offset - base) % 0x40);
        let ((queue, register), rx) = match (self, offset) {
            (Kind::I82575 | Kind::I82576, 0x2800..0x2c00) | (_, 0x2800..0x2a00) => {
                (low(0x2800), true)
            }
            (Kind::I82575 | Kind::I82576, 0x3800..0x3c00) | (_, 0x3800..0x3a00) => {
                (low(0x3800), false)
            }
            (Kind::I82576, 0xc000..0xc400) => (high(0xc000), true),
            (Kind::I82576, 0xe000..0xe400) => (high(0xe000), false),
            (Kind::I82575 | Kind::I82576 | Kind::I82574 | Kind::Virtual, _) => return None,
        };
        (register < 0x40).then_some((if rx { Ring::Rx(queue) } else { Ring::Tx(queue) }, register))
    }
}

/// Offsets of a queue's registers behind its base.
pub(super) mod queue {
    pub(in crate::model) const BASE_LOW: u32 = 0x00;
    pub(in crate::model) const BASE_HIGH: u32 = 0x04;
    pub(in crate::model) const LENGTH: u32 = 0x08;
    pub(in crate::model) const SRRCTL: u32 = 0x0c;
    pub(in crate::model) const HEAD: u32 = 0x10;
    pub(in crate::model) const TAIL: u32 = 0x18;
    pub(in crate::model) const CONTROL: u32 = 0x28;
}

/// Which ring of which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    Rx(u16),
    Tx(u16),
}

impl Ring {
    /// Where its registers are kept, on which no others lie.
    pub(super) fn base(self) -> u32 {
        match self {
            Ring::Rx(n) => 0xc000 + 0x40 * u32::from(n),
            Ring::Tx(n) => 0xe000 + 0x40 * u32::from(n),
        }
    }
}

/// Values of all registers.
#[derive(Debug)]
pub(super) struct File {
    kind: Kind,
    words: Vec<u32>,
}

impl File {
    pub(super) fn new(kind: Kind) -> File {
        File { kind, words: vec![0; (BAR_LEN / 4) as usize] }
    }

    /// One place for each register, whichever of its addresses is used.
    fn place(&self, offset: u32) -> usize {
        let ring = self.kind.ring_of(offset);
        (ring.map_or(offset, |(ring, register)| ring.base() + register) / 4) as usize
    }

    pub(super) fn get(&self, offset: u32) -> u32 {
        self.words[self.place(offset)]
    }

    pub(super) fn set(&mut self, offset: u32, value: u32) {
        let place = self.place(offset);
        self.words[place] = value;
    }

    pub(super) fn word_mut(&mut self, offset: u32) -> &mut u32 {
        let place = self.place(offset);
        &mut self.words[place]
    }

    pub(super) fn change(&mut self, offset: u32, change: impl FnOnce(u32) -> u32) {
        let word = self.word_mut(offset);
        *word = change(*word);
    }

    pub(super) fn add(&mut self, offset: u32, value: u32) {
        let sum = self.get(offset).saturating_add(value);
        self.set(offset, sum);
    }

    /// Adds to a counter of two registers.
    pub(super) fn add_pair(&mut self, offset: u32, value: u64) {
        let before = u64::from(self.get(offset + 4)) << 32 | u64::from(self.get(offset));
        let after = before.saturating_add(value);
        self.set(offset, after as u32);
        self.set(offset + 4, (after >> 32) as u32);
    }

    /// Reads a register as software does: statistics forget.
    pub(super) fn read(&mut self, offset: u32) -> u32 {
        let value = self.get(offset);
        if STATISTICS.contains(&offset) {
            self.set(offset, 0);
        }
        value
    }

    pub(super) fn ring(&self, ring: Ring, register: u32) -> u32 {
        self.get(ring.base() + register)
    }

    pub(super) fn set_ring(&mut self, ring: Ring, register: u32, value: u32) {
        self.set(ring.base() + register, value);
    }

    /// Descriptors of a ring.
    pub(super) fn ring_len(&self, ring: Ring) -> u32 {
        self.ring(ring, queue::LENGTH) / 16
    }

    /// Where the device finds a ring's descriptor.
    pub(super) fn descriptor_at(&self, ring: Ring, index: u32) -> u64 {
        let high = u64::from(self.ring(ring, queue::BASE_HIGH));
        (high << 32 | u64::from(self.ring(ring, queue::BASE_LOW))) + u64::from(index) * 16
    }

    /// The ring has been turned on: an 82574's is when it has descriptors.
    pub(super) fn enabled(&self, ring: Ring) -> bool {
        match self.kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => {
                self.ring(ring, queue::CONTROL) & QUEUE_ENABLE != 0
            }
            Kind::I82574 => self.ring_len(ring) > 0,
        }
    }

    pub(super) fn rss_key(&self) -> [u8; 40] {
        let mut key = [0; 40];
        for (i, word) in key.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&self.get(RSSRK + i as u32 * 4).to_le_bytes());
        }
        key
    }

    /// The queue that the table has for a hash.
    pub(super) fn redirection(&self, hash: u32) -> u16 {
        let entry = hash & 127;
        let byte = self.get(RETA + (entry & !3)).to_le_bytes()[(entry & 3) as usize];
        match self.kind {
            Kind::I82575 => u16::from(byte >> 6),
            Kind::I82576 => u16::from(byte & 15),
            // 82574 §10.2.5.16: the queue is the highest bit.
            Kind::I82574 => u16::from(byte >> 7),
            Kind::Virtual => 0,
        }
    }
}
