//! Registers that igb and e1000e have in common, by their data-sheet names.
//!
//! Section numbers are those of the 82576 data sheet (revision 2.87, chapter 8); the 82574's
//! chapter 10 has the same registers at the same offsets.

use super::hw::Reg;

/// §8.2.1 device control.
pub(crate) const CTRL: Reg = Reg::new("CTRL", 0x0000);
/// §8.2.2 device status.
pub(crate) const STATUS: Reg = Reg::new("STATUS", 0x0008);
/// §8.4.1 EEPROM and flash control.
pub(crate) const EECD: Reg = Reg::new("EECD", 0x0010);
/// §8.2.3 extended device control.
pub(crate) const CTRL_EXT: Reg = Reg::new("CTRL_EXT", 0x0018);
/// §8.2.4 access to the PHY's registers.
pub(crate) const MDIC: Reg = Reg::new("MDIC", 0x0020);
/// §8.5.1 address that pause frames go to, low half.
pub(crate) const FCAL: Reg = Reg::new("FCAL", 0x0028);
/// §8.5.2 the high half.
pub(crate) const FCAH: Reg = Reg::new("FCAH", 0x002c);
/// §8.5.3 EtherType of pause frames.
pub(crate) const FCT: Reg = Reg::new("FCT", 0x0030);
/// §8.2.8 EtherType of VLAN tags.
pub(crate) const VET: Reg = Reg::new("VET", 0x0038);
/// §8.8.6 interrupt causes; reading clears them.
pub(crate) const ICR: Reg = Reg::new("ICR", 0x00c0);
/// §8.8.8 interrupt mask set.
pub(crate) const IMS: Reg = Reg::new("IMS", 0x00d0);
/// §8.8.9 interrupt mask clear.
pub(crate) const IMC: Reg = Reg::new("IMC", 0x00d8);
/// §8.10.1 receive control.
pub(crate) const RCTL: Reg = Reg::new("RCTL", 0x0100);
/// 82574 §10.2.2.20 who owns the PHY.
pub(crate) const EXTCNF_CTRL: Reg = Reg::new("EXTCNF_CTRL", 0x0f00);
/// §8.16.1 semaphores among drivers and with the firmware.
pub(crate) const SWSM: Reg = Reg::new("SWSM", 0x5b50);
/// §8.16.3 who has which shared resource.
pub(crate) const SW_FW_SYNC: Reg = Reg::new("SW_FW_SYNC", 0x5b5c);
/// §8.5.4 pause time that is sent.
pub(crate) const FCTTV: Reg = Reg::new("FCTTV", 0x0170);
/// §8.12.1 transmit control.
pub(crate) const TCTL: Reg = Reg::new("TCTL", 0x0400);
/// §8.5.5 fill level below which the peer may send again.
pub(crate) const FCRTL: Reg = Reg::new("FCRTL", 0x2160);
/// §8.5.6 fill level from which on the peer is asked to pause.
pub(crate) const FCRTH: Reg = Reg::new("FCRTH", 0x2168);
/// §8.10.14 receive checksums.
pub(crate) const RXCSUM: Reg = Reg::new("RXCSUM", 0x5000);
/// §8.10.16 receive filters.
pub(crate) const RFCTL: Reg = Reg::new("RFCTL", 0x5008);
/// §8.10.17 multicast table, 128 words.
pub(crate) const MTA: Reg = Reg::new("MTA", 0x5200);
/// §8.10.18 station addresses 0 to 15, low halves, 8 bytes apart.
pub(crate) const RAL: Reg = Reg::new("RAL", 0x5400);
/// §8.10.19 the high halves.
pub(crate) const RAH: Reg = Reg::new("RAH", 0x5404);
/// §8.10.20 VLAN filter table, 128 words.
pub(crate) const VFTA: Reg = Reg::new("VFTA", 0x5600);
/// §8.10.21 hash types and the queue they lead to.
pub(crate) const MRQC: Reg = Reg::new("MRQC", 0x5818);
/// §8.10.23 the redirection table, 128 bytes.
pub(crate) const RETA: Reg = Reg::new("RETA", 0x5c00);
/// §8.10.22 the hash key, 40 bytes.
pub(crate) const RSSRK: Reg = Reg::new("RSSRK", 0x5c80);

/// Words of the multicast and VLAN tables.
pub(crate) const TABLE_WORDS: u32 = 128;
/// Entries of the redirection table.
pub(crate) const RETA_LEN: usize = 128;
/// Station addresses that both families have.
pub(crate) const STATION_ADDRESSES: u32 = 15;

/// A queue's receive registers; queues 4 and up (82576, I350) lie elsewhere (§8.10.5).
pub(crate) const fn rx_base(queue: u16) -> u32 {
    if queue < 4 { 0x2800 + 0x100 * queue as u32 } else { 0xc000 + 0x40 * queue as u32 }
}

/// A queue's transmit registers (§8.12.7).
pub(crate) const fn tx_base(queue: u16) -> u32 {
    if queue < 4 { 0x3800 + 0x100 * queue as u32 } else { 0xe000 + 0x40 * queue as u32 }
}

/// §8.10.5 to §8.10.11: registers of a receive queue, as offsets from [`rx_base`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxQueueRegs(pub(crate) u16);

impl RxQueueRegs {
    const fn at(self, name: &'static str, offset: u32) -> Reg {
        Reg::new(name, rx_base(self.0) + offset)
    }
    pub(crate) const fn rdbal(self) -> Reg {
        self.at("RDBAL", 0x00)
    }
    pub(crate) const fn rdbah(self) -> Reg {
        self.at("RDBAH", 0x04)
    }
    pub(crate) const fn rdlen(self) -> Reg {
        self.at("RDLEN", 0x08)
    }
    pub(crate) const fn srrctl(self) -> Reg {
        self.at("SRRCTL", 0x0c)
    }
    pub(crate) const fn rdh(self) -> Reg {
        self.at("RDH", 0x10)
    }
    pub(crate) const fn rdt(self) -> Reg {
        self.at("RDT", 0x18)
    }
    pub(crate) const fn rxdctl(self) -> Reg {
        self.at("RXDCTL", 0x28)
    }
}

/// §8.12.7 to §8.12.13: registers of a transmit queue, as offsets from [`tx_base`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxQueueRegs(pub(crate) u16);

impl TxQueueRegs {
    const fn at(self, name: &'static str, offset: u32) -> Reg {
        Reg::new(name, tx_base(self.0) + offset)
    }
    pub(crate) const fn tdbal(self) -> Reg {
        self.at("TDBAL", 0x00)
    }
    pub(crate) const fn tdbah(self) -> Reg {
        self.at("TDBAH", 0x04)
    }
    pub(crate) const fn tdlen(self) -> Reg {
        self.at("TDLEN", 0x08)
    }
    pub(crate) const fn tdh(self) -> Reg {
        self.at("TDH", 0x10)
    }
    pub(crate) const fn tdt(self) -> Reg {
        self.at("TDT", 0x18)
    }
    pub(crate) const fn txdctl(self) -> Reg {
        self.at("TXDCTL", 0x28)
    }
    pub(crate) const fn tdwbal(self) -> Reg {
        self.at("TDWBAL", 0x38)
    }
    pub(crate) const fn tdwbah(self) -> Reg {
        self.at("TDWBAH", 0x3c)
    }
}

/// Bits of [`CTRL`].
pub(crate) mod ctrl {
    pub(crate) const FD: u32 = 1 << 0;
    pub(crate) const GIO_MASTER_DISABLE: u32 = 1 << 2;
    /// Set link up: the MAC goes by what the PHY tells.
    pub(crate) const SLU: u32 = 1 << 6;
    pub(crate) const ILOS: u32 = 1 << 7;
    pub(crate) const FRCSPD: u32 = 1 << 11;
    pub(crate) const FRCDPLX: u32 = 1 << 12;
    pub(crate) const RST: u32 = 1 << 26;
    pub(crate) const RFCE: u32 = 1 << 27;
    pub(crate) const TFCE: u32 = 1 << 28;
    /// VLAN tags are stripped (and may be inserted).
    pub(crate) const VME: u32 = 1 << 30;
}

/// Bits of [`STATUS`].
pub(crate) mod status {
    pub(crate) const LU: u32 = 1 << 1;
    /// Which function of the controller this is.
    pub(crate) const LAN_ID_SHIFT: u32 = 2;
    pub(crate) const SPEED_SHIFT: u32 = 6;
    pub(crate) const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

/// Bits of [`SWSM`].
pub(crate) mod swsm {
    /// Among drivers; reading sets it, and tells what it was before.
    pub(crate) const SMBI: u32 = 1 << 0;
    /// With the firmware; stays set only if the firmware has not got it.
    pub(crate) const SWESMBI: u32 = 1 << 1;
}

/// Bits of [`SW_FW_SYNC`].
pub(crate) mod sw_fw_sync {
    /// The PHY of each function.
    pub(crate) const PHY: [u32; 4] = [1 << 1, 1 << 2, 1 << 5, 1 << 6];
    /// From a bit of software's to the firmware's.
    pub(crate) const FIRMWARE_SHIFT: u32 = 16;
}

/// Bits of [`EXTCNF_CTRL`].
pub(crate) mod extcnf {
    pub(crate) const MDIO_SW_OWNERSHIP: u32 = 1 << 5;
}

/// Bits of [`EECD`].
pub(crate) mod eecd {
    pub(crate) const AUTO_RD: u32 = 1 << 9;
}

/// Bits of [`CTRL_EXT`].
pub(crate) mod ctrl_ext {
    pub(crate) const DRV_LOAD: u32 = 1 << 28;
}

/// Bits of [`ICR`] and [`IMS`].
pub(crate) mod icr {
    /// Link status change.
    pub(crate) const LSC: u32 = 1 << 2;
}

/// Bits of [`RCTL`].
pub(crate) mod rctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const UPE: u32 = 1 << 3;
    pub(crate) const MPE: u32 = 1 << 4;
    pub(crate) const LPE: u32 = 1 << 5;
    pub(crate) const BAM: u32 = 1 << 15;
    pub(crate) const VFE: u32 = 1 << 18;
    pub(crate) const SECRC: u32 = 1 << 26;
}

/// Bits of [`TCTL`].
pub(crate) mod tctl {
    pub(crate) const EN: u32 = 1 << 1;
    /// Short frames are padded.
    pub(crate) const PSP: u32 = 1 << 3;
    /// Collision threshold, the value that §8.12.1 recommends.
    pub(crate) const CT: u32 = 0x0f << 4;
    /// Collision distance for full duplex.
    pub(crate) const COLD: u32 = 0x3f << 12;
    pub(crate) const RTLC: u32 = 1 << 24;
}

/// Bits of [`RXCSUM`].
pub(crate) mod rxcsum {
    pub(crate) const IPOFL: u32 = 1 << 8;
    pub(crate) const TUOFL: u32 = 1 << 9;
    /// The descriptor holds the hash instead of the packet checksum.
    pub(crate) const PCSD: u32 = 1 << 13;
}

/// Bits of [`RAH`].
pub(crate) mod rah {
    pub(crate) const AV: u32 = 1 << 31;
}

/// Bits of [`MRQC`] that both families have.
pub(crate) mod mrqc {
    pub(crate) const TCP_IPV4: u32 = 1 << 16;
    pub(crate) const IPV4: u32 = 1 << 17;
    pub(crate) const TCP_IPV6_EX: u32 = 1 << 18;
    pub(crate) const IPV6: u32 = 1 << 20;
    pub(crate) const TCP_IPV6: u32 = 1 << 21;
}

/// The statistics registers of §8.18, cleared by reading. Counters of octets are pairs.
pub(crate) const STATISTICS: &[Statistic] = &[
    Statistic::one("CRCERRS", 0x4000),
    Statistic::one("ALGNERRC", 0x4004),
    Statistic::one("RXERRC", 0x400c),
    Statistic::one("MPC", 0x4010),
    Statistic::one("SCC", 0x4014),
    Statistic::one("ECOL", 0x4018),
    Statistic::one("MCC", 0x401c),
    Statistic::one("LATECOL", 0x4020),
    Statistic::one("COLC", 0x4028),
    Statistic::one("DC", 0x4030),
    Statistic::one("TNCRS", 0x4034),
    Statistic::one("RLEC", 0x4040),
    Statistic::one("XONRXC", 0x4048),
    Statistic::one("XONTXC", 0x404c),
    Statistic::one("XOFFRXC", 0x4050),
    Statistic::one("XOFFTXC", 0x4054),
    Statistic::one("FCRUC", 0x4058),
    Statistic::one("PRC64", 0x405c),
    Statistic::one("PRC127", 0x4060),
    Statistic::one("PRC255", 0x4064),
    Statistic::one("PRC511", 0x4068),
    Statistic::one("PRC1023", 0x406c),
    Statistic::one("PRC1522", 0x4070),
    Statistic::one("GPRC", 0x4074),
    Statistic::one("BPRC", 0x4078),
    Statistic::one("MPRC", 0x407c),
    Statistic::one("GPTC", 0x4080),
    Statistic::pair("GORC", 0x4088),
    Statistic::pair("GOTC", 0x4090),
    Statistic::one("RNBC", 0x40a0),
    Statistic::one("RUC", 0x40a4),
    Statistic::one("RFC", 0x40a8),
    Statistic::one("ROC", 0x40ac),
    Statistic::one("RJC", 0x40b0),
    Statistic::pair("TOR", 0x40c0),
    Statistic::pair("TOT", 0x40c8),
    Statistic::one("TPR", 0x40d0),
    Statistic::one("TPT", 0x40d4),
    Statistic::one("PTC64", 0x40d8),
    Statistic::one("PTC127", 0x40dc),
    Statistic::one("PTC255", 0x40e0),
    Statistic::one("PTC511", 0x40e4),
    Statistic::one("PTC1023", 0x40e8),
    Statistic::one("PTC1522", 0x40ec),
    Statistic::one("MPTC", 0x40f0),
    Statistic::one("BPTC", 0x40f4),
    Statistic::one("TSCTC", 0x40f8),
    Statistic::one("TSCTFC", 0x40fc),
    Statistic::one("IAC", 0x4100),
];

/// One statistics register, or a pair of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistic {
    pub(crate) name: &'static str,
    pub(crate) low: u32,
    /// The high half, 4 bytes up; reading it clears both.
    pub(crate) pair: bool,
    /// Counts on from what it was, instead of starting anew at each reading.
    pub(crate) running: bool,
}

impl Statistic {
    pub(crate) const fn one(name: &'static str, at: u32) -> Statistic {
        Statistic { name, low: at, pair: false, running: false }
    }

    pub(crate) const fn pair(name: &'static str, at: u32) -> Statistic {
        Statistic { name, low: at, pair: true, running: false }
    }

    pub(crate) const fn running(name: &'static str, at: u32) -> Statistic {
        Statistic { name, low: at, pair: false, running: true }
    }
}
