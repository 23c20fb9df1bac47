//! Tests of engines that a thread drives turn by turn.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use barewire_driver::cable::{self, CableConfig, CableDevice};
use barewire_driver::{Device, QueueId};

use super::*;
use crate::engine::{Direction, Engines, Turn};
use crate::error::SocketError;
use crate::socket::{Family, SocketId, SocketKind};

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PORT: u16 = 7;

/// More turns than anything here takes.
const TURNS: usize = 1_000_000;

fn at(addr: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(addr), PORT)
}

/// A host of one engine, which is still to be opened.
fn host(addr: Ipv4Addr, device: &CableDevice) -> (Engines, EngineSeed) {
    let config = EngineConfig {
        addresses: vec![Cidr::new(IpAddr::V4(addr), 24).unwrap()],
        ..EngineConfig::default()
    };
    let queues = vec![device.queue(QueueId(0)).unwrap()];
    let (engines, mut seeds) = Engines::prepare(&config, device.mac(), queues).unwrap();
    (engines, seeds.remove(0))
}

fn tcp(core: &Core) -> SocketId {
    core.with_stack(|stack| stack.socket(SocketKind::Tcp, Family::V4)).unwrap()
}

/// Accepts one connection, answers one message, and closes.
async fn answer_one(core: Core, listener: SocketId) {
    let accept = core.ready(listener, Direction::Read, |stack| stack.accept(listener)).await;
    let (id, mut buffer) = (accept.unwrap().0, [0; 64]);
    let read = core.ready(id, Direction::Read, |stack| stack.read(id, &mut buffer)).await;
    let len = read.unwrap();
    assert_eq!(core.with_stack(|stack| stack.write(id, &buffer[..len])), Ok(len));
    core.with_stack(|stack| stack.close(id)).unwrap();
    core.with_stack(|stack| stack.close(listener)).unwrap();
}

/// Connects, says something, and sets `heard` if that comes back.
async fn ask_one(core: Core, heard: Rc<Cell<bool>>) {
    let id = tcp(&core);
    let begun = core.with_stack(|stack| stack.connect(id, at(FAR)));
    assert_eq!(begun, Err(SocketError::InProgress));
    let written = core.ready(id, Direction::Write, |stack| stack.write(id, b"there?")).await;
    assert_eq!(written, Ok(6));
    let mut buffer = [0; 64];
    let read = core.ready(id, Direction::Read, |stack| stack.read(id, &mut buffer)).await;
    heard.set(read == Ok(6) && &buffer[..6] == b"there?");
    core.with_stack(|stack| stack.close(id)).unwrap();
}

#[test]
fn a_thread_drives_two_engines_until_both_are_over() {
    let (a, b) = cable::pair(CableConfig::new("turns")).unwrap();
    let ((near, near_seed), (far, far_seed)) = (host(NEAR, &a), host(FAR, &b));
    let mut engines = [near_seed.open().unwrap(), far_seed.open().unwrap()];
    let [client, server] = engines.each_ref().map(|engine| engine.core().clone());
    let listener = tcp(&server);
    server
        .with_stack(|stack| stack.bind(listener, at(FAR)).and_then(|()| stack.listen(listener, 1)))
        .unwrap();
    assert!(server.spawn(answer_one(server.clone(), listener)));
    let heard = Rc::new(Cell::new(false));
    assert!(client.spawn(ask_one(client.clone(), heard.clone())));
    for _ in 0..TURNS {
        engines.iter_mut().for_each(|engine| assert_ne!(engine.turn(), Turn::Over));
        if client.tasks() + server.tasks() == 0 {
            break;
        }
    }
    assert!(heard.get(), "an answer");
    // Whoever would wait for an engine on its own thread is told so, between turns too.
    assert_eq!(near.run_on(0, |_| {}), Err(SocketError::NotSupported));
    assert!(near.stop().is_empty() && far.stop().is_empty());
    let ended = (0..TURNS).any(|_| engines.each_mut().map(Engine::turn) == [Turn::Over; 2]);
    assert!(ended, "engines that were asked to stop go on");
    drop((client, server));
    for report in engines.map(Engine::run) {
        assert!(report.is_clean() && report.unfinished == 0, "{report:?}");
        assert_eq!((report.stats.tasks.spawned, report.stats.tasks.finished), (1, 1));
    }
    // The thread is free to wait for others again.
    assert_eq!(near.run_on(0, |_| {}), Err(SocketError::EngineStopped));
}

#[test]
fn who_waits_for_an_engine_that_is_never_opened_is_told() {
    let (a, _b) = cable::pair(CableConfig::new("unopened")).unwrap();
    let (engines, seed) = host(NEAR, &a);
    let waits = std::thread::spawn(move || engines.run_on(0, |_| {}));
    assert_eq!(seed.index(), 0);
    drop(seed);
    assert_eq!(waits.join().unwrap(), Err(SocketError::EngineStopped));
}

#[test]
fn who_waits_for_an_engine_whose_thread_fails_is_told() {
    let (a, _b) = cable::pair(CableConfig::new("failing")).unwrap();
    let (engines, seed) = host(NEAR, &a);
    let failed = std::thread::spawn(move || {
        let mut engine = seed.open().unwrap();
        engine.turn();
        panic!("on purpose");
    });
    assert!(failed.join().is_err());
    assert_eq!(engines.run_on(0, |_| {}), Err(SocketError::EngineStopped));
    assert_eq!(engines.failure().as_deref(), Some(PANICKED));
}
