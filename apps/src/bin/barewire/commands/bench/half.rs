//! One direction of a connection: what goes on while the other direction goes on, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::BLOCK_BYTES;
use super::link::Link;
use super::tally::{Failure, Recorder};

/// How long after its time a paced sender still tries to send what was due.
const CATCH_UP: Duration = Duration::from_millis(500);

/// When each request of one connection is due. All connections together keep the rate; each begins
/// a fraction of its interval after the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    begin: Instant,
    /// Requests a second, of all connections together.
    rate: u32,
    connections: u32,
    /// Which of the connections this is, from 0.
    index: u32,
    /// How many requests are due within the time.
    count: u64,
}

impl Schedule {
    pub(super) fn new(
        begin: Instant,
        time: Duration,
        rate: u32,
        connections: u32,
        index: u32,
    ) -> Schedule {
        let mut schedule = Schedule { begin, rate, connections, index, count: 0 };
        schedule.count = schedule.due_after(time);
        schedule
    }

    /// When request `n` is due, after the beginning.
    fn offset(&self, n: u64) -> Duration {
        let place = u128::from(self.index) + u128::from(n) * u128::from(self.connections);
        let ns = place * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn due_at(&self, n: u64) -> Instant {
        self.begin + self.offset(n)
    }

    /// How many requests are due once `time` has passed.
    fn due_after(&self, time: Duration) -> u64 {
        // Request n is due at `place / rate` seconds, and due is what lies before `time`.
        let places = (time.as_nanos() * u128::from(self.rate)).div_ceil(1_000_000_000);
        let places = places.saturating_sub(u128::from(self.index));
        u64::try_from(places.div_ceil(u128::from(self.connections))).unwrap_or(u64::MAX)
    }

    /// How many are due by now.
    fn due_by(&self, now: Instant) -> u64 {
        self.due_after(now.saturating_duration_since(self.begin)).min(self.count)
    }
}

/// The requests of one connection at a fixed rate. When it goes, however the connection ended, what
/// was sent without being answered, and what was not even sent, is charged with the time that it has
/// waited by then: a server that stops would look the better for it otherwise.
#[derive(Debug)]
pub(super) struct Requests<'a> {
    schedule: Schedule,
    to: &'a Recorder,
    // One of either direction each, which may be threads; read by others when those have ended.
    sent: AtomicU64,
    answered: AtomicU64,
}

impl<'a> Requests<'a> {
    pub(super) fn new(schedule: Schedule, to: &'a Recorder) -> Requests<'a> {
        Requests { schedule, to, sent: AtomicU64::new(0), answered: AtomicU64::new(0) }
    }
}

impl Drop for Requests<'_> {
    fn drop(&mut self) {
        let (sent, answered) = (*self.sent.get_mut(), *self.answered.get_mut());
        let now = Instant::now();
        let waited = |n| now.saturating_duration_since(self.schedule.due_at(n));
        let mut tally = self.to.lock();
        (answered..sent).for_each(|n| tally.unanswered(waited(n)));
        // Who is ended before the time is not charged for what was not due yet.
        (sent..self.schedule.due_by(now)).for_each(|n| tally.gave_up(waited(n)));
    }
}

/// One direction's work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Half<'a> {
    /// Sends blocks until the time has come, and then ends the stream, or leaves that to somebody
    /// else.
    Send { until: Instant, owned: bool, then_end: bool },
    /// Throws away what comes until the stream ends.
    Discard { owned: bool },
    /// Sends requests of `size` bytes when they are due, and then ends the stream.
    Paced { requests: &'a Requests<'a>, size: usize },
    /// Times the answers to those, of `answer` bytes each, until the stream ends.
    Timed { requests: &'a Requests<'a>, answer: usize },
}

impl Half<'_> {
    /// Runs to the end; gives how many bytes or requests that was.
    pub(super) async fn run<L: Link>(self, link: &L, to: &Recorder) -> Result<u64, Failure> {
        match self {
            Half::Send { until, owned, then_end } => {
                let block = link.block(owned)?;
                let mut sent = 0;
                while Instant::now() < until {
                    let block = link.write_block(&block).await? as u64;
                    // At once: a run may be ended at any time.
                    to.lock().sent_bytes += block;
                    sent += block;
                }
                if then_end {
                    link.end()?;
                }
                Ok(sent)
            }
            Half::Discard { owned } => discard(link, owned, to).await,
            Half::Paced { requests, size } => paced(link, requests, size, to).await,
            Half::Timed { requests, answer } => timed(link, requests, answer, to).await,
        }
    }
}

async fn discard<L: Link>(link: &L, owned: bool, to: &Recorder) -> Result<u64, Failure> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut received = 0;
    loop {
        match link.discard(&mut buffer, owned).await? {
            0 => break,
            n => {
                to.lock().received_bytes += n as u64;
                received += n as u64;
            }
        }
    }
    Ok(received)
}

async fn paced<L: Link>(
    link: &L,
    state: &Requests<'_>,
    size: usize,
    to: &Recorder,
) -> Result<u64, Failure> {
    let schedule = &state.schedule;
    // Requests that are due together leave together.
    let batch = (BLOCK_BYTES / size).max(1) as u64;
    let requests = vec![0; batch as usize * size];
    let last = schedule.due_at(schedule.count) + CATCH_UP;
    let mut sent = 0;
    while sent < schedule.count {
        let now = Instant::now();
        if now > last {
            break;
        }
        let due = (schedule.due_by(now) - sent).min(batch);
        if due == 0 {
            link.sleep_until(schedule.due_at(sent)).await;
            continue;
        }
        link.write_all(&requests[..due as usize * size]).await?;
        sent += due;
        state.sent.store(sent, Ordering::Relaxed);
        to.lock().sent_bytes += due * size as u64;
    }
    link.end()?;
    Ok(sent)
}

async fn timed<L: Link>(
    link: &L,
    requests: &Requests<'_>,
    answer: usize,
    to: &Recorder,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let (mut answered, mut begun) = (0, 0);
    loop {
        let read = link.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        let now = Instant::now();
        begun += read;
        let mut tally = to.lock();
        tally.received_bytes += read as u64;
        for _ in 0..begun / answer {
            let due = requests.schedule.due_at(answered);
            tally.answered(now.saturating_duration_since(due));
            answered += 1;
        }
        requests.answered.store(answered, Ordering::Relaxed);
        begun %= answer;
    }
    if begun == 0 { Ok(answered) } else { Err(Failure::Ended) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_a_rate_evenly() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        for (rate, connections) in [(1000, 1), (1000, 3), (7, 10), (1, 1), (10_000_000, 7)] {
            let all: Vec<_> = (0..connections)
                .map(|index| Schedule::new(begin, second, rate, connections, index))
                .collect();
            let count: u64 = all.iter().map(|schedule| schedule.count).sum();
            assert_eq!(count, u64::from(rate), "{rate} over {connections}");
            for schedule in all.iter().filter(|schedule| schedule.count > 0) {
                assert!(schedule.offset(schedule.count - 1) < second);
                assert!(schedule.offset(schedule.count) >= second);
            }
        }
    }

    #[test]
    fn what_is_never_answered_is_charged_with_the_time_that_it_waited() {
        let second = Duration::from_secs(1);
        let (to, begin) = (Recorder::new(), Instant::now() - 3 * second);
        let requests = Requests::new(Schedule::new(begin, second, 1000, 1, 0), &to);
        requests.sent.store(900, Ordering::Relaxed);
        requests.answered.store(200, Ordering::Relaxed);
        drop(requests);
        let tally = to.take();
        assert_eq!((tally.unanswered, tally.unsent, tally.exchanges), (700, 100, 0));
        assert_eq!(tally.latency.len(), 800);
        // The last was due two seconds ago, and the oldest 2.8.
        assert!(tally.latency.min() > 1_990_000_000 && tally.latency.max() > 2_790_000_000);

        let requests = Requests::new(Schedule::new(Instant::now(), second, 2, 1, 0), &to);
        drop(requests);
        assert_eq!(to.take().unsent, 1, "the second is not due yet");
    }

    #[test]
    fn a_request_is_due_from_its_time_on() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, Duration::from_secs(1), 100, 2, 1);
        let after = |ms| schedule.due_by(begin + Duration::from_millis(ms));
        assert_eq!(schedule.due_at(0), begin + Duration::from_millis(10));
        assert_eq!((after(9), after(11), after(29), after(31)), (0, 1, 1, 2));
        assert_eq!(after(60_000), 50, "no more than all of them");
    }
}
