//! One end of a connection: writes a stream, reads the other, stalls, and ends in one of many ways.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use super::Context;
use crate::error::SocketError;
use crate::rng::Rng;
use crate::sim::content;
use crate::sim::oracle::Party;
use crate::socket::{OptionName, SocketId, SocketOption};
use crate::tcp::Readiness;
use crate::time::Instant;

/// Calls that an endpoint makes before others get their turn.
const CALLS_A_TURN: usize = 32;

/// Most stalls of one endpoint: some megabytes in calls of a few bytes would take days otherwise.
const STALLS_MAX: u32 = 40;

/// The least writes that a stream may take, about twice as many: tiny calls for megabytes cost time
/// and frames, and show nothing new.
const CALLS_FOR_ALL: u64 = 1_000;

/// Most slots that one write hands over.
const OWNED_SLOTS_MAX: usize = 16;

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Habits {
    /// Bytes to write; `None` writes as many as are read.
    pub(in crate::sim) bytes: Option<u64>,
    /// Largest `write` and `read`.
    pub(in crate::sim) most: usize,
    /// Share of calls that hand packet memory over instead of copying.
    pub(in crate::sim) owned: f64,
    /// Share of calls after which the reader, or the writer, stops for a while.
    pub(in crate::sim) stalls: f64,
    /// The longest such while.
    pub(in crate::sim) stall: Duration,
    /// Resets the connection after so many bytes in both directions.
    pub(in crate::sim) abort_after: Option<u64>,
    /// Closes once everything is written, whatever is still to be read.
    pub(in crate::sim) leaves_early: bool,
}

impl Habits {
    /// Something of everything; `rude` ones also abort and leave early.
    pub(in crate::sim) fn draw(rng: &mut Rng, bytes: Option<u64>, rude: bool) -> Habits {
        let most = match rng.below(6) {
            0 => 1 + rng.below(16),
            1..=3 => 1 + rng.below(4 << 10),
            4 => 1 + rng.below(64 << 10),
            _ => 1 << 20,
        } as usize;
        let abort_after = (rude && rng.chance(0.1)).then(|| rng.below(200_000));
        Habits {
            most: most.max((bytes.unwrap_or(0) / CALLS_FOR_ALL) as usize),
            bytes,
            owned: if rng.chance(0.5) { 0.0 } else { 0.5 },
            stalls: if rng.chance(0.6) { 0.0 } else { 0.01 },
            stall: Duration::from_millis(1 + rng.below(15_000)),
            abort_after,
            leaves_early: rude && rng.chance(0.1),
        }
    }
}

/// One end of an established connection.
#[derive(Debug)]
pub(super) struct Endpoint {
    socket: SocketId,
    party: Party,
    habits: Habits,
    written: u64,
    read: u64,
    /// The first bytes of the other stream, until they say which it is.
    head: Vec<u8>,
    write_waits: bool,
    read_waits: bool,
    write_stalls_until: Option<Instant>,
    read_stalls_until: Option<Instant>,
    stalls_left: u32,
    shut: bool,
    eof: bool,
    over: bool,
    /// It has used its turn up and wants another one at once.
    unfinished: bool,
    recv_limit: usize,
}

impl Endpoint {
    pub(super) fn new(
        cx: &mut Context<'_>,
        socket: SocketId,
        party: Party,
        habits: Habits,
    ) -> Endpoint {
        let recv_limit = match cx.stack.option(socket, OptionName::RecvBuffer) {
            // A scaled window counts in units, and is rounded up.
            Ok(SocketOption::RecvBuffer(bytes)) => {
                let unit = bytes.div_ceil(u32::from(u16::MAX)).next_power_of_two();
                (bytes + unit - 1) as usize
            }
            other => {
                cx.oracle.complain(format!("{socket:?}: no receive buffer but {other:?}"));
                0
            }
        };
        Endpoint {
            socket,
            party,
            habits,
            written: 0,
            read: 0,
            head: Vec::new(),
            write_waits: false,
            read_waits: false,
            write_stalls_until: None,
            read_stalls_until: None,
            stalls_left: STALLS_MAX,
            shut: false,
            eof: false,
            over: false,
            unfinished: true,
            recv_limit,
        }
    }

    /// Registers both ends of a socket's connection with the oracle.
    pub(super) fn register(
        cx: &mut Context<'_>,
        socket: SocketId,
        remote: SocketAddr,
    ) -> Option<Party> {
        match cx.stack.local_addr(socket) {
            Ok(local) => Some(cx.oracle.open(cx.host, socket, (local, remote))),
            Err(error) => {
                cx.oracle.complain(format!("{socket:?} has no address: {error}"));
                None
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.unfinished {
            return Some(Instant::ZERO);
        }
        self.write_stalls_until.into_iter().chain(self.read_stalls_until).min()
    }

    pub(super) fn on_event(&mut self, cx: &mut Context<'_>, ready: Readiness) {
        if ready.intersects(Readiness::READABLE | Readiness::READ_CLOSED | Readiness::ERROR) {
            self.read_waits = false;
        }
        if ready.intersects(Readiness::WRITABLE | Readiness::WRITE_CLOSED | Readiness::ERROR) {
            self.write_waits = false;
        }
        self.drive(cx);
    }

    /// Reads and writes until both would wait, its turn is over, or the connection is.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        for stall in [&mut self.write_stalls_until, &mut self.read_stalls_until] {
            if stall.is_some_and(|until| until <= cx.now) {
                *stall = None;
            }
        }
        self.unfinished = false;
        if cx.enough {
            let written = self.written;
            self.habits.bytes = Some(self.habits.bytes.map_or(written, |bytes| bytes.min(written)));
        }
        for _ in 0..CALLS_A_TURN {
            if self.over {
                return;
            }
            self.check_bounds(cx);
            if self.wants_abort() {
                return self.abort(cx);
            }
            let acted = self.try_read(cx) | self.try_write(cx) | self.try_finish(cx);
            if !acted {
                return;
            }
        }
        self.unfinished = !self.over;
    }

    /// No more may wait to be read than the receive buffer holds.
    fn check_bounds(&mut self, cx: &mut Context<'_>) {
        if let Ok(readable) = cx.stack.bytes_readable(self.socket)
            && readable > self.recv_limit
        {
            let limit = self.recv_limit;
            cx.oracle.complain(format!("{readable} bytes wait in a buffer of {limit}: {self:?}"));
        }
    }

    fn wants_abort(&self) -> bool {
        self.habits.abort_after.is_some_and(|after| self.read + self.written >= after)
    }

    fn abort(&mut self, cx: &mut Context<'_>) {
        let result = cx.stack.abort(self.socket);
        cx.oracle.aborted(self.party);
        self.end(cx, result);
    }

    fn end(&mut self, cx: &mut Context<'_>, result: Result<(), SocketError>) {
        if let Err(error) = result {
            cx.oracle.complain(format!("{self:?} cannot be closed: {error}"));
        }
        self.over = true;
    }

    fn fail(&mut self, cx: &mut Context<'_>, error: SocketError) {
        cx.oracle.failed(self.party, error);
        let result = cx.stack.close(self.socket);
        cx.oracle.closed(self.party);
        self.end(cx, result);
    }

    fn stall(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let ns = cx.rng.below(self.habits.stall.as_nanos() as u64 + 1);
        let stalls = cx.rng.chance(self.habits.stalls) && self.stalls_left > 0;
        self.stalls_left -= u32::from(stalls);
        stalls.then(|| cx.now + Duration::from_nanos(ns))
    }

    fn try_read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.eof || self.over || self.read_waits || self.read_stalls_until.is_some() {
            return false;
        }
        let most = 1 + cx.rng.below(self.habits.most as u64) as usize;
        let result = if cx.rng.chance(self.habits.owned) {
            let mut slices = VecDeque::new();
            let result = cx.stack.read_slices(self.socket, most, &mut slices);
            for slice in slices {
                cx.oracle.read(self.party, &slice, &mut self.head);
            }
            result
        } else {
            cx.scratch.resize(most, 0);
            let result = cx.stack.read(self.socket, cx.scratch);
            if let Ok(bytes) = result {
                cx.oracle.read(self.party, &cx.scratch[..bytes], &mut self.head);
            }
            result
        };
        match result {
            Ok(0) => {
                self.eof = true;
                cx.oracle.eof(self.party, &self.head);
            }
            Ok(bytes) => {
                self.read += bytes as u64;
                self.read_stalls_until = self.stall(cx);
            }
            Err(SocketError::WouldBlock) => self.read_waits = true,
            Err(error) => self.fail(cx, error),
        }
        true
    }

    /// Bytes that are to be written now.
    fn left(&self) -> u64 {
        self.habits.bytes.unwrap_or(self.read).saturating_sub(self.written)
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> bool {
        let left = self.left();
        let waits = self.write_waits || self.write_stalls_until.is_some();
        if left == 0 || self.shut || self.over || waits {
            return false;
        }
        // An echo does not know from the start how much it will be.
        let most = (self.habits.most as u64).max(self.written / CALLS_FOR_ALL);
        let most = (1 + cx.rng.below(most)).min(left) as usize;
        let result = if cx.rng.chance(self.habits.owned) {
            self.write_owned(cx, most)
        } else {
            cx.scratch.resize(most, 0);
            content::fill(self.party, self.written, cx.scratch);
            cx.stack.write(self.socket, cx.scratch)
        };
        match result {
            Ok(bytes) => {
                cx.oracle.wrote(self.party, bytes);
                self.written += bytes as u64;
                self.write_stalls_until = self.stall(cx);
            }
            Err(SocketError::WouldBlock) => self.write_waits = true,
            // Packet memory comes back when something is acknowledged, here or elsewhere.
            Err(SocketError::NoBuffers) => {
                self.write_stalls_until = Some(cx.now + Duration::from_millis(10));
            }
            Err(error) => self.fail(cx, error),
        }
        true
    }

    /// Writes without a copy: as many slots as there are to spare, of which what does not fit is
    /// dropped.
    fn write_owned(&mut self, cx: &mut Context<'_>, most: usize) -> Result<usize, SocketError> {
        let mut slices = VecDeque::new();
        let mut filled = 0;
        while filled < most && slices.len() < cx.stack.spare_slots().min(OWNED_SLOTS_MAX) {
            let mut slot = cx.stack.pool().alloc().ok_or(SocketError::NoBuffers)?;
            let bytes = (most - filled).min(slot.len());
            slot.truncate(bytes);
            content::fill(self.party, self.written + filled as u64, &mut slot);
            slices.push_back(slot.freeze());
            filled += bytes;
        }
        if filled == 0 {
            return Err(SocketError::NoBuffers);
        }
        cx.stack.write_slices(self.socket, &mut slices)
    }

    /// Half-closes when everything is written, and closes when everything is read, too.
    fn try_finish(&mut self, cx: &mut Context<'_>) -> bool {
        let all_written = self.left() == 0 && (self.habits.bytes.is_some() || self.eof);
        if self.over || !all_written {
            return false;
        }
        if self.eof || self.habits.leaves_early {
            let result = cx.stack.close(self.socket);
            cx.oracle.closed(self.party);
            self.end(cx, result);
        } else if !self.shut {
            self.shut = true;
            cx.oracle.finished(self.party);
            if let Err(error) = cx.stack.shutdown(self.socket, Shutdown::Write) {
                self.fail(cx, error);
            }
        } else {
            return false;
        }
        true
    }
}
