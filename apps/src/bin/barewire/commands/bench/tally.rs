//! What connections have counted and timed.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use thiserror::Error;

use super::hello::BadHello;

/// Latencies are told to three digits, up to an hour.
const DIGITS: u8 = 3;
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// Why one connection did not do all that it should have.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// No connection could be made.
    #[error("the server cannot be reached: {0}")]
    Connect(#[source] io::Error),
    /// It broke.
    #[error("a connection broke: {0}")]
    Broken(#[source] io::Error),
    /// It did not end in its time.
    #[error("a connection did not come to its end in time")]
    TimedOut,
    /// The other side ended in the middle of something.
    #[error("the other side ended a connection early")]
    Ended,
    /// The other side is no server of ours.
    #[error("what answers there is no `barewire bench server` of this version")]
    NoServer,
    /// The other side is no client of ours.
    #[error("{0}")]
    NoClient(#[from] BadHello),
    /// Requests that were sent have not been answered, or more came than was asked for.
    #[error("{sent} requests were sent, and {answered} answered")]
    Unanswered {
        /// Requests sent.
        sent: u64,
        /// Answers received.
        answered: u64,
    },
    /// There was no thread for it.
    #[error("the system gives no thread for a connection: {0}")]
    Thread(#[source] io::Error),
    /// There are more connections than this side takes.
    #[error("there are more connections at a time than this side takes")]
    TooMany,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            // The kernel says the one for reading and the other for connecting.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::TimedOut,
            _ => Failure::Broken(error),
        }
    }
}

/// What has been counted.
#[derive(Debug)]
pub(super) struct Tally {
    /// Connections that were accepted or opened, and understood.
    pub(super) connections: u64,
    /// Connections that failed, and the reason of the first.
    pub(super) errors: u64,
    pub(super) first_error: Option<Failure>,
    /// Payload bytes, the hello aside.
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Requests answered; where each follows an answer, within the time that is measured.
    pub(super) exchanges: u64,
    /// Exchanges of the latter kind that were open when that time ended, whatever came of them.
    pub(super) open_at_end: u64,
    /// Requests that were due and could not be sent.
    pub(super) unsent: u64,
    /// Requests that were sent, and had no answer when their connection ended.
    pub(super) unanswered: u64,
    /// From when each request was due, or sent, to the end of its answer, or to the end of its
    /// connection without one; in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// When the first connection began, and the last ended.
    pub(super) span: Option<(Instant, Instant)>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS);
        Tally {
            connections: 0,
            errors: 0,
            first_error: None,
            sent_bytes: 0,
            received_bytes: 0,
            exchanges: 0,
            open_at_end: 0,
            unsent: 0,
            unanswered: 0,
            latency: latency.expect("the bounds and digits are valid for a histogram"),
            span: None,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.errors += 1;
        self.first_error.get_or_insert(failure);
    }

    /// Counts an answer to a request that was due `latency` ago.
    pub(super) fn answered(&mut self, latency: Duration) {
        self.exchanges += 1;
        self.waited(latency);
    }

    /// Counts an exchange that was open when the time was over and has ended now, or is given up. It
    /// belongs to no rate, and to the latencies all the same: those that are late are slow.
    pub(super) fn late(&mut self, latency: Duration) {
        self.open_at_end += 1;
        self.waited(latency);
    }

    /// Counts a request that was due `waited` ago and will not be sent any more.
    pub(super) fn gave_up(&mut self, waited: Duration) {
        self.unsent += 1;
        self.waited(waited);
    }

    /// Counts a request that was due, or sent, `waited` ago and will have no answer any more.
    pub(super) fn unanswered(&mut self, waited: Duration) {
        self.unanswered += 1;
        self.waited(waited);
    }

    fn waited(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(ns.max(1));
    }

    /// Ends the time that is measured of connections that have not ended by themselves.
    pub(super) fn cut(&mut self, now: Instant) {
        self.span = self.span.map(|(begin, _)| (begin, now));
    }

    /// Widens the time measured by one connection's.
    pub(super) fn ran(&mut self, begin: Instant, end: Instant) {
        self.span = Some(match self.span {
            Some((first, last)) => (first.min(begin), last.max(end)),
            None => (begin, end),
        });
    }

    pub(super) fn seconds(&self) -> f64 {
        self.span.map_or(0.0, |(begin, end)| end.duration_since(begin).as_secs_f64())
    }

    /// Adds what others have counted.
    pub(super) fn add(&mut self, other: Tally) {
        self.connections += other.connections;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.exchanges += other.exchanges;
        self.open_at_end += other.open_at_end;
        self.unsent += other.unsent;
        self.unanswered += other.unanswered;
        self.latency += &other.latency;
        if let Some((begin, end)) = other.span {
            self.ran(begin, end);
        }
    }
}

/// Where connections write what they count. Those of one core share one, so that its lock is never
/// waited for on the way; a thread takes it once for each read.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<Mutex<Tally>>);

impl Recorder {
    pub(super) fn new() -> Recorder {
        Recorder(Arc::new(Mutex::new(Tally::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything out.
    pub(super) fn take(&self) -> Tally {
        std::mem::replace(&mut *self.lock(), Tally::new())
    }

    /// What all of them have counted together.
    pub(super) fn sum(recorders: &[Recorder]) -> Tally {
        let mut sum = Tally::new();
        recorders.iter().for_each(|recorder| sum.add(recorder.take()));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let recorders = [Recorder::new(), Recorder::new()];
        let begin = Instant::now();
        let later = |ms| begin + Duration::from_millis(ms);
        {
            let mut first = recorders[0].lock();
            first.answered(Duration::from_micros(10));
            first.late(Duration::from_micros(20));
            first.ran(later(5), later(100));
            first.fail(Failure::Ended);
            let mut second = recorders[1].lock();
            second.gave_up(Duration::from_millis(1));
            second.unanswered(Duration::from_millis(2));
            second.ran(begin, later(50));
            second.fail(Failure::TimedOut);
        }
        let sum = Recorder::sum(&recorders);
        assert_eq!((sum.exchanges, sum.unsent, sum.unanswered, sum.errors), (1, 1, 1, 2));
        assert_eq!(sum.open_at_end, 1);
        assert!(matches!(sum.first_error, Some(Failure::Ended)));
        assert_eq!(sum.seconds(), 0.1);
        assert_eq!((sum.latency.len(), sum.latency.min()), (4, 10_000));
        assert_eq!(Recorder::sum(&recorders).latency.len(), 0, "what was taken is gone");
    }
}
