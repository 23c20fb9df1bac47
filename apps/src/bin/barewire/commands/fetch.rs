//! `barewire fetch`: a file over HTTP, by a blocking socket of our own stack.
//!
//! The request is HTTP/1.0, so that the answer comes without chunks (RFC 9112 §6.1) and ends with
//! its length or with the connection. Redirects are not followed.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use barewire::TcpStream;

use super::ping::resolve;
use super::start::start;
use crate::cli::{FetchArgs, Url};
use crate::output::Advice;

/// Largest head of an answer.
const HEAD_MAX: usize = 64 * 1024;
/// Most header fields of an answer.
const FIELDS_MAX: usize = 128;
/// Bytes taken at a time.
const READ_BYTES: usize = 64 * 1024;

pub(crate) fn run(args: FetchArgs) -> anyhow::Result<ExitCode> {
    let host = resolve(&args.url.host)?;
    let bw = start(&args.device)?;
    let address = SocketAddr::new(host, args.url.port);
    let timeout = args.timeout.duration();
    let fetched = (|| {
        let mut stream = TcpStream::connect_timeout_on(&bw, &address, timeout)
            .with_context(|| format!("{address} cannot be reached"))?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        match &args.output {
            Some(path) => {
                let file = File::create(path)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
                fetch(&mut stream, &args.url, &file)
            }
            None => fetch(&mut stream, &args.url, io::stdout().lock()),
        }
    })();
    // The device's end explains a connection's.
    if let Some(failure) = bw.failure() {
        return Err(anyhow::anyhow!("{} can no longer be used: {failure}", args.device.device));
    }
    fetched.with_context(|| format!("http://{address}{} was not fetched", args.url.target))?;
    bw.stop().check().context("the engines did not stop cleanly")?;
    Ok(ExitCode::SUCCESS)
}

/// Asks for the file and writes its bytes to `out`; gives their number.
fn fetch(stream: &mut (impl Read + Write), url: &Url, mut out: impl Write) -> anyhow::Result<u64> {
    let Url { host, port, target } = url;
    let request = format!(
        "GET {target} HTTP/1.0\r\nHost: {host}:{port}\r\nUser-Agent: barewire/{}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes())?;
    let (head, begun) = read_head(stream)?;
    let mut left = head.length;
    let mut written = 0;
    let mut buffer = vec![0; READ_BYTES];
    buffer[..begun.len()].copy_from_slice(&begun);
    let mut have = begun.len();
    loop {
        // What comes behind the length is not the file's.
        let take = left.map_or(have as u64, |left| left.min(have as u64));
        out.write_all(&buffer[..take as usize])?;
        written += take;
        if let Some(left) = &mut left {
            *left -= take;
            if *left == 0 {
                break;
            }
        }
        have = match stream.read(&mut buffer) {
            Ok(have) => have,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if have == 0 {
            break;
        }
    }
    out.flush()?;
    match left {
        Some(left) if left > 0 => {
            anyhow::bail!("the connection ended {left} bytes before the file did")
        }
        Some(_) | None => Ok(written),
    }
}

/// What of an answer's head matters here.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Content-Length; without it the file ends with the connection.
    length: Option<u64>,
}

/// Reads up to the end of the head; gives it and what came behind it.
fn read_head(stream: &mut impl Read) -> anyhow::Result<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            anyhow::bail!("the connection ended before the answer's head did");
        }
        bytes.extend_from_slice(&buffer[..read]);
        if let Some((head, end)) = parse_head(&bytes)? {
            return Ok((head, bytes.split_off(end)));
        }
        if bytes.len() > HEAD_MAX {
            anyhow::bail!("the answer's head is longer than {} KiB", HEAD_MAX >> 10);
        }
    }
}

/// The head and its length; `None` while some of it is missing.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(Head, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(end) =
        answer.parse(bytes).context("the answer is no HTTP/1 response")?
    else {
        return Ok(None);
    };
    let status = answer.code.unwrap_or(0);
    if status != 200 {
        let what = format!("the server answered {status} {}", answer.reason.unwrap_or_default());
        return Err(
            Advice::new(what.trim_end(), "check the URL; redirects are not followed").into()
        );
    }
    let mut length = None;
    for field in answer.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            // RFC 9112 §6.1: a server must not send it to a client of HTTP/1.0.
            anyhow::bail!("the server encoded the file though HTTP/1.0 was asked for");
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).unwrap_or_default().trim();
            let value = text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
            let value = value.with_context(|| format!("`{text}` is no Content-Length"))?;
            // RFC 9112 §6.3: lengths that differ make the answer invalid.
            if length.replace(value).is_some_and(|other| other != value) {
                anyhow::bail!("the answer has two lengths");
            }
        }
    }
    Ok(Some((Head { length }, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that gives the answer in pieces.
    struct Wire {
        asked: Vec<u8>,
        answer: Vec<u8>,
        piece: usize,
    }

    impl Read for Wire {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.piece.min(buffer.len()).min(self.answer.len());
            buffer[..n].copy_from_slice(&self.answer[..n]);
            self.answer.drain(..n);
            Ok(n)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fetched(answer: &str, piece: usize) -> Result<String, String> {
        let url = "http://host/file".parse().unwrap();
        let mut wire = Wire { asked: Vec::new(), answer: answer.into(), piece };
        let mut out = Vec::new();
        fetch(&mut wire, &url, &mut out).map_err(|error| error.to_string())?;
        assert!(wire.asked.starts_with(b"GET /file HTTP/1.0\r\nHost: host:80\r\n"));
        assert!(wire.asked.ends_with(b"\r\n\r\n"));
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_file_ends_with_its_length_or_with_the_connection() {
        for piece in [1, 7, 4096] {
            let known = "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfileand more";
            assert_eq!(fetched(known, piece).unwrap(), "file");
            let open = "HTTP/1.1 200 OK\r\nServer: x\r\n\r\nall of it";
            assert_eq!(fetched(open, piece).unwrap(), "all of it");
            let empty = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
            assert_eq!(fetched(empty, piece).unwrap(), "");
        }
    }

    #[test]
    fn what_is_not_the_whole_file_is_an_error() {
        for (answer, says) in [
            ("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nfile", "5 bytes before"),
            ("HTTP/1.0 404 Not Found\r\n\r\n", "404 Not Found"),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "encoded"),
            ("HTTP/1.0 200 OK\r\nContent-Length: +4\r\n\r\nfile", "no Content-Length"),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfile",
                "two lengths",
            ),
            ("HTTP/1.0 200 OK\r\n", "before the answer's head"),
            ("SSH-2.0-x\r\n", "no HTTP/1 response"),
        ] {
            let error = fetched(answer, 4096).unwrap_err();
            assert!(error.contains(says), "{answer:?}: {error}");
        }
        let endless = format!("HTTP/1.0 200 OK\r\nX: {}", "x".repeat(2 * HEAD_MAX));
        assert!(fetched(&endless, 4096).unwrap_err().contains("longer than 64 KiB"));
    }
}
