//! Runs one connection over any byte stream.

use std::fs::File;
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use super::connection::{Connection, Step};
use super::response::{Body, Status};
use super::site::Site;
use super::{Limits, SEND_CHUNK_BYTES};

/// Answers are collected up to this size before they are sent.
const BATCH_BYTES: usize = 32 * 1024;

/// Room for answers that a connection keeps while it is silent.
const IDLE_BYTES: usize = 4 * 1024;

/// Bytes read and thrown away after the last answer, so that closing with unread input does not
/// reset the connection under it (RFC 9112 §9.6).
const LINGER_BYTES: usize = 256 * 1024;

/// Longest time for that.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// A byte stream as the server needs it. Futures stay on their thread.
pub trait Transport {
    /// Reads into `buffer` what has arrived, waiting for at least one byte; 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>>;

    /// Writes all of `bytes`.
    fn write_all(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>>;

    /// Writes `len` bytes of `file` from `offset`; `UnexpectedEof` if there are fewer.
    fn send_file(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = io::Result<()>>;

    /// Says that nothing more will be written; what was written is still delivered.
    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>>;

    /// The wall clock, for dates and the freshness of files.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// From now on, calls that have not ended after `timeout` fail with `TimedOut`. The time runs
    /// from this call, over several of the others, until it is set anew.
    fn set_deadline(&mut self, timeout: Option<Duration>);
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides were done.
    Closed,
    /// The client was silent or slow for too long.
    TimedOut,
}

/// Serves `site` over `transport` until the connection ends.
///
/// Requests that arrived together are answered in order with one write; a file that is not in
/// memory follows its head through [`Transport::send_file`].
///
/// # Errors
/// What the transport answers, and `UnexpectedEof` for a file that shrank while it was sent: its
/// client must not take what came for the whole.
pub async fn serve_connection<T: Transport>(
    transport: &mut T,
    site: &Site,
    limits: &Limits,
) -> io::Result<End> {
    site.counters().connections.add(1);
    let mut server = Server {
        transport,
        site,
        limits,
        connection: Connection::new(limits.clone()),
        out: vec![],
        unsent: 0,
    };
    let result = server.run().await;
    let counters = site.counters();
    counters.answered.add(server.unsent);
    counters.closed.add(1);
    match &result {
        Ok(End::Closed) => {}
        Ok(End::TimedOut) => counters.timeouts.add(1),
        Err(_) => counters.aborted.add(1),
    }
    result
}

struct Server<'a, T> {
    transport: &'a mut T,
    site: &'a Site,
    limits: &'a Limits,
    connection: Connection,
    /// Heads and small bodies that have not been sent yet.
    out: Vec<u8>,
    /// Answers among them, and the one whose file is being sent.
    unsent: u64,
}

impl<T: Transport> Server<'_, T> {
    async fn run(&mut self) -> io::Result<End> {
        match self.serve().await {
            Ok(()) => {
                self.linger().await;
                Ok(End::Closed)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(End::TimedOut),
            Err(error) => Err(error),
        }
    }

    /// Answers requests until there are none.
    async fn serve(&mut self) -> io::Result<()> {
        let mut now = self.transport.now();
        let mut timer = Timer::Unset;
        loop {
            let (body, close) = match self.connection.step() {
                Step::Request(request) => {
                    let response = self.site.respond(&request, now, &mut self.out);
                    timer = Timer::Unset;
                    (response.body, response.close)
                }
                Step::Refused(status) => {
                    self.site.refuse(status, now, &mut self.out);
                    (Body::None, true)
                }
                Step::Closed => return self.flush().await,
                Step::NeedInput => {
                    self.flush().await?;
                    if !self.read(&mut timer).await? {
                        self.connection.input_ended();
                    }
                    now = self.transport.now();
                    continue;
                }
            };
            self.unsent += 1;
            self.send(body).await?;
            if close {
                return self.flush().await;
            }
        }
    }

    /// Waits for input; false at its end. The time for a head runs from its first byte to its
    /// last: single bytes do not extend it.
    async fn read(&mut self, timer: &mut Timer) -> io::Result<bool> {
        let wanted = if self.connection.is_idle() { Timer::Idle } else { Timer::Head };
        if *timer != wanted {
            *timer = wanted;
            self.transport.set_deadline(Some(match wanted {
                Timer::Idle => self.limits.idle_timeout,
                Timer::Head | Timer::Unset => self.limits.head_timeout,
            }));
        }
        if wanted == Timer::Idle {
            self.connection.shrink();
            self.out.shrink_to(IDLE_BYTES);
        }
        match self.transport.read(self.connection.input_room()).await {
            Ok(count) => {
                self.connection.filled(count);
                Ok(count > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut && wanted == Timer::Head => {
                self.tell_timeout().await;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// RFC 9110 §15.5.9: a client in the middle of a request is told; a silent one is not.
    async fn tell_timeout(&mut self) {
        let now = self.transport.now();
        self.unsent += 1;
        self.site.refuse(Status::RequestTimeout, now, &mut self.out);
        // The connection ends with the timeout whether the client can be told or not.
        if self.flush().await.is_ok() {
            let _ = self.transport.shutdown().await;
        }
    }

    /// Sends the body, or keeps it with its head while both are small.
    async fn send(&mut self, body: Body) -> io::Result<()> {
        match body {
            Body::None => {}
            Body::Cached(entry, range) => {
                if let Some(bytes) = entry.bytes().and_then(|bytes| bytes.get(range)) {
                    self.out.extend_from_slice(bytes);
                }
            }
            Body::File { entry, offset, len } => {
                let Some(file) = entry.file() else { return Ok(()) };
                // This answer is still under way when those before it, and its head, have left.
                self.unsent -= 1;
                self.flush().await?;
                self.unsent = 1;
                let end = offset + len;
                let mut at = offset;
                while at < end {
                    let chunk = (end - at).min(SEND_CHUNK_BYTES);
                    self.transport.set_deadline(Some(self.limits.send_timeout));
                    self.transport.send_file(file, at, chunk).await?;
                    self.site.counters().bytes_sent.add(chunk);
                    at += chunk;
                }
            }
        }
        if self.out.len() >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends what has been collected.
    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.transport.set_deadline(Some(self.limits.send_timeout));
            self.transport.write_all(&self.out).await?;
            self.site.counters().bytes_sent.add(self.out.len() as u64);
            self.out.clear();
        }
        self.site.counters().answered.add(std::mem::take(&mut self.unsent));
        Ok(())
    }

    /// Closes our side, then waits a little for the client to close its own.
    async fn linger(&mut self) {
        if self.transport.shutdown().await.is_err() {
            return;
        }
        self.transport.set_deadline(Some(LINGER_TIME));
        let mut sink = [0; 2048];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match self.transport.read(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }
}

/// Which time is running while the client is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// None: it starts with the next wait.
    Unset,
    /// Between requests.
    Idle,
    /// Within a request.
    Head,
}
