//! Segments that arrive in one burst are taken in together: a stream, its window, what is known of its
//! peer, the last ACK and what is counted are the same as if each had come by itself.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use barewire_driver::device::{RxBurst, RxFrame};
use barewire_driver::{MacAddr, Pool, PoolConfig};
use barewire_stack::{
    Family, IfaceId, Instant, InterfaceConfig, SocketError, SocketId, SocketKind, Stack,
    StackConfig,
};
use proptest::prelude::*;

/// Where a frame's IPv4 and TCP headers begin.
const IP: usize = 14;
const TCP: usize = 34;
const MSS: usize = 1448;

fn addr(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

struct Host {
    stack: Stack,
    iface: IfaceId,
    now: Instant,
}

impl Host {
    fn new(number: u8) -> Host {
        let pool = PoolConfig { slots: 512, slot_len: 2048, cells: 512, try_huge: false };
        let mut config = StackConfig::new(number.into());
        config.tcp.initial_window_segments = 40;
        let mut stack = Stack::new(config, Pool::new(pool).unwrap());
        let cidr = format!("{}/24", addr(number, 0).ip()).parse().unwrap();
        let mac = MacAddr::local(number.into());
        let iface = stack.add_interface(InterfaceConfig::ethernet(mac, cidr)).unwrap();
        Host { stack, iface, now: Instant::from_millis(1) }
    }

    /// Everything that it has to send now.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            self.stack.handle_timeout(self.now);
            let burst = self.stack.poll_transmit(self.iface);
            if burst.is_empty() {
                return frames;
            }
            frames.extend(
                burst.iter().map(|(_, pieces)| pieces.iter().flat_map(|p| p.to_vec()).collect()),
            );
            burst.clear();
        }
    }

    /// Takes frames in: all in one burst, or each in one of its own. Every third is in two pieces,
    /// as a card with small slots has them.
    fn take(&mut self, frames: &[Vec<u8>], together: bool) {
        let mut burst = RxBurst::new();
        for (n, frame) in frames.iter().enumerate() {
            let cut = if n % 3 == 2 { 66.min(frame.len()) } else { frame.len() };
            for piece in [&frame[..cut], &frame[cut..]].into_iter().filter(|p| !p.is_empty()) {
                burst.push_segment(self.stack.pool().copy_from(piece).unwrap().freeze());
            }
            burst.finish_frame(RxFrame::default());
            if !together {
                self.stack.handle_burst(self.now, self.iface, &mut burst);
            }
        }
        self.stack.handle_burst(self.now, self.iface, &mut burst);
    }

    fn read_all(&mut self, socket: SocketId) -> Vec<u8> {
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.stack.read(socket, &mut buffer) {
                Ok(n) => read.extend_from_slice(&buffer[..n]),
                Err(error) => {
                    assert_eq!(error, SocketError::WouldBlock);
                    return read;
                }
            }
        }
    }
}

/// A client with two connections, and two servers that have had the same frames so far: one is to get
/// the next ones together, the other one by one.
struct Scene {
    client: Host,
    servers: [Host; 2],
    ends: Vec<(SocketId, [SocketId; 2])>,
}

impl Scene {
    fn new() -> Scene {
        let mut scene =
            Scene { client: Host::new(1), servers: [Host::new(2), Host::new(2)], ends: Vec::new() };
        let listeners = [0, 1].map(|n| {
            let stack = &mut scene.servers[n].stack;
            let listener = stack.socket(SocketKind::Tcp, Family::V4).unwrap();
            stack.bind(listener, addr(2, 80)).unwrap();
            stack.listen(listener, 4).unwrap();
            listener
        });
        for _ in 0..2 {
            let client = scene.client.stack.socket(SocketKind::Tcp, Family::V4).unwrap();
            assert_eq!(
                scene.client.stack.connect(client, addr(2, 80)),
                Err(SocketError::InProgress)
            );
            scene.settle();
            let ends = [0, 1].map(|n| scene.servers[n].stack.accept(listeners[n]).unwrap().0);
            scene.ends.push((client, ends));
        }
        scene
    }

    /// Both servers get what the client sends, which hears the first alone: they say the same.
    fn settle(&mut self) {
        loop {
            let frames = self.client.frames();
            let answers = [0, 1].map(|n| {
                self.servers[n].take(&frames, false);
                self.servers[n].frames()
            });
            assert_eq!(answers[0], answers[1]);
            self.client.take(&answers[0], false);
            if frames.is_empty() && answers[0].is_empty() {
                return;
            }
        }
    }

    fn later(&mut self, span: Duration) {
        self.client.now += span;
        self.servers.iter_mut().for_each(|server| server.now += span);
    }

    /// The frames of `bytes` on each connection in turn.
    fn written(&mut self, bytes: &[u8]) -> [Vec<Vec<u8>>; 2] {
        [0, 1].map(|n| {
            let client = self.ends[n].0;
            assert_eq!(self.client.stack.write(client, bytes), Ok(bytes.len()));
            self.client.frames()
        })
    }

    /// Gives the frames to both servers, each in its way.
    fn deliver(&mut self, frames: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
        self.servers[0].take(frames, true);
        self.servers[1].take(frames, false);
        [0, 1].map(|n| self.servers[n].frames())
    }

    fn counted(&self, server: usize, name: &str) -> u64 {
        let counters = self.servers[server].stack.counters();
        counters.named().find(|(known, _)| *known == name).expect("a counter").1
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Changes a 16-bit word of the TCP segment and mends its checksum (RFC 1624).
fn set_word(frame: &mut [u8], at: usize, value: u16) {
    let get = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (old, sum) = (get(frame, at), get(frame, TCP + 16));
    let mut new = u32::from(!sum) + u32::from(!old) + u32::from(value);
    new = (new & 0xffff) + (new >> 16);
    new = (new & 0xffff) + (new >> 16);
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    frame[TCP + 16..TCP + 18].copy_from_slice(&(!new as u16).to_be_bytes());
}

#[test]
fn a_burst_of_one_stream_is_one_segment_to_its_connection() {
    let mut scene = Scene::new();
    let text = bytes(20 * MSS);
    let [frames, _] = scene.written(&text);
    assert_eq!(frames.len(), 20);
    let answers = scene.deliver(&frames);
    assert_eq!(answers[0], answers[1]);
    assert_eq!([0, 1].map(|n| scene.counted(n, "tcp_segments_joined")), [19, 0]);
    for n in 0..2 {
        let server = scene.ends[0].1[n];
        assert_eq!(scene.servers[n].read_all(server), text);
        assert_eq!(scene.servers[n].stack.tcp_info(server).unwrap().tcpi_segs_in, 21);
    }
}

#[test]
fn what_is_refused_of_a_run_is_counted_by_the_segment() {
    let mut scene = Scene::new();
    for n in 0..2 {
        scene.servers[n].stack.shutdown(scene.ends[0].1[n], Shutdown::Read).unwrap();
    }
    let [frames, _] = scene.written(&bytes(6 * MSS));
    scene.deliver(&frames);
    assert_eq!([0, 1].map(|n| scene.counted(n, "tcp_segments_joined")), [5, 0]);
    assert_eq!([0, 1].map(|n| scene.counted(n, "tcp_drop_closed")), [6, 6]);
}

#[test]
fn two_streams_in_turn_make_no_run_and_lose_nothing() {
    let mut scene = Scene::new();
    let text = bytes(10 * MSS);
    let [one, other] = scene.written(&text);
    let frames: Vec<_> = one.into_iter().zip(other).flat_map(|(a, b)| [a, b]).collect();
    let answers = scene.deliver(&frames);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(scene.counted(0, "tcp_segments_joined"), 0);
    for (n, end) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let server = scene.ends[end].1[n];
        assert_eq!(scene.servers[n].read_all(server), text);
    }
}

#[test]
fn a_segment_that_says_something_else_is_heard() {
    let mut scene = Scene::new();
    let [mut frames, _] = scene.written(&bytes(8 * MSS));
    // The window of the fourth and all behind it is another.
    for frame in &mut frames[3..] {
        set_word(frame, TCP + 14, 77);
    }
    scene.deliver(&frames);
    let windows = [0, 1].map(|n| {
        let server = scene.ends[0].1[n];
        scene.servers[n].stack.tcp_info(server).unwrap().tcpi_snd_wnd
    });
    assert_eq!(windows[0], windows[1]);
    assert_eq!(windows[0] % 77, 0, "it is the newest window");

    assert_eq!(scene.counted(0, "tcp_segments_joined"), 2 + 4);

    // The fifth carries the mark of congestion, which is told for itself.
    let [mut frames, _] = scene.written(&bytes(8 * MSS));
    for (n, frame) in frames.iter_mut().enumerate() {
        frame[IP + 1] |= if n == 4 { 3 } else { 2 };
        let sum = frame[IP..TCP].chunks(2).enumerate().filter(|(at, _)| *at != 5);
        let sum: u32 = sum.map(|(_, w)| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    }
    scene.deliver(&frames);
    assert_eq!(scene.counted(0, "tcp_segments_joined"), 2 + 4 + 3 + 2);
    for n in 0..2 {
        let info = scene.servers[n].stack.tcp_info(scene.ends[0].1[n]).unwrap();
        assert_eq!(scene.counted(n, "ip_malformed"), 0);
        assert_eq!(info.tcpi_bytes_received, 16 * MSS as u64);
    }
}

/// What happens to the next frame on its way.
#[derive(Clone, Debug)]
enum Fate {
    Arrives,
    Twice,
    Lost,
    Broken(usize),
    /// It changes places with the one that it stands behind by so many.
    Early(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Arrives),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Lost),
        1 => (0..1400usize).prop_map(Fate::Broken),
        1 => (1..4usize).prop_map(Fate::Early),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever a wire does to the frames of two streams, a burst of them leaves the same behind as
    /// they do one by one; and what is sent again makes both streams whole.
    #[test]
    fn together_and_one_by_one_come_to_the_same(
        lens in proptest::collection::vec(1..12_000usize, 2),
        mix in proptest::collection::vec(any::<bool>(), 40),
        fates in proptest::collection::vec(fate(), 40),
    ) {
        let mut scene = Scene::new();
        let texts = [bytes(lens[0]), bytes(lens[1])];
        let mut queues: Vec<_> = (0..2).map(|n| {
            let client = scene.ends[n].0;
            assert_eq!(scene.client.stack.write(client, &texts[n]), Ok(lens[n]));
            scene.client.frames().into_iter()
        }).collect();
        let mut frames = Vec::new();
        for (first, fate) in mix.into_iter().zip(fates) {
            let turn = if first { [0, 1] } else { [1, 0] };
            let Some(mut frame) = turn.into_iter().find_map(|n| queues[n].next()) else { break };
            match fate {
                Fate::Arrives => frames.push(frame),
                Fate::Twice => frames.extend([frame.clone(), frame]),
                Fate::Lost => {}
                Fate::Broken(at) => {
                    let at = TCP + at % (frame.len() - TCP);
                    frame[at] ^= 0x10;
                    frames.push(frame);
                }
                Fate::Early(by) => {
                    let at = frames.len().saturating_sub(by);
                    frames.insert(at, frame);
                }
            }
        }
        let answers = scene.deliver(&frames);
        prop_assert_eq!(&answers[0], &answers[1]);
        for name in ["rx_frames", "tcp_segments_received", "tcp_bad_checksum"] {
            prop_assert_eq!(scene.counted(0, name), scene.counted(1, name), "{}", name);
        }
        for (_, servers) in scene.ends.clone() {
            let infos = [0, 1].map(|n| scene.servers[n].stack.tcp_info(servers[n]).unwrap());
            let told = |n: usize| {
                let info = &infos[n];
                (info.tcpi_bytes_received, info.tcpi_segs_in, info.tcpi_data_segs_in, info.tcpi_snd_wnd, info.state)
            };
            prop_assert_eq!(told(0), told(1));
        }
        // The client hears the server that had bursts.
        let mut read = [Vec::new(), Vec::new()];
        for _ in 0..200 {
            for (n, text) in read.iter_mut().enumerate() {
                let server = scene.ends[n].1[0];
                text.extend(scene.servers[0].read_all(server));
            }
            let answers = scene.servers[0].frames();
            scene.client.take(&answers, true);
            let frames = scene.client.frames();
            scene.servers[0].take(&frames, true);
            scene.later(Duration::from_millis(100));
        }
        prop_assert_eq!(&read, &texts);
    }
}

#[test]
fn what_software_cuts_leaves_a_segment_in_one_piece() {
    let mut scene = Scene::new();
    // The first transmission tells that software cuts; what is written from then on is laid out for it.
    let text = bytes(11 * MSS);
    let [first, _] = scene.written(&text[..MSS]);
    assert_eq!(scene.deliver(&first)[0].len(), 1, "acknowledged");
    scene.client.now += Duration::from_millis(1);
    let (client, server) = scene.ends[0];
    assert_eq!(scene.client.stack.write(client, &text[MSS..]), Ok(10 * MSS));
    let burst = scene.client.stack.poll_transmit(scene.client.iface);
    let pieces: Vec<usize> = burst.iter().map(|(_, pieces)| pieces.len()).collect();
    // The last, with PSH, has a cell for its headers.
    assert_eq!(pieces, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    let frames: Vec<Vec<u8>> =
        burst.iter().map(|(_, p)| p.iter().flat_map(|p| p.to_vec()).collect()).collect();
    burst.clear();
    // The first is lost, and sent again from a slot whose headroom is used.
    scene.deliver(&frames[1..]);
    scene.client.now = scene.client.stack.poll_at().expect("a timer for what is unacknowledged");
    for frame in scene.client.frames() {
        scene.deliver(&[frame]);
    }
    scene.later(Duration::from_secs(1));
    scene.client.now += Duration::from_secs(2);
    scene.settle();
    for (n, server) in server.into_iter().enumerate() {
        assert_eq!(scene.servers[n].read_all(server), text);
    }
}
