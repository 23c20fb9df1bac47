//! Long streams against the Linux kernel: both ways at once over one connection, on a good wire and
//! on a bad one, with our side as server and as client, on other threads and on the core.

mod interop;

use std::net;
use std::time::Duration;

use barewire::{TcpConfig, TcpListener, TcpStream};
use interop::conn::{Conn, Listen};
use interop::stream::{MIB, Sum, both_ways, both_ways_async};
use interop::{
    CONGESTION_CONTROL, Host, KERNEL, OURS, in_namespace, join, kernel, ours, route, start, tell,
    wire,
};

/// What each direction carries.
const BYTES: u64 = 256 * MIB;

/// Seeds of the two directions.
const FROM_KERNEL: u64 = 11;
const TO_KERNEL: u64 = 12;

/// A wire that loses, repeats and reorders.
const BAD_WIRE: &str = "seed=5,loss=2%,reorder=1%,duplicate=1%";

#[track_caller]
fn assert_equal(kernels: (Sum, Sum), ours: (Sum, Sum), bytes: u64) {
    assert_eq!(kernels.0, ours.1, "from the kernel to us");
    assert_eq!(ours.0, kernels.1, "from us to the kernel");
    assert_eq!((kernels.0.bytes, ours.0.bytes), (bytes, bytes));
}

/// The kernel's end of a test.
fn kernels_end(conn: net::TcpStream, bytes: u64) -> (Sum, Sum) {
    both_ways(conn.patiently(), FROM_KERNEL, TO_KERNEL, bytes)
}

fn server_on_threads(host: &Host, bytes: u64) {
    let listener = TcpListener::bind_on(host.bw(), (OURS, 7001)).unwrap();
    let server = start(move || both_ways(listener.take(), TO_KERNEL, FROM_KERNEL, bytes));
    let kernels = kernels_end(net::TcpStream::connect(ours(7001)).unwrap(), bytes);
    assert_equal(kernels, join(server), bytes);
}

fn client_on_threads(host: &Host, bytes: u64) {
    let listener = net::TcpListener::bind((KERNEL, 7002)).unwrap();
    let server = start(move || kernels_end(listener.take(), bytes));
    let conn = TcpStream::connect_on(host.bw(), kernel(7002)).unwrap().patiently();
    let mine = both_ways(conn, TO_KERNEL, FROM_KERNEL, bytes);
    assert_equal(join(server), mine, bytes);
}

fn server_on_core(host: &Host, bytes: u64) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = host.spawn(move |core| async move {
        let listener = core.tcp_listen(ours(7003), 8).unwrap();
        ready.send(()).unwrap();
        let (stream, _peer) = listener.accept().await.unwrap();
        both_ways_async(stream, TO_KERNEL, FROM_KERNEL, bytes).await
    });
    is_ready.recv().unwrap();
    let kernels = kernels_end(net::TcpStream::connect(ours(7003)).unwrap(), bytes);
    assert_equal(kernels, server.join(), bytes);
}

fn client_on_core(host: &Host, bytes: u64) {
    let listener = net::TcpListener::bind((KERNEL, 7004)).unwrap();
    let server = start(move || kernels_end(listener.take(), bytes));
    let client = host.spawn(move |core| async move {
        let stream = core.tcp_connect(kernel(7004)).await.unwrap();
        both_ways_async(stream, TO_KERNEL, FROM_KERNEL, bytes).await
    });
    assert_equal(join(server), client.join(), bytes);
}

fn report(name: &str, bytes: u64, run: impl FnOnce()) {
    let begin = std::time::Instant::now();
    run();
    let seconds = begin.elapsed().as_secs_f64();
    let rate = (2 * bytes * 8) as f64 / seconds / 1e9;
    tell(&format!("  {name}: 2 x {} MiB in {seconds:.2} s, {rate:.2} Gbit/s", bytes / MIB));
}

/// Frames were larger than a wire carries: both sides have left segmenting to the other.
fn assert_offloaded(host: &Host) {
    let queue = host.bw().stats().engines[0].queue;
    let (received, sent) = (queue.rx_bytes / queue.rx_frames, queue.tx_bytes / queue.tx_frames);
    tell(&format!("  {received} bytes a frame received, {sent} sent, {} calls", queue.syscalls));
    assert!(received > 1514 && sent > 1514, "{queue:?}");
}

/// A host with timers for a link of this length. Linux and we wait 200 ms at least before a timeout,
/// which is right for the Internet; on this link a round trip takes less than 1 ms.
fn host_on_a_bad_wire() -> Host {
    let tcp = TcpConfig { rto_min: Duration::from_millis(10), ..TcpConfig::default() };
    let host = Host::with(|builder| builder.tcp(tcp).faults(wire(BAD_WIRE)));
    route(&format!("{CONGESTION_CONTROL} rto_min 10ms"));
    host
}

fn assert_that_the_wire_was_bad(host: &Host) {
    let stack = host.bw().stats().stack();
    assert!(stack.tcp_segments_received > 1000, "{stack:?}");
    assert!(stack.tcp_drop_outside_window > 0, "nothing came twice: {stack:?}");
}

#[test]
fn streams_to_and_from_a_server_of_ours_are_intact() {
    in_namespace("streams_to_and_from_a_server_of_ours_are_intact", || {
        let host = Host::start();
        report("on other threads", BYTES, || server_on_threads(&host, BYTES));
        report("on the core", BYTES, || server_on_core(&host, BYTES));
        assert_offloaded(&host);
        host.stop();
    });
}

#[test]
fn streams_to_and_from_a_client_of_ours_are_intact() {
    in_namespace("streams_to_and_from_a_client_of_ours_are_intact", || {
        let host = Host::start();
        report("on other threads", BYTES, || client_on_threads(&host, BYTES));
        report("on the core", BYTES, || client_on_core(&host, BYTES));
        assert_offloaded(&host);
        host.stop();
    });
}

#[test]
fn a_server_of_ours_bears_a_bad_wire() {
    in_namespace("a_server_of_ours_bears_a_bad_wire", || {
        let host = host_on_a_bad_wire();
        report("on the core", BYTES, || server_on_core(&host, BYTES));
        report("on other threads", BYTES / 8, || server_on_threads(&host, BYTES / 8));
        assert_that_the_wire_was_bad(&host);
        host.stop();
    });
}

#[test]
fn a_client_of_ours_bears_a_bad_wire() {
    in_namespace("a_client_of_ours_bears_a_bad_wire", || {
        let host = host_on_a_bad_wire();
        report("on other threads", BYTES, || client_on_threads(&host, BYTES));
        report("on the core", BYTES / 8, || client_on_core(&host, BYTES / 8));
        assert_that_the_wire_was_bad(&host);
        host.stop();
    });
}
