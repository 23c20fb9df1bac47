//! `barewire serve` as users run it, against programs that everybody uses: curl, wrk, and a
//! thousand connections that do nothing.

mod interop;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use interop::conn::Conn;
use interop::program::{Folder, Program};
use interop::stream::Known;
use interop::{OURS, in_namespace, ours, tell};

/// The system's ticks a second in which `/proc` tells processor time (`USER_HZ`, the same on every
/// Linux machine that this runs on).
const TICKS_PER_S: u64 = 100;

/// Runs a program that must exist and succeed.
#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:#?}");
    output
}

fn write_site(root: &Path, sizes: &[usize]) {
    for (file, size) in sizes.iter().enumerate() {
        let content = Known::new(file as u64).take(*size);
        fs::write(root.join(format!("file{file}")), content).unwrap();
    }
}

#[test]
fn curl_fetches_64_files_in_parallel() {
    in_namespace("curl_fetches_64_files_in_parallel", || {
        let folder = Folder::new("curl");
        let (root, got) = (folder.make("root"), folder.make("got"));
        // From nothing to 2 MiB, few of them a multiple of anything.
        let sizes: Vec<usize> = (0..64).map(|file| file * file * 521 + file % 3).collect();
        write_site(&root, &sizes);
        let server = Program::start(&folder, "serve", &["--port", "8080", root.to_str().unwrap()]);
        let mut list = String::new();
        for file in 0..sizes.len() {
            let out = got.join(format!("file{file}"));
            writeln!(list, "url = http://{OURS}:8080/file{file}").unwrap();
            writeln!(list, "output = {}", out.display()).unwrap();
        }
        let config = folder.path().join("urls");
        fs::write(&config, list).unwrap();
        for (how, most) in [("--parallel", "64"), ("--no-parallel", "1")] {
            let mut curl = Command::new("curl");
            curl.args(["--fail", "--silent", "--show-error", "--max-time", "60", how]);
            run(curl.args(["--parallel-max", most, "--config"]).arg(&config));
            for (file, size) in sizes.iter().enumerate() {
                let path = got.join(format!("file{file}"));
                let bytes = fs::read(&path).unwrap();
                assert_eq!(bytes.len(), *size, "{}", path.display());
                Known::new(file as u64).check(&bytes);
                fs::remove_file(path).unwrap();
            }
        }
        let summary = server.stop();
        assert!(summary.contains("served 128 requests"), "{summary}");
        assert!(summary.contains("0 client errors, 0 server errors, 0 timeouts"), "{summary}");
    });
}

#[test]
fn wrk_finds_no_error_in_ten_seconds_of_64_connections() {
    in_namespace("wrk_finds_no_error_in_ten_seconds_of_64_connections", || {
        let folder = Folder::new("wrk");
        let root = folder.make("root");
        write_site(&root, &[1000]);
        let server = Program::start(&folder, "serve", &["--port", "8080", root.to_str().unwrap()]);
        let mut wrk = Command::new("wrk");
        let url = format!("http://{OURS}:8080/file0");
        let output = run(wrk.args(["-t2", "-c64", "-d10s", "--timeout", "10s", &url]));
        let text = String::from_utf8_lossy(&output.stdout);
        // wrk names errors only where there are some.
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        let after = |what: &str| text.lines().find_map(|line| line.trim().strip_prefix(what));
        let rate: f64 = after("Requests/sec:").unwrap().trim().parse().unwrap();
        assert!(rate > 0.0, "{text}");
        tell(&format!("  {rate} requests a second"));
        let summary = server.stop();
        assert!(summary.contains("0 client errors, 0 server errors, 0 timeouts"), "{summary}");
    });
}

#[test]
fn a_thousand_idle_connections_cost_under_two_percent_of_a_core() {
    in_namespace("a_thousand_idle_connections_cost_under_two_percent_of_a_core", || {
        const IDLE: usize = 1000;
        const TIME: Duration = Duration::from_secs(5);
        let folder = Folder::new("idle");
        let root = folder.make("root");
        write_site(&root, &[100]);
        let server = Program::start(
            &folder,
            "serve",
            &["--port", "8080", "--idle", "adaptive", root.to_str().unwrap()],
        );
        let mut open: Vec<TcpStream> = Vec::new();
        for _ in 0..IDLE {
            let mut conn = TcpStream::connect(ours(8080)).unwrap().patiently();
            ask_for_file(&mut conn);
            open.push(conn);
        }
        // What the last answers still set in motion, such as delayed acknowledgements.
        thread::sleep(Duration::from_millis(500));
        let before = server.ticks();
        thread::sleep(TIME);
        let used = server.ticks() - before;
        let percent = 100.0 * used as f64 / (TICKS_PER_S * TIME.as_secs()) as f64;
        tell(&format!("  {IDLE} idle connections use {percent:.1} % of a core"));
        assert!(percent < 2.0, "{percent} % of a core");
        // They were all open all the time.
        for conn in &mut open {
            ask_for_file(conn);
        }
        drop(open);
        let summary = server.stop();
        assert!(summary.contains("served 2,000 requests"), "{summary}");
        assert!(summary.contains("over 1,000 connections"), "{summary}");
    });
}

/// One request over a connection that stays open.
fn ask_for_file(conn: &mut TcpStream) {
    conn.write_all(b"GET /file0 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut buf = [0; 1024];
    let body = loop {
        let n = conn.read(&mut buf).unwrap();
        assert!(n > 0, "the server has closed an idle connection");
        answer.extend_from_slice(&buf[..n]);
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head.filter(|head| answer.len() == head + 4 + 100) {
            break &answer[head + 4..];
        }
    };
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    Known::new(0).check(body);
}

#[test]
fn two_cores_serve_without_an_error() {
    in_namespace("two_cores_serve_without_an_error", || {
        let folder = Folder::new("cores");
        let root = folder.make("root");
        write_site(&root, &[0, 100, 100_000]);
        let more = ["--port", "8080", "--cores", "2", root.to_str().unwrap()];
        let server = Program::start(&folder, "serve", &more);
        for file in 0..3 {
            let url = format!("http://{OURS}:8080/file{file}");
            let output = run(Command::new("wrk").args(["-t1", "-c16", "-d1s", &url]));
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        }
        server.stop();
    });
}
