//! The peer's end.

use std::collections::VecDeque;

use barewire_stack::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{self, CongestionControl};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::{End, Path, Role};
use crate::peer::ACK_DELAY;

const PORT: u16 = 80;
const EPHEMERAL_PORT: u16 = 49_152;
const SENDER: IpAddress = IpAddress::v4(10, 0, 0, 1);
const RECEIVER: IpAddress = IpAddress::v4(10, 0, 0, 2);

/// Bytes of a write, and of a read.
const CALL_BYTES: usize = 64 << 10;

/// The peer's controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// None at all: as much as the receiver takes.
    Off,
    /// Its Reno.
    Reno,
    /// Its CUBIC.
    Cubic,
}

/// Frames that have arrived, and those that are to leave.
#[derive(Default)]
struct Frames {
    arrived: VecDeque<Vec<u8>>,
    leaving: Vec<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Frames {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Its clock counts in microseconds.
fn time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(now.as_micros() as i64)
}

/// A host with smoltcp.
pub struct Peer {
    iface: Interface,
    frames: Frames,
    sockets: SocketSet<'static>,
    conn: SocketHandle,
    role: Role,
    bytes: Vec<u8>,
    opened: bool,
}

impl Peer {
    /// A host whose connection has this controller; the sender begins to connect.
    pub fn new(path: &Path, role: Role, control: Control) -> Peer {
        let (addr, number) = match role {
            Role::Sender => (SENDER, 1),
            Role::Receiver => (RECEIVER, 2),
        };
        let mac = EthernetAddress([2, 0, 0, 0, 0, number]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = path.seed << 8 | u64::from(number);
        let mut frames = Frames::default();
        let mut iface = Interface::new(config, &mut frames, time(Instant::ZERO));
        iface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(addr, 24)).expect("room for one"));
        let buffer = || tcp::SocketBuffer::new(vec![0; path.buffer_bytes]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_ack_delay(Some(ACK_DELAY));
        socket.set_congestion_control(match control {
            Control::Off => CongestionControl::None,
            Control::Reno => CongestionControl::Reno,
            Control::Cubic => CongestionControl::Cubic,
        });
        match role {
            Role::Sender => {
                let context = iface.context();
                socket.connect(context, (RECEIVER, PORT), EPHEMERAL_PORT).expect("a closed socket");
            }
            Role::Receiver => socket.listen(PORT).expect("a closed socket"),
        }
        let mut sockets = SocketSet::new(Vec::new());
        let conn = sockets.add(socket);
        let bytes = vec![0; CALL_BYTES];
        Peer { iface, frames, sockets, conn, role, bytes, opened: false }
    }

    /// The application's turn; gives the bytes that it has read.
    fn call(&mut self) -> u64 {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.conn);
        self.opened |= socket.may_send();
        assert!(socket.is_open() && (socket.may_send() || !self.opened), "the connection is lost");
        let mut read = 0;
        match self.role {
            Role::Sender => {
                while socket.can_send() {
                    socket.send_slice(&self.bytes).expect("room");
                }
            }
            Role::Receiver => {
                while socket.can_recv() {
                    read += socket.recv_slice(&mut self.bytes).expect("readable") as u64;
                }
            }
        }
        read
    }
}

impl End for Peer {
    fn receive(&mut self, now: Instant, frame: &[u8]) {
        self.frames.arrived.push_back(frame.to_vec());
        self.iface.poll(time(now), &mut self.frames, &mut self.sockets);
    }

    fn turn(&mut self, now: Instant, send: &mut dyn FnMut(Vec<u8>)) -> u64 {
        let read = self.call();
        self.iface.poll(time(now), &mut self.frames, &mut self.sockets);
        for frame in self.frames.leaving.drain(..) {
            send(frame);
        }
        read
    }

    fn due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.iface.poll_at(time(now), &self.sockets)?;
        let due = Instant::from_nanos(due.total_micros().max(0) as u64 * 1_000);
        // Its microsecond may have begun before this moment; the next one has not.
        let next_us = Instant::from_nanos((now.as_micros() + 1) * 1_000);
        Some(if due <= now { next_us } else { due })
    }
}
