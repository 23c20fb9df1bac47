//! Advanced descriptors: igb's (82576 data sheet §7.1.4 and §7.2.2), and ixgbe's but for details.
//!
//! ```text
//!   receive, given to the device        written back
//!   ┌──────────────────────────────┐    ┌──────────┬────────┬────────────────────────┐
//!   │ packet buffer address        │    │ RSS hash │ …      │ packet type │ RSS type │
//!   ├──────────────────────────────┤    ├──────────┼────────┼────────────────────────┤
//!   │ header buffer address = 0    │    │ VLAN tag │ length │ extended error, status │
//!   └──────────────────────────────┘    └──────────┴────────┴────────────────────────┘
//!   transmit data                       transmit context
//!   ┌──────────────────────────────┐    ┌──────────────┬──────────────────────────────┐
//!   │ buffer address               │    │ 0            │ VLAN tag, MACLEN, IPLEN      │
//!   ├───────────────┬──────────────┤    ├──────────────┼──────────────────────────────┤
//!   │ PAYLEN, POPTS │ DCMD, length │    │ MSS, L4LEN   │ TUCMD                        │
//!   └───────────────┴──────────────┘    └──────────────┴──────────────────────────────┘
//! ```

use super::format::{Format, Offload};

/// Bits of the low half of a descriptor's second word (§7.2.2.3, §7.2.2.2.7).
const DTYP_CONTEXT: u32 = 0x2 << 20;
const DTYP_DATA: u32 = 0x3 << 20;
const IFCS: u32 = 1 << 25;
const DEXT: u32 = 1 << 29;
const VLE: u32 = 1 << 30;
const TSE: u32 = 1 << 31;

/// Bits of the high half (§7.2.2.3.11).
const IXSM: u32 = 1 << 8;
const TXSM: u32 = 1 << 9;
const PAYLEN_SHIFT: u32 = 14;
const IDX_SHIFT: u32 = 4;

/// TUCMD of a context (§7.2.2.2.6).
const TUCMD_IPV4: u32 = 1 << 10;
const TUCMD_TCP: u32 = 1 << 11;

/// The format of igb.
#[derive(Debug)]
pub(crate) struct Advanced;

impl Format for Advanced {
    /// The length is told twice: of the buffer and, in PAYLEN, of the frame.
    const PLAIN_BYTE: u64 = 1 << (32 + PAYLEN_SHIFT) | 1;

    fn rx_free(iova: u64) -> [u64; 2] {
        [iova, 0]
    }

    fn context(offload: &Offload, index: u8) -> Option<[u64; 2]> {
        if !offload.checksum && offload.vlan.is_none() {
            return None;
        }
        let vlan = u32::from(offload.vlan.unwrap_or(0));
        let lens = vlan << 16 | u32::from(offload.mac_len) << 9 | u32::from(offload.ip_len);
        let mut tucmd = DEXT | DTYP_CONTEXT;
        if offload.ipv4 {
            tucmd |= TUCMD_IPV4;
        }
        if offload.tcp {
            tucmd |= TUCMD_TCP;
        }
        let tso = u32::from(offload.mss) << 16 | u32::from(offload.l4_len) << 8;
        let mss_l4len_idx = tso | u32::from(index) << IDX_SHIFT;
        Some([u64::from(lens), u64::from(mss_l4len_idx) << 32 | u64::from(tucmd)])
    }

    fn spares_context(_offload: &Offload) -> bool {
        true
    }

    fn template(offload: &Offload, len: u32, index: u8) -> u64 {
        let mut command = DEXT | DTYP_DATA | IFCS;
        let mut options = u32::from(index) << IDX_SHIFT;
        let mut payload = len;
        if offload.checksum {
            options |= TXSM;
        }
        if offload.vlan.is_some() {
            command |= VLE;
        }
        if offload.mss > 0 {
            command |= TSE;
            // §7.2.2.3.11: PAYLEN counts what is cut up, without the headers.
            payload = len.saturating_sub(u32::from(offload.header_len));
            if offload.ipv4 {
                options |= IXSM;
            }
        }
        u64::from(payload << PAYLEN_SHIFT | options) << 32 | u64::from(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 and TCP headers of 14, 20 and 32 bytes.
    const TCP: Offload = Offload {
        checksum: true,
        ipv4: true,
        tcp: true,
        mac_len: 14,
        ip_len: 20,
        l4_start: 34,
        checksum_at: 50,
        l4_len: 32,
        header_len: 66,
        mss: 0,
        payload_len: 0,
        vlan: None,
    };

    #[test]
    fn a_checksum_context_says_where_the_headers_are() {
        let [lens, command] = Advanced::context(&TCP, 0).unwrap();
        assert_eq!(lens, 14 << 9 | 20);
        assert_eq!(command as u32, 0x2000_0000 | 0x0020_0000 | 0x400 | 0x800);
        assert_eq!(command >> 32, 32 << 8);
        let data = Advanced::template(&TCP, 1514, 0);
        assert_eq!(data as u32, 0x2000_0000 | 0x0030_0000 | 0x0200_0000);
        assert_eq!(data >> 32, 1514 << 14 | 0x200);
    }

    #[test]
    fn segmentation_counts_the_payload_alone() {
        let tso = Offload { mss: 1448, vlan: Some(0x2005), ..TCP };
        let [lens, command] = Advanced::context(&tso, 3).unwrap();
        assert_eq!(lens >> 16, 0x2005);
        assert_eq!(command >> 32, 1448 << 16 | 32 << 8 | 3 << 4);
        let data = Advanced::template(&tso, 66 + 10_000, 3);
        assert_eq!(data as u32 & 0xc000_0000, 0xc000_0000, "TSE and VLE");
        assert_eq!(data >> 32, 10_000 << 14 | 0x300 | 3 << 4);
    }

    #[test]
    fn a_plain_frame_needs_no_context() {
        let plain = Offload::default();
        assert_eq!(Advanced::context(&plain, 0), None);
        assert_eq!(Advanced::template(&plain, 60, 0) >> 32, 60 << 14);
    }
}
