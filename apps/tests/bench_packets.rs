//! `barewire bench pktgen`, `rxdrop` and `forward`: what they tell has to agree with what the kernel
//! has counted on the other side of a tap or a veth.
//!
//! Needs the right to make a network namespace and `/dev/net/tun`; where one is missing, each test
//! says by name that it was skipped.

mod interop;

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use interop::program::{Folder, barewire, number};
use interop::{in_namespace, ip, join, start};

/// A tap that stays when its program ends, with an address on the kernel's side.
fn lasting_tap(name: &str, address: &str) {
    ip(&format!("tuntap add dev {name} mode tap"));
    // Nothing but what the test sends is to be counted.
    fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap_or_default();
    ip(&format!("addr add {address} dev {name}"));
    ip(&format!("link set {name} up"));
}

/// Frames that the kernel has received from a tap.
fn kernel_received(name: &str) -> u64 {
    // This thread's namespace, which is not the process's.
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let prefix = format!("{name}:");
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs a mode without a stack for a second while `meanwhile` goes on; gives its JSON.
fn packets(folder: &Folder, line: &str, meanwhile: impl Fn() + Send + 'static) -> Value {
    static OVER: AtomicBool = AtomicBool::new(false);
    OVER.store(false, Ordering::Relaxed);
    let json: PathBuf = folder.path().join("result.json");
    let traffic = start(move || {
        while !OVER.load(Ordering::Relaxed) {
            meanwhile();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut command = barewire(&format!("bench {line} --seconds 1 --json"));
    let output = command.arg(&json).output().unwrap();
    OVER.store(true, Ordering::Relaxed);
    join(traffic);
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap()
}

#[test]
fn generated_frames_all_reach_the_kernel() {
    in_namespace("generated_frames_all_reach_the_kernel", || {
        let folder = Folder::new("pktgen");
        lasting_tap("bw0", "10.77.0.1/24");
        let line = "pktgen --device tap:bw0 --to 02:00:00:00:00:01 --size 100";
        let result = packets(&folder, line, || {});
        let sent = number(&result, "frames_sent");
        assert!(sent > 1000, "{result}");
        assert_eq!(number(&result, "bytes"), sent * 100);
        assert_eq!(kernel_received("bw0"), sent);
    });
}

/// Sends datagrams to a host on the network of `device` that is only there by its address.
fn datagrams(device: &str, host: &'static str) -> impl Fn() + Send + 'static {
    ip(&format!("neigh replace {host} lladdr 02:00:00:00:00:09 dev {device}"));
    move || {
        // While nobody has the tap open, it has no carrier.
        let _ = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&[0; 100], (host, 9));
    }
}

#[test]
fn received_frames_are_counted_and_dropped() {
    in_namespace("received_frames_are_counted_and_dropped", || {
        let folder = Folder::new("rxdrop");
        lasting_tap("bw0", "10.77.0.1/24");
        let result = packets(&folder, "rxdrop --device tap:bw0", datagrams("bw0", "10.77.0.9"));
        let received = number(&result, "frames_received");
        assert!(received > 20, "{result}");
        // 100 bytes behind 42 of headers; some frame may be the kernel's own.
        assert!(number(&result, "bytes") >= received * 100, "{result}");
        assert_eq!((number(&result, "frames_sent"), number(&result, "dropped")), (0, 0));
    });
}

#[test]
fn frames_are_passed_from_one_device_to_the_other() {
    in_namespace("frames_are_passed_from_one_device_to_the_other", || {
        let folder = Folder::new("forward");
        lasting_tap("bw0", "10.77.0.1/24");
        lasting_tap("bw1", "10.78.0.1/24");
        let line = "forward --device tap:bw0 --to tap:bw1";
        let result = packets(&folder, line, datagrams("bw0", "10.77.0.9"));
        assert_eq!((&result["side"], &result["to"]), (&"tap:bw0".into(), &"tap:bw1".into()));
        let sent = number(&result, "frames_sent");
        assert!(sent > 20, "{result}");
        assert_eq!(kernel_received("bw0") + kernel_received("bw1"), sent, "{result}");
        assert!(kernel_received("bw1") > 20, "{result}");
    });
}

/// A veth pair with an address on the first end.
fn veth(near: &str, far: &str, address: &str) {
    ip(&format!("link add {near} type veth peer name {far}"));
    for end in [near, far] {
        // Nothing but what the test sends is to be counted.
        fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap_or_default();
        ip(&format!("link set {end} up"));
    }
    ip(&format!("addr add {address} dev {near}"));
}

#[test]
fn the_kernels_packet_sockets_are_measured_as_devices_are() {
    in_namespace("the_kernels_packet_sockets_are_measured_as_devices_are", || {
        let folder = Folder::new("packet-sockets");
        veth("a0", "a1", "10.77.0.1/24");
        veth("b0", "b1", "10.78.0.1/24");
        let line = "pktgen --kernel --device a1 --to 02:00:00:00:00:01 --size 100";
        let result = packets(&folder, line, || {});
        let sent = number(&result, "frames_sent");
        assert!(sent > 1000, "{result}");
        assert_eq!((number(&result, "bytes"), kernel_received("a0")), (sent * 100, sent));
        assert_eq!((&result["side"], &result["device"]), (&"kernel".into(), &"a1".into()));

        let traffic = datagrams("a0", "10.77.0.9");
        let result = packets(&folder, "rxdrop --kernel --device a1", traffic);
        let received = number(&result, "frames_received");
        assert!(received > 20 && number(&result, "bytes") >= received * 100, "{result}");

        let (before, traffic) = (kernel_received("b0"), datagrams("a0", "10.77.0.9"));
        let result = packets(&folder, "forward --kernel --device a1 --to b1", traffic);
        let (sent, dropped) = (number(&result, "frames_sent"), number(&result, "dropped"));
        assert!(sent > 20 && dropped == 0, "{result}");
        assert_eq!((kernel_received("b0") - before, &result["to"]), (sent, &"b1".into()));

        let output = barewire("bench rxdrop --kernel --device tap:bw0").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for says in ["tap:bw0 gives the kernel no packet socket", "next: with --kernel"] {
            assert!(text.contains(says), "`{says}` is missing: {text}");
        }
    });
}

#[test]
fn what_a_packet_socket_has_no_room_for_is_counted() {
    in_namespace("what_a_packet_socket_has_no_room_for_is_counted", || {
        // More than the buffer of a socket holds, unless it was made far larger than by default.
        const FRAMES: u64 = 20_000;
        let folder = Folder::new("packet-drops");
        veth("a0", "a1", "10.77.0.1/24");
        let json = folder.path().join("result.json");
        let mut command = barewire("bench rxdrop --kernel --device a1 --seconds 4 --json");
        let mut receiver = command.arg(&json).stdout(Stdio::piped()).spawn().unwrap();
        let pid = receiver.id().to_string();
        let kill = |signal: &str| {
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        };
        let send = datagrams("a0", "10.77.0.9");
        // By then it has begun to receive.
        std::thread::sleep(Duration::from_secs(1));
        kill("-STOP");
        let before = kernel_received("a1");
        (0..FRAMES).for_each(|_| send());
        let arrived = kernel_received("a1") - before;
        kill("-CONT");
        assert!(receiver.wait().unwrap().success());
        let result: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
        let [received, dropped] = ["frames_received", "dropped"].map(|name| number(&result, name));
        assert!(arrived >= FRAMES / 2 && dropped > 1000, "{arrived} arrived: {result}");
        // Some frame may be the kernel's own, before it was stopped.
        assert!((arrived..arrived + 10).contains(&(received + dropped)), "{arrived}: {result}");
        // They came together, in a part of the four seconds.
        assert!(result["active_seconds"].as_f64().unwrap() < 2.0, "{result}");
    });
}
