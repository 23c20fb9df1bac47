//! The server as a client sees it: bytes in, bytes out, over a transport in memory.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

/// When every test happens: ten seconds after the files were written.
const NOW: Duration = Duration::from_secs(784_111_787);
const NOW_TEXT: &str = "Sun, 06 Nov 1994 08:49:47 GMT";
const MODIFIED: Duration = Duration::from_secs(784_111_777);
const MODIFIED_TEXT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const PAGE: &str = "<p>hello</p>\n";

/// A client that has said everything it will say.
struct Script {
    input: Vec<u8>,
    at: usize,
    /// The next reads give this many bytes each, in turn.
    cuts: Vec<usize>,
    cut: usize,
    /// After the input: silence instead of the end.
    then_silent: bool,
    output: Vec<u8>,
    writes: usize,
    deadlines: Vec<Option<Duration>>,
    now: SystemTime,
    shut_down: bool,
}

impl Script {
    fn new(input: &[u8]) -> Script {
        Script {
            input: input.to_vec(),
            at: 0,
            cuts: vec![usize::MAX],
            cut: 0,
            then_silent: false,
            output: Vec::new(),
            writes: 0,
            deadlines: Vec::new(),
            now: UNIX_EPOCH + NOW,
            shut_down: false,
        }
    }
}

impl Transport for Script {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "a read without room would look like the end");
        let cut = self.cuts[self.cut % self.cuts.len()].max(1);
        self.cut += 1;
        let count = cut.min(buffer.len()).min(self.input.len() - self.at);
        buffer[..count].copy_from_slice(&self.input[self.at..self.at + count]);
        self.at += count;
        match count {
            0 if self.then_silent => Err(io::ErrorKind::TimedOut.into()),
            count => Ok(count),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        self.writes += 1;
        Ok(())
    }

    async fn send_file(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset)?;
        self.output.extend_from_slice(&bytes);
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.shut_down = true;
        Ok(())
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn set_deadline(&mut self, timeout: Option<Duration>) {
        self.deadlines.push(timeout);
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a transport in memory never waits"),
    }
}

/// A small site on disk.
struct Tree {
    top: PathBuf,
    site: Site,
    counters: Arc<Counters>,
    stopping: Arc<AtomicBool>,
}

/// Length of `big`: too large for memory, and more than two chunks.
const BIG: u64 = 2 * SEND_CHUNK_BYTES + 100;

fn big() -> Vec<u8> {
    (0..BIG).map(|i| (i % 251) as u8).collect()
}

impl Tree {
    fn new() -> Tree {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("barewire-http-{}-{number}", std::process::id());
        let top = std::env::temp_dir().join(name);
        let root = top.join("root");
        fs::create_dir_all(root.join("sub dir/index.html")).unwrap();
        fs::create_dir_all(root.join("docs")).unwrap();
        fs::write(top.join("secret"), "secret").unwrap();
        for (file, content) in [
            ("index.html", PAGE.as_bytes()),
            ("digits", b"0123456789"),
            ("empty", b""),
            ("docs/index.html", b"docs"),
            ("big", &big()),
        ] {
            write(&root.join(file), content);
        }
        symlink("digits", root.join("link")).unwrap();
        symlink("../secret", root.join("escape")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let (counters, stopping) = (Arc::<Counters>::default(), Arc::<AtomicBool>::default());
        let site = Site::open(&root, Arc::clone(&counters), Arc::clone(&stopping)).unwrap();
        Tree { top, site, counters, stopping }
    }

    fn root(&self) -> PathBuf {
        self.top.join("root")
    }

    fn run(&self, script: &mut Script) -> End {
        let end = block_on(serve_connection(script, &self.site, &Limits::default())).unwrap();
        let figures = self.counters.figures();
        assert_eq!(figures.requests, figures.answered, "an answer was lost count of");
        assert_eq!(figures.connections, figures.closed);
        end
    }

    /// All that comes back for `input`.
    fn talk(&self, input: &str) -> String {
        let mut script = Script::new(input.as_bytes());
        self.run(&mut script);
        String::from_utf8_lossy(&script.output).into_owned()
    }

    /// The answer to one GET with more header lines.
    fn get(&self, target: &str, lines: &str) -> Answer {
        Answer::of(&self.talk(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")))
    }

    fn etag(&self) -> String {
        self.get("/digits", "").field("ETag").unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.top);
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH + MODIFIED).unwrap();
}

/// A response taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn of(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn field(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| *n == name).map(|(_, value)| value.to_owned())
    }
}

#[track_caller]
fn statuses(output: &str) -> Vec<u16> {
    let line = |at: usize| output[at + 9..at + 12].parse().unwrap();
    output.match_indices("HTTP/1.1 ").map(|(at, _)| line(at)).collect()
}

#[test]
fn a_page_comes_with_everything_a_browser_wants() {
    let tree = Tree::new();
    let answer = tree.get("/", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, PAGE));
    for (name, value) in [
        ("Date", NOW_TEXT),
        ("Last-Modified", MODIFIED_TEXT),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", "13"),
        ("Accept-Ranges", "bytes"),
    ] {
        assert_eq!(answer.field(name).as_deref(), Some(value), "{name}");
    }
    assert!(answer.field("ETag").unwrap().starts_with('"'));
    assert_eq!(answer.field("Connection"), None);
    let kind = |target| tree.get(target, "").field("Content-Type").unwrap();
    assert_eq!(kind("/digits"), "application/octet-stream");
    assert_eq!(tree.get("/empty", "").field("Content-Length").as_deref(), Some("0"));
}

#[test]
fn head_is_get_without_the_body() {
    let tree = Tree::new();
    for target in ["/", "/digits", "/big", "/none", "/docs"] {
        let head = Answer::of(&tree.talk(&format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n")));
        assert_eq!(head.head, tree.get(target, "").head, "{target}");
        assert_eq!(head.body, "", "{target}");
    }
}

#[test]
fn requests_in_a_row_are_answered_in_order_with_one_write() {
    let tree = Tree::new();
    let one = |target| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let input = [one("/digits"), one("/none"), one("/docs/"), one("/")].concat();
    let mut script = Script::new(input.as_bytes());
    assert_eq!(tree.run(&mut script), End::Closed);
    let output = String::from_utf8(script.output).unwrap();
    assert_eq!(statuses(&output), [200, 404, 200, 200]);
    assert!(output.ends_with(PAGE) && script.writes == 1 && script.shut_down);
    assert_eq!(tree.counters.figures().client_errors, 1);
}

#[test]
fn a_large_file_is_sent_between_its_neighbours() {
    let tree = Tree::new();
    let one = |target| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let input = [one("/digits"), one("/big"), one("/digits")].concat();
    let mut script = Script::new(input.as_bytes());
    tree.run(&mut script);
    let big = big();
    let at = script.output.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4 + 10;
    let rest = &script.output[at..];
    let body = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(&rest[body..body + big.len()], &big[..]);
    assert!(rest.ends_with(b"\r\n\r\n0123456789"));
    assert_eq!(tree.counters.figures().bytes_sent, script.output.len() as u64);
}

#[test]
fn a_connection_lives_as_long_as_both_sides_want() {
    let tree = Tree::new();
    let twice = |request: &str| {
        let output = tree.talk(&request.repeat(2));
        (statuses(&output).len(), Answer::of(&output).field("Connection"))
    };
    assert_eq!(twice("GET /digits HTTP/1.1\r\nHost: h\r\n\r\n"), (2, None));
    let close = Some("close".to_owned());
    let request = "GET /digits HTTP/1.1\r\nHost: h\r\nConnection: Foo, Close\r\n\r\n";
    assert_eq!(twice(request), (1, close.clone()));
    assert_eq!(twice("GET /digits HTTP/1.0\r\n\r\n"), (1, close.clone()));
    let alive = "GET /digits HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(twice(alive), (2, Some("keep-alive".to_owned())));
    tree.stopping.store(true, Ordering::Relaxed);
    assert_eq!(twice("GET /digits HTTP/1.1\r\nHost: h\r\n\r\n"), (1, close));
}

#[test]
fn directories_lead_to_their_index() {
    let tree = Tree::new();
    assert_eq!(tree.get("/docs/", "").body, "docs");
    let answer = tree.get("/docs?a=b", "");
    assert_eq!((answer.status, answer.field("Location")), (301, Some("/docs/?a=b".to_owned())));
    let location = tree.get("/sub%20dir", "").field("Location");
    assert_eq!(location.as_deref(), Some("/sub%20dir/"));
    assert_eq!(tree.get("//docs", "").field("Location").as_deref(), Some("/docs/"));
    for target in ["/sub%20dir/", "/digits/", "/none/", "/none"] {
        assert_eq!(tree.get(target, "").status, 404, "{target}");
    }
}

#[test]
fn nothing_outside_the_root_is_served() {
    let tree = Tree::new();
    assert_eq!(tree.get("/link", "").body, "0123456789");
    for (target, status) in [
        ("/escape", 403),
        ("/absolute", 403),
        ("/up", 403),
        ("/up/secret", 403),
        ("/../secret", 400),
        ("/docs/../../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/..%2fsecret", 404),
        ("/digits%00", 400),
        ("//../secret", 400),
    ] {
        let answer = tree.get(target, "");
        assert_eq!(answer.status, status, "{target}");
        assert!(!answer.body.contains("secret"), "{target}");
    }
}

#[test]
fn one_range_is_served_and_everything_else_is_the_whole() {
    let tree = Tree::new();
    let range = |value: &str| {
        let answer = tree.get("/digits", &format!("Range: {value}\r\n"));
        (answer.status, answer.field("Content-Range").unwrap_or_default(), answer.body)
    };
    for (value, expect, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=3-5", "bytes 3-5/10", "345"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-30", "bytes 0-9/10", "0123456789"),
        ("Bytes=8-99999999999", "bytes 8-9/10", "89"),
        ("bytes=0-18446744073709551615", "bytes 0-9/10", "0123456789"),
    ] {
        assert_eq!(range(value), (206, expect.to_owned(), body.to_owned()), "{value}");
    }
    for value in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let (status, range, _) = range(value);
        assert_eq!((status, range.as_str()), (416, "bytes */10"), "{value}");
    }
    for value in [
        "bytes=0-1,3-4",
        "bytes=5-3",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "0-1",
        "bytes=0--1",
        "bytes=+0-1",
        "bytes=0-1\r\nRange: bytes=0-1",
        "b\u{e4}tes=0-1",
    ] {
        assert_eq!(range(value).0, 200, "{value}");
    }
    assert_eq!(tree.get("/empty", "Range: bytes=0-\r\n").status, 416);
    assert_eq!(tree.get("/empty", "Range: bytes=-5\r\n").status, 200);
    let head = tree.talk("HEAD /digits HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n");
    assert_eq!(Answer::of(&head).status, 200);
    let last = big()[BIG as usize - 2..].to_vec();
    let mut script = Script::new(b"GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=-2\r\n\r\n");
    tree.run(&mut script);
    assert!(script.output.ends_with(&[b"\r\n\r\n", &last[..]].concat()));
}

#[test]
fn conditions_are_judged_in_the_order_of_the_rfc() {
    let tree = Tree::new();
    let tag = tree.etag();
    let earlier = "Sun, 06 Nov 1994 08:49:36 GMT";
    for (lines, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-Modified-Since: {MODIFIED_TEXT}\r\n"), 304),
        (format!("If-Modified-Since: {earlier}\r\n"), 200),
        ("If-Modified-Since: yesterday\r\n".into(), 200),
        // RFC 9110 §13.1.3: the tag decides, the date is not looked at.
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {MODIFIED_TEXT}\r\n"), 200),
        (format!("If-Match: {tag}\r\n"), 200),
        ("If-Match: *\r\n".into(), 200),
        (format!("If-Match: W/{tag}, \"x\"\r\n"), 412),
        (format!("If-Unmodified-Since: {MODIFIED_TEXT}\r\n"), 200),
        (format!("If-Unmodified-Since: {earlier}\r\n"), 412),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: W/{tag}\r\n"), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {MODIFIED_TEXT}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {NOW_TEXT}\r\n"), 200),
    ] {
        let answer = tree.get("/digits", &lines);
        assert_eq!(answer.status, status, "{lines}");
        if status == 304 {
            assert_eq!((answer.body.as_str(), answer.field("ETag")), ("", Some(tag.clone())));
            assert_eq!(
                (answer.field("Content-Type"), answer.field("Content-Length")),
                (None, None)
            );
        }
    }
}

#[test]
fn a_file_that_may_still_change_unseen_has_a_weak_tag() {
    let tree = Tree::new();
    let mut script = Script::new(b"GET /digits HTTP/1.1\r\nHost: h\r\n\r\n");
    script.now = UNIX_EPOCH + MODIFIED + Duration::from_secs(1);
    tree.run(&mut script);
    let answer = Answer::of(&String::from_utf8_lossy(&script.output));
    assert!(answer.field("ETag").unwrap().starts_with("W/\""));
}

#[test]
fn methods_other_than_get_and_head_are_told_so() {
    let tree = Tree::new();
    for method in ["POST", "PUT", "OPTIONS", "BREW"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
        let output = tree.talk(&request.repeat(2));
        assert_eq!(statuses(&output), [405, 405], "{method}");
        assert_eq!(Answer::of(&output).field("Allow").as_deref(), Some("GET, HEAD"));
    }
    assert_eq!(statuses(&tree.talk("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")), [405]);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let tree = Tree::new();
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n", 411),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\n folded: x\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : h\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: \u{1}\r\n", 400),
        ("GET /\r\nHost: h\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n", 505),
        ("GET  / HTTP/1.1\r\nHost: h\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: h\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n", 417),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n", 413),
        ("\u{16}\u{3}\u{1} hello", 400),
    ] {
        let output = tree.talk(&format!("{head}\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(statuses(&output), [status], "{head}");
        assert_eq!(Answer::of(&output).field("Connection").as_deref(), Some("close"), "{head}");
    }
}

#[test]
fn heads_have_a_largest_size() {
    let tree = Tree::new();
    let limit = Limits::default().head_bytes;
    let begin = "GET / HTTP/1.1\r\nHost: h\r\nA: ";
    let fits = format!("{begin}{}\r\n\r\n", "a".repeat(limit - begin.len() - 4));
    assert_eq!(statuses(&tree.talk(&fits.repeat(3))), [200, 200, 200]);
    let over = format!("{begin}{}\r\n\r\n", "a".repeat(limit - begin.len() - 3));
    assert_eq!(statuses(&tree.talk(&over)), [431]);
    let many = |n: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
    assert_eq!(statuses(&tree.talk(&many(MAX_HEADERS))), [200]);
    assert_eq!(statuses(&tree.talk(&many(MAX_HEADERS + 1))), [431]);
    assert_eq!(statuses(&tree.talk(&format!("GET /{} ", "a".repeat(limit)))), [414]);
}

#[test]
fn bodies_are_stepped_over_and_empty_lines_overlooked() {
    let tree = Tree::new();
    let get = "GET /digits HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /\r\n\n";
    assert_eq!(statuses(&tree.talk(&get.repeat(3))), [200, 200, 200]);
    let cut_short = "GET /digits HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGE";
    assert_eq!(statuses(&tree.talk(cut_short)), [200]);
    let end = "GET /digits HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(statuses(&tree.talk(&format!("\r\n\n\r\n\n{end}"))), [200]);
    assert_eq!(statuses(&tree.talk(&format!("{}{end}", "\r\n".repeat(5)))), [400]);
    assert_eq!(tree.talk(""), "");
    assert_eq!(statuses(&tree.talk("GET / HTTP/1.1\r\nHost: h\r\n")), [400]);
}

#[test]
fn a_client_that_asks_before_sending_is_told_to_go_on_or_not_to() {
    let tree = Tree::new();
    let ask = |method: &str, len: u32| {
        let lines = format!("Host: h\r\nContent-Length: {len}\r\nExpect: 100-Continue\r\n");
        statuses(&tree.talk(&format!("{method} / HTTP/1.1\r\n{lines}\r\n")))
    };
    assert_eq!(ask("GET", 5), [100, 200]);
    assert_eq!(ask("GET", 0), [200]);
    assert_eq!(ask("GET", 1_000_000), [413]);
    assert_eq!(ask("POST", 5), [405]);
    let old = "GET / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\na";
    assert_eq!(statuses(&tree.talk(old)), [200]);
}

#[test]
fn silent_clients_are_let_go_and_slow_ones_told_why() {
    let tree = Tree::new();
    let limits = Limits::default();
    let run = |input: &str| {
        let mut script = Script::new(input.as_bytes());
        (script.then_silent, script.cuts) = (true, vec![1]);
        assert_eq!(tree.run(&mut script), End::TimedOut);
        (statuses(&String::from_utf8_lossy(&script.output)), script.deadlines)
    };
    let (idle, head) = (Some(limits.idle_timeout), Some(limits.head_timeout));
    let send = Some(limits.send_timeout);
    assert_eq!(run(""), (vec![], vec![idle]));
    // The deadline is set by the first byte and not moved by those after it.
    assert_eq!(run("GET / HTT"), (vec![408], vec![idle, head, send]));
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(run(request), (vec![200], vec![idle, head, send, idle]));
    // Sending has a time of its own, so each wait sets its time anew, also when the waits are alike.
    let mut whole = Script::new(request.as_bytes());
    whole.then_silent = true;
    assert_eq!(tree.run(&mut whole), End::TimedOut);
    assert_eq!(whole.deadlines, [idle, send, idle]);
    let body = "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc";
    assert_eq!(run(body).0, [200, 408]);
    assert_eq!(tree.counters.figures().timeouts, 5);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_breaks_the_connection() {
    let tree = Tree::new();
    let request = b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n";
    tree.run(&mut Script::new(request));
    File::options().write(true).open(tree.root().join("big")).unwrap().set_len(1000).unwrap();
    let mut script = Script::new(request);
    let result = block_on(serve_connection(&mut script, &tree.site, &Limits::default()));
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let figures = tree.counters.figures();
    assert_eq!((figures.aborted, figures.requests), (1, figures.answered));
}

#[test]
fn a_busy_file_is_opened_once_a_second() {
    let tree = Tree::new();
    let at = |ms| {
        let mut script = Script::new(b"GET /digits HTTP/1.1\r\nHost: h\r\n\r\n");
        script.now = UNIX_EPOCH + NOW + Duration::from_millis(ms);
        tree.run(&mut script);
        Answer::of(&String::from_utf8_lossy(&script.output)).body
    };
    assert_eq!((at(0), at(500)), ("0123456789".into(), "0123456789".into()));
    write(&tree.root().join("digits"), b"changed");
    assert_eq!(at(999), "0123456789");
    assert_eq!(at(1000), "changed");
    fs::remove_file(tree.root().join("digits")).unwrap();
    assert_eq!((at(1999), at(2000)), ("changed".into(), "404 Not Found\n".into()));
    let figures = tree.counters.figures();
    assert_eq!((figures.cache_hits, figures.cache_misses), (3, 3));
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let tree = Tree::new();
    for i in 0..CACHE_ENTRIES + 50 {
        fs::write(tree.root().join(format!("f{i}")), i.to_string()).unwrap();
        assert_eq!(tree.get(&format!("/f{i}"), "").body, i.to_string());
        tree.get("/digits", "");
    }
    let figures = tree.counters.figures();
    assert_eq!(figures.cache_evictions, 51);
    assert_eq!(figures.cache_misses as usize, CACHE_ENTRIES + 51, "the busy file was evicted");
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let tree = Tree::new();
    let socket = std::os::unix::net::UnixListener::bind(tree.root().join("socket")).unwrap();
    assert!(matches!(tree.get("/socket", "").status, 403 | 500));
    drop(socket);
    let fifo = tree.root().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    assert_eq!(tree.get("/fifo", "").status, 403);
}

#[test]
fn a_connection_gives_back_the_memory_of_a_large_head() {
    let mut connection = Connection::new(Limits::default());
    assert_eq!(connection.input_room().len(), 2048);
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "a".repeat(9000));
    let mut at = 0;
    while at < head.len() {
        assert!(matches!(connection.step(), Step::NeedInput));
        at += connection.feed(&head.as_bytes()[at..]);
    }
    assert!(matches!(connection.step(), Step::Request(_)));
    assert!(matches!(connection.step(), Step::NeedInput) && connection.is_idle());
    connection.shrink();
    assert_eq!(connection.input_room().len(), 2048);
}

/// Pieces that requests are made of, whole and broken.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop::sample::select(vec![
        "GET /digits HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD /docs/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET ",
        "GET /digits HTTP/1.1\nHost: h\nRange: bytes=2-3\n\n",
        "GET /big HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab",
        "\r\n",
        "\r",
        "\n",
        "GET ",
        " HTTP/1.1\r\n",
        "Host: h\r\n",
        "Content-Length: 3\r\n",
        ": ",
    ]);
    prop_oneof![
        8 => whole.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (1usize..20_000).prop_map(|len| vec![b'a'; len]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn how_the_input_is_cut_does_not_show(
        pieces in prop::collection::vec(piece(), 0..8),
        cuts in prop::collection::vec(1usize..40, 1..6),
    ) {
        thread_local!(static TREE: Tree = Tree::new());
        let input = pieces.concat();
        TREE.with(|tree| {
            let mut whole = Script::new(&input);
            tree.run(&mut whole);
            let mut cut = Script::new(&input);
            cut.cuts = cuts;
            tree.run(&mut cut);
            prop_assert_eq!(
                String::from_utf8_lossy(&whole.output),
                String::from_utf8_lossy(&cut.output)
            );
            Ok(())
        })?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        thread_local!(static TREE: Tree = Tree::new());
        TREE.with(|tree| tree.run(&mut Script::new(&[b"GET /", &input[..]].concat())));
        TREE.with(|tree| tree.run(&mut Script::new(&input)));
    }
}
