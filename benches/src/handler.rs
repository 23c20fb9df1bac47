//! What a handler of an idle connection takes, beside what the stack keeps for the connection: its
//! task, who it has told to wake it, and the buffer that it will read into.
//!
//! ```text
//!   an engine with both ends of many connections, all at rest
//!     heap before ─▶ an echo handler for each ─▶ all of them wait ─▶ heap after
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use barewire_driver::cable::{self, CableConfig};
use barewire_driver::{Device, QueueId};
use barewire_stack::engine::{Core, Direction, EngineConfig, Engines};
use barewire_stack::tcp::TcpConfig;
use barewire_stack::{Cidr, Family, SocketError, SocketId, SocketKind};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 7;

/// What a handler reads into: a request of a page fits in.
pub const BUFFER_BYTES: usize = 4 << 10;

/// Longer than any connection takes to come to rest.
const REST: Duration = Duration::from_secs(5);

/// Enough for every task to have been polled.
const SETTLE: Duration = Duration::from_millis(200);

/// Longest time for all of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that an idle echo handler takes, its buffer included, shared out among `connections`;
/// `heap` tells how many the process has of its allocator.
///
/// # Panics
/// If there can be no engine, or its connections fail.
pub fn idle_bytes(connections: usize, heap: fn() -> usize) -> f64 {
    let (device, _far_end) = cable::pair(CableConfig::new("handlers")).expect("a cable");
    let config = EngineConfig {
        addresses: vec![Cidr::new(IpAddr::V4(HOST), 24).expect("24 bits of 32")],
        tcp: TcpConfig { nodelay: true, ..TcpConfig::default() },
        ..EngineConfig::default()
    };
    let queue = device.queue(QueueId(0)).expect("its only queue");
    let engines = Engines::start(&config, device.mac(), vec![queue]).expect("an engine");
    let (tell, told) = channel();
    let run = move |core: &Core| {
        let own = core.clone();
        core.spawn(async move {
            if let Err(error) = measure(&own, connections, heap, &tell).await {
                panic!("connections of an engine to itself: {error}");
            }
        });
    };
    engines.run_on(0, run).expect("an engine that runs");
    let bytes = told.recv_timeout(PATIENCE).expect("handlers that wait");
    bytes as f64 / connections as f64
}

async fn measure(
    core: &Core,
    connections: usize,
    heap: fn() -> usize,
    tell: &Sender<usize>,
) -> Result<(), SocketError> {
    let listener = core.with_stack(|stack| {
        let id = stack.socket(SocketKind::Tcp, Family::V4)?;
        stack.bind(id, at())?;
        stack.listen(id, 1)?;
        Ok::<SocketId, SocketError>(id)
    })?;
    let mut served = Vec::with_capacity(connections);
    for _ in 0..connections {
        core.with_stack(|stack| {
            let id = stack.socket(SocketKind::Tcp, Family::V4)?;
            match stack.connect(id, at()) {
                Ok(()) | Err(SocketError::InProgress) => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        let accept = core.ready(listener, Direction::Read, |stack| stack.accept(listener));
        served.push(accept.await?.0);
    }
    core.sleep(REST).await;
    let (tasks, before) = (core.tasks(), heap());
    for id in served {
        core.spawn(echo(core.clone(), id));
    }
    core.sleep(SETTLE).await;
    assert_eq!(core.tasks(), tasks + connections, "all of them wait");
    // Whoever waits for it may have given up.
    let _ = tell.send(heap().saturating_sub(before));
    Ok(())
}

/// Sends back what comes.
async fn echo(core: Core, id: SocketId) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = core.ready(id, Direction::Read, |stack| stack.read(id, &mut buffer));
        let Ok(len @ 1..) = read.await else { return };
        let mut sent = 0;
        while sent < len {
            let rest = &buffer[sent..len];
            let write = core.ready(id, Direction::Write, |stack| stack.write(id, rest));
            let Ok(part) = write.await else { return };
            sent += part;
        }
    }
}

fn at() -> SocketAddr {
    SocketAddr::from((HOST, PORT))
}
