//! The behaviour of a `Stack` through its public calls: two hosts on virtual time.

mod closing;
mod data;
mod datagrams;
mod fast_open;
mod listening;
mod neighbors;
mod opening;
mod options;
mod overload;
mod scale;

use std::net::{Ipv4Addr, SocketAddr};

use barewire_stack::sim::{Pair, PairConfig};
use barewire_stack::tcp::{Readiness, TcpConfig};
use barewire_stack::{Family, SocketError, SocketId, SocketKind, Stack};

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn tcp(stack: &mut Stack) -> SocketId {
    stack.socket(SocketKind::Tcp, Family::V4).unwrap()
}

/// A UDP socket on `port`.
fn udp(stack: &mut Stack, port: u16) -> SocketId {
    let socket = stack.socket(SocketKind::Udp, Family::V4).unwrap();
    stack.bind(socket, any(port)).unwrap();
    socket
}

/// A pair whose stacks have these TCP settings.
fn pair_with(change: impl Fn(&mut TcpConfig)) -> Pair {
    let mut config = PairConfig::default();
    change(&mut config.client.stack.tcp);
    change(&mut config.server.stack.tcp);
    Pair::with(config)
}

/// Lets time pass until the socket of the client has an error, and takes it.
#[track_caller]
fn error_of(pair: &mut Pair, socket: SocketId) -> SocketError {
    pair.run_until(|p| p.client().readiness(socket).unwrap().contains(Readiness::ERROR));
    pair.client().take_error(socket).unwrap().unwrap()
}

/// Everything that can be read now, and whether the stream has ended.
fn read_all(stack: &mut Stack, socket: SocketId) -> (Vec<u8>, bool) {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stack.read(socket, &mut chunk) {
            Ok(0) => return (all, true),
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(SocketError::WouldBlock) => return (all, false),
            Err(error) => panic!("read: {error}"),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
