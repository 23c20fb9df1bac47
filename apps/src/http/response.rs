//! Response heads and bodies.

use std::ops::Range;
use std::rc::Rc;
use std::time::SystemTime;

use super::cache::Entry;
use super::date::DateCache;
use super::request::Version;

/// The statuses that this server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as RFC 9110 §15 names it")]
pub enum Status {
    Continue,
    Ok,
    PartialContent,
    MovedPermanently,
    NotModified,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    LengthRequired,
    PreconditionFailed,
    ContentTooLarge,
    UriTooLong,
    RangeNotSatisfiable,
    ExpectationFailed,
    HeaderTooLarge,
    InternalError,
    NotImplemented,
    Unavailable,
    VersionNotSupported,
}

impl Status {
    /// Code and reason as they stand in the status line.
    pub fn line(self) -> &'static str {
        match self {
            Status::Continue => "100 Continue",
            Status::Ok => "200 OK",
            Status::PartialContent => "206 Partial Content",
            Status::MovedPermanently => "301 Moved Permanently",
            Status::NotModified => "304 Not Modified",
            Status::BadRequest => "400 Bad Request",
            Status::Forbidden => "403 Forbidden",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::LengthRequired => "411 Length Required",
            Status::PreconditionFailed => "412 Precondition Failed",
            Status::ContentTooLarge => "413 Content Too Large",
            Status::UriTooLong => "414 URI Too Long",
            Status::RangeNotSatisfiable => "416 Range Not Satisfiable",
            Status::ExpectationFailed => "417 Expectation Failed",
            Status::HeaderTooLarge => "431 Request Header Fields Too Large",
            Status::InternalError => "500 Internal Server Error",
            Status::NotImplemented => "501 Not Implemented",
            Status::Unavailable => "503 Service Unavailable",
            Status::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }

    /// The code alone.
    pub fn code(self) -> u16 {
        self.line()[..3].parse().unwrap_or(500)
    }
}

/// What follows a head.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// Bytes that are in memory.
    Cached(Rc<Entry>, Range<usize>),
    /// A stretch of a file.
    File {
        /// The file.
        entry: Rc<Entry>,
        /// First byte.
        offset: u64,
        /// Number of bytes, never 0.
        len: u64,
    },
}

/// What one request is answered with. Its head has been written to the buffer already.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// What follows the head.
    pub body: Body,
    /// The connection ends after it.
    pub close: bool,
}

/// Writes heads, with what every one of them has in common.
#[derive(Debug)]
pub(super) struct HeadWriter<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) date: &'a mut DateCache,
    pub(super) now: SystemTime,
    pub(super) version: Version,
    pub(super) close: bool,
}

impl HeadWriter<'_> {
    /// Status line and common fields. The version is always 1.1: it is the server's own (RFC 9110
    /// §6.2), whatever the client speaks.
    pub(super) fn begin(&mut self, status: Status) {
        self.put("HTTP/1.1 ");
        self.put(status.line());
        self.put("\r\nDate: ");
        self.out.extend_from_slice(self.date.text(self.now));
        self.put("\r\nServer: barewire\r\n");
        if self.close {
            self.put("Connection: close\r\n");
        } else if self.version == Version::Http10 {
            self.put("Connection: keep-alive\r\n");
        }
    }

    pub(super) fn field(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.put(part);
        }
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.put(name);
        self.put(": ");
        self.digits(value);
        self.put("\r\n");
    }

    /// `Content-Range` of a 206.
    pub(super) fn content_range(&mut self, range: &Range<u64>, len: u64) {
        self.put("Content-Range: bytes ");
        self.digits(range.start);
        self.put("-");
        self.digits(range.end - 1);
        self.put("/");
        self.digits(len);
        self.put("\r\n");
    }

    /// Fields that are lines already, their ends included.
    pub(super) fn lines(&mut self, lines: &str) {
        self.put(lines);
    }

    pub(super) fn end(&mut self) {
        self.put("\r\n");
    }

    /// A short response of the server's own: the status is its text. `extra` are whole lines.
    pub(super) fn plain(&mut self, status: Status, extra: &str, head_only: bool) {
        let text = status.line();
        self.begin(status);
        self.lines(extra);
        self.field("Content-Type", "text/plain; charset=utf-8");
        self.number("Content-Length", text.len() as u64 + 1);
        self.end();
        if !head_only {
            self.put(text);
            self.put("\n");
        }
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn digits(&mut self, mut number: u64) {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }
}
