//! The client's side of one connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::gate::Gate;
use super::half::{Half, Requests, Schedule};
use super::hello::{ACK, GO, Hello, Mode};
use super::link::{Dialer, Link};
use super::tally::{Failure, Recorder, Tally};
use super::{BLOCK_BYTES, GRACE};
use crate::cli::Direction;

/// Pause after a connection that failed, where others follow it.
const PAUSE: Duration = Duration::from_millis(10);

/// What every connection of a run does.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) hello: Hello,
    pub(super) time: Duration,
    pub(super) connections: u32,
    pub(super) pace: Pace,
    pub(super) gate: Gate,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// When an answer comes, so that as many are always under way.
    Closed {
        /// Requests under way on each connection.
        pipeline: u32,
    },
    /// When it is due.
    Open {
        /// Requests a second, of all connections together.
        rate: u32,
    },
}

impl Plan {
    /// Longest time for a connection from before it is opened until it has ended.
    pub(super) fn limit(&self) -> Duration {
        self.time + GRACE
    }

    /// Runs connection number `index`, and counts what it does.
    pub(super) async fn run<D: Dialer>(&self, dialer: &D, index: u32, to: &Recorder) {
        match self.hello.mode {
            Mode::Once => self.repeat(dialer, to).await,
            Mode::Stream(_) | Mode::Requests => {
                if let Err(failure) = self.keep(dialer, index, to).await {
                    to.lock().fail(failure);
                }
            }
        }
    }

    /// One connection for the whole time.
    async fn keep<D: Dialer>(&self, dialer: &D, index: u32, to: &Recorder) -> Result<(), Failure> {
        let opened = self.open(dialer).await;
        self.gate.arrive();
        let link = opened?;
        to.lock().connections += 1;
        let begin = self.gate.pass(&link).await;
        let _measured = Span::new(begin, to);
        link.write_all(&GO).await?;
        match self.hello.mode {
            Mode::Stream(direction) => self.stream(&link, direction, begin + self.time, to).await,
            Mode::Requests | Mode::Once => self.requests(&link, begin, index, to).await,
        }
    }

    /// A connection whose server has understood what it is for.
    async fn open<D: Dialer>(&self, dialer: &D) -> Result<D::Link, Failure> {
        let link = dialer.connect().await.map_err(Failure::Connect)?;
        link.write_all(&self.hello.encode()).await?;
        let mut ack = [0; ACK.len()];
        fill(&link, &mut ack).await.map_err(|_| Failure::NoServer)?;
        if ack == ACK { Ok(link) } else { Err(Failure::NoServer) }
    }

    async fn stream<L: Link>(
        &self,
        link: &L,
        direction: Direction,
        until: Instant,
        to: &Recorder,
    ) -> Result<(), Failure> {
        let owned = self.hello.owned;
        let send = Half::Send { until, owned, then_end: true };
        let discard = Half::Discard { owned };
        match direction {
            Direction::Up => {
                send.run(link, to).await?;
                // The server ends its stream once it has read all of ours.
                discard.run(link, to).await?;
            }
            Direction::Both => {
                let (sent, received) = link.duplex(send, discard, to).await;
                sent.and(received)?;
            }
            Direction::Down => {
                discard.run(link, to).await?;
                link.end()?;
            }
        }
        Ok(())
    }

    async fn requests<L: Link>(
        &self,
        link: &L,
        begin: Instant,
        index: u32,
        to: &Recorder,
    ) -> Result<(), Failure> {
        match self.pace {
            Pace::Open { rate } => {
                let schedule = Schedule::new(begin, self.time, rate, self.connections, index);
                self.paced(link, schedule, to).await
            }
            Pace::Closed { pipeline } => {
                self.in_turn(link, pipeline as usize, begin + self.time, to).await
            }
        }
    }

    async fn paced<L: Link>(
        &self,
        link: &L,
        schedule: Schedule,
        to: &Recorder,
    ) -> Result<(), Failure> {
        let requests = &Requests::new(schedule, to);
        let send = Half::Paced { requests, size: self.hello.size as usize };
        let receive = Half::Timed { requests, answer: self.hello.answer as usize };
        let (sent, answered) = link.duplex(send, receive, to).await;
        let (sent, answered) = (sent?, answered?);
        if sent == answered { Ok(()) } else { Err(Failure::Unanswered { sent, answered }) }
    }

    /// Sends a request for each answer until the time has come, and waits for the last answers.
    async fn in_turn<L: Link>(
        &self,
        link: &L,
        pipeline: usize,
        until: Instant,
        to: &Recorder,
    ) -> Result<(), Failure> {
        let (size, answer) = (self.hello.size as usize, self.hello.answer as usize);
        let requests = vec![0; size * pipeline];
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut under_way = UnderWay { since: VecDeque::with_capacity(pipeline), until, to };
        under_way.since.extend(std::iter::repeat_n(Instant::now(), pipeline));
        link.write_all(&requests).await?;
        let (mut sent, mut begun) = (requests.len() as u64, 0);
        while !under_way.since.is_empty() {
            let read = link.read(&mut buffer).await?;
            if read == 0 {
                return Err(Failure::Ended);
            }
            let now = Instant::now();
            begun += read;
            let whole = begun / answer;
            begun %= answer;
            self.count(whole, now, &mut under_way)?;
            if now < until && whole > 0 {
                link.write_all(&requests[..whole * size]).await?;
                under_way.since.extend(std::iter::repeat_n(now, whole));
                sent += (whole * size) as u64;
            }
        }
        link.end()?;
        let more = Half::Discard { owned: false }.run(link, to).await?;
        if more + begun as u64 > 0 {
            let sent = sent / size as u64;
            return Err(Failure::Unanswered { sent, answered: sent + 1 });
        }
        Ok(())
    }

    /// Counts `whole` answers, the last bytes of which came just now.
    fn count(
        &self,
        whole: usize,
        now: Instant,
        under_way: &mut UnderWay<'_>,
    ) -> Result<(), Failure> {
        let sent = under_way.since.len();
        let mut tally = under_way.to.lock();
        for _ in 0..whole {
            let Some(begin) = under_way.since.pop_front() else {
                let (sent, answered) = (sent as u64, whole as u64);
                return Err(Failure::Unanswered { sent, answered });
            };
            if now <= under_way.until {
                self.exchanged(&mut tally, now - begin);
            } else {
                tally.late(now - begin);
            }
        }
        Ok(())
    }

    /// Counts a request and its answer, of which both have come in time.
    fn exchanged(&self, tally: &mut Tally, latency: Duration) {
        tally.sent_bytes += u64::from(self.hello.size);
        tally.received_bytes += u64::from(self.hello.answer);
        tally.answered(latency);
    }

    /// One connection after another until the time has come, which is the same for all.
    async fn repeat<D: Dialer>(&self, dialer: &D, to: &Recorder) {
        let begin = self.gate.begin();
        let until = begin + self.time;
        let _measured = Span::new(begin, to);
        let mut message = self.hello.encode().to_vec();
        message.resize(message.len() + self.hello.size as usize, 0);
        let mut answer = vec![0; ACK.len() + self.hello.answer as usize];
        loop {
            let began = Instant::now();
            if began >= until {
                break;
            }
            let mut open = Open { began, ended_in_time: false, to };
            let outcome = self.once(dialer, &message, &mut answer).await;
            let ended = Instant::now();
            open.ended_in_time = ended <= until;
            match outcome {
                Ok(()) => {
                    let mut tally = to.lock();
                    tally.connections += 1;
                    if open.ended_in_time {
                        self.exchanged(&mut tally, ended - began);
                    }
                }
                Err(failure) => {
                    to.lock().fail(failure);
                    dialer.sleep(PAUSE).await;
                }
            }
        }
    }

    async fn once<D: Dialer>(
        &self,
        dialer: &D,
        message: &[u8],
        answer: &mut [u8],
    ) -> Result<(), Failure> {
        let link = dialer.connect().await.map_err(Failure::Connect)?;
        link.write_all(message).await?;
        fill(&link, answer).await?;
        if answer[..ACK.len()] != ACK {
            return Err(Failure::NoServer);
        }
        // The server ends first, so that it is the one to keep the connection in TIME-WAIT, and
        // the client does not run out of ports.
        match link.read(answer).await? {
            0 => Ok(link.end()?),
            more => Err(Failure::Unanswered { sent: 1, answered: 1 + more as u64 }),
        }
    }
}

/// The time that one connection is measured, however it ends.
struct Span<'a> {
    begin: Instant,
    to: &'a Recorder,
}

impl<'a> Span<'a> {
    fn new(begin: Instant, to: &'a Recorder) -> Span<'a> {
        to.lock().ran(begin, begin);
        Span { begin, to }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        self.to.lock().ran(self.begin, Instant::now());
    }
}

/// A connection of those that follow each other. One that has not ended in time, and one that is
/// given up on the way, was open at the end.
struct Open<'a> {
    began: Instant,
    ended_in_time: bool,
    to: &'a Recorder,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.ended_in_time {
            self.to.lock().late(self.began.elapsed());
        }
    }
}

/// When each request was sent that has no answer yet. Those that have none at the end are charged
/// with the time that they have waited.
struct UnderWay<'a> {
    since: VecDeque<Instant>,
    /// When the time that is measured ends.
    until: Instant,
    to: &'a Recorder,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut tally = self.to.lock();
        if now > self.until {
            tally.open_at_end += self.since.len() as u64;
        }
        self.since.drain(..).for_each(|sent| tally.unanswered(now - sent));
    }
}

/// Reads until `buffer` is full.
pub(super) async fn fill<L: Link>(link: &L, buffer: &mut [u8]) -> Result<(), Failure> {
    let mut at = 0;
    while at < buffer.len() {
        match link.read(&mut buffer[at..]).await {
            Ok(0) => return Err(Failure::Ended),
            Ok(read) => at += read,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
