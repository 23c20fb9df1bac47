//! One connection's framing: where a request head ends, what to skip, when it is over.
//!
//! ```text
//!   input_room / filled ──▶ [ buffer ] ──step──▶ Request · Refused · NeedInput · Closed
//! ```
//!
//! Call [`Connection::step`] until it says [`Step::NeedInput`], then give it more bytes
//! ([`Connection::feed`], or [`Connection::input_room`] and [`Connection::filled`] without a copy)
//! and go on. After a [`Step::Request`] the connection has already stepped past its head and knows
//! what of its body to skip; after [`Step::Refused`] there is nothing more to come. How the input
//! is cut into pieces changes nothing.

use super::Limits;
use super::request::{Head, Method, Request, parse};
use super::response::Status;

/// Buffer of a connection whose heads are as small as most are.
const SMALL_BUFFER: usize = 2 * 1024;

/// Empty lines before a request line that are overlooked (RFC 9112 §2.2 asks for one).
const MAX_EMPTY_LINES: u8 = 4;

/// What a connection wants next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a step is used at once; a box would cost more")]
pub enum Step<'a> {
    /// More bytes from the client.
    NeedInput,
    /// An answer to this request. Its `keep_alive` is final: an answer must not promise more.
    Request(Request<'a>),
    /// An answer with this status; then the connection is over.
    Refused(Status),
    /// Nothing: it is over.
    Closed,
}

/// What has been settled about the bytes that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A request head, or the end.
    Head,
    /// This many bytes of a body, not wanted.
    Body(u64),
    /// Nothing any more.
    Closed,
}

/// Sans-IO state of one connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    state: State,
    /// Received bytes are `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes from `start` that have been searched for line ends.
    searched: usize,
    /// Bytes from `start` up to the last line end that was found.
    lines: usize,
    empty_lines: u8,
    input_ended: bool,
}

impl Connection {
    /// A new connection.
    pub fn new(limits: Limits) -> Connection {
        Connection {
            limits,
            state: State::Head,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            searched: 0,
            lines: 0,
            empty_lines: 0,
            input_ended: false,
        }
    }

    /// Room for input, never empty after [`Step::NeedInput`].
    pub fn input_room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            let most = self.limits.head_bytes.max(1);
            let len = (self.buffer.len() * 2).max(SMALL_BUFFER).min(most);
            self.buffer.resize(len.max(self.end), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Says how many bytes of [`Connection::input_room`] have been filled.
    ///
    /// # Panics
    /// If there were not that many.
    pub fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.buffer.len() - self.end, "more filled than there was room");
        self.end += bytes;
    }

    /// Copies from `bytes` what there is room for; returns how many that were.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let room = self.input_room();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// Says that the client sends nothing more.
    pub fn input_ended(&mut self) {
        self.input_ended = true;
    }

    /// True between requests: nothing of a next one has arrived.
    pub fn is_idle(&self) -> bool {
        self.state == State::Head && self.start == self.end
    }

    /// Gives back the memory that large heads needed; for connections about to be silent.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > SMALL_BUFFER {
            self.buffer = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    /// The next step.
    pub fn step(&mut self) -> Step<'_> {
        self.skip_body();
        match self.state {
            State::Closed => return Step::Closed,
            State::Body(_) if self.input_ended => {
                self.state = State::Closed;
                return Step::Closed;
            }
            State::Body(_) => return Step::NeedInput,
            State::Head => {}
        }
        self.skip_empty_lines();
        let head = &self.buffer[self.start..self.end];
        // The first half of an empty line.
        if head == b"\r" && self.empty_lines < MAX_EMPTY_LINES && !self.input_ended {
            return Step::NeedInput;
        }
        // No method begins like this, as little as TLS or random bytes do: better said now than
        // after a timeout.
        if head.first().is_some_and(|&first| !is_method_start(first)) {
            return self.refuse(Status::BadRequest);
        }
        if self.find_lines() { self.read_head() } else { self.wait_for_head() }
    }

    /// Steps over what has arrived of an unwanted body.
    fn skip_body(&mut self) {
        if let State::Body(left) = self.state {
            let skipped = left.min((self.end - self.start) as u64);
            self.start += skipped as usize;
            let left = left - skipped;
            self.state = if left == 0 { State::Head } else { State::Body(left) };
        }
    }

    /// Empty lines before a request line are no part of it.
    fn skip_empty_lines(&mut self) {
        while self.empty_lines < MAX_EMPTY_LINES {
            let skip = match &self.buffer[self.start..self.end] {
                [b'\r', b'\n', ..] => 2,
                [b'\n', ..] => 1,
                _ => return,
            };
            self.empty_lines += 1;
            self.start += skip;
            (self.searched, self.lines) = (0, 0);
        }
    }

    /// Looks for a line end in what is new. Only whole lines are parsed, and only when there is a
    /// new one, so a head that arrives a byte at a time costs little more than one that arrives at
    /// once, and how it was cut cannot show in the answer.
    fn find_lines(&mut self) -> bool {
        let head = &self.buffer[self.start..self.end];
        let last = head[self.searched..].iter().rposition(|&b| b == b'\n');
        if let Some(at) = last {
            self.lines = self.searched + at + 1;
        }
        self.searched = head.len();
        last.is_some()
    }

    fn read_head(&mut self) -> Step<'_> {
        let full = self.end - self.start >= self.limits.head_bytes;
        let bytes = &self.buffer[self.start..self.start + self.lines];
        let status = match parse(bytes) {
            Head::Whole(mut request, len) => match frame(&mut request, &self.limits) {
                Ok(next) => {
                    self.start += len;
                    (self.searched, self.lines, self.empty_lines) = (0, 0, 0);
                    self.state = next;
                    return Step::Request(request);
                }
                Err(status) => status,
            },
            Head::Refused(status) => status,
            Head::Partial if full => Status::HeaderTooLarge,
            Head::Partial if self.input_ended => Status::BadRequest,
            Head::Partial => return Step::NeedInput,
        };
        self.state = State::Closed;
        Step::Refused(status)
    }

    /// There is no new line: waits for one, unless none can come or none would help.
    fn wait_for_head(&mut self) -> Step<'_> {
        let head = &self.buffer[self.start..self.end];
        let status = match head.first() {
            None if self.input_ended => {
                self.state = State::Closed;
                return Step::Closed;
            }
            None => return Step::NeedInput,
            Some(_) if head.len() >= self.limits.head_bytes => match self.lines {
                0 => Status::UriTooLong,
                _ => Status::HeaderTooLarge,
            },
            Some(_) if self.input_ended => Status::BadRequest,
            Some(_) => return Step::NeedInput,
        };
        self.refuse(status)
    }

    fn refuse(&mut self, status: Status) -> Step<'static> {
        self.state = State::Closed;
        Step::Refused(status)
    }
}

/// Settles what follows a request: its body to be skipped, or the connection's end.
fn frame(request: &mut Request<'_>, limits: &Limits) -> Result<State, Status> {
    let large = request.content_length > limits.body_bytes;
    match request.method {
        // RFC 9110 §15.5.14: the server may close so that the client stops sending.
        Method::Get | Method::Head if large => return Err(Status::ContentTooLarge),
        Method::Get | Method::Head => {}
        // A client that waits for leave to send its body gets the answer instead. Whether it then
        // sends it or not cannot be told from the next request (RFC 9110 §10.1.1).
        Method::Other if large || request.expects_continue => {
            request.keep_alive = false;
            request.expects_continue = false;
        }
        Method::Other => {}
    }
    Ok(match request.keep_alive {
        true => State::Body(request.content_length),
        false => State::Closed,
    })
}

/// RFC 9110 §5.6.2: a method is a token.
fn is_method_start(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
