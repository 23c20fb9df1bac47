//! One direction of a connection: what goes on while the other direction goes on, too.

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

/// One direction's work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Half {
    /// Sends blocks until the time has come, and then ends the stream, or leaves that to somebody
    /// else.
    Send { until: Instant, owned: bool, then_end: bool },
    /// Throws away what comes until the stream ends.
    Discard { owned: bool },
    /// Sends requests of `size` bytes when they are due, and then ends the stream.
    Paced { schedule: Schedule, size: usize },
    /// Times the answers to those, of `answer` bytes each, until the stream ends.
    Timed { schedule: Schedule, answer: usize },
}

impl Half {
    /// Runs to the end; gives how many bytes or requests that was.
    pub(super) async fn run<L: Link>(self, link: &L, to: &Recorder) -> Result<u64, Failure> {
        match self {
            Half::Send { until, owned, then_end } => {
                let block = link.block(owned)?;
                let mut sent = 0;
                while Instant::now() < until {
                    sent += link.write_block(&block).await? as u64;
                }
                to.lock().sent_bytes += sent;
                if then_end {
                    link.end()?;
                }
                Ok(sent)
            }
            Half::Discard { owned } => discard(link, owned, to).await,
            Half::Paced { schedule, size } => paced(link, &schedule, size, to).await,
            Half::Timed { schedule, answer } => timed(link, &schedule, answer, to).await,
        }
    }
}

async fn discard<L: Link>(link: &L, owned: bool, to: &Recorder) -> Result<u64, Failure> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut received = 0;
    loop {
        match link.discard(&mut buffer, owned).await? {
            0 => break,
            n => received += n as u64,
        }
    }
    to.lock().received_bytes += received;
    Ok(received)
}

async fn paced<L: Link>(
    link: &L,
    schedule: &Schedule,
    size: usize,
    to: &Recorder,
) -> Result<u64, Failure> {
    // Requests that are due together leave together.
    let batch = (BLOCK_BYTES / size).max(1) as u64;
    let requests = vec![0; batch as usize * size];
    let last = schedule.due_at(schedule.count) + CATCH_UP;
    let mut sent = 0;
    while sent < schedule.count {
        let now = Instant::now();
        if now > last {
            let mut tally = to.lock();
            (sent..schedule.count).for_each(|n| tally.gave_up(now - schedule.due_at(n)));
            break;
        }
        let due = (schedule.due_by(now) - sent).min(batch);
        if due == 0 {
            link.sleep_until(schedule.due_at(sent)).await;
            continue;
        }
        link.write_all(&requests[..due as usize * size]).await?;
        sent += due;
    }
    to.lock().sent_bytes += sent * size as u64;
    link.end()?;
    Ok(sent)
}

async fn timed<L: Link>(
    link: &L,
    schedule: &Schedule,
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
            tally.answered(now.saturating_duration_since(schedule.due_at(answered)));
            answered += 1;
        }
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
    fn a_request_is_due_from_its_time_on() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, Duration::from_secs(1), 100, 2, 1);
        let after = |ms| schedule.due_by(begin + Duration::from_millis(ms));
        assert_eq!(schedule.due_at(0), begin + Duration::from_millis(10));
        assert_eq!((after(9), after(11), after(29), after(31)), (0, 1, 1, 2));
        assert_eq!(after(60_000), 50, "no more than all of them");
    }
}
