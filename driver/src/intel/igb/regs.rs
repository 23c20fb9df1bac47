//! Registers of igb alone, with the sections of the 82576 data sheet (revision 2.87). Those that
//! e1000e has, too, are in [`crate::intel::regs`].

use crate::intel::hw::Reg;
use crate::intel::regs::Statistic;

/// §8.8.1 extended interrupt cause; writing ones clears.
pub(super) const EICR: Reg = Reg::new("EICR", 0x1580);
/// §8.8.2 extended interrupt cause set: fires vectors.
pub(super) const EICS: Reg = Reg::new("EICS", 0x1520);
/// §8.8.3 extended interrupt mask set.
pub(super) const EIMS: Reg = Reg::new("EIMS", 0x1524);
/// §8.8.4 extended interrupt mask clear.
pub(super) const EIMC: Reg = Reg::new("EIMC", 0x1528);
/// §8.8.5 causes cleared when their vector is sent.
pub(super) const EIAC: Reg = Reg::new("EIAC", 0x152c);
/// §8.8.6 causes masked when their vector is sent.
pub(super) const EIAM: Reg = Reg::new("EIAM", 0x1530);
/// §8.8.12 how interrupts work.
pub(super) const GPIE: Reg = Reg::new("GPIE", 0x1514);
/// §8.8.14 moderation, by vector, 4 bytes apart.
pub(super) const EITR: Reg = Reg::new("EITR", 0x1680);
/// §8.8.15 vectors of queues.
pub(super) const IVAR: Reg = Reg::new("IVAR", 0x1700);
/// §8.8.16 vectors of everything else.
pub(super) const IVAR_MISC: Reg = Reg::new("IVAR_MISC", 0x1740);
/// §8.10.15 largest frame that is received.
pub(super) const RLPML: Reg = Reg::new("RLPML", 0x5004);
/// §8.10.24 queues of virtual machines.
pub(super) const VT_CTL: Reg = Reg::new("VT_CTL", 0x581c);
/// §8.10.18 station addresses 16 to 23, high halves, 8 bytes apart.
pub(super) const RAH2: Reg = Reg::new("RAH", 0x54e4);

/// What only an 82575 has: causes in EICR, and which of them a vector is sent for.
pub(super) mod first {
    use super::Reg;
    /// Causes of a vector, 4 bytes apart.
    pub(in crate::intel::igb) const MSIXBM: Reg = Reg::new("MSIXBM", 0x1600);
    /// Bits of EICR: a ring each, the TCP timer, and everything else.
    pub(in crate::intel::igb) const RX0: u32 = 1 << 0;
    pub(in crate::intel::igb) const TX0: u32 = 1 << 8;
    pub(in crate::intel::igb) const TCP_TIMER: u32 = 1 << 30;
    pub(in crate::intel::igb) const OTHER: u32 = 1 << 31;
    /// All of them: as many as there are vectors.
    pub(in crate::intel::igb) const CAUSES: [u32; 10] =
        [RX0, RX0 << 1, RX0 << 2, RX0 << 3, TX0, TX0 << 1, TX0 << 2, TX0 << 3, TCP_TIMER, OTHER];

    /// Bits of CTRL_EXT that its successors have in GPIE. Reading ICR clears it.
    pub(in crate::intel::igb) const IRCA: u32 = 1 << 0;
    /// EIAM is obeyed.
    pub(in crate::intel::igb) const EIAME: u32 = 1 << 24;
    /// Pending bits of vectors are cleared by the device.
    pub(in crate::intel::igb) const PBA_CLR: u32 = 1 << 31;
    /// Where a byte of the redirection table has the queue.
    pub(in crate::intel::igb) const RETA_SHIFT: u32 = 6;
}

/// Bits of [`GPIE`].
pub(super) mod gpie {
    /// Reading ICR clears it, whatever is masked.
    pub(in crate::intel::igb) const NSICR: u32 = 1 << 0;
    /// One vector a cause.
    pub(in crate::intel::igb) const MULTIPLE_MSIX: u32 = 1 << 4;
    /// EIAM is obeyed.
    pub(in crate::intel::igb) const EIAME: u32 = 1 << 30;
    pub(in crate::intel::igb) const PBA_SUPPORT: u32 = 1 << 31;
}

/// An entry of [`IVAR`] holds a vector.
pub(super) const IVAR_VALID: u32 = 0x80;

/// Bits of SRRCTL (§8.10.2).
pub(super) mod srrctl {
    /// The packet buffer's size counts in KiB.
    pub(in crate::intel::igb) const BSIZEPACKET_UNIT: u32 = 1024;
    /// Advanced descriptors, one buffer each.
    pub(in crate::intel::igb) const DESCTYPE_ADVANCED: u32 = 1 << 25;
    /// A full queue drops, instead of stopping all others.
    pub(in crate::intel::igb) const DROP_EN: u32 = 1 << 31;
}

/// Bits of RXDCTL and TXDCTL (§8.10.10, §8.12.12).
pub(super) mod dctl {
    pub(in crate::intel::igb) const PTHRESH_SHIFT: u32 = 0;
    pub(in crate::intel::igb) const HTHRESH_SHIFT: u32 = 8;
    /// At most 1 on the 82576: with more, single write-backs are lost (specification update).
    pub(in crate::intel::igb) const WTHRESH_SHIFT: u32 = 16;
    pub(in crate::intel::igb) const ENABLE: u32 = 1 << 25;
}

/// Bits of MRQC that only igb has (§8.10.21).
pub(super) mod mrqc {
    pub(in crate::intel::igb) const ENABLE_RSS: u32 = 2;
    pub(in crate::intel::igb) const UDP_IPV4: u32 = 1 << 22;
    pub(in crate::intel::igb) const UDP_IPV6: u32 = 1 << 23;
}

/// §8.14: registers of a virtual function that it has in place of the physical function's.
pub(super) mod vf {
    use super::Reg;
    /// §8.27.3 mailbox to the physical function.
    pub(in crate::intel::igb) const V2PMAILBOX: Reg = Reg::new("V2PMAILBOX", 0x0c40);
    /// §8.14.3 its 16 words.
    pub(in crate::intel::igb) const VMBMEM: Reg = Reg::new("VMBMEM", 0x0800);

    /// Bits of [`V2PMAILBOX`].
    pub(in crate::intel::igb) const REQ: u32 = 1 << 0;
    pub(in crate::intel::igb) const ACK: u32 = 1 << 1;
    pub(in crate::intel::igb) const VFU: u32 = 1 << 2;
    /// The physical function has written a message.
    pub(in crate::intel::igb) const PFSTS: u32 = 1 << 4;
    pub(in crate::intel::igb) const PFACK: u32 = 1 << 5;
    /// The physical function is being reset.
    pub(in crate::intel::igb) const RSTI: u32 = 1 << 6;
    /// The physical function has finished its own reset.
    pub(in crate::intel::igb) const RSTD: u32 = 1 << 7;
    /// Cleared by reading.
    pub(in crate::intel::igb) const READ_TO_CLEAR: u32 = PFSTS | PFACK | RSTD;
}

/// Statistics of a virtual function (§8.14.6), which run on.
pub(super) const VF_STATISTICS: &[Statistic] = &[
    Statistic::running("VFGPRC", 0x0f10),
    Statistic::running("VFGPTC", 0x0f14),
    Statistic::running("VFGORC", 0x0f18),
    Statistic::running("VFGOTC", 0x0f34),
    Statistic::running("VFMPRC", 0x0f3c),
];
