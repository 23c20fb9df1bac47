//! Our end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use barewire_driver::device::Features;
use barewire_driver::{MacAddr, Pool, PoolConfig};
use barewire_stack::tcp::Algorithm;
use barewire_stack::{
    Cidr, Family, IfaceId, Instant, InterfaceConfig, SocketError, SocketId, SocketKind, Stack,
    StackConfig,
};

use super::{End, Path, Role};

const PORT: u16 = 80;
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Bytes of a write, and of a read.
const CALL_BYTES: usize = 64 << 10;

/// A host with our stack.
pub struct Ours {
    stack: Stack,
    iface: IfaceId,
    role: Role,
    listener: Option<SocketId>,
    conn: Option<SocketId>,
    bytes: Vec<u8>,
}

impl Ours {
    /// A host whose connection has this controller; the sender begins to connect.
    pub fn new(path: &Path, role: Role, algorithm: Algorithm) -> Ours {
        let addr = match role {
            Role::Sender => SENDER,
            Role::Receiver => RECEIVER,
        };
        // What is in flight and what waits to be read lie in slots; memory is not to be scarce.
        let slots = (path.buffer_bytes / 128) as u32;
        let pool = PoolConfig { slots, slot_len: 2048, cells: slots, try_huge: false };
        let pool = Pool::new(pool).expect("memory for a pool");
        let mut config =
            StackConfig::new(u128::from(path.seed) << 8 | u128::from(addr.octets()[3]));
        config.tcp.congestion = algorithm;
        config.tcp.send_buffer_bytes = path.buffer_bytes as u32;
        config.tcp.recv_buffer_bytes = path.buffer_bytes as u32;
        (config.tcp.send_autotune, config.tcp.recv_autotune) = (false, false);
        let mut stack = Stack::new(config, pool);
        let cidr = Cidr::new(IpAddr::V4(addr), 24).expect("24 bits of 32");
        let iface = InterfaceConfig {
            mtu: 1500,
            features: Features::SCATTER_GATHER,
            ..InterfaceConfig::ethernet(MacAddr::local(u64::from(addr.to_bits())), cidr)
        };
        let iface = stack.add_interface(iface).expect("room for an interface");
        let socket = stack.socket(SocketKind::Tcp, Family::V4).expect("room for a socket");
        let (mut listener, mut conn) = (None, None);
        match role {
            Role::Sender => {
                let connecting = stack.connect(socket, SocketAddr::from((RECEIVER, PORT)));
                assert_eq!(connecting, Err(SocketError::InProgress));
                conn = Some(socket);
            }
            Role::Receiver => {
                stack.bind(socket, SocketAddr::from((RECEIVER, PORT))).expect("a free port");
                stack.listen(socket, 1).expect("a bound socket");
                listener = Some(socket);
            }
        }
        Ours { stack, iface, role, listener, conn, bytes: vec![0; CALL_BYTES] }
    }

    /// The application's turn; gives the bytes that it has read.
    fn call(&mut self) -> u64 {
        if let Some(listener) = self.listener
            && self.conn.is_none()
        {
            self.conn = self.stack.accept(listener).ok().map(|(socket, _)| socket);
        }
        let Some(conn) = self.conn else { return 0 };
        let mut read = 0;
        loop {
            let result = match self.role {
                Role::Sender => self.stack.write(conn, &self.bytes),
                Role::Receiver => self.stack.read(conn, &mut self.bytes),
            };
            match (result, self.role) {
                (Ok(_), Role::Sender) => {}
                (Ok(bytes), Role::Receiver) => read += bytes as u64,
                (Err(SocketError::WouldBlock | SocketError::NoBuffers), _) => return read,
                (Err(error), _) => panic!("the connection is lost: {error}"),
            }
        }
    }
}

impl End for Ours {
    fn receive(&mut self, now: Instant, frame: &[u8]) {
        self.stack.handle_bytes(now, self.iface, frame).expect("room for a frame");
    }

    fn turn(&mut self, now: Instant, send: &mut dyn FnMut(Vec<u8>)) -> u64 {
        self.stack.handle_timeout(now);
        while self.stack.poll_event().is_some() {}
        let read = self.call();
        loop {
            let burst = self.stack.poll_transmit(self.iface);
            if burst.is_empty() {
                return read;
            }
            for (_, pieces) in burst.iter() {
                send(pieces.iter().flat_map(|piece| piece.iter().copied()).collect());
            }
            burst.clear();
        }
    }

    fn due(&mut self, _: Instant) -> Option<Instant> {
        self.stack.poll_at()
    }
}
