//! A tap interface against the Linux kernel, in a network namespace of each test's own.
//!
//! Needs the right to make namespaces and `/dev/net/tun`; where one is missing, each test says by
//! name that it was skipped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use barewire_driver::mem::Checksum;
use barewire_driver::{
    Arm, Device, DeviceError, DeviceSpec, Features, MacAddr, OpenOptions, Pool, PoolConfig, Queue,
    QueueError, QueueId, RxBurst, RxChecksum, RxFrame, TapConfig, TapDevice, TxBurst, TxChecksum,
    TxFrame, open_device, sys,
};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PATIENCE: Duration = Duration::from_secs(5);

/// Held while a test runs. A process that one test starts has, between `fork` and `exec`, every
/// descriptor of all others, and would keep an interface alive that another test has just let go of.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `test` on a thread in a network namespace of its own, or says why not.
fn in_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = std::thread::Builder::new().name(name.to_owned());
    let ran = thread.spawn(move || {
        if let Err(error) = sys::open_tun() {
            return Err(format!("{} cannot be opened: {error}", sys::TUN_PATH));
        }
        sys::unshare_network().map_err(|e| format!("no network namespace: {e}"))?;
        test();
        Ok(())
    });
    match ran.unwrap().join() {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            // Past the harness, which shows what a test prints only if it fails.
            let line = format!("SKIPPED {name}: {reason}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn config(name: &str) -> TapConfig {
    TapConfig { kernel_address: Some((KERNEL, 24)), ..TapConfig::new(name) }
}

/// A started queue with all that a test needs around it.
struct Host {
    device: TapDevice,
    queue: Box<dyn Queue>,
    pool: Pool,
    granted: Features,
    burst: RxBurst,
}

impl Host {
    fn open(config: TapConfig, wanted: Features) -> Host {
        Host::with_slots(config, wanted, 256)
    }

    fn with_slots(config: TapConfig, wanted: Features, slots: u32) -> Host {
        let pool = PoolConfig { slots, slot_len: 2048, cells: 1, try_huge: false };
        let pool = Pool::new(pool).unwrap();
        let device = TapDevice::open(config).unwrap();
        let mut queue = device.queue(QueueId(0)).unwrap().open();
        let granted = queue.start(&pool, wanted).unwrap();
        Host { device, queue, pool, granted, burst: RxBurst::new() }
    }

    /// Sends one frame: `head` bytes in the first segment, at most `cut` in each further one.
    fn send_cut(&mut self, frame: &[u8], head: usize, cut: usize, meta: TxFrame) {
        let mut burst = TxBurst::new();
        burst.push_segment(self.pool.copy_from(&frame[..head]).unwrap().freeze());
        for piece in frame[head..].chunks(cut) {
            burst.push_segment(self.pool.copy_from(piece).unwrap().freeze());
        }
        burst.finish_frame(meta);
        assert_eq!(self.queue.tx_burst(&mut burst).unwrap(), 1);
        assert!(burst.is_empty());
    }

    fn send(&mut self, frame: &[u8]) {
        self.send_cut(frame, frame.len(), 1, TxFrame::default());
    }

    /// Receives until `pick` is satisfied with a frame, sleeping as an engine does.
    #[track_caller]
    fn receive<T>(&mut self, mut pick: impl FnMut(&RxFrame, &[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.burst.clear();
            if self.queue.rx_burst(&mut self.burst, 1).unwrap() == 0 {
                if let Arm::Sleep { fd: Some(fd), .. } = self.queue.arm() {
                    sys::poll_readable(&[fd], Some(100_000_000)).unwrap();
                }
                self.queue.disarm();
                continue;
            }
            for frame in self.burst.frames() {
                let segments = self.burst.segments(frame);
                let bytes: Vec<u8> = segments.iter().flat_map(|s| s.iter().copied()).collect();
                assert_eq!(bytes.len(), frame.len as usize);
                if let Some(found) = pick(frame, &bytes) {
                    self.burst.clear();
                    return found;
                }
            }
        }
        panic!("the frame did not come within {PATIENCE:?}");
    }

    /// Stops the queue and shows that every slot has come home.
    fn close(mut self) {
        self.burst.clear();
        self.queue.stop();
        assert!(self.pool.audit().all_free(), "{:?}", self.pool.audit());
    }

    /// Asks the kernel for its Ethernet address.
    fn resolve_kernel(&mut self) -> MacAddr {
        let ours = self.device.mac();
        self.send(&arp(1, ours, MacAddr::BROADCAST, OURS, MacAddr::default(), KERNEL));
        self.receive(|_, bytes| {
            let answer = bytes[12..14] == [8, 6] && bytes[20..22] == [0, 2];
            answer.then(|| MacAddr(bytes[22..28].try_into().unwrap()))
        })
    }
}

/// An ARP packet for Ethernet and IPv4 (RFC 826).
fn arp(
    operation: u8,
    from: MacAddr,
    to: MacAddr,
    sender: Ipv4Addr,
    target_mac: MacAddr,
    target: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    frame.extend(from.0.into_iter().chain(sender.octets()));
    frame.extend(target_mac.0.into_iter().chain(target.octets()));
    frame
}

#[test]
fn arp_crosses_both_ways() {
    in_namespace("arp_crosses_both_ways", || {
        let mut host = Host::open(config("bwt0"), Features::empty());
        assert!(host.device.created() && host.device.link().up);
        assert_eq!(host.device.name(), "tap:bwt0");
        let kernel = host.resolve_kernel();
        assert_ne!(kernel, host.device.mac());

        // The other way round: the kernel asks for a neighbour before it can send to it.
        let socket = UdpSocket::bind((KERNEL, 0)).unwrap();
        let third = Ipv4Addr::new(10, 77, 0, 3);
        socket.send_to(b"late", (third, 9)).unwrap();
        host.receive(|_, b| (b[12..14] == [8, 6] && b[38..42] == third.octets()).then_some(()));
        let ours = host.device.mac();
        host.send(&arp(2, ours, kernel, third, kernel, KERNEL));
        let payload =
            host.receive(|_, bytes| match SlicedPacket::from_ethernet(bytes).ok()?.transport {
                Some(TransportSlice::Udp(udp)) => Some(udp.payload().to_vec()),
                _ => None,
            });
        assert_eq!(payload, b"late");
        let counters = host.queue.counters();
        assert_eq!((counters.tx_frames, counters.tx_errors), (2, 0));
        assert!(counters.rx_frames >= 2 && counters.rx_malformed == 0);
        host.close();
    });
}

fn pseudo_header_sum(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, len: usize) -> u16 {
    let mut sum = Checksum::new();
    sum.add(&from.octets());
    sum.add(&to.octets());
    sum.add_u16(u16::from(protocol));
    sum.add_u16(len as u16);
    sum.partial()
}

#[test]
fn the_kernel_takes_a_datagram_whose_checksum_was_left_to_it() {
    in_namespace("the_kernel_takes_a_datagram_whose_checksum_was_left_to_it", || {
        let mut host = Host::open(config("bwt0"), Features::all());
        assert!(host.granted.contains(Features::TX_CHECKSUM));
        let kernel = host.resolve_kernel();
        let socket = UdpSocket::bind((KERNEL, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = socket.local_addr().unwrap().port();
        let payload: Vec<u8> = (0..1400u32).map(|i| i as u8).collect();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(host.device.mac().0, kernel.0)
            .ipv4(OURS.octets(), KERNEL.octets(), 64)
            .udp(4000, to)
            .write(&mut frame, &payload)
            .unwrap();
        let seed = pseudo_header_sum(OURS, KERNEL, 17, frame.len() - 34);
        frame[40..42].copy_from_slice(&seed.to_be_bytes());
        let checksum = TxChecksum::Partial { start: 34, offset: 6 };
        host.send_cut(&frame, 42, 500, TxFrame { checksum, ..TxFrame::default() });
        let mut received = [0; 2000];
        let (len, from) = socket.recv_from(&mut received).unwrap();
        assert_eq!((&received[..len], from), (&payload[..], (OURS, 4000).into()));
        // The same bytes, declared complete, are wrong: the kernel does look.
        host.send(&frame);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(socket.recv_from(&mut received).is_err());
        host.close();
    });
}

/// The client's side of one TCP connection, as far as a test of offloads needs one.
struct Connection {
    kernel: MacAddr,
    port: u16,
    seq: u32,
    ack: u32,
}

/// What a test looks at in a TCP frame.
struct Segment {
    syn: bool,
    seq: u32,
    payload: Vec<u8>,
    checksum_fits: bool,
}

fn parse_tcp(bytes: &[u8]) -> Option<Segment> {
    let packet = SlicedPacket::from_ethernet(bytes).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    let ip = packet.net.as_ref()?.ipv4_ref()?.header().to_header();
    Some(Segment {
        syn: tcp.syn(),
        seq: tcp.sequence_number(),
        payload: tcp.payload().to_vec(),
        checksum_fits: tcp.calc_checksum_ipv4(ip.source, ip.destination).ok()? == tcp.checksum(),
    })
}

impl Connection {
    fn syn(&self, host: &Host) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(host.device.mac().0, self.kernel.0)
            .ipv4(OURS.octets(), KERNEL.octets(), 64)
            .tcp(4000, self.port, self.seq, 65_535)
            .syn()
            .options_raw(&[2, 4, 5, 180])
            .unwrap()
            .write(&mut frame, &[])
            .unwrap();
        frame
    }

    fn data(&self, host: &Host, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(host.device.mac().0, self.kernel.0)
            .ipv4(OURS.octets(), KERNEL.octets(), 64)
            .tcp(4000, self.port, self.seq, 65_535)
            .ack(self.ack)
            .psh()
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    /// RFC 9293 §3.5: the three-way handshake.
    fn connect(host: &mut Host, port: u16) -> Connection {
        let kernel = host.resolve_kernel();
        let mut connection = Connection { kernel, port, seq: 1_000, ack: 0 };
        let syn = connection.syn(host);
        host.send(&syn);
        let answer = host.receive(|_, bytes| parse_tcp(bytes).filter(|t| t.syn));
        connection.seq += 1;
        connection.ack = answer.seq.wrapping_add(1);
        let ack = connection.data(host, &[]);
        host.send(&ack);
        connection
    }

    /// Receives `len` bytes of the stream; `look` sees each frame of them.
    fn read(
        &self,
        host: &mut Host,
        len: usize,
        mut look: impl FnMut(&RxFrame, &Segment),
    ) -> Vec<u8> {
        let (mut stream, mut seen) = (vec![0; len], vec![false; len]);
        while seen.contains(&false) {
            host.receive(|frame, bytes| {
                let segment = parse_tcp(bytes).filter(|s| !s.payload.is_empty())?;
                look(frame, &segment);
                let at = segment.seq.wrapping_sub(self.ack) as usize;
                let end = at + segment.payload.len();
                stream[at..end].copy_from_slice(&segment.payload);
                seen[at..end].fill(true);
                Some(())
            });
        }
        stream
    }
}

#[test]
fn one_write_moves_60_kilobytes_into_a_kernel_socket() {
    in_namespace("one_write_moves_60_kilobytes_into_a_kernel_socket", || {
        let mut host = Host::open(config("bwt0"), Features::all());
        let listener = TcpListener::bind((KERNEL, 0)).unwrap();
        let connection = Connection::connect(&mut host, listener.local_addr().unwrap().port());
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let payload: Vec<u8> = (0..60_000u32).map(|i| (i % 253) as u8).collect();
        let mut frame = connection.data(&host, &payload);
        let seed = pseudo_header_sum(OURS, KERNEL, 6, frame.len() - 34);
        frame[50..52].copy_from_slice(&seed.to_be_bytes());
        let meta = TxFrame {
            checksum: TxChecksum::Partial { start: 34, offset: 16 },
            tso_mss: 1460,
            header_len: 54,
            ..TxFrame::default()
        };
        let before = host.queue.counters().syscalls;
        host.send_cut(&frame, 54, 2048, meta);
        let counters = host.queue.counters();
        assert_eq!((counters.syscalls - before, counters.tx_errors), (1, 0));
        let mut received = vec![0; payload.len()];
        stream.read_exact(&mut received).unwrap();
        assert!(received == payload, "the bytes differ");

        // And back: the kernel gives segments larger than the MTU, and sums none of them.
        stream.write_all(&payload[..14_000]).unwrap();
        let mut largest = 0;
        let back = connection.read(&mut host, 14_000, |frame, segment| {
            assert_eq!(frame.checksum, RxChecksum::Good);
            assert_eq!(frame.gso_bytes > 0, segment.payload.len() > 1460, "{frame:?}");
            largest = largest.max(segment.payload.len());
        });
        assert!(back == payload[..14_000], "the bytes differ");
        assert!(largest > 4 * 1460, "one read moved only {largest} bytes");
        host.close();
    });
}

#[test]
fn without_offloads_the_kernel_gives_finished_frames_of_wire_size() {
    in_namespace("without_offloads_the_kernel_gives_finished_frames_of_wire_size", || {
        let mut host = Host::open(config("bwt0"), Features::empty());
        assert_eq!(host.granted, Features::empty());
        let listener = TcpListener::bind((KERNEL, 0)).unwrap();
        let connection = Connection::connect(&mut host, listener.local_addr().unwrap().port());
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[7; 5_000]).unwrap();
        let received = connection.read(&mut host, 5_000, |frame, segment| {
            assert!(frame.len <= 1514, "{} bytes are more than the MTU", frame.len);
            assert_eq!((frame.checksum, frame.gso_bytes), (RxChecksum::Unknown, 0));
            assert!(segment.checksum_fits);
        });
        assert!(received == [7; 5_000]);
        host.close();
    });
}

#[test]
fn an_empty_pool_leaves_frames_with_the_kernel_and_does_not_spin() {
    in_namespace("an_empty_pool_leaves_frames_with_the_kernel_and_does_not_spin", || {
        let mut host = Host::with_slots(config("bwt0"), Features::empty(), 4);
        host.resolve_kernel();
        let hog: Vec<_> = std::iter::from_fn(|| host.pool.alloc()).collect();
        // Each datagram asks for another neighbour: three ARP requests. The queue may hold one spare
        // slot, which takes one of them.
        let socket = UdpSocket::bind((KERNEL, 0)).unwrap();
        for neighbour in 9..12 {
            socket.send_to(b"x", (Ipv4Addr::new(10, 77, 0, neighbour), 9)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        let mut held = RxBurst::new();
        let taken = host.queue.rx_burst(&mut held, 64).unwrap();
        assert!(taken <= 1);
        assert_eq!(host.queue.counters().rx_no_buffer, 1);
        let before = sys::Clock::monotonic().now_ns();
        let armed = host.queue.arm();
        let Arm::Sleep { fd: None, until_ns: Some(until) } = armed else {
            panic!("a readable descriptor must not be slept on: {armed:?}");
        };
        assert!(until > before);
        drop(hog);
        assert_eq!(host.queue.arm(), Arm::Ready);
        let rest = host.queue.rx_burst(&mut held, 64).unwrap();
        assert!(taken + rest >= 3, "the requests waited in the kernel");
        held.clear();
        host.close();
    });
}

#[test]
fn a_frame_larger_than_the_device_said_is_dropped_and_counted() {
    in_namespace("a_frame_larger_than_the_device_said_is_dropped_and_counted", || {
        let mut host = Host::open(config("bwt0"), Features::empty());
        let mac = host.device.mac();
        ip(&format!("neigh add {OURS} lladdr {mac} dev bwt0"));
        ip("link set bwt0 mtu 9000");
        let socket = UdpSocket::bind((KERNEL, 0)).unwrap();
        socket.send_to(&[1; 5_000], (OURS, 9)).unwrap();
        socket.send_to(&[2; 1_000], (OURS, 9)).unwrap();
        let is_ours = |bytes: &[u8]| bytes[12..14] == [8, 0] && bytes[23] == 17;
        let len = host.receive(|frame, bytes| is_ours(bytes).then_some(frame.len));
        assert_eq!((len, host.queue.counters().rx_malformed), (1_042, 1));
        host.close();
    });
}

#[test]
fn a_spec_opens_the_interface() {
    in_namespace("a_spec_opens_the_interface", || {
        let spec: DeviceSpec = "tap:bwt0".parse().unwrap();
        let kernel_address = Some((KERNEL, 24));
        let options = OpenOptions { offloads: false, kernel_address, ..OpenOptions::default() };
        let device = open_device(&spec, &options).unwrap();
        assert_eq!((device.name(), device.queues()), (spec.to_string(), 1));
        assert_eq!(device.capabilities().features, Features::SCATTER_GATHER);
        assert_eq!(sys::interface_addresses("bwt0").unwrap(), [(KERNEL, 24)]);
        // Without a virtio_net_hdr a frame begins with its first byte, both ways.
        let pool = Pool::new(PoolConfig { try_huge: false, ..PoolConfig::default() }).unwrap();
        let mut queue = device.queue(QueueId(0)).unwrap().open();
        assert_eq!(queue.start(&pool, Features::all()).unwrap(), Features::SCATTER_GATHER);
        let ask = arp(1, device.mac(), MacAddr::BROADCAST, OURS, MacAddr::default(), KERNEL);
        let mut burst = TxBurst::new();
        burst.push_segment(pool.copy_from(&ask).unwrap().freeze());
        burst.finish_frame(TxFrame::default());
        assert_eq!(queue.tx_burst(&mut burst).unwrap(), 1);
        if let Arm::Sleep { fd: Some(fd), .. } = queue.arm() {
            let ready = sys::poll_readable(&[fd], Some(PATIENCE.as_nanos() as u64));
            assert_eq!(ready.unwrap(), 1);
        }
        let mut received = RxBurst::new();
        queue.rx_burst(&mut received, 1).unwrap();
        let first = &received.segments(&received.frames()[0])[0];
        assert!([[8, 0], [8, 6], [0x86, 0xdd]].contains(&[first[12], first[13]]));
    });
}

#[test]
fn a_pool_smaller_than_one_read_is_refused() {
    in_namespace("a_pool_smaller_than_one_read_is_refused", || {
        let device = TapDevice::open(config("bwt0")).unwrap();
        let pool = PoolConfig { slots: 33, slot_len: 2048, cells: 1, try_huge: false };
        let mut queue = device.queue(QueueId(0)).unwrap().open();
        let refused = queue.start(&Pool::new(pool).unwrap(), Features::all()).unwrap_err();
        assert!(refused.to_string().contains("33 slots at once"), "{refused}");
    });
}

#[test]
fn an_existing_interface_is_kept_and_a_created_one_vanishes() {
    in_namespace("an_existing_interface_is_kept_and_a_created_one_vanishes", || {
        let control = sys::InterfaceControl::new().unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let chosen = TapConfig { mtu: Some(9_000), mac: Some(mac), ..config("bwt0") };
        let host = Host::open(chosen, Features::empty());
        assert_eq!((host.device.capabilities().mtu, host.device.mac()), (9_000, mac));
        assert!(matches!(host.device.queue(QueueId(0)), Err(DeviceError::QueueTaken(0))));
        assert!(matches!(host.device.queue(QueueId(1)), Err(DeviceError::NoQueue(1, 1))));
        let busy = TapDevice::open(config("bwt0")).unwrap_err().to_string();
        assert!(busy.contains("another process uses bwt0"), "{busy}");
        host.close();
        assert!(!control.exists("bwt0").unwrap());

        ip("tuntap add dev bwt1 mode tap multi_queue vnet_hdr");
        let host = Host::open(config("bwt1"), Features::all());
        assert!(!host.device.created() && host.device.link().up);
        host.close();
        assert!(control.exists("bwt1").unwrap());
        // Now it has an address; another one would surprise whoever gave it that one.
        let other = TapConfig { kernel_address: Some((OURS, 24)), ..config("bwt1") };
        let refused = TapDevice::open(other).unwrap_err().to_string();
        assert!(refused.contains("ip addr add 10.77.0.2/24 dev bwt1"), "{refused}");
    });
}

#[test]
fn an_interface_that_does_not_fit_is_refused_with_a_remedy() {
    in_namespace("an_interface_that_does_not_fit_is_refused_with_a_remedy", || {
        ip("tuntap add dev bwt2 mode tap");
        let wrong = TapConfig { queues: 2, ..config("bwt2") };
        let refused = TapDevice::open(wrong).unwrap_err().to_string();
        assert!(refused.contains("sudo ip link delete bwt2"), "{refused}");
        let refused = TapDevice::open(config("lo")).unwrap_err().to_string();
        assert!(refused.contains("is no tap interface"), "{refused}");
        // A process that knows nothing of our claims.
        let foreign = sys::open_tun().unwrap();
        sys::tun_attach(&foreign, "bwt2", sys::TunFlags::empty()).unwrap();
        let refused = TapDevice::open(config("bwt2")).unwrap_err().to_string();
        assert!(refused.contains("another process uses bwt2"), "{refused}");
    });
}

#[test]
fn a_deleted_interface_is_gone_and_a_downed_one_loses_frames() {
    in_namespace("a_deleted_interface_is_gone_and_a_downed_one_loses_frames", || {
        let mut host = Host::open(config("bwt0"), Features::empty());
        ip("link set bwt0 down");
        let mut burst = TxBurst::new();
        burst.push_segment(host.pool.copy_from(&[0xff; 60]).unwrap().freeze());
        burst.finish_frame(TxFrame::default());
        assert_eq!(host.queue.tx_burst(&mut burst).unwrap(), 0);
        assert!(burst.is_empty() && host.queue.counters().tx_errors == 1);
        assert!(!host.device.link().up);
        ip("link delete bwt0");
        assert_eq!(host.queue.arm(), Arm::Ready, "the next read tells what happened");
        let gone = host.queue.rx_burst(&mut host.burst, 1);
        assert!(matches!(gone, Err(QueueError::Gone(_))), "{gone:?}");
        host.close();
    });
}

#[test]
fn all_queues_of_an_interface_start_alike_and_carry_frames() {
    in_namespace("all_queues_of_an_interface_start_alike_and_carry_frames", || {
        let device = TapDevice::open(TapConfig { queues: 2, ..config("bwt0") }).unwrap();
        let pool = Pool::new(PoolConfig { try_huge: false, ..PoolConfig::default() }).unwrap();
        let mut queues = [0, 1].map(|id| device.queue(QueueId(id)).unwrap().open());
        queues[0].start(&pool, Features::all()).unwrap();
        let refused = queues[1].start(&pool, Features::empty()).unwrap_err().to_string();
        assert!(refused.contains("the same features"), "{refused}");
        queues[1].start(&pool, Features::all()).unwrap();
        for sender in 0..2 {
            let ours = Ipv4Addr::new(10, 77, 0, 20 + sender as u8);
            let ask = arp(1, device.mac(), MacAddr::BROADCAST, ours, MacAddr::default(), KERNEL);
            let mut burst = TxBurst::new();
            burst.push_segment(pool.copy_from(&ask).unwrap().freeze());
            burst.finish_frame(TxFrame::default());
            assert_eq!(queues[sender].tx_burst(&mut burst).unwrap(), 1);
            let answered = |received: &RxBurst| {
                let first = |frame| &received.segments(frame)[0];
                let to_us = |b: &[u8]| b[20..22] == [0, 2] && b[38..42] == ours.octets();
                received.frames().iter().any(|frame| to_us(first(frame)))
            };
            let deadline = Instant::now() + PATIENCE;
            let mut received = RxBurst::new();
            while !answered(&received) {
                assert!(Instant::now() < deadline, "no answer to queue {sender}");
                for queue in &mut queues {
                    queue.rx_burst(&mut received, 64).unwrap();
                }
            }
        }
        drop(queues);
        assert!(pool.audit().all_free());
    });
}

/// Set by the test below for the process that it starts as another user.
const UNPRIVILEGED: &str = "BAREWIRE_TAP_TEST_UNPRIVILEGED";

/// The test runs itself again as user 65534, in the same network namespace, with a device node of
/// its own: first one that is closed to it, then one open to all.
#[test]
fn an_owner_without_privilege_attaches_and_others_are_told_what_to_run() {
    const NAME: &str = "an_owner_without_privilege_attaches_and_others_are_told_what_to_run";
    const SCRIPT: &str = r#"
        mount -t tmpfs tmpfs /dev/net
        mknod /dev/net/tun c 10 200
        cp "$0" /dev/net/test
        ip tuntap add dev bwt0 mode tap user 65534 multi_queue vnet_hdr
        ip addr add 10.77.0.1/24 dev bwt0
        ip link set bwt0 up
        ip tuntap add dev bwt1 mode tap user 0
        for mode in 0600 0666; do
            chmod $mode /dev/net/tun
            BAREWIRE_TAP_TEST_UNPRIVILEGED=$mode setpriv --reuid 65534 --regid 65534 \
                --clear-groups --inh-caps=-all --bounding-set=-all /dev/net/test --exact "$1"
        done
    "#;
    match std::env::var(UNPRIVILEGED).as_deref() {
        Ok("0600") => return refused_at_the_door(),
        Ok(_) => return attached_as_owner(),
        Err(_) => {}
    }
    in_namespace(NAME, || {
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", SCRIPT]).arg(exe).arg(NAME);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}{complaint}");
        assert_eq!(told.matches("1 passed").count(), 2, "{told}{complaint}");
    });
}

#[track_caller]
fn refused_with(config: TapConfig, remedy: &str) {
    let refused = TapDevice::open(config).unwrap_err().to_string();
    assert!(refused.contains(remedy), "{refused}");
}

fn refused_at_the_door() {
    assert!(sys::effective_uid() == 65_534 && !sys::has_net_admin());
    refused_with(config("bwt0"), "sudo chmod 0666 /dev/net/tun");
}

fn attached_as_owner() {
    assert!(sys::effective_uid() == 65_534 && !sys::has_net_admin());
    let mut host = Host::open(config("bwt0"), Features::all());
    assert!(!host.device.created());
    host.resolve_kernel();
    host.close();
    let two = TapDevice::open(TapConfig { queues: 2, ..config("bwt0") }).unwrap();
    assert!(two.queue(QueueId(1)).is_ok());
    drop(two);
    let large = TapConfig { mtu: Some(9_000), ..config("bwt0") };
    refused_with(large, "sudo ip link set bwt0 mtu 9000 up");
    refused_with(config("bwt1"), "it belongs to another user");
    refused_with(
        config("bwt2"),
        "sudo ip tuntap add dev bwt2 mode tap user \"$USER\" vnet_hdr && \
         sudo ip addr add 10.77.0.1/24 dev bwt2 && sudo ip link set bwt2 up",
    );
}
