//! What transmit descriptors say, in the fields of either format (82576 §7.2.2, 82574 §7.2.6 and
//! §7.2.7), as one thing.

use super::packet::Transport;
use super::registers::Kind;

/// Bits of a descriptor's second word that both formats have.
const LENGTH: u64 = 0xffff;
const EOP: u64 = 1 << 24;
const IFCS: u64 = 1 << 25;
const RS: u64 = 1 << 27;
const DEXT: u64 = 1 << 29;
const VLE: u64 = 1 << 30;
const IXSM: u64 = 1 << 40;
const TXSM: u64 = 1 << 41;

/// A transmit descriptor by its type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Descriptor {
    Legacy,
    Context,
    Data(Data),
    Unknown(u64),
}

impl Descriptor {
    /// What the second word says.
    pub(super) fn of(kind: Kind, word: u64) -> Descriptor {
        let (context, data) = match kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => (2, 3),
            Kind::I82574 => (0, 1),
        };
        match word >> 20 & 0xf {
            _ if word & DEXT == 0 => Descriptor::Legacy,
            other if other == context => Descriptor::Context,
            other if other == data => Descriptor::Data(Data::of(kind, word)),
            other => Descriptor::Unknown(other),
        }
    }

    /// True if a report is asked for.
    pub(super) fn wants_report(word: u64) -> bool {
        word & RS != 0
    }
}

/// A piece of a frame, and what is to be done with the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) len: usize,
    pub(super) ends: bool,
    pub(super) check_sequence: bool,
    pub(super) ip_checksum: bool,
    pub(super) l4_checksum: bool,
    pub(super) segment: bool,
    pub(super) insert_tag: bool,
    /// The tag, if this format has it here.
    pub(super) tag: Option<u16>,
    /// Bytes of the whole payload, likewise.
    pub(super) payload_len: Option<usize>,
    /// Which context it goes by, likewise.
    pub(super) context: usize,
}

impl Data {
    fn of(kind: Kind, word: u64) -> Data {
        let has = |bit: u64| word & bit != 0;
        let (segment, tag, payload_len) = match kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => {
                (has(1 << 31), None, Some((word >> 46) as usize))
            }
            Kind::I82574 => (has(1 << 26), Some((word >> 48) as u16), None),
        };
        Data {
            len: (word & LENGTH) as usize,
            ends: has(EOP),
            check_sequence: has(IFCS),
            ip_checksum: has(IXSM),
            l4_checksum: has(TXSM),
            segment,
            insert_tag: has(VLE),
            tag,
            payload_len,
            context: index(kind, word),
        }
    }
}

/// The number of the context that a descriptor sets or goes by, which only one format has.
pub(super) fn index(kind: Kind, word: u64) -> usize {
    match kind {
        Kind::I82575 | Kind::I82576 | Kind::Virtual => (word >> 36 & 7) as usize,
        Kind::I82574 => 0,
    }
}

/// Where the headers of frames to come are.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    pub(super) set: bool,
    pub(super) ip_at: usize,
    /// The IPv4 header's end and where its checksum is.
    pub(super) ip_end: usize,
    pub(super) ip_field: usize,
    pub(super) l4_at: usize,
    pub(super) l4_field: usize,
    /// Bytes of all headers; only for segmentation.
    pub(super) headers: usize,
    pub(super) mss: usize,
    pub(super) ipv4: bool,
    pub(super) tag: u16,
    /// An 82574 counts the payload down, so that the context serves one large segment only.
    pub(super) payload_left: Option<usize>,
}

impl Context {
    /// The context that a descriptor's two words hold.
    pub(super) fn of(kind: Kind, low: u64, high: u64) -> Context {
        match kind {
            Kind::I82575 | Kind::I82576 | Kind::Virtual => Context::advanced(low, high),
            Kind::I82574 => Context::extended(low, high),
        }
    }

    fn advanced(lens: u64, word: u64) -> Context {
        let ip_at = (lens >> 9 & 0x7f) as usize;
        let l4_at = ip_at + (lens & 0x1ff) as usize;
        let tcp = word & 3 << 11 == 1 << 11;
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        Context {
            set: true,
            ip_at,
            ip_end: l4_at,
            ip_field: ip_at + 10,
            l4_at,
            l4_field: l4_at + transport.checksum_offset(),
            headers: l4_at + (word >> 40 & 0xff) as usize,
            mss: (word >> 48) as usize,
            ipv4: word & 1 << 10 != 0,
            tag: (lens >> 16) as u16,
            payload_left: None,
        }
    }

    fn extended(offsets: u64, word: u64) -> Context {
        let byte = |shift: u32| (offsets >> shift & 0xff) as usize;
        let segments = word & 1 << 26 != 0;
        Context {
            set: true,
            ip_at: byte(0),
            ip_field: byte(8),
            // The last byte is named, not the one behind it.
            ip_end: (offsets >> 16 & 0xffff) as usize + 1,
            l4_at: byte(32),
            l4_field: byte(40),
            headers: (word >> 40 & 0xff) as usize,
            mss: (word >> 48) as usize,
            ipv4: word & 1 << 25 != 0,
            tag: 0,
            payload_left: segments.then_some((word & 0xf_ffff) as usize),
        }
    }
}
