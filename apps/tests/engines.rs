//! Engines as a whole: sleep, several on one device, the default instance, the end.

mod common;

use std::any::Any;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use barewire::{Barewire, EngineReport, StartError, TcpListener, TcpStream, UdpSocket};
use barewire_driver::cable::{self, CableConfig};
use barewire_driver::{
    Arm, Capabilities, Device, DeviceError, Features, LinkState, MacAddr, Pool, Queue,
    QueueCounters, QueueError, QueueId, QueueSeed, RxBurst, TxBurst,
};
use barewire_stack::engine::{EngineConfig, Engines, Turn};
use barewire_stack::{Cidr, SocketError};
use common::{CLIENT, LONG, Pattern, SERVER, at, pair, pair_of, stop_both, within};

/// What one wake-up may cost: some microseconds of spinning. Any periodic tick, and any loop that
/// does not sleep, is far above.
const WAKE_TURNS: u64 = 10_000;

#[test]
fn an_idle_engine_does_not_run() {
    let (server, client) = pair("asleep");
    let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let near = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
            (near, listener.accept().unwrap().0)
        })
        .collect();
    // Delayed ACKs and the like are over after this.
    thread::sleep(Duration::from_millis(200));
    let before = server.stats().engines[0].run;
    thread::sleep(Duration::from_millis(300));
    let after = server.stats().engines[0].run;
    // Each question wakes it once; nothing else may.
    assert!(after.sleeps - before.sleeps <= 2, "{before:?} {after:?}");
    assert!(after.busy_turns - before.busy_turns <= 2, "{before:?} {after:?}");
    assert!(after.turns - before.turns < 2 * WAKE_TURNS, "{before:?} {after:?}");
    // And the first packet after that is answered.
    let begin = Instant::now();
    client.ping(SERVER, 56, LONG).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500));
    let (near, far) = &streams[7];
    (&*near).write_all(b"wake up").unwrap();
    let mut buf = [0; 7];
    (&*far).read_exact(&mut buf).unwrap();
    drop(streams);
    stop_both(&server, &client);
}

/// Connections of the tests that count what lands at which engine.
const CONNECTIONS: usize = 40;

/// Streams there and back over connections between two hosts of two engines each.
fn stream_both_ways(server: &Barewire, client: &Barewire) {
    let listener = TcpListener::bind_on(server, at(SERVER, 80)).unwrap();
    let taken = TcpListener::bind_on(server, at(SERVER, 80)).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let acceptor = thread::spawn(move || {
        let echo = |stream: TcpStream| {
            thread::spawn(move || {
                let mut buf = vec![0; 20_000];
                loop {
                    let n = (&stream).read(&mut buf).unwrap();
                    if n == 0 {
                        break;
                    }
                    (&stream).write_all(&buf[..n]).unwrap();
                }
            })
        };
        let threads: Vec<_> =
            listener.incoming().take(CONNECTIONS).map(|stream| echo(stream.unwrap())).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let connections: Vec<_> = (0..CONNECTIONS as u64)
        .map(|seed| {
            let client = client.clone();
            thread::spawn(move || {
                let stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
                let mut data = vec![0; 200_000];
                Pattern::new(seed).fill(&mut data);
                let writer = stream.try_clone().unwrap();
                let sent = data.clone();
                let send = thread::spawn(move || {
                    (&writer).write_all(&sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut got = Vec::new();
                (&stream).read_to_end(&mut got).unwrap();
                assert!(got == data, "stream {seed} is damaged");
                send.join().unwrap();
            })
        })
        .collect();
    within(LONG, move || connections.into_iter().for_each(|c| c.join().unwrap()));
    acceptor.join().unwrap();
}

/// Frames that the engines have taken over from each other, without those that all of them get.
fn crossings(reports: &[EngineReport]) -> u64 {
    reports.iter().map(|r| r.stats.run.forwarded_in - r.stats.run.forwarded_arp).sum()
}

#[test]
fn engines_own_the_flows_that_a_known_device_gives_them() {
    let (server, client) = pair_of("twocores", 2);
    stream_both_ways(&server, &client);
    for reports in stop_both(&server, &client) {
        assert!(reports.iter().all(|r| r.stats.stack.tcp_segments_received > 100), "{reports:?}");
        assert_eq!(crossings(&reports), 0, "{reports:?}");
    }
}

#[test]
fn two_engines_carry_flows_to_their_owners() {
    let config = CableConfig { queues: 2, ..CableConfig::new("twoblind") };
    let (near, far) = cable::pair(config).unwrap();
    let start = |inner, addr| {
        let blind = Fragile { inner: Arc::new(inner), how: Arc::default() };
        common::builder("twoblind", addr, 2).start_on(Arc::new(blind)).unwrap()
    };
    let (server, client) = (start(near, SERVER), start(far, CLIENT));
    stream_both_ways(&server, &client);
    for reports in stop_both(&server, &client) {
        let engines: Vec<_> = reports.iter().map(|engine| engine.stats.clone()).collect();
        assert!(engines.iter().all(|e| e.stack.tcp_segments_received > 100), "{engines:?}");
        let out = engines.iter().map(|e| e.run.forwarded_out).sum::<u64>();
        // The device spreads flows as it likes, so about half of them land elsewhere.
        assert!(out > 100 && crossings(&reports) > 100, "{out} {}", crossings(&reports));
        assert_eq!(engines.iter().map(|e| e.run.forward_dropped).sum::<u64>(), 0);
        // A tail probe that crosses the end of its connection may be answered by RST; frames for the
        // other engine, were they answered so, would be so by the hundred.
        let resets = engines.iter().map(|e| e.stack.tcp_resets_sent).sum::<u64>();
        assert!(resets < CONNECTIONS as u64 / 2, "{resets} RSTs");
    }
}

#[test]
fn datagrams_of_two_engines_reach_one_socket() {
    let (server, client) = pair_of("twoudp", 2);
    let far = UdpSocket::bind_on(&server, at(SERVER, 53)).unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    for round in 0..50u8 {
        let near = UdpSocket::bind_on(&client, at(CLIENT, 0)).unwrap();
        near.set_read_timeout(Some(LONG)).unwrap();
        near.send_to(&[round], at(SERVER, 53)).unwrap();
        let mut buf = [0; 2];
        let (n, from) = far.recv_from(&mut buf).unwrap();
        assert_eq!((n, buf[0], from), (1, round, near.local_addr().unwrap()));
        far.send_to(&[round, round], from).unwrap();
        assert_eq!(near.recv_from(&mut buf).unwrap(), (2, at(SERVER, 53)));
    }
    drop(far);
    client.ping(SERVER, 100, LONG).unwrap();
    stop_both(&server, &client);
}

#[test]
fn handlers_of_two_cores_listen_on_one_port() {
    let (server, client) = pair_of("twohandlers", 2);
    server
        .on_core(move |core| async move {
            let listener = core.tcp_listen(at(SERVER, 80), 64).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let index = core.index() as u8;
                core.spawn(async move {
                    let _ = stream.write_all(&[index]).await;
                });
            }
        })
        .unwrap();
    let mut seen = [0; 2];
    for _ in 0..40 {
        let mut stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
        let mut index = [0; 1];
        stream.read_exact(&mut index).unwrap();
        seen[usize::from(index[0])] += 1;
    }
    assert!(seen.iter().all(|&n| n > 0), "each core got connections: {seen:?}");
    stop_both(&server, &client);
}

#[test]
fn what_cannot_start_says_why() {
    let start = |spec: &str, address: &str| {
        Barewire::builder()
            .device(spec.parse().unwrap())
            .address(address.parse().unwrap())
            .gateway("10.1.2.3".parse().unwrap())
            .start()
    };
    let gateway = start("cable:never", "10.9.0.1/24").unwrap_err();
    assert!(matches!(gateway, StartError::Gateway(_)), "{gateway}");
    let none = Barewire::builder().start().unwrap_err();
    assert!(matches!(none, StartError::NoDevice), "{none}");
}

#[test]
fn stopping_twice_gives_the_same_report_and_dropping_stops() {
    let (server, client) = pair("twice");
    let first = server.stop();
    let second = server.stop();
    assert_eq!(first.engines.len(), second.engines.len());
    first.check().unwrap();
    assert!(server.on_core(|_core| async {}).is_err());
    drop(server);
    drop(client);
}

/// A device that works until it is told to break, and does not tell how it deals flows out.
#[derive(Debug)]
struct Fragile {
    inner: Arc<dyn Device>,
    how: Arc<Mutex<Option<Breakage>>>,
}

#[derive(Clone, Copy, Debug)]
enum Breakage {
    Unplugged,
    Panic,
}

impl Device for Fragile {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn mac(&self) -> MacAddr {
        self.inner.mac()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn queues(&self) -> u16 {
        self.inner.queues()
    }
    fn link(&self) -> LinkState {
        self.inner.link()
    }
    fn queue(&self, id: QueueId) -> Result<Box<dyn QueueSeed>, DeviceError> {
        Ok(Box::new(FragileSeed(self.inner.queue(id)?, self.how.clone())))
    }
}

struct FragileSeed(Box<dyn QueueSeed>, Arc<Mutex<Option<Breakage>>>);

impl QueueSeed for FragileSeed {
    fn open(self: Box<Self>) -> Box<dyn Queue> {
        Box::new(FragileQueue(self.0.open(), self.1))
    }
}

struct FragileQueue(Box<dyn Queue>, Arc<Mutex<Option<Breakage>>>);

impl Queue for FragileQueue {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        self.0.start(pool, wanted)
    }
    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let how = *self.1.lock().unwrap();
        match how {
            None => self.0.rx_burst(burst, max),
            Some(Breakage::Unplugged) => Err(QueueError::Gone(ErrorKind::NotFound.into())),
            Some(Breakage::Panic) => panic!("a driver's own fault (expected by this test)"),
        }
    }
    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        self.0.tx_burst(burst)
    }
    fn tx_room(&self) -> usize {
        self.0.tx_room()
    }
    fn reclaim(&mut self) -> usize {
        self.0.reclaim()
    }
    fn pending_tx(&self) -> usize {
        self.0.pending_tx()
    }
    fn arm(&mut self) -> Arm {
        self.0.arm()
    }
    fn disarm(&mut self) {
        self.0.disarm();
    }
    fn counters(&self) -> QueueCounters {
        self.0.counters()
    }
    fn stop(&mut self) {
        self.0.stop();
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[test]
fn an_engine_that_dies_fails_whoever_waits_and_says_why() {
    for (cable, breakage, said) in [
        ("unplugged", Breakage::Unplugged, "the device is gone"),
        ("panics", Breakage::Panic, "the engine panicked"),
    ] {
        let (near, far) = cable::pair(CableConfig::new(cable)).unwrap();
        let how = Arc::default();
        let fragile = Fragile { inner: Arc::new(near), how: Arc::clone(&how) };
        let server = common::builder(cable, SERVER, 1).start_on(Arc::new(fragile)).unwrap();
        let client = common::builder(cable, CLIENT, 1).start_on(Arc::new(far)).unwrap();
        let listener = TcpListener::bind_on(&server, at(SERVER, 80)).unwrap();
        let stream = TcpStream::connect_on(&client, at(SERVER, 80)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        // Whoever is told that a socket has failed can ask at once why.
        let (at_accept, at_read) = (server.clone(), server.clone());
        let accept = thread::spawn(move || {
            let error = listener.accept().map(|_| ()).unwrap_err();
            (error.kind(), at_accept.failure())
        });
        let read = thread::spawn(move || {
            let error = (&accepted).read(&mut [0; 4]).unwrap_err();
            (error.kind(), at_read.failure())
        });
        thread::sleep(Duration::from_millis(50));
        *how.lock().unwrap() = Some(breakage);
        // Wakes the engine, so that it meets its end.
        let _ = (&stream).write_all(b"knock");
        for waiter in [accept, read] {
            let (kind, told) = within(LONG, move || waiter.join().unwrap());
            assert_eq!(kind, ErrorKind::ConnectionAborted);
            assert!(told.as_deref().is_some_and(|told| told.contains(said)), "{told:?}");
        }
        assert_eq!(client.failure(), None);
        let late = TcpStream::connect_on(&server, at(CLIENT, 80)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConnectionAborted);
        let report = server.stop();
        let failure = report.engines[0].failure.clone().unwrap();
        assert!(failure.contains(said), "{failure}");
        assert!(report.engines[0].audit.all_free(), "{:?}", report.engines[0].audit);
        assert!(report.check().is_err());
        drop(stream);
        client.stop().check().unwrap();
    }
}

#[test]
fn who_waits_for_an_engine_that_has_lost_its_device_is_told_though_its_thread_keeps_it() {
    let (near, _far) = cable::pair(CableConfig::new("kept")).unwrap();
    let how = Arc::default();
    let fragile = Fragile { inner: Arc::new(near), how: Arc::clone(&how) };
    let config = EngineConfig {
        addresses: vec![Cidr::new(at(SERVER, 0).ip(), 24).unwrap()],
        ..EngineConfig::default()
    };
    let queues = vec![fragile.queue(QueueId(0)).unwrap()];
    let (engines, mut seeds) = Engines::prepare(&config, fragile.mac(), queues).unwrap();
    let mut engine = seeds.remove(0).open().unwrap();
    assert_ne!(engine.turn(), Turn::Over);
    let engines = Arc::new(engines);
    let theirs = Arc::clone(&engines);
    let waits = thread::spawn(move || theirs.run_on(0, |_| {}));
    *how.lock().unwrap() = Some(Breakage::Unplugged);
    assert_eq!(engine.turn(), Turn::Over);
    let answer = within(LONG, move || waits.join().unwrap());
    assert_eq!(answer, Err(SocketError::EngineStopped));
    assert!(engines.is_stopped());
    assert_eq!(engine.turn(), Turn::Over);
    assert!(engine.run().failure.is_some_and(|failure| failure.contains("the device is gone")));
}
