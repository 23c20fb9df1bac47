//! The headers of small messages and bare segments of a connection, or of datagrams of a socket to one
//! place, kept from one to the next.
//!
//! ```text
//!   kept     ┄┄┄│ Ethernet │ IPv4 ·· length, sum │ TCP ·· seq, ack, flags, window, sum, timestamps │
//!   written                     ▲                      ▲     what changes, and its part of the sums
//! ```
//!
//! Most of 66 bytes is the same in all segments of a connection. Copying them and writing what
//! changes, with sums that begin with those of the rest, takes a third of the time of making them.

use std::net::Ipv4Addr;

use barewire_driver::device::TxChecksum;
use barewire_driver::mem::{CELL_LEN, Checksum};
use barewire_driver::{MacAddr, TxFrame};

use super::ethernet::{self, EthernetHeader, ethertype};
use super::ipv4::Ecn;
use super::plain::PlainIpv4;
use super::tcp::{self, PADDED_TIMESTAMPS_LEN, PlainTcp, SYN_LEN, TcpHeader};
use super::udp::{self, UdpHeader};
use super::{protocol, put_u16, put_u32};

/// Addresses of an IPv4 header, and ports behind them.
const ADDRESSES_LEN: usize = 8;
const PORTS_LEN: usize = 4;

/// Where the message lies in its cell: behind room for all headers.
pub(crate) const SMALL_AT: usize = 72;

/// Bytes of the frame of a SYN with the usual options.
pub(crate) const SYN_FRAME_LEN: usize = ethernet::LEN + PlainIpv4::LEN + SYN_LEN;

/// A whole cell.
pub(crate) type SmallCell = [u8; CELL_LEN];

/// What kept headers were made of, besides the connection: whoever keeps them compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrontKey {
    routing: u32,
    neighbors: u32,
    iface: u16,
    ttl: u8,
    tos: u8,
}

impl FrontKey {
    pub(crate) fn new(state: WayState, ttl: u8, tos: u8) -> FrontKey {
        let WayState { routing, neighbors, iface } = state;
        FrontKey { routing, neighbors, iface, ttl, tos }
    }

    /// What the way was like.
    #[inline(always)]
    pub(crate) fn state(&self) -> WayState {
        let &FrontKey { routing, neighbors, iface, .. } = self;
        WayState { routing, neighbors, iface }
    }
}

/// Where headers lead is not asked again until this is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WayState {
    /// How often routing had changed,
    pub(crate) routing: u32,
    /// and what is known of the interface's neighbours.
    pub(crate) neighbors: u32,
    pub(crate) iface: u16,
}

/// What the headers of datagrams to one place have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    pub(crate) src_mac: MacAddr,
    pub(crate) dst_mac: MacAddr,
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
}

/// Kept headers.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    key: Option<FrontKey>,
    stamped: bool,
    /// Sums of what stays the same: of the IPv4 header, of TCP's pseudo-header, and of that and
    /// TCP's header.
    ip_sum: u16,
    pseudo_sum: u16,
    tcp_sum: u16,
    /// As they lie in a cell, their end at its end.
    bytes: [u8; SMALL_AT],
}

impl Default for Front {
    fn default() -> Front {
        let (ip_sum, pseudo_sum, tcp_sum) = (0, 0, 0);
        Front { key: None, stamped: false, ip_sum, pseudo_sum, tcp_sum, bytes: [0; SMALL_AT] }
    }
}

impl Front {
    /// True if the headers are kept that were made for `key`.
    #[inline(always)]
    fn is_for(&self, key: &FrontKey) -> bool {
        self.key.as_ref() == Some(key)
    }

    /// True if headers are kept for what leaves through this interface, and nothing about its way has
    /// changed. Who changes TTL or TOS has them [forgotten](Front::forget).
    #[inline(always)]
    pub(crate) fn is_current(&self, state: &WayState) -> bool {
        self.key.as_ref().is_some_and(|key| key.state() == *state)
    }

    /// None are kept.
    pub(crate) fn forget(&mut self) {
        self.key = None;
    }

    /// Makes the headers of a connection between these ends, which goes the way of the pattern.
    #[inline(always)]
    pub(crate) fn make(
        &mut self,
        pattern: &Pattern,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        (src_port, dst_port): (u16, u16),
    ) {
        self.clone_from(&pattern.front);
        let ends = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
        let ports = u32::from(src_port) << 16 | u32::from(dst_port);
        // Addresses and ports lie side by side.
        let at = tcp_at(self.stamped) - ADDRESSES_LEN;
        if let Some(out) = self.bytes.get_mut(at..at + ADDRESSES_LEN + PORTS_LEN) {
            out[..ADDRESSES_LEN].copy_from_slice(&ends.to_be_bytes());
            out[ADDRESSES_LEN..].copy_from_slice(&ports.to_be_bytes());
        }
        let mut addresses = Checksum::new();
        addresses.add_u32((ends >> 32) as u32);
        addresses.add_u32(ends as u32);
        let plus = |sum: u16, ports: u32| {
            let mut all = addresses;
            all.add_u16(sum);
            all.add_u32(ports);
            all.partial()
        };
        self.ip_sum = plus(self.ip_sum, 0);
        self.pseudo_sum = plus(self.pseudo_sum, 0);
        self.tcp_sum = plus(self.tcp_sum, ports);
    }

    /// Bytes of all headers.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        SMALL_AT - tcp_at(self.stamped) + PlainIpv4::LEN + ethernet::LEN
    }

    /// What a device has to know of a frame with these headers.
    #[inline(always)]
    pub(crate) fn describe(&self, offload: bool) -> TxFrame {
        let checksum = if offload { PARTIAL_TCP } else { TxChecksum::Complete };
        TxFrame { checksum, header_len: self.len() as u16, ..TxFrame::default() }
    }

    /// Writes the headers in front of the message of `len` bytes that lies in the cell at
    /// [`SMALL_AT`], with the flags and numbers of `header`. With `offload` the device completes the checksum.
    #[inline(always)]
    pub(crate) fn write(&self, cell: &mut SmallCell, len: usize, header: &PlainTcp, offload: bool) {
        debug_assert_eq!(self.stamped, header.timestamps.is_some());
        if self.stamped {
            self.patch::<{ tcp_at(true) }>(cell, len, header, offload);
        } else {
            self.patch::<{ tcp_at(false) }>(cell, len, header, offload);
        }
    }

    #[inline(always)]
    fn patch<const TCP_AT: usize>(
        &self,
        cell: &mut SmallCell,
        len: usize,
        header: &PlainTcp,
        offload: bool,
    ) {
        let (front, message) = cell.split_at_mut(SMALL_AT);
        let front: &mut [u8; SMALL_AT] = front.try_into().expect("a cell is longer");
        *front = self.bytes;
        let tcp_len = (SMALL_AT - TCP_AT + len) as u16;
        let total_len = tcp_len + PlainIpv4::LEN as u16;
        let mut ip_sum = Checksum::new();
        ip_sum.add_u16(self.ip_sum);
        ip_sum.add_u16(total_len);
        put_u16(front, TCP_AT - PlainIpv4::LEN + IP_TOTAL_LEN, total_len);
        put_u16(front, TCP_AT - PlainIpv4::LEN + IP_CHECKSUM, ip_sum.finish());
        put_u32(front, TCP_AT + tcp::field::SEQ, header.seq);
        put_u32(front, TCP_AT + tcp::field::ACK, header.ack);
        let marks = u32::from(header.flags.bits()) << 16 | u32::from(header.window);
        let header_len = (SMALL_AT - TCP_AT) as u32;
        put_u32(front, TCP_AT + tcp::field::DATA_OFFSET, header_len << 26 | marks);
        let mut sum = Checksum::new();
        sum.add_u16(tcp_len);
        sum.add_u32(header.seq);
        sum.add_u32(header.ack);
        sum.add_u32(marks);
        if let Some(clock) = header.timestamps
            && TCP_AT == tcp_at(true)
        {
            put_u32(front, TCP_AT + tcp::LEN + 4, clock.val);
            put_u32(front, TCP_AT + tcp::LEN + 8, clock.ecr);
            sum.add_u32(clock.val);
            sum.add_u32(clock.ecr);
        }
        let field = TCP_AT + tcp::CHECKSUM_OFFSET;
        if offload {
            let mut pseudo = Checksum::new();
            pseudo.add_u16(self.pseudo_sum);
            pseudo.add_u16(tcp_len);
            put_u16(front, field, pseudo.partial());
        } else {
            sum.add_u16(self.tcp_sum);
            // Asked where it is known: an empty sum is a call as well.
            if len > 0 {
                sum.add(&message[..len]);
            }
            put_u16(front, field, sum.finish());
        }
    }
}

/// The headers that all connections keep whose next hop is the same: without addresses and ports.
#[derive(Debug)]
pub(crate) struct Pattern {
    next_hop: Ipv4Addr,
    front: Front,
}

impl Default for Pattern {
    fn default() -> Pattern {
        Pattern { next_hop: Ipv4Addr::UNSPECIFIED, front: Front::default() }
    }
}

impl Pattern {
    /// True if it was made for these: its headers are right as long as `key` is.
    #[inline(always)]
    pub(crate) fn is_for(&self, key: &FrontKey, next_hop: Ipv4Addr, stamped: bool) -> bool {
        self.next_hop == next_hop && self.front.stamped == stamped && self.front.is_for(key)
    }

    /// A checksum that is left to the device.
    pub(crate) const PARTIAL_SUM: TxChecksum = PARTIAL_TCP;

    /// Writes the frame of a SYN between these ends with the usual options; false, and whatever is
    /// written means nothing, if it has others. The pattern is one with timestamps. With `offload` the
    /// device completes the checksum.
    #[inline(always)]
    pub(crate) fn write_syn(
        &self,
        frame: &mut [u8; SYN_FRAME_LEN],
        (src, dst): (Ipv4Addr, Ipv4Addr),
        ports: (u16, u16),
        header: &TcpHeader,
        offload: bool,
    ) -> bool {
        debug_assert!(self.front.stamped, "the headers lie elsewhere without timestamps");
        const BEGIN: usize = tcp_at(true) - PlainIpv4::LEN - ethernet::LEN;
        let (below, above) = frame.split_at_mut(ethernet::LEN + PlainIpv4::LEN);
        below.copy_from_slice(&self.front.bytes[BEGIN..tcp_at(true)]);
        let ip: &mut [u8; PlainIpv4::LEN] =
            below.last_chunk_mut().expect("the IPv4 header is the last");
        let total_len = (PlainIpv4::LEN + SYN_LEN) as u16;
        let (src, dst) = (src.to_bits(), dst.to_bits());
        let mut addresses = Checksum::new();
        addresses.add_u32(src);
        addresses.add_u32(dst);
        let mut ip_sum = addresses;
        ip_sum.add_u16(self.front.ip_sum);
        ip_sum.add_u16(total_len);
        put_u16(ip, IP_TOTAL_LEN, total_len);
        put_u16(ip, IP_CHECKSUM, ip_sum.finish());
        put_u32(ip, PlainIpv4::LEN - ADDRESSES_LEN, src);
        put_u32(ip, PlainIpv4::LEN - ADDRESSES_LEN / 2, dst);
        let mut pseudo = addresses;
        pseudo.add_u16(self.front.pseudo_sum);
        pseudo.add_u16(SYN_LEN as u16);
        let mut sum = pseudo;
        if header.emit_usual_syn(ports, above, &mut sum).is_none() {
            return false;
        }
        let sum = if offload { pseudo.partial() } else { sum.finish() };
        put_u16(above, tcp::CHECKSUM_OFFSET, sum);
        true
    }

    /// Makes it for `key`, with timestamps if `stamped`, from and to these link addresses.
    #[inline(never)]
    pub(crate) fn make(
        &mut self,
        key: FrontKey,
        next_hop: Ipv4Addr,
        (src_mac, dst_mac): (MacAddr, MacAddr),
        stamped: bool,
    ) {
        let timestamps = stamped.then(Default::default);
        let (flags, nobody) = (tcp::TcpFlags::empty(), Ipv4Addr::UNSPECIFIED);
        let tcp =
            PlainTcp { src_port: 0, dst_port: 0, seq: 0, ack: 0, flags, window: 0, timestamps };
        let tos = Ecn::NotEct.in_tos(key.tos);
        // A packet without anything, so that lengths can be added.
        let protocol = protocol::TCP;
        let ip = PlainIpv4 { src: nobody, dst: nobody, protocol, tos, payload_len: 0 };
        let tcp_at = tcp_at(stamped);
        let ip_at = tcp_at - PlainIpv4::LEN;
        let mut bytes = [0; SMALL_AT];
        let mut sum = Checksum::new();
        tcp.emit_summed(&mut bytes[tcp_at..], &mut sum);
        let packet = &mut bytes[ip_at..];
        ip.emit(key.ttl, true, packet);
        put_u16(packet, IP_TOTAL_LEN, 0);
        put_u16(packet, IP_CHECKSUM, 0);
        let mut ip_sum = Checksum::new();
        ip_sum.add(&packet[..PlainIpv4::LEN]);
        let mut pseudo = Checksum::new();
        ip.add_pseudo_header(&mut pseudo);
        sum.add_u16(pseudo.partial());
        let link = EthernetHeader { dst: dst_mac, src: src_mac, ethertype: ethertype::IPV4 };
        link.emit(&mut bytes[ip_at - ethernet::LEN..]);
        let (ip_sum, pseudo_sum, tcp_sum) = (ip_sum.partial(), pseudo.partial(), sum.partial());
        self.next_hop = next_hop;
        self.front = Front { key: Some(key), stamped, ip_sum, pseudo_sum, tcp_sum, bytes };
    }
}

/// The headers of the small datagrams that a socket has sent last to one place.
#[derive(Clone, Debug)]
pub(crate) struct DatagramFront {
    state: Option<WayState>,
    to: (Ipv4Addr, u16),
    /// Sums of what stays the same: of the IPv4 header, of the pseudo-header, and of that and the
    /// ports.
    ip_sum: u16,
    pseudo_sum: u16,
    udp_sum: u16,
    bytes: [u8; DatagramFront::LEN],
}

impl Default for DatagramFront {
    fn default() -> DatagramFront {
        let (ip_sum, pseudo_sum, udp_sum) = (0, 0, 0);
        let (to, bytes) = ((Ipv4Addr::UNSPECIFIED, 0), [0; DatagramFront::LEN]);
        DatagramFront { state: None, to, ip_sum, pseudo_sum, udp_sum, bytes }
    }
}

impl DatagramFront {
    /// Bytes of all headers.
    pub(crate) const LEN: usize = UDP_AT + udp::LEN;

    /// What the way to this destination was like when the headers were made for it. Who changes what
    /// else they were made of has them [forgotten](DatagramFront::forget).
    #[inline(always)]
    pub(crate) fn made_for(&self, to: (Ipv4Addr, u16)) -> Option<&WayState> {
        self.state.as_ref().filter(|_| self.to == to)
    }

    /// None are kept.
    pub(crate) fn forget(&mut self) {
        self.state = None;
    }

    /// Makes the headers for a way that is like this.
    #[inline(never)]
    pub(crate) fn make(&mut self, state: WayState, common: &Common, dont_fragment: bool) {
        let &Common { src_mac, dst_mac, src, dst, src_port, dst_port, ttl, tos } = common;
        let ip = PlainIpv4 { src, dst, protocol: protocol::UDP, tos, payload_len: 0 };
        let (link, packet) = self.bytes.split_at_mut(ethernet::LEN);
        EthernetHeader { dst: dst_mac, src: src_mac, ethertype: ethertype::IPV4 }.emit(link);
        ip.emit(ttl, dont_fragment, packet);
        put_u16(packet, IP_TOTAL_LEN, 0);
        put_u16(packet, IP_CHECKSUM, 0);
        UdpHeader { src_port, dst_port, len: 0, checksum: 0 }.emit(&mut packet[PlainIpv4::LEN..]);
        let (mut ip_sum, mut pseudo) = (Checksum::new(), Checksum::new());
        ip_sum.add(&packet[..PlainIpv4::LEN]);
        ip.add_pseudo_header(&mut pseudo);
        let mut sum = pseudo;
        sum.add(&packet[PlainIpv4::LEN..]);
        (self.ip_sum, self.pseudo_sum) = (ip_sum.partial(), pseudo.partial());
        (self.udp_sum, self.state) = (sum.partial(), Some(state));
        self.to = (dst, dst_port);
    }

    /// Writes the headers to the front of a frame, behind which its payload lies already. With
    /// `offload` the device completes the checksum.
    ///
    /// # Panics
    /// If the frame is shorter than the headers.
    #[inline(always)]
    pub(crate) fn write(&self, frame: &mut [u8], offload: bool) {
        let (front, payload) =
            frame.split_first_chunk_mut::<{ DatagramFront::LEN }>().expect("room for the headers");
        *front = self.bytes;
        let udp_len = (udp::LEN + payload.len()) as u16;
        let total_len = udp_len + PlainIpv4::LEN as u16;
        let mut ip_sum = Checksum::new();
        ip_sum.add_u16(self.ip_sum);
        ip_sum.add_u16(total_len);
        put_u16(front, ethernet::LEN + IP_TOTAL_LEN, total_len);
        put_u16(front, ethernet::LEN + IP_CHECKSUM, ip_sum.finish());
        put_u16(front, UDP_AT + 4, udp_len);
        // In the pseudo-header, and in the header.
        let mut sum = Checksum::new();
        sum.add_u16(udp_len);
        let checksum = if offload {
            sum.add_u16(self.pseudo_sum);
            sum.partial()
        } else {
            sum.add_u16(udp_len);
            sum.add_u16(self.udp_sum);
            sum.add(payload);
            UdpHeader::checksum_of(&sum)
        };
        put_u16(front, UDP_AT + udp::CHECKSUM_OFFSET, checksum);
    }
}

/// Where UDP's header begins in a frame.
const UDP_AT: usize = ethernet::LEN + PlainIpv4::LEN;

/// Fields of the IPv4 header.
const IP_TOTAL_LEN: usize = 2;
const IP_CHECKSUM: usize = 10;

/// A checksum of TCP on Ethernet that is left to the device.
const PARTIAL_TCP: TxChecksum = TxChecksum::Partial {
    start: (ethernet::LEN + PlainIpv4::LEN) as u16,
    offset: tcp::CHECKSUM_OFFSET as u16,
};

/// Where TCP's header begins in a cell.
const fn tcp_at(stamped: bool) -> usize {
    SMALL_AT - tcp::LEN - if stamped { PADDED_TIMESTAMPS_LEN } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::{TcpFlags, TcpOptions, Timestamps};
    use proptest::prelude::*;

    proptest! {
        /// Kept headers are those that are made anew.
        #[test]
        fn what_is_kept_and_changed_is_what_would_be_written(
            (src, dst, src_port, dst_port) in any::<(u32, u32, u16, u16)>(),
            (ttl, tos, seq, ack, window) in any::<(u8, u8, u32, u32, u16)>(),
            flags in any::<u8>(),
            clock in proptest::option::of(any::<(u32, u32)>()),
            message in proptest::collection::vec(any::<u8>(), 0..=CELL_LEN - SMALL_AT),
            offload: bool,
        ) {
            let timestamps = clock.map(|(val, ecr)| Timestamps { val, ecr });
            let flags = TcpFlags::from_bits_retain(flags);
            let header = PlainTcp { src_port, dst_port, seq, ack, flags, window, timestamps };
            let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
            let (src_mac, dst_mac) = (MacAddr::local(1), MacAddr::local(2));
            let stamped = timestamps.is_some();
            let state = WayState { routing: 1, neighbors: 2, iface: 3 };
            let key = FrontKey::new(state, ttl, tos);
            let changed = WayState { neighbors: 3, ..state };
            let other = FrontKey::new(changed, ttl, tos);
            let mut pattern = Pattern::default();
            prop_assert!(!pattern.is_for(&key, dst, stamped));
            pattern.make(key, dst, (src_mac, dst_mac), stamped);
            prop_assert!(pattern.is_for(&key, dst, stamped));
            prop_assert!(!pattern.is_for(&key, dst, !stamped));
            prop_assert!(!pattern.is_for(&key, (!dst.to_bits()).into(), stamped));
            prop_assert!(!pattern.is_for(&other, dst, stamped));
            let mut front = Front::default();
            prop_assert!(!front.is_current(&state));
            front.make(&pattern, (src, dst), (src_port, dst_port));
            prop_assert!(front.is_current(&state));
            prop_assert!(!front.is_current(&changed));

            let mut cell = [0xaa; CELL_LEN];
            cell[SMALL_AT..SMALL_AT + message.len()].copy_from_slice(&message);
            front.write(&mut cell, message.len(), &header, offload);
            let written = &cell[SMALL_AT - front.len()..SMALL_AT + message.len()];

            let mut anew = vec![0; front.len()];
            let link = EthernetHeader { dst: dst_mac, src: src_mac, ethertype: ethertype::IPV4 };
            link.emit(&mut anew);
            let at = ethernet::LEN + PlainIpv4::LEN;
            let mut sum = Checksum::new();
            let tcp_len = header.emit_summed(&mut anew[at..], &mut sum);
            let payload_len = tcp_len + message.len();
            let tos = Ecn::NotEct.in_tos(tos);
            let ip = PlainIpv4 { src, dst, protocol: protocol::TCP, tos, payload_len };
            ip.emit(ttl, true, &mut anew[ethernet::LEN..]);
            let mut pseudo = Checksum::new();
            ip.add_pseudo_header(&mut pseudo);
            sum.add_u16(pseudo.partial());
            sum.add(&message);
            let sum = if offload { pseudo.partial() } else { sum.finish() };
            put_u16(&mut anew, at + tcp::CHECKSUM_OFFSET, sum);
            anew.extend(&message);
            prop_assert_eq!(written, &anew[..]);
        }

        #[test]
        fn a_syn_by_the_pattern_is_the_one_that_would_be_written(
            (src, dst, src_port, dst_port) in any::<(u32, u32, u16, u16)>(),
            (ttl, tos, seq, ack, window) in any::<(u8, u8, u32, u32, u16)>(),
            (mss, shift, val, ecr) in any::<(u16, u8, u32, u32)>(),
            (acks, echoes, sack_permitted, offload) in any::<(bool, bool, bool, bool)>(),
        ) {
            let mut flags = TcpFlags::SYN;
            flags.set(TcpFlags::ACK, acks);
            flags.set(TcpFlags::ECE, echoes);
            let options = TcpOptions {
                timestamps: Some(Timestamps { val, ecr }),
                mss: Some(mss),
                window_scale: Some(shift),
                sack_permitted,
                ..TcpOptions::default()
            };
            let header =
                TcpHeader { src_port, dst_port, seq, ack, flags, window, urgent: 0, options };
            let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
            let (src_mac, dst_mac) = (MacAddr::local(1), MacAddr::local(2));
            let mut pattern = Pattern::default();
            let key = FrontKey { routing: 1, neighbors: 2, iface: 3, ttl, tos };
            pattern.make(key, dst, (src_mac, dst_mac), true);
            let mut frame = [0xaa; SYN_FRAME_LEN];
            let ports = (src_port, dst_port);
            let written = pattern.write_syn(&mut frame, (src, dst), ports, &header, offload);
            prop_assert_eq!((written, header.is_usual_syn()), (sack_permitted, sack_permitted));
            prop_assume!(written);

            let mut anew = [0; SYN_FRAME_LEN];
            let link = EthernetHeader { dst: dst_mac, src: src_mac, ethertype: ethertype::IPV4 };
            link.emit(&mut anew);
            let at = ethernet::LEN + PlainIpv4::LEN;
            let payload_len = header.emit(&mut anew[at..]);
            let tos = Ecn::NotEct.in_tos(tos);
            let ip = PlainIpv4 { src, dst, protocol: protocol::TCP, tos, payload_len };
            ip.emit(ttl, true, &mut anew[ethernet::LEN..]);
            let mut sum = Checksum::new();
            ip.add_pseudo_header(&mut sum);
            let pseudo = sum.partial();
            sum.add(&anew[at..]);
            let sum = if offload { pseudo } else { sum.finish() };
            put_u16(&mut anew, at + tcp::CHECKSUM_OFFSET, sum);
            prop_assert_eq!(frame, anew);
        }

        #[test]
        fn a_datagrams_kept_headers_are_those_that_would_be_written(
            (src, dst, src_port, dst_port) in any::<(u32, u32, u16, u16)>(),
            (ttl, tos, dont_fragment) in any::<(u8, u8, bool)>(),
            payload in proptest::collection::vec(any::<u8>(), 0..=128),
            offload: bool,
        ) {
            let (src, dst) = (src.into(), dst.into());
            let (src_mac, dst_mac) = (MacAddr::local(1), MacAddr::local(2));
            let common = Common { src_mac, dst_mac, src, dst, src_port, dst_port, ttl, tos };
            let state = WayState { routing: 1, neighbors: 2, iface: 3 };
            let mut front = DatagramFront::default();
            prop_assert_eq!(front.made_for((dst, dst_port)), None);
            front.make(state, &common, dont_fragment);
            prop_assert_eq!(front.made_for((dst, dst_port)), Some(&state));
            prop_assert_eq!(front.made_for((dst, !dst_port)), None);
            let mut frame = vec![0xaa; DatagramFront::LEN];
            frame.extend(&payload);
            front.write(&mut frame, offload);

            let len = udp::LEN + payload.len();
            let ip = PlainIpv4 { src, dst, protocol: protocol::UDP, tos, payload_len: len };
            let mut anew = vec![0; DatagramFront::LEN];
            let link = EthernetHeader { dst: dst_mac, src: src_mac, ethertype: ethertype::IPV4 };
            link.emit(&mut anew);
            ip.emit(ttl, dont_fragment, &mut anew[ethernet::LEN..]);
            let mut sum = Checksum::new();
            ip.add_pseudo_header(&mut sum);
            let mut header = UdpHeader { src_port, dst_port, len: len as u16, checksum: 0 };
            header.checksum = if offload {
                sum.partial()
            } else {
                header.emit(&mut anew[UDP_AT..]);
                sum.add(&anew[UDP_AT..]);
                sum.add(&payload);
                UdpHeader::checksum_of(&sum)
            };
            header.emit(&mut anew[UDP_AT..]);
            anew.extend(&payload);
            prop_assert_eq!(frame, anew);
        }
    }
}
