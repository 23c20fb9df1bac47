//! Two instances of Barewire in one process, joined by a cable.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::channel;
use std::time::Duration;

use barewire::{Barewire, Builder, EngineReport, PoolConfig};

pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

/// Longest time that anything in these tests may take.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn at(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr, port)
}

pub(crate) fn builder(cable: &str, addr: IpAddr, cores: u16) -> Builder {
    Barewire::builder()
        .device(format!("cable:{cable}").parse().unwrap())
        .address(format!("{addr}/24").parse().unwrap())
        .cores(cores)
        .pool(PoolConfig { slots: 4096, slot_len: 2048, cells: 4096, try_huge: false })
        .stop_times(Duration::from_millis(100), Duration::from_millis(500))
}

/// A server and a client. Each test names its own cable, for names are the process's.
pub(crate) fn pair(cable: &str) -> (Barewire, Barewire) {
    pair_of(cable, 1)
}

pub(crate) fn pair_of(cable: &str, cores: u16) -> (Barewire, Barewire) {
    let server = builder(cable, SERVER, cores).start().unwrap();
    let client = builder(cable, CLIENT, cores).start().unwrap();
    (server, client)
}

/// Stops both and checks that every buffer came back.
pub(crate) fn stop_both(server: &Barewire, client: &Barewire) -> [Vec<EngineReport>; 2] {
    // The client first: its side of what is still open ends while the other can answer.
    let client = client.stop();
    let server = server.stop();
    server.check().unwrap();
    client.check().unwrap();
    [server.engines, client.engines]
}

/// Runs `f` on a thread of its own and fails if it takes too long: what hangs must not hang the
/// test run.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        let _ = tell.send(f());
    });
    match told.recv_timeout(limit) {
        Ok(value) => value,
        Err(_) if thread.is_finished() => panic!("{:?}", thread.join().err()),
        Err(_) => panic!("it hangs"),
    }
}

/// Bytes that tell where they belong: any loss, repetition or swap shows.
#[derive(Clone)]
pub(crate) struct Pattern {
    state: u64,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Pattern {
        Pattern { state: seed | 1 }
    }

    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            // A 64-bit xorshift: one byte a step.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            *byte = self.state as u8;
        }
    }

    #[track_caller]
    pub(crate) fn check(&mut self, buf: &[u8]) {
        let mut wanted = vec![0; buf.len()];
        self.fill(&mut wanted);
        assert!(buf == wanted, "the stream is damaged");
    }
}
