//! `barewire bench` between our host on a tap and the Linux kernel, both ways round: each mode runs
//! for a second, and what it tells has to agree with what the other side has counted.
//!
//! Needs the right to make a network namespace and `/dev/net/tun`; where one is missing, each test
//! says by name that it was skipped.

mod interop;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use interop::program::{Folder, Program, barewire, number};
use interop::{DEVICE, KERNEL, OURS, PREFIX, in_namespace, ip, join, start};

/// Which side is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Ours,
    Kernels,
}

/// One server, and clients on the other side.
struct Pair {
    client: Client,
    folder: Folder,
    server: Program,
}

impl Pair {
    fn start(client: Client) -> Pair {
        let folder = Folder::new("bench");
        let server = match client {
            Client::Ours => {
                // The clients find the tap as it is, the kernel's address on it included.
                ip("tuntap add dev bw0 mode tap");
                ip(&format!("addr add {KERNEL}/24 dev bw0"));
                ip("link set bw0 up");
                Program::start_with(&folder, &["bench", "server", "--kernel"])
            }
            Client::Kernels => Program::start(&folder, "bench server", &[]),
        };
        Pair { client, folder, server }
    }

    fn json(&self) -> PathBuf {
        self.folder.path().join("result.json")
    }

    /// A client that writes its JSON.
    fn command(&self, mode: &str) -> Command {
        let mut command = barewire("bench client");
        command.args(mode.split_whitespace()).arg("--json").arg(self.json());
        match self.client {
            Client::Ours => {
                command.args(["--device", DEVICE, "--address", PREFIX, &KERNEL.to_string()]);
            }
            Client::Kernels => {
                command.args(["--kernel", &OURS.to_string()]);
            }
        }
        command
    }

    /// What the last client has written.
    fn result(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.json()).unwrap()).unwrap()
    }

    /// Runs a client for a second, which must do so without an error; gives its JSON.
    #[track_caller]
    fn run(&self, mode: &str) -> Value {
        let output = self.command(&format!("{mode} --seconds 1")).output().unwrap();
        assert!(output.status.success(), "{mode}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{mode}: it has complained");
        let value = self.result();
        let text = value.to_string();
        assert_eq!(value["errors"], 0, "{mode}: {text}");
        let side = if self.client == Client::Ours { DEVICE } else { "kernel" };
        assert_eq!(value["side"], side, "{text}");
        let seconds = value["seconds"].as_f64().unwrap();
        assert!((0.9..8.0).contains(&seconds), "{mode}: {text}");
        value
    }

    /// Ends the server, which must have seen no error; gives its summary.
    #[track_caller]
    fn stop(self) -> String {
        let summary = self.server.stop();
        assert!(summary.contains("no errors"), "{summary}");
        summary
    }
}

/// Requests over a few connections: the counts of both sides and the bytes agree.
fn requests(client: Client) {
    let pair = Pair::start(client);
    let mut served = 0;
    for (mode, connections) in [
        ("rr", 1),
        ("rr --connections 4 --pipeline 8 --size 100 --answer 1000", 4),
        ("rr --size 200000 --answer 3", 1),
        ("rr --connections 200", 200),
    ] {
        let result = pair.run(mode);
        let exchanges = number(&result, "exchanges");
        assert!(exchanges > 20, "{mode}: {result}");
        assert_eq!(number(&result, "connected"), connections, "{mode}");
        assert_eq!(number(&result, "sent_bytes"), exchanges * number(&result, "size"));
        assert_eq!(number(&result, "received_bytes"), exchanges * number(&result, "answer"));
        assert_eq!(result["seconds"], 1.0, "{mode}: the time that was asked for");
        let latency = &result["latency_ns"];
        let order = ["min", "p50", "p75", "p90", "p99", "p99_9", "p99_99"];
        let times: Vec<_> = order.iter().map(|name| number(latency, name)).collect();
        assert!(times[0] > 0 && times.is_sorted(), "{mode}: {latency}");
        served += exchanges + number(&result, "open_at_end");
    }
    let summary = pair.stop().replace(',', "");
    assert!(summary.contains(&format!("served 206 connections: {served} requests")), "{summary}");
}

#[test]
fn our_client_exchanges_requests_with_the_kernel() {
    in_namespace("our_client_exchanges_requests_with_the_kernel", || requests(Client::Ours));
}

#[test]
fn the_kernels_client_exchanges_requests_with_us() {
    in_namespace("the_kernels_client_exchanges_requests_with_us", || requests(Client::Kernels));
}

/// Streams carry bytes the way they are asked to, and no other.
fn streams(client: Client) {
    let pair = Pair::start(client);
    for (direction, up, down) in [("up", true, false), ("down", false, true), ("both", true, true)]
    {
        for more in ["", "--owned --connections 3"] {
            let result = pair.run(&format!("stream --direction {direction} {more}"));
            let bytes = ["sent_bytes", "received_bytes"].map(|name| number(&result, name));
            for (bytes, goes) in bytes.into_iter().zip([up, down]) {
                let plausible = if goes { bytes > 1_000_000 } else { bytes == 0 };
                assert!(plausible, "{direction} {more}: {result}");
            }
            assert_eq!(result["owned"], !more.is_empty());
        }
    }
    pair.stop();
}

#[test]
fn our_client_streams_to_and_from_the_kernel() {
    in_namespace("our_client_streams_to_and_from_the_kernel", || streams(Client::Ours));
}

#[test]
fn the_kernels_client_streams_to_and_from_us() {
    in_namespace("the_kernels_client_streams_to_and_from_us", || streams(Client::Kernels));
}

/// Connections are opened and closed; each side has counted as many.
fn short_connections(client: Client) {
    let pair = Pair::start(client);
    let result = pair.run("conn --connections 4");
    let exchanges = number(&result, "exchanges");
    assert!(exchanges > 50, "{result}");
    assert_eq!((&result["seconds"], number(&result, "errors")), (&1.0.into(), 0));
    let open = number(&result, "open_at_end");
    assert!(open <= 4, "{result}");
    let all = exchanges + open;
    assert_eq!(number(&result, "connected"), all);
    let summary = pair.stop().replace(',', "");
    let both = format!("served {all} connections: {all} requests");
    assert!(summary.contains(&both), "{summary}");
}

#[test]
fn our_client_opens_and_closes_connections() {
    in_namespace("our_client_opens_and_closes_connections", || short_connections(Client::Ours));
}

#[test]
fn the_kernels_client_opens_and_closes_connections() {
    in_namespace("the_kernels_client_opens_and_closes_connections", || {
        short_connections(Client::Kernels);
    });
}

#[test]
fn the_next_client_process_finds_ports_that_the_one_before_has_used() {
    in_namespace("the_next_client_process_finds_ports_that_the_one_before_has_used", || {
        let folder = Folder::new("bench-again");
        ip("link add br0 type bridge");
        for tap in ["bw0", "bw1"] {
            ip(&format!("tuntap add dev {tap} mode tap"));
            ip(&format!("link set {tap} master br0 up"));
        }
        ip("link set br0 up");
        let server = Program::start(&folder, "bench server", &[]);
        // Each process of ours has sequence numbers and timestamps of its own.
        let [first, second] = ["first", "second"].map(|name| {
            let json = folder.path().join(name);
            let line = "conn --connections 16 --device tap:bw1 --address 10.77.0.9/24 --seconds 3";
            let mut client = barewire(&format!("bench client {line} {OURS} --json"));
            let output = client.arg(&json).output().unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            let result = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
            number(&result, "exchanges")
        });
        assert!(first > 100 && second > first / 5, "{first}, and then {second}");
        server.stop();
    });
}

/// At a fixed rate every request that is due in the time is sent, neither more nor fewer.
fn fixed_rate(client: Client) {
    let pair = Pair::start(client);
    let result = pair.run("rr --rate 500 --connections 3");
    let (answered, unsent) = (number(&result, "exchanges"), number(&result, "unsent"));
    assert_eq!(answered + unsent, 500, "{result}");
    assert_eq!((number(&result, "unanswered"), &result["complete"]), (0, &true.into()));
    // What was asked for, whenever the last answer came.
    assert_eq!(result["seconds"], 1.0, "{result}");
    // Only a machine that stands still for half a second leaves any.
    assert!(answered > 250, "{result}");
    assert_eq!((number(&result, "rate"), &result["pipeline"]), (500, &Value::Null));
    pair.stop();
}

#[test]
fn our_client_keeps_a_fixed_rate() {
    in_namespace("our_client_keeps_a_fixed_rate", || fixed_rate(Client::Ours));
}

#[test]
fn the_kernels_client_keeps_a_fixed_rate() {
    in_namespace("the_kernels_client_keeps_a_fixed_rate", || fixed_rate(Client::Kernels));
}

#[test]
fn a_server_that_stalls_is_charged_for_all_that_had_to_wait() {
    in_namespace("a_server_that_stalls_is_charged_for_all_that_had_to_wait", || {
        const STALL: Duration = Duration::from_millis(400);
        let pair = Pair::start(Client::Kernels);
        let pid = pair.server.pid().to_string();
        let kill = |signal: &str| {
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        };
        let result = std::thread::scope(|scope| {
            let result = scope.spawn(|| pair.run("rr --rate 1000"));
            std::thread::sleep(Duration::from_millis(400));
            kill("-STOP");
            std::thread::sleep(STALL);
            kill("-CONT");
            join_scoped(result)
        });
        // About 400 of the 1000 were due while the server stood; half of them waited for half of
        // that or longer. A tool that waits for answers would have one slow request in 600.
        let p90 = Duration::from_nanos(number(&result["latency_ns"], "p90"));
        assert!(p90 > STALL / 4, "{result}");
        pair.stop();
    });
}

#[test]
fn what_a_server_never_answers_is_counted_with_the_time_it_waited() {
    in_namespace("what_a_server_never_answers_is_counted_with_the_time_it_waited", || {
        let pair = Pair::start(Client::Kernels);
        let pid = pair.server.pid().to_string();
        let mut command = pair.command("rr --rate 1000 --seconds 1");
        let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
        let output = client.wait_with_output().unwrap();
        assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let result = pair.result();
        let [answered, unanswered, unsent] =
            ["exchanges", "unanswered", "unsent"].map(|name| number(&result, name));
        assert_eq!(answered + unanswered + unsent, 1000, "{result}");
        assert!(answered > 50 && unanswered > 50, "{result}");
        // They are in the histogram, with the ten seconds that were waited for them.
        let max = Duration::from_nanos(number(&result["latency_ns"], "p99"));
        assert!(max > Duration::from_secs(8), "{result}");
        assert_eq!(
            (&result["seconds"], &result["exchanges_per_s"]),
            (&1.0.into(), &(answered as f64).into())
        );
        let text = String::from_utf8_lossy(&output.stdout).replace(',', "");
        assert!(text.contains(&format!("{unanswered} sent never answered")), "{text}");
        pair.server.stop();
    });
}

/// A connection that hangs beyond the time costs the others nothing of their rate.
fn hanging(client: Client) {
    let pair = Pair::start(client);
    let pid = pair.server.pid().to_string();
    let mut command = pair.command("conn --connections 3 --seconds 1");
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    std::thread::sleep(Duration::from_secs(3));
    assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
    let output = client.wait_with_output().unwrap();
    let result = pair.result();
    assert_eq!(number(&result, "open_at_end"), 3, "{result} {output:?}");
    let exchanges = number(&result, "exchanges");
    assert!(exchanges > 50, "{result}");
    assert_eq!(
        (&result["seconds"], &result["exchanges_per_s"]),
        (&1.0.into(), &(exchanges as f64).into())
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("3 open at the end, in no rate"), "{text}");
    // They are timed all the same.
    let max = Duration::from_nanos(number(&result["latency_ns"], "max"));
    assert!(max > Duration::from_secs(2), "{result}");
    pair.server.stop();
}

#[test]
fn connections_of_ours_that_hang_are_told_apart() {
    in_namespace("connections_of_ours_that_hang_are_told_apart", || hanging(Client::Ours));
}

#[test]
fn connections_of_the_kernels_that_hang_are_told_apart() {
    in_namespace("connections_of_the_kernels_that_hang_are_told_apart", || {
        hanging(Client::Kernels);
    });
}

/// A client that is ended with Ctrl-C tells what it has measured until then.
fn interrupted(client: Client) {
    let pair = Pair::start(client);
    for (mode, counted) in
        [("rr", "exchanges"), ("conn", "exchanges"), ("stream --direction both", "sent_bytes")]
    {
        let mut command = pair.command(&format!("{mode} --seconds 60"));
        let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let pid = client.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let output = client.wait_with_output().unwrap();
        refused(&output, 1, &["ended before its time"]);
        let result = pair.result();
        assert_eq!(result["complete"], false);
        let seconds = result["seconds"].as_f64().unwrap();
        assert!((0.3..10.0).contains(&seconds), "{mode}: {result}");
        assert!(number(&result, counted) > 20, "{mode}: {result}");
        assert!(!output.stdout.is_empty(), "{mode}");
    }
    pair.server.stop();
}

#[test]
fn our_client_tells_what_it_has_when_it_is_interrupted() {
    in_namespace("our_client_tells_what_it_has_when_it_is_interrupted", || {
        interrupted(Client::Ours);
    });
}

#[test]
fn the_kernels_client_tells_what_it_has_when_it_is_interrupted() {
    in_namespace("the_kernels_client_tells_what_it_has_when_it_is_interrupted", || {
        interrupted(Client::Kernels);
    });
}

fn join_scoped<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[track_caller]
fn refused(output: &Output, code: i32, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in says {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_a_reason() {
    in_namespace("what_cannot_be_run_is_refused_with_a_reason", || {
        let run = |line: &str| barewire(&format!("bench {line}")).output().unwrap();
        refused(&run("client rr 10.77.0.1"), 2, &["--kernel"]);
        refused(&run("client rr --kernel --device tap:bw0 10.77.0.1"), 2, &["cannot be used with"]);
        let many = run("client rr --kernel --pipeline 1024 --size 100 127.0.0.1");
        refused(&many, 1, &["1024 requests under way", "next: "]);
        let many = run("client conn --kernel --connections 2000 127.0.0.1");
        refused(&many, 1, &["2000 are too many", "next: give up to 1024"]);
        let nobody = run("client rr --kernel --seconds 1 127.0.0.1");
        refused(
            &nobody,
            1,
            &["cannot be reached", "refused", "next: start `barewire bench server`"],
        );
        let rxdrop = run("rxdrop --device cable:a");
        refused(&rxdrop, 1, &["other end"]);
        for line in ["server", "client rr 10.77.0.1"] {
            let cable = run(&format!("{line} --device cable:a --address 10.77.0.2/24"));
            refused(&cable, 1, &["other end", "next: "]);
        }
        // Before anything is measured, or even looked for.
        for line in ["client rr --kernel 127.0.0.1", "rxdrop --device tap:none"] {
            let json = run(&format!("{line} --json /nowhere/result.json"));
            refused(&json, 1, &["/nowhere/result.json cannot be written"]);
        }
        refused(&run("pktgen --device nothing --to 02:00:00:00:00:01"), 1, &["nothing"]);
    });
}

#[test]
fn more_engines_than_processors_are_told_of() {
    in_namespace("more_engines_than_processors_are_told_of", || {
        let line = "bench server --device tap:bw0 --address 10.77.0.2/24 --seconds 0.1 --cores 4";
        // On one processor, however many the machine has.
        let processor = barewire_driver::sys::allowed_cores().unwrap()[0].to_string();
        let output = Command::new("taskset")
            .args(["-c", &processor, env!("CARGO_BIN_EXE_barewire")])
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("4 engines share 1 processor"), "{text}");
    });
}

#[test]
fn a_server_of_something_else_is_recognised() {
    in_namespace("a_server_of_something_else_is_recognised", || {
        let listener = std::net::TcpListener::bind("127.0.0.1:7777").unwrap();
        let other = start(move || {
            use std::io::Write;
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-something\r\n").unwrap();
        });
        let output = barewire("bench client rr --kernel --seconds 1 127.0.0.1").output().unwrap();
        refused(&output, 1, &["no `barewire bench server` of this version"]);
        join(other);
    });
}

#[test]
fn a_client_of_something_else_is_counted_and_let_go() {
    in_namespace("a_client_of_something_else_is_counted_and_let_go", || {
        use std::io::{Read, Write};
        let folder = Folder::new("bench-stranger");
        let server = Program::start(&folder, "bench server", &[]);
        let mut stream = std::net::TcpStream::connect((OURS, 7777)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(interop::PATIENCE)).unwrap();
        // It ends without a word, or with a reset because it has not read everything.
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
        let summary = server.stop();
        assert!(summary.contains("1 errors, first: it is no client of"), "{summary}");
    });
}

#[test]
fn a_client_that_says_nothing_is_let_go_in_time() {
    in_namespace("a_client_that_says_nothing_is_let_go_in_time", || {
        use std::io::Read;
        for side in ["--device tap:bw0 --address 10.77.0.2/24", "--kernel"] {
            let folder = Folder::new("bench-silent");
            let line = format!("bench server {side}");
            let server = Program::start_with(&folder, &line.split(' ').collect::<Vec<_>>());
            let host = if side == "--kernel" { KERNEL } else { OURS };
            if side == "--kernel" {
                ip(&format!("addr add {KERNEL}/24 dev lo"));
            }
            let mut stream = std::net::TcpStream::connect((host, 7777)).unwrap();
            stream.set_read_timeout(Some(interop::PATIENCE)).unwrap();
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
            let summary = server.stop();
            assert!(summary.contains("1 errors, first: a connection did not come"), "{summary}");
        }
    });
}
