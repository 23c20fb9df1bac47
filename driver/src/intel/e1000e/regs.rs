//! Registers of e1000e alone, with the sections of the 82574 data sheet (revision 3.4). Those that
//! igb has, too, are in [`crate::intel::regs`].

use crate::intel::hw::Reg;

/// §10.2.4.3 interrupt cause set.
pub(super) const ICS: Reg = Reg::new("ICS", 0x00c8);
/// §10.2.4.11 clear-by-vector: causes that their MSI-X vector clears.
pub(super) const EIAC: Reg = Reg::new("EIAC", 0x00dc);
/// §10.2.4.7 causes that are masked when ICR is read or their vector is sent.
pub(super) const IAM: Reg = Reg::new("IAM", 0x00e0);
/// §10.2.4.9 vectors of causes.
pub(super) const IVAR: Reg = Reg::new("IVAR", 0x00e4);
/// §10.2.4.10 moderation, by vector, 4 bytes apart.
pub(super) const EITR: Reg = Reg::new("EITR", 0x00e8);
/// How the packet buffer is split, 20 KiB for either direction on an 82574 after a reset.
pub(super) const PBA: Reg = Reg::new("PBA", 0x1000);
/// §10.2.5.4 delay of receive interrupts.
pub(super) const RDTR: Reg = Reg::new("RDTR", 0x2820);
/// §10.2.5.9 the same as a bound.
pub(super) const RADV: Reg = Reg::new("RADV", 0x282c);
/// §10.2.6.9 arbitration of transmit queues, 0x100 bytes apart.
pub(super) const TARC: Reg = Reg::new("TARC", 0x3840);
/// §10.2.2.24 PCI Express control.
pub(super) const GCR: Reg = Reg::new("GCR", 0x5b00);
/// §10.2.2.25 its continuation.
pub(super) const GCR2: Reg = Reg::new("GCR2", 0x5b64);

/// Bits of [`IVAR`]: three bits of vector and one that says that it holds, for each cause.
pub(super) mod ivar {
    pub(in crate::intel::e1000e) const VALID: u32 = 0x8;
    pub(in crate::intel::e1000e) const RXQ_SHIFT: u32 = 0;
    pub(in crate::intel::e1000e) const TXQ_SHIFT: u32 = 8;
    pub(in crate::intel::e1000e) const OTHER_SHIFT: u32 = 16;
    /// From one queue to the next.
    pub(in crate::intel::e1000e) const STRIDE: u32 = 4;
}

/// Causes of ICR that only MSI-X devices have (§10.2.4.1).
pub(super) mod icr {
    pub(in crate::intel::e1000e) const RXQ0: u32 = 1 << 20;
    pub(in crate::intel::e1000e) const TXQ0: u32 = 1 << 22;
    pub(in crate::intel::e1000e) const OTHER: u32 = 1 << 24;
}

/// Bits of [`PBA`].
pub(super) mod pba {
    /// KiB for receiving.
    pub(in crate::intel::e1000e) const RXA: u32 = 0xffff;
}

/// Bits of CTRL_EXT (§10.2.2.5).
pub(super) mod ctrl_ext {
    /// IAM masks when a vector is sent.
    pub(in crate::intel::e1000e) const EIAME: u32 = 1 << 24;
    /// Pending bits of vectors are cleared by the device.
    pub(in crate::intel::e1000e) const PBA_CLR: u32 = 1 << 31;
}

/// Bits of RCTL that only e1000e has (§10.2.5.1).
pub(super) mod rctl {
    /// Sizes count sixteenfold.
    pub(in crate::intel::e1000e) const BSEX: u32 = 1 << 25;
    /// 4,096 bytes, with BSEX.
    pub(in crate::intel::e1000e) const BSIZE_4096: u32 = 3 << 16;
}

/// Bits of RFCTL (§10.2.5.13).
pub(super) mod rfctl {
    pub(in crate::intel::e1000e) const NFSW_DIS: u32 = 1 << 6;
    pub(in crate::intel::e1000e) const NFSR_DIS: u32 = 1 << 7;
    /// Receive descriptors are written back in the extended form.
    pub(in crate::intel::e1000e) const EXSTEN: u32 = 1 << 15;
}

/// Bits of RXDCTL and TXDCTL (§10.2.5.10, §10.2.6.6).
pub(super) mod dctl {
    /// Thresholds count descriptors; with WTHRESH = 0 each one with RS is reported at once.
    pub(in crate::intel::e1000e) const GRAN: u32 = 1 << 24;
    /// Has to be set (82574 §10.2.6.6).
    pub(in crate::intel::e1000e) const COUNT_DESC: u32 = 1 << 22;
}

/// Bits of [`TARC`].
pub(super) mod tarc {
    pub(in crate::intel::e1000e) const ENABLE: u32 = 1 << 10;
}

/// MRQC of e1000e: a bit a function, no UDP (§10.2.5.15).
pub(super) mod mrqc {
    pub(in crate::intel::e1000e) const ENABLE_RSS: u32 = 1;
}
