//! What software cuts into segments leaves with right checksums and in no more frames than a burst
//! has room for, whatever has become of the segments' size since the data was written.

use std::net::SocketAddr;

use barewire_driver::device::{BURST_FRAMES, RxBurst, RxFrame};
use barewire_driver::mem::Checksum;
use barewire_driver::{MacAddr, Pool, PoolConfig};
use barewire_stack::{
    Family, IfaceId, Instant, InterfaceConfig, SocketId, SocketKind, SocketOption, Stack,
    StackConfig,
};

/// Where a frame's addresses and TCP header begin, and how long one without options or payload is.
const ADDRESSES: usize = 26;
const TCP: usize = 34;
const HEADERS: usize = 54;

/// Payload of a segment of 1,500 bytes, and what timestamps take of the MSS.
const MSS: usize = 1448;
const TIMESTAMPS: u16 = 12;

fn addr(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

struct Host {
    stack: Stack,
    iface: IfaceId,
}

impl Host {
    fn new(number: u8) -> Host {
        let pool = PoolConfig { slots: 512, slot_len: 2048, cells: 512, try_huge: false };
        let mut config = StackConfig::new(number.into());
        config.tcp.initial_window_segments = 64;
        let mut stack = Stack::new(config, Pool::new(pool).unwrap());
        let cidr = format!("{}/24", addr(number, 0).ip()).parse().unwrap();
        let mac = MacAddr::local(number.into());
        let iface = stack.add_interface(InterfaceConfig::ethernet(mac, cidr)).unwrap();
        Host { stack, iface }
    }

    /// What leaves in one burst.
    fn burst(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.stack.handle_timeout(now);
        let burst = self.stack.poll_transmit(self.iface);
        let frames = burst.iter().map(|(_, pieces)| pieces.iter().flat_map(|p| p.to_vec()));
        let frames = frames.map(Iterator::collect).collect();
        burst.clear();
        frames
    }

    fn take(&mut self, now: Instant, frames: &[Vec<u8>]) {
        for frame in frames {
            let mut burst = RxBurst::new();
            burst.push_segment(self.stack.pool().copy_from(frame).unwrap().freeze());
            burst.finish_frame(RxFrame::default());
            self.stack.handle_burst(now, self.iface, &mut burst);
        }
    }
}

/// A host with a connection that has sent some data, and has got its ACK; and 100,000 bytes in its
/// send queue.
fn sender() -> (Host, SocketId) {
    let (mut a, mut b, now) = (Host::new(1), Host::new(2), Instant::from_millis(1));
    let listener = b.stack.socket(SocketKind::Tcp, Family::V4).unwrap();
    b.stack.bind(listener, addr(2, 80)).unwrap();
    b.stack.listen(listener, 4).unwrap();
    let client = a.stack.socket(SocketKind::Tcp, Family::V4).unwrap();
    a.stack.connect(client, addr(2, 80)).unwrap_err();
    for turn in 0..12 {
        if turn == 4 {
            a.stack.write(client, &[7; 8 * MSS]).unwrap();
        }
        let frames = a.burst(now);
        b.take(now, &frames);
        let frames = b.burst(now);
        a.take(now, &frames);
    }
    let text: Vec<u8> = (0..100_000u32).map(|n| (n * 7 + n / 11) as u8).collect();
    assert_eq!(a.stack.write(client, &text), Ok(text.len()));
    (a, client)
}

fn has_right_checksum(frame: &[u8]) -> bool {
    let mut sum = Checksum::new();
    sum.add(&frame[ADDRESSES..TCP]);
    sum.add_u16(6);
    sum.add_u16((frame.len() - TCP) as u16);
    sum.add(&frame[TCP..]);
    sum.finish() == 0
}

#[test]
fn the_checksum_is_that_of_what_leaves_of_a_slot() {
    for part in [2, 4] {
        let (mut host, client) = sender();
        let len = MSS / part;
        host.stack.set_option(client, SocketOption::MaxSeg(len as u16 + TIMESTAMPS)).unwrap();
        // There is room for so many segments that the last begins a slot and ends in its middle.
        let other = host.stack.socket(SocketKind::Udp, Family::V4).unwrap();
        for _ in 0..3 {
            host.stack.send_to(other, b"room", Some(addr(2, 9))).unwrap();
        }
        let sent = host.burst(Instant::from_millis(2));
        let full = |frame: &&Vec<u8>| frame.len() == HEADERS + usize::from(TIMESTAMPS) + len;
        let segments: Vec<&Vec<u8>> = sent.iter().filter(full).collect();
        assert_eq!(segments.len() % part, 1, "{} segments", segments.len());
        for (at, segment) in segments.iter().enumerate() {
            assert!(has_right_checksum(segment), "{at} of {} by {len}", segments.len());
        }
    }
}

#[test]
fn one_connection_fills_no_more_than_a_burst_however_small_its_segments() {
    for mss in [1460, 548, 536, 64] {
        let (mut host, client) = sender();
        host.stack.set_option(client, SocketOption::MaxSeg(mss)).unwrap();
        let sent = host.burst(Instant::from_millis(2)).len();
        assert!((10..=BURST_FRAMES).contains(&sent), "{sent} frames with an MSS of {mss}");
        assert_eq!(host.stack.counters().tx_no_buffer, 0, "with an MSS of {mss}");
    }
}
