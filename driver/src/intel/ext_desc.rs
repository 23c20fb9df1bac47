//! Extended descriptors: e1000e's (82574 data sheet §7.1.4 and §7.2).
//!
//! The receive write-back has its fields where the advanced one has them. A transmit context names
//! offsets into the frame instead of header lengths, and holds the payload's length, so that every
//! large segment needs a context of its own:
//!
//! ```text
//!   transmit data                              transmit context
//!   ┌────────────────────────────────────┐     ┌────────────────────┬───────────────────────┐
//!   │ buffer address                     │     │ TUCSE TUCSO TUCSS  │ IPCSE IPCSO IPCSS     │
//!   ├──────────────────┬─────────────────┤     ├────────────────────┼───────────────────────┤
//!   │ VLAN, POPTS, STA │ DCMD, length    │     │ MSS, HDRLEN, STA   │ TUCMD, PAYLEN         │
//!   └──────────────────┴─────────────────┘     └────────────────────┴───────────────────────┘
//! ```

use super::format::{Format, Offload};

/// Bits of the low half of a descriptor's second word (§7.2.6, §7.2.7).
const DTYP_DATA: u32 = 1 << 20;
const IFCS: u32 = 1 << 25;
const TSE: u32 = 1 << 26;
const DEXT: u32 = 1 << 29;
const VLE: u32 = 1 << 30;

/// TUCMD of a context (§7.2.6.1).
const TUCMD_TCP: u32 = 1 << 24;
const TUCMD_IPV4: u32 = 1 << 25;

/// Bits of the high half (§7.2.7.3).
const IXSM: u32 = 1 << 8;
const TXSM: u32 = 1 << 9;

/// Offset of the checksum in an IPv4 header (RFC 791 §3.1).
const IPV4_CHECKSUM: u8 = 10;

/// The format of e1000e.
#[derive(Debug)]
pub(crate) struct Extended;

impl Format for Extended {
    const PLAIN_BYTE: u64 = 1;

    fn rx_free(iova: u64) -> [u64; 2] {
        [iova, 0]
    }

    fn context(offload: &Offload, _index: u8) -> Option<[u64; 2]> {
        if !offload.checksum {
            return None;
        }
        let ip_start = offload.mac_len;
        // §7.2.6.1: an end of 0 means the frame's end; the IPv4 header ends before the transport's.
        let (ip_checksum, ip_end) = match offload.ipv4 {
            true => (ip_start + IPV4_CHECKSUM, offload.l4_start - 1),
            false => (0, 0),
        };
        let ip = u64::from(ip_start) | u64::from(ip_checksum) << 8 | u64::from(ip_end) << 16;
        let l4 = u64::from(offload.l4_start as u8) | u64::from(offload.checksum_at as u8) << 8;
        let mut command = DEXT;
        if offload.tcp {
            command |= TUCMD_TCP;
        }
        if offload.ipv4 {
            command |= TUCMD_IPV4;
        }
        let mut segmentation = 0;
        if offload.mss > 0 {
            command |= TSE | offload.payload_len & 0xf_ffff;
            segmentation = u64::from(offload.mss) << 16 | u64::from(offload.header_len as u8) << 8;
        }
        Some([l4 << 32 | ip, segmentation << 32 | u64::from(command)])
    }

    /// §7.2.6: the device counts the payload of a large segment down in it.
    fn spares_context(offload: &Offload) -> bool {
        offload.mss == 0
    }

    fn template(offload: &Offload, _len: u32, _index: u8) -> u64 {
        let mut command = DEXT | DTYP_DATA | IFCS;
        let mut options = 0;
        if offload.checksum {
            options |= TXSM;
        }
        if offload.mss > 0 {
            command |= TSE;
            if offload.ipv4 {
                options |= IXSM;
            }
        }
        if let Some(vlan) = offload.vlan {
            command |= VLE;
            options |= u32::from(vlan) << 16;
        }
        u64::from(options) << 32 | u64::from(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: Offload = Offload {
        checksum: true,
        ipv4: true,
        tcp: false,
        mac_len: 14,
        ip_len: 20,
        l4_start: 34,
        checksum_at: 40,
        l4_len: 0,
        header_len: 0,
        mss: 0,
        payload_len: 0,
        vlan: None,
    };

    #[test]
    fn a_context_names_offsets() {
        let [offsets, command] = Extended::context(&UDP, 0).unwrap();
        assert_eq!(offsets, 40 << 40 | 34 << 32 | 33 << 16 | 24 << 8 | 14);
        assert_eq!(command, 1 << 29 | 1 << 25);
        let data = Extended::template(&UDP, 60, 0);
        assert_eq!((data as u32, data >> 32), (1 << 29 | 1 << 25 | 1 << 20, 0x200));
    }

    #[test]
    fn segmentation_needs_the_length_in_its_context() {
        let tso = Offload {
            tcp: true,
            checksum_at: 50,
            l4_len: 32,
            header_len: 66,
            mss: 1448,
            payload_len: 10_000,
            ..UDP
        };
        let [offsets, command] = Extended::context(&tso, 0).unwrap();
        assert_eq!(offsets >> 40, 50);
        assert_eq!(command as u32, 1 << 29 | 1 << 26 | 1 << 25 | 1 << 24 | 10_000);
        assert_eq!(command >> 32, 1448 << 16 | 66 << 8);
        let data = Extended::template(&tso, 10_066, 0);
        assert_eq!((data as u32 >> 26 & 1, data >> 32), (1, 0x300));
    }

    #[test]
    fn a_vlan_tag_lies_in_the_data_descriptor() {
        let tagged = Offload { vlan: Some(5), ..Offload::default() };
        assert_eq!(Extended::context(&tagged, 0), None);
        let data = Extended::template(&tagged, 60, 0);
        assert_eq!((data >> 48, data as u32 >> 30 & 1), (5, 1));
    }
}
