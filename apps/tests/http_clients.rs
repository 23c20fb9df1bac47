//! The file server against clients that others wrote, over the kernel's own loopback sockets: what
//! it says is right even where our stack is not involved.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use barewire::http::{Limits, Site, Transport, serve_connection};

/// Larger than what the server keeps in memory, and than one chunk.
const BIG: usize = 1_000_003;

/// A blocking socket: every call is over when it returns.
struct Blocking(TcpStream);

impl Transport for Blocking {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    async fn send_file(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, offset)?;
        self.0.write_all(&bytes)
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    fn set_deadline(&mut self, timeout: Option<Duration>) {
        // A socket that has gone tells so with the next call.
        let _ = self.0.set_read_timeout(timeout);
        let _ = self.0.set_write_timeout(timeout);
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking transport never waits in a future"),
    }
}

/// A site on a port of its own, with a thread for each connection.
struct Server {
    top: PathBuf,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str) -> Server {
        let top = std::env::temp_dir().join(format!("barewire-{name}-{}", std::process::id()));
        let root = top.join("root");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("index.html"), "<p>hello</p>").unwrap();
        fs::write(root.join("big"), content()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let root = root.clone();
                thread::spawn(move || serve(stream, &root));
            }
        });
        Server { top, address }
    }

    /// Runs curl; gives its output and whether it succeeded.
    fn curl(&self, path: &str, options: &[&str]) -> (Vec<u8>, bool) {
        let url = format!("http://{}{path}", self.address);
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--max-time", "20"]).args(options);
        let output = command.arg(url).output().expect("curl is installed by scripts/setup");
        (output.stdout, output.status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.top);
    }
}

fn content() -> Vec<u8> {
    (0..BIG).map(|i| (i % 251) as u8).collect()
}

fn serve(stream: TcpStream, root: &Path) {
    let site = Site::open(root, Arc::default(), Arc::default()).unwrap();
    // A client may go whenever it likes.
    let _ = block_on(serve_connection(&mut Blocking(stream), &site, &Limits::default()));
}

#[test]
fn curl_fetches_whole_files_and_goes_on_with_broken_ones() {
    let server = Server::start("curl");
    assert_eq!(server.curl("/", &["--fail"]), (b"<p>hello</p>".to_vec(), true));
    assert_eq!(server.curl("/big", &["--fail"]), (content(), true));
    let (rest, _) = server.curl("/big", &["--fail", "--continue-at", "999999"]);
    assert_eq!(rest, content()[999_999..]);
    let (part, _) = server.curl("/big", &["--fail", "--range", "10-19"]);
    assert_eq!(part, content()[10..20]);
    assert_eq!(server.curl("/big", &["--http1.0", "--fail"]), (content(), true));
}

#[test]
fn curl_is_told_what_it_cannot_have() {
    let server = Server::start("refused");
    let status = |path: &str, options: &[&str]| {
        let ask = [&["--output", "/dev/null", "--write-out", "%{http_code}"], options].concat();
        String::from_utf8(server.curl(path, &ask).0).unwrap()
    };
    assert_eq!(status("/none", &[]), "404");
    assert_eq!(status("/../../etc/passwd", &["--path-as-is"]), "400");
    assert_eq!(status("/", &["--data", "a=b"]), "405");
    assert_eq!(
        status("/", &["--request", "GET", "--header", "Transfer-Encoding: chunked", "--data", "x"]),
        "411"
    );
    let large = format!("A: {}", "a".repeat(20_000));
    assert_eq!(status("/", &["--header", &large]), "431");
    assert_eq!(status("/", &["--head"]), "200");
    let etag = server.curl("/", &["--head"]).0;
    let etag = String::from_utf8(etag).unwrap();
    let etag = etag.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
    assert_eq!(status("/", &["--header", &format!("If-None-Match: {etag}")]), "304");
}

#[test]
fn curl_uses_one_connection_for_many_files() {
    let server = Server::start("reuse");
    let url = format!("http://{}/big", server.address);
    let again = [url.as_str(); 4];
    let ask = [&["--fail", "--write-out", "%{num_connects} "], &again[..]].concat();
    let (output, good) = server.curl("/", &ask);
    assert!(good);
    let connects: Vec<_> = output.rsplit(|&b| b == b'>').next().unwrap().to_vec();
    assert_eq!(String::from_utf8(connects).unwrap().trim(), "0");
    assert_eq!(output.len(), 4 * BIG + "<p>hello</p>".len() + "1 0 0 0 0 ".len());
}
