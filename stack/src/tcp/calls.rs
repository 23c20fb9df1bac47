//! The calls of the application: RFC 9293 §3.10.2 to §3.10.5 as POSIX spells them.

use std::collections::VecDeque;

use barewire_driver::{PacketSlice, Pool};

use super::sendq::{BYTES_PER_CHUNK_MIN, CHUNKS_MIN, Shape};
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{Pending, Status, Tcb, forget};
use super::timers::Timer;
use super::{Linger, Outcome, Readiness};
use crate::SocketError;
use crate::hint::rarely;
use crate::time::Instant;
use crate::wire::tcp::TcpHeader;

/// With one of these nothing more will be read.
const READ_OVER: Status = Status::EOF.union(Status::READ_SHUT);

impl Tcb {
    /// What would not block.
    #[inline(always)]
    pub fn readiness(&self) -> Readiness {
        let unusual = READ_OVER.union(Status::FIN_QUEUED);
        let usual = || {
            self.state == State::Established
                && self.error.is_none()
                && !self.status.intersects(unusual)
        };
        if self.calm || usual() {
            let mut ready = Readiness::empty();
            ready.set(Readiness::READABLE, !self.recvq.is_empty());
            ready.set(Readiness::WRITABLE, self.is_roomy());
            return ready;
        }
        self.unusual_readiness()
    }

    /// As [`Tcb::readiness`], if the connection was calm the last time and nothing waits for an ACK.
    #[inline(always)]
    pub(crate) fn calm_readiness(&self) -> Option<Readiness> {
        let mut ready = Readiness::empty();
        ready.set(Readiness::READABLE, !self.recvq.is_empty());
        ready.set(Readiness::WRITABLE, self.snd.buffer > 0);
        (self.calm && self.sendq.len() == 0).then_some(ready)
    }

    #[inline(never)]
    fn unusual_readiness(&self) -> Readiness {
        let mut ready = Readiness::empty();
        let closed = self.state == State::Closed;
        let eof = closed || self.status.intersects(READ_OVER);
        ready.set(Readiness::READ_CLOSED, eof);
        ready.set(Readiness::ERROR, self.error.is_some());
        ready.set(Readiness::READABLE, eof || !self.recvq.is_empty() || self.error.is_some());
        let write_closed = closed || self.status.contains(Status::FIN_QUEUED);
        ready.set(Readiness::WRITE_CLOSED, write_closed);
        let roomy = (self.state.can_write() || self.writes_early()) && self.is_roomy();
        ready.set(Readiness::WRITABLE, write_closed || roomy || self.error.is_some());
        ready
    }

    /// A third of the send buffer is free: waking a writer for a few bytes would make it send in
    /// crumbs.
    #[inline(always)]
    pub(super) fn is_roomy(&self) -> bool {
        if rarely(self.sendq.len() > 0) { self.is_third_free() } else { self.snd.buffer > 0 }
    }

    #[inline(never)]
    fn is_third_free(&self) -> bool {
        self.write_room() >= (self.snd.buffer as usize / 3).max(1)
    }

    /// Takes the pending error (`SO_ERROR`).
    pub fn take_error(&mut self) -> Option<SocketError> {
        self.error.take()
    }

    // --- SEND ------------------------------------------------------------------------------------

    /// Bytes that a write would take now.
    pub fn write_room(&self) -> usize {
        let buffer = self.snd.buffer as usize;
        if self.sendq.chunks() >= CHUNKS_MIN + buffer / BYTES_PER_CHUNK_MIN {
            return 0;
        }
        buffer.saturating_sub(self.sendq.len() as usize)
    }

    /// Bytes written and not yet sent.
    pub fn bytes_unsent(&self) -> usize {
        self.sendq.unsent() as usize
    }

    /// Bytes sent and not yet acknowledged.
    pub fn bytes_unacked(&self) -> usize {
        self.sendq.sent() as usize
    }

    /// Queues a copy of as much of `data` as there is room for, made in slots of `pool`.
    ///
    /// # Errors
    /// `WouldBlock` when the send buffer is full or the connection is still being opened,
    /// `NoBuffers` when the pool is empty, the pending error once, `BrokenPipe` after the sending
    /// direction was closed.
    pub fn write(&mut self, pool: &Pool, data: &[u8]) -> Result<usize, SocketError> {
        self.check_write()?;
        if data.is_empty() {
            return Ok(0);
        }
        let room = self.write_room();
        if room == 0 {
            return Err(SocketError::WouldBlock);
        }
        let alone = !self.more_to_come && !self.status.contains(Status::CORK);
        let shape = Shape { mss: self.mss(), cut: self.cut };
        match self.sendq.copy_in(pool, &data[..data.len().min(room)], alone, shape) {
            0 => Err(SocketError::NoBuffers),
            n => Ok(n),
        }
    }

    /// Says whether the next write will be followed by more (`MSG_MORE`): a partial segment waits
    /// for it, as under `TCP_CORK`.
    pub fn expect_more(&mut self, more: bool) {
        self.more_to_come = more;
    }

    /// Queues a slice without copying it. A slice is taken whole while there is any room, so the
    /// buffer is exceeded by less than a slot.
    ///
    /// # Errors
    /// As [`Tcb::write`]; the slice comes back.
    pub fn write_owned(&mut self, data: PacketSlice) -> Result<(), (SocketError, PacketSlice)> {
        if let Err(error) = self.check_write() {
            return Err((error, data));
        }
        if self.write_room() == 0 {
            return Err((SocketError::WouldBlock, data));
        }
        if !data.is_empty() {
            self.sendq.push(data);
        }
        Ok(())
    }

    /// As [`Tcb::write_owned`] for slices from the front of `data`, while there is room and less than
    /// `most` bytes were taken. Says how many were.
    ///
    /// # Errors
    /// As [`Tcb::write`]; nothing is taken then.
    pub fn write_slices(
        &mut self,
        data: &mut VecDeque<PacketSlice>,
        most: usize,
    ) -> Result<usize, SocketError> {
        self.check_write()?;
        if self.write_room() == 0 && !data.is_empty() {
            return Err(SocketError::WouldBlock);
        }
        let mut taken = 0;
        // Asked each time: many small slices fill a buffer otherwise than a few large ones.
        while taken < most
            && self.write_room() > 0
            && let Some(slice) = data.pop_front()
        {
            taken += slice.len();
            if !slice.is_empty() {
                self.sendq.push(slice);
            }
        }
        Ok(taken)
    }

    fn check_write(&mut self) -> Result<(), SocketError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match self.state {
            State::SynSent if self.status.contains(Status::FIN_QUEUED) => {
                Err(SocketError::BrokenPipe)
            }
            State::SynSent | State::SynReceived if self.writes_early() => {
                self.release_syn();
                Ok(())
            }
            State::SynSent | State::SynReceived => Err(SocketError::WouldBlock),
            State::Established | State::CloseWait => Ok(()),
            State::Closed
            | State::Listen
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => Err(SocketError::BrokenPipe),
        }
    }

    // --- RECEIVE ---------------------------------------------------------------------------------

    /// Bytes that a read would give now.
    pub fn bytes_readable(&self) -> usize {
        self.recvq.len() as usize
    }

    /// Copies received data into `out`. 0 is the end of the stream (or an empty `out`). Data that
    /// arrived before an error is given first.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing yet; the pending error, once.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, SocketError> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.recvq.is_empty() {
            return self.stream_end().map(|()| 0);
        }
        let n = self.recvq.read(out);
        self.after_read();
        Ok(n)
    }

    /// As [`Tcb::read`], and the data stays. A pending error stays, too.
    ///
    /// # Errors
    /// As [`Tcb::read`].
    pub fn peek(&self, out: &mut [u8]) -> Result<usize, SocketError> {
        if self.recvq.is_empty() && !out.is_empty() {
            return match self.error {
                Some(error) => Err(error),
                None => self.end_of_stream().map(|()| 0),
            };
        }
        Ok(self.recvq.peek(out))
    }

    /// Takes received data without copying it: one slice of at most `max` bytes. `None` is the end
    /// of the stream.
    ///
    /// # Errors
    /// As [`Tcb::read`]; `InvalidInput` if `max` is 0.
    pub fn read_owned(&mut self, max: usize) -> Result<Option<PacketSlice>, SocketError> {
        if max == 0 {
            return Err(SocketError::InvalidInput);
        }
        match self.recvq.take(max) {
            Some(slice) => {
                self.after_read();
                Ok(Some(slice))
            }
            None => self.stream_end().map(|()| None),
        }
    }

    /// Takes the slices at the front, up to `max` bytes, and appends them to `out`; says how many
    /// bytes they hold. 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`Tcb::read`].
    pub fn read_slices(
        &mut self,
        max: usize,
        out: &mut VecDeque<PacketSlice>,
    ) -> Result<usize, SocketError> {
        if max == 0 {
            return Err(SocketError::InvalidInput);
        }
        let mut taken = self.recvq.len() as usize;
        if taken <= max {
            self.recvq.take_all(out);
        } else {
            taken = 0;
            while taken < max
                && let Some(slice) = self.recvq.take(max - taken)
            {
                taken += slice.len();
                out.push_back(slice);
            }
        }
        if taken == 0 {
            return self.stream_end().map(|()| 0);
        }
        self.after_read();
        Ok(taken)
    }

    /// Nothing is queued: the pending error, or the end, or not yet.
    fn stream_end(&mut self) -> Result<(), SocketError> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.end_of_stream(),
        }
    }

    fn end_of_stream(&self) -> Result<(), SocketError> {
        let over = self.status.intersects(READ_OVER);
        if over || self.state == State::Closed { Ok(()) } else { Err(SocketError::WouldBlock) }
    }

    /// RFC 9293 §3.8.6.2.2: the peer is told of free room when it is worth a segment, or half the
    /// buffer. Nobody waits for that while the window still takes a segment: as in Linux, the ACKs of
    /// data tell it then, unless the window would be twice as wide.
    #[inline]
    pub(super) fn after_read(&mut self) {
        let mss = u32::from(self.rcv.our_mss);
        let window = self.rcv.edge.since(self.rcv.nxt);
        let step = (self.rcv.buffer / 2).min(mss).max(1);
        let step = if window < mss { step } else { step.max(window) };
        if self.state.can_receive() && self.window_growth() >= step {
            self.pending |= Pending::ACK;
        }
    }

    // --- CLOSE and ABORT -------------------------------------------------------------------------

    /// Closes the sending direction: FIN follows what is queued. An attempt to connect that nobody
    /// has answered ends with it.
    ///
    /// # Errors
    /// `NotConnected` before an attempt to connect and after the connection has ended.
    pub fn shutdown_write(&mut self, _now: Instant) -> Result<Outcome, SocketError> {
        match self.state {
            State::Closed | State::Listen => Err(SocketError::NotConnected),
            // RFC 9293 §3.10.4: the TCB is deleted, and who waits for it is told. What fast open has
            // taken is delivered (RFC 7413 §4.2).
            State::SynSent if !self.has_written_early() => {
                Ok(self.fail(SocketError::ConnectionReset))
            }
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                self.queue_fin();
                Ok(Outcome::Continue)
            }
        }
    }

    fn queue_fin(&mut self) {
        self.stir();
        // RFC 9293 §3.10.4: "In any case, enter FIN-WAIT-1 state." What was written before the
        // handshake's end goes on with that, and with the FIN behind it.
        if self.state != State::SynSent {
            self.state = self.state.on_close();
        }
        self.status |= Status::FIN_QUEUED;
    }

    /// The application reads no more: what is queued is dropped, what arrives is acknowledged and
    /// dropped.
    pub fn shutdown_read(&mut self) {
        self.stir();
        self.status |= Status::READ_SHUT;
        if !self.recvq.is_empty() {
            self.recvq.clear();
            self.after_read();
        }
    }

    /// The application lets go. What is queued is still sent, then FIN; the connection goes on
    /// without an owner until it is closed or its time is over.
    pub fn close(&mut self, now: Instant) -> Outcome {
        self.stir();
        self.status |= Status::APP_CLOSED;
        // Nobody will read what waits behind a gap.
        forget(&mut self.assembler);
        match self.state {
            State::Closed | State::Listen => return Outcome::Closed,
            State::SynSent if !self.has_written_early() => return self.finish(),
            State::TimeWait => {
                self.recvq.clear();
                return Outcome::TimeWait;
            }
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {}
        }
        // RFC 2525 §2.17: the peer must learn that what it sent was not read.
        if rarely(!self.recvq.is_empty() || self.config.linger == Linger::Abort) {
            return self.abort();
        }
        if !self.status.contains(Status::FIN_QUEUED) {
            self.queue_fin();
        }
        if rarely(self.state == State::FinWait2) {
            self.timers.set(Timer::Lifetime, now + self.config.fin_wait_2);
        } else if let Linger::For(patience) = self.config.linger {
            self.timers.set(Timer::Lifetime, now + patience);
        }
        Outcome::Continue
    }

    /// True if a segment with this sequence number leaves no gap before it.
    pub fn continues_at(&self, seq: u32) -> bool {
        SeqNum::new(seq).before_eq(self.rcv.nxt)
    }

    /// A connection in TIME-WAIT makes room for the new one that this SYN opens (RFC 6191): gives the
    /// number that it may start above. What was received can still be read.
    pub fn yield_to(&mut self, now: Instant, syn: &TcpHeader) -> Option<(u32, Outcome)> {
        let above = self.time_wait()?.reuse(now, syn)?;
        Some((above, self.finish()))
    }

    /// Gives the connection up because its peer keeps memory that others need: RST, and an error for
    /// the application.
    pub fn shed(&mut self) -> Outcome {
        let outcome = self.abort();
        self.error = Some(SocketError::ConnectionAborted);
        outcome
    }

    /// Payload bytes that the peer has acknowledged.
    pub fn bytes_acked(&self) -> u64 {
        self.bytes_acked
    }

    /// Ends the connection at once: RST, and everything queued is dropped.
    pub fn abort(&mut self) -> Outcome {
        self.recvq.clear();
        match self.state {
            // RFC 9293 §3.10.5: no RST where the peer has no connection, or none any more.
            State::Closed | State::Listen | State::SynSent | State::TimeWait => self.finish(),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.reset_peer(),
        }
    }
}
