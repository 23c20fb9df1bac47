//! Sockets used from another core: a thread that asks, and what answers on the other core.
//!
//! ```text
//!   core a: thread ── RemoteStream ══ mailbox ══▶ core b: engine, whose handler answers
//!   core a: thread ── socket ── veth, kernel ───▶ core b: thread that answers
//! ```
//!
//! The engine has both ends of our connection: it goes to an address of its own, through the whole of
//! the stack and past the device. The kernel's goes over a veth pair between two namespaces. All four
//! spin: the engine is busy, our thread's reads spin before they sleep, and the kernel's sockets are
//! tried again until they have something.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Add;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use barewire_driver::cable::{self, CableConfig};
use barewire_driver::sys::pin_to_core;
use barewire_driver::{Device, PoolConfig, QueueId};
use barewire_stack::engine::{Core, Direction, EngineConfig, Engines, Idle, RemoteStream, Wait};
use barewire_stack::tcp::TcpConfig;
use barewire_stack::{Cidr, Family, SocketError, SocketId, SocketKind, SocketOption};

use crate::kernel::{SERVER, inside};
use crate::{MESSAGE_BYTES, message};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 7;

/// Rounds between two looks at the clock.
const ROUNDS_AT_ONCE: u64 = 64;

/// What asks: it sends a message and waits until it has come back.
pub trait Asker: Send {
    /// One round trip.
    ///
    /// # Panics
    /// If the answer is not what was asked.
    fn ask(&mut self, round: u64);

    /// Round trips a second on this processor.
    ///
    /// # Panics
    /// As `ask`, and if the processor may not be used.
    fn rate(&mut self, processor: usize, time: Duration) -> f64
    where
        Self: Sized,
    {
        let measure = || {
            pin_to_core(processor).expect("a processor that may be used");
            let (start, mut rounds) = (Instant::now(), 0);
            while start.elapsed() < time {
                for _ in 0..ROUNDS_AT_ONCE {
                    rounds += 1;
                    self.ask(rounds);
                }
            }
            rounds as f64 / start.elapsed().as_secs_f64()
        };
        std::thread::scope(|scope| scope.spawn(measure).join().expect("an asker that lives"))
    }
}

/// What a number of round trips has cost beside time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// System calls that woke the engine.
    pub engine_wakeups: u64,
    /// System calls that woke the thread.
    pub thread_wakeups: u64,
    /// Payload bytes copied by processors, on both sides.
    pub bytes_copied: u64,
}

impl Add for Costs {
    type Output = Costs;

    fn add(self, other: Costs) -> Costs {
        Costs {
            engine_wakeups: self.engine_wakeups + other.engine_wakeups,
            thread_wakeups: self.thread_wakeups + other.thread_wakeups,
            bytes_copied: self.bytes_copied + other.bytes_copied,
        }
    }
}

/// An engine that answers its own threads.
pub struct Ours {
    engines: Engines,
    stream: RemoteStream,
}

impl Ours {
    /// An engine on this processor, and a connection to its handler.
    ///
    /// # Panics
    /// If that cannot be had.
    pub fn new(processor: usize, idle: Idle) -> Ours {
        let (device, _far_end) = cable::pair(CableConfig::new("threads")).expect("a cable");
        let config = EngineConfig {
            addresses: vec![Cidr::new(IpAddr::V4(HOST), 24).expect("24 bits of 32")],
            idle,
            pin: vec![processor],
            pool: PoolConfig { slots: 2048, slot_len: 2048, cells: 2048, try_huge: true },
            tcp: TcpConfig { nodelay: true, ..TcpConfig::default() },
            ..EngineConfig::default()
        };
        let queue = device.queue(QueueId(0)).expect("its only queue");
        let engines = Engines::start(&config, device.mac(), vec![queue]).expect("an engine");
        engines.run_on(0, serve).expect("an engine that runs");
        let wait = Wait::for_at_most(Some(Duration::from_secs(10)));
        let stream = engines.connect(at(HOST), wait).expect("a handler that listens");
        Ours { engines, stream }
    }

    /// What has been counted since it was made.
    ///
    /// # Panics
    /// If the engine does not answer.
    pub fn costs(&self) -> Costs {
        let stats = self.engines.stats();
        let stats = stats.first().expect("an engine that runs");
        Costs {
            engine_wakeups: stats.run.engine_wakeups,
            thread_wakeups: stats.run.thread_wakeups,
            bytes_copied: stats.pool.bytes_copied,
        }
    }
}

impl Asker for Ours {
    fn ask(&mut self, round: u64) {
        let (request, mut answer) = (message(round), [0; MESSAGE_BYTES]);
        let written = self.stream.write(&request, Wait::Forever);
        assert_eq!(written, Ok(MESSAGE_BYTES), "room for a request");
        let read = self.stream.read(&mut answer, Wait::Forever);
        assert_eq!(read, Ok(MESSAGE_BYTES), "a whole answer");
        assert!(answer == request, "the answer differs");
    }
}

fn at(addr: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((addr, PORT))
}

/// Listens, and answers one connection on the engine's own core.
fn serve(core: &Core) {
    let listen = core.with_stack(|stack| {
        let id = stack.socket(SocketKind::Tcp, Family::V4)?;
        stack.bind(id, at(HOST))?;
        stack.listen(id, 1)?;
        Ok::<SocketId, SocketError>(id)
    });
    let listener = listen.expect("a free port");
    let handler = core.clone();
    core.spawn(async move {
        let accepted = handler.ready(listener, Direction::Read, |stack| stack.accept(listener));
        let Ok((id, _)) = accepted.await else { return };
        let _ = handler.with_stack(|stack| stack.set_option(id, SocketOption::NoDelay(true)));
        let mut buffer = [0; MESSAGE_BYTES];
        loop {
            let read = handler.ready(id, Direction::Read, |stack| stack.read(id, &mut buffer));
            let Ok(len @ 1..) = read.await else { return };
            let write = |stack: &mut barewire_stack::Stack| stack.write(id, &buffer[..len]);
            let Ok(_) = handler.ready(id, Direction::Write, write).await else { return };
        }
    });
}

/// Two threads with sockets of the kernel.
pub struct Kernel {
    stream: TcpStream,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Kernel {
    /// A thread on this processor that answers, in this namespace, and a connection to it.
    ///
    /// # Panics
    /// If that cannot be had.
    pub fn new(processor: usize, namespace: Option<PathBuf>) -> Kernel {
        let address = if namespace.is_some() { SERVER } else { Ipv4Addr::LOCALHOST };
        let listener =
            inside(namespace.as_deref(), || TcpListener::bind((address, 0)).expect("a free port"));
        let to = listener.local_addr().expect("a bound socket");
        let stream = TcpStream::connect(to).expect("a listening server");
        let (answering, _) = listener.accept().expect("a completed connection");
        for end in [&stream, &answering] {
            end.set_nodelay(true).expect("a socket's option");
            end.set_nonblocking(true).expect("a socket's option");
        }
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let server = std::thread::spawn(move || {
            pin_to_core(processor).expect("a processor that may be used");
            answer(answering, &stop);
        });
        Kernel { stream, over, server: Some(server) }
    }
}

impl Asker for Kernel {
    fn ask(&mut self, round: u64) {
        let (request, mut answer) = (message(round), [0; MESSAGE_BYTES]);
        self.stream.write_all(&request).expect("an empty send buffer has room");
        spin_read(&mut self.stream, &mut answer, || false);
        assert!(answer == request, "the answer differs");
    }
}

fn answer(mut stream: TcpStream, over: &AtomicBool) {
    let mut buffer = [0; MESSAGE_BYTES];
    while spin_read(&mut stream, &mut buffer, || over.load(Ordering::Relaxed)) {
        stream.write_all(&buffer).expect("an empty send buffer has room");
    }
}

/// Reads a whole message, trying until it is there; false if it is over before.
fn spin_read(stream: &mut TcpStream, buffer: &mut [u8], over: impl Fn() -> bool) -> bool {
    let mut read = 0;
    while read < buffer.len() {
        match stream.read(&mut buffer[read..]) {
            Ok(0) => return false,
            Ok(len) => read += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if over() {
                    return false;
                }
                std::hint::spin_loop();
            }
            Err(error) => panic!("an open connection: {error}"),
        }
    }
    true
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let ended = server.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_processor() -> usize {
        *barewire_driver::sys::allowed_cores().unwrap().last().unwrap()
    }

    #[test]
    fn our_answers_are_right_and_their_copies_counted() {
        const BYTES: u64 = 100 * MESSAGE_BYTES as u64;
        let mut ours = Ours::new(a_processor(), Idle::default());
        let before = ours.costs();
        (0..100).for_each(|round| ours.ask(round));
        // Each way: into the ring between the threads or out of it, into the send queue, into a
        // frame's cell, and out of packet memory at the other end. Something may be sent twice.
        let bytes = ours.costs().bytes_copied - before.bytes_copied;
        assert!((8 * BYTES..=10 * BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn the_kernels_answers_are_right() {
        let mut kernel = Kernel::new(a_processor(), None);
        (0..100).for_each(|round| kernel.ask(round));
    }
}
