//! BBR over a link that is nothing but a rate, a delay and a queue.

use std::collections::VecDeque;

use super::super::tests::MSS;
use super::*;
use crate::rng::Rng;
use crate::tcp::rate::{RateEstimator, Round, Stamp};

const MBIT: u64 = 125_000;

struct Sent {
    stamp: Stamp,
    sent_at: Instant,
    marked: bool,
    /// When its ACK is back; `None` if it is lost.
    acked_at: Option<Instant>,
}

/// One flow over one bottleneck. Every segment is acknowledged by itself, as with SACK; one is lost
/// for its sender when a later one is acknowledged.
struct Link {
    bbr: Bbr,
    rate: RateEstimator,
    now: Instant,
    /// Bytes a second.
    bandwidth: u64,
    rtt: Duration,
    queue_bytes: u64,
    /// What finds more than this waiting is marked.
    mark_bytes: u64,
    loss: f64,
    rng: Rng,
    free_at: Instant,
    next_send: Instant,
    in_flight: u32,
    flight: VecDeque<Sent>,
    recovering: Option<u64>,
    lost: u32,
    /// Marks of what is delivered before this much are one event.
    mark_until: u64,
    marks: u32,
    /// The longest queue.
    longest: u64,
    delivered: u64,
    /// The pacing gain in use and the bytes in flight, at each ACK.
    history: Vec<(Instant, u64, u32)>,
}

impl Link {
    fn new(bandwidth: u64, rtt: Duration, queue_bytes: u64, loss: f64) -> Link {
        Link {
            bbr: Bbr::new(10 * MSS),
            rate: RateEstimator::default(),
            now: Instant::from_millis(1000),
            bandwidth,
            rtt,
            queue_bytes,
            mark_bytes: u64::MAX,
            loss,
            rng: Rng::new(7),
            free_at: Instant::ZERO,
            next_send: Instant::ZERO,
            in_flight: 0,
            flight: VecDeque::new(),
            recovering: None,
            lost: 0,
            mark_until: 0,
            marks: 0,
            longest: 0,
            delivered: 0,
            history: Vec::new(),
        }
    }

    fn bdp(&self) -> u64 {
        self.bandwidth * self.rtt.as_nanos() as u64 / 1_000_000_000
    }

    fn takes(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 1_000_000_000 / self.bandwidth)
    }

    fn send(&mut self) {
        let stamp = self.rate.on_send(self.now, self.in_flight == 0);
        self.in_flight += MSS;
        let starts = self.free_at.max(self.now);
        let waits = (starts - self.now).as_nanos() as u64 * self.bandwidth / 1_000_000_000;
        let lost = self.rng.chance(self.loss) || waits > self.queue_bytes;
        let marked = waits > self.mark_bytes;
        self.longest = self.longest.max(waits);
        if !lost {
            self.free_at = starts + self.takes(u64::from(MSS));
        }
        let acked_at = (!lost).then(|| self.free_at + self.rtt);
        self.flight.push_back(Sent { stamp, sent_at: self.now, marked, acked_at });
        let gap = u64::from(MSS) * 1_000_000_000 / self.bbr.pacing_rate().unwrap();
        self.next_send = self.now + Duration::from_nanos(gap);
    }

    /// The oldest segment that is not lost has been acknowledged.
    fn ack(&mut self) {
        let before = self.flight.len();
        while self.flight.front().is_some_and(|sent| sent.acked_at.is_none()) {
            self.flight.pop_front();
            self.in_flight -= MSS;
            self.lost += MSS;
        }
        if self.flight.len() < before && self.recovering.is_none() {
            self.recovering = Some(self.rate.delivered() + u64::from(self.in_flight));
            self.bbr.on_loss(self.now, self.in_flight, MSS);
        }
        let Some(sent) = self.flight.pop_front() else { return };
        self.in_flight -= MSS;
        self.delivered += u64::from(MSS);
        let mut round = Round::default();
        round.add(MSS, sent.stamp, sent.sent_at);
        let Some(seen) = self.rate.finish(self.now, round, None) else { return };
        if self.recovering.is_some_and(|until| self.rate.delivered() >= until) {
            self.recovering = None;
            self.bbr.on_recovered(self.now, self.in_flight, 0, MSS);
        }
        self.bbr.on_delivery(&PathSample {
            now: self.now,
            newly: MSS,
            delivered: self.rate.delivered(),
            prior_delivered: seen.prior,
            rate: seen.rate,
            rtt: Some(self.now - sent.sent_at),
            in_flight: self.in_flight,
            lost: self.lost,
            mss: MSS,
        });
        if sent.marked && self.rate.delivered() > self.mark_until {
            self.mark_until = self.rate.delivered() + u64::from(self.in_flight);
            self.marks += 1;
            self.bbr.on_mark(self.now, self.in_flight + MSS, MSS);
        }
        if self.bbr.holds_back() {
            self.rate.mark_app_limited(self.in_flight);
        }
        self.history.push((self.now, self.bbr.pacing_gain(), self.in_flight));
    }

    /// Runs for a time; the goodput of it as a share of the bandwidth.
    fn run(&mut self, time: Duration) -> f64 {
        let (until, before) = (self.now + time, self.delivered);
        loop {
            let acked = self.flight.iter().find_map(|sent| sent.acked_at);
            let may_send = self.in_flight + MSS <= self.bbr.cwnd();
            let sends = may_send.then_some(self.next_send.max(self.now));
            let Some(next) = acked.into_iter().chain(sends).min() else { break };
            if next > until {
                break;
            }
            self.now = next;
            if acked == Some(next) { self.ack() } else { self.send() }
        }
        self.now = until;
        (self.delivered - before) as f64 / (self.bandwidth as f64 * time.as_secs_f64())
    }
}

#[test]
fn gains_are_those_of_the_draft() {
    let near = |gain: u64, value: f64| (gain as f64 / UNIT as f64 - value).abs() < 0.005;
    assert!(near(HIGH_GAIN, 2.0 / std::f64::consts::LN_2));
    assert!(near(DRAIN_GAIN, std::f64::consts::LN_2 / 2.0));
    assert!(near(CYCLE[0], 1.25) && near(CYCLE[1], 0.75));
    assert_eq!(CYCLE.iter().sum::<u64>(), 8 * UNIT, "a cycle keeps the mean");
}

#[test]
fn startup_ends_when_the_pipe_is_full_and_drain_when_the_queue_is_gone() {
    let mut link = Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    assert_eq!(link.bbr.mode, Mode::Startup);
    link.run(Duration::from_secs(1));
    assert!(matches!(link.bbr.mode, Mode::ProbeBw(_)), "{:?}", link.bbr.mode);
    let gains: Vec<u64> = link.history.iter().map(|&(_, gain, _)| gain).collect();
    let drain = gains.iter().position(|&g| g == DRAIN_GAIN).expect("a drain");
    assert!(gains[..drain].iter().all(|&g| g == HIGH_GAIN), "startup comes first");
    // Doubling from ten segments to 250 takes five rounds, noticing that it is over three more, each
    // longer by the queue.
    let lasted = link.history[drain].0 - link.history[0].0;
    assert!(lasted < Duration::from_millis(20 * 16), "{lasted:?}");
    let cruise = gains.iter().rposition(|&g| g == DRAIN_GAIN).unwrap() + 1;
    let left = u64::from(link.history[cruise].2);
    let room = u64::from(3 * link.bbr.quantum() + MSS);
    assert!(left <= link.bdp() + room, "the queue is gone: {left}");
    let bw = link.bbr.bw.get();
    assert!(bw.abs_diff(link.bandwidth) < link.bandwidth / 50, "{bw}");
    assert_eq!(link.bbr.min_rtt, Some(Duration::from_millis(20) + link.takes(1000)));
}

#[test]
fn probe_bw_goes_through_its_cycle_and_keeps_the_queue_short() {
    let mut link = Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    link.run(Duration::from_secs(1));
    link.history.clear();
    let goodput = link.run(Duration::from_secs(5));
    assert!(goodput > 0.97, "{goodput}");
    let mut phases: Vec<u64> = link.history.iter().map(|&(_, gain, _)| gain).collect();
    phases.dedup();
    let first_up = phases.iter().position(|&g| g == 320).unwrap();
    for cycle in phases[first_up..].chunks_exact(3) {
        assert_eq!(cycle, [320, 192, UNIT]);
    }
    // Eight phases of about a round trip: 160 ms a cycle.
    let cycles = phases.iter().filter(|&&g| g == 320).count();
    assert!((25..=33).contains(&cycles), "{cycles} cycles in 5 s");
    let most = link.history.iter().map(|&(_, _, in_flight)| in_flight).max().unwrap();
    let room = u64::from(3 * link.bbr.quantum());
    assert!(u64::from(most) <= link.bdp() * 13 / 10 + room, "{most} of {}", link.bdp());
}

#[test]
fn the_round_trip_is_probed_when_no_lower_one_was_seen_for_ten_seconds() {
    let mut link = Link::new(10 * MBIT, Duration::from_millis(40), 10_000_000, 0.0);
    link.run(Duration::from_secs(5));
    // The path becomes longer: the old minimum is never seen again.
    link.rtt = Duration::from_millis(60);
    link.history.clear();
    link.run(Duration::from_secs(20));
    let probe: Vec<_> =
        link.history.iter().filter(|(_, _, in_flight)| *in_flight <= 4 * MSS).collect();
    let (first, last) = (probe.first().expect("a probe").0, probe.last().unwrap().0);
    assert!(last - first >= PROBE_RTT_TIME, "{:?}", last - first);
    let min_rtt = link.bbr.min_rtt.unwrap();
    assert!(min_rtt >= link.rtt && min_rtt < link.rtt + Duration::from_millis(5), "{min_rtt:?}");
    assert!(matches!(link.bbr.mode, Mode::ProbeBw(_)));
    assert!(link.run(Duration::from_secs(5)) > 0.9, "the window came back");
}

#[test]
fn a_hundredth_lost_costs_little_more_than_a_hundredth() {
    let mut link = Link::new(1000 * MBIT, Duration::from_millis(1), 1_000_000, 0.01);
    link.run(Duration::from_millis(200));
    let goodput = link.run(Duration::from_secs(2));
    assert!(goodput > 0.93, "{goodput}");
}

#[test]
fn more_bandwidth_is_found_and_less_is_believed() {
    let mut link = Link::new(50 * MBIT, Duration::from_millis(10), 1_000_000, 0.0);
    link.run(Duration::from_secs(1));
    link.bandwidth = 100 * MBIT;
    link.run(Duration::from_secs(1));
    let goodput = link.run(Duration::from_secs(1));
    assert!(goodput > 0.95, "{goodput}");
    link.bandwidth = 20 * MBIT;
    link.run(Duration::from_secs(2));
    let bw = link.bbr.bw.get();
    assert!(bw.abs_diff(link.bandwidth) < link.bandwidth / 20, "{bw}");
}

#[test]
fn a_timeout_leaves_one_segment_until_it_is_repaired() {
    let mut link = Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    link.run(Duration::from_secs(1));
    let before = link.bbr.cwnd();
    link.bbr.on_rto(link.now, link.in_flight, MSS, true);
    assert_eq!(link.bbr.cwnd(), MSS);
    link.bbr.on_ack(&AckSample { after_timeout: true, ..super::super::tests::ack(MSS, MSS) });
    assert_eq!(link.bbr.cwnd(), MSS);
    link.bbr.on_ack(&super::super::tests::ack(MSS, MSS));
    assert_eq!(link.bbr.cwnd(), before);
}

#[test]
fn an_application_that_writes_little_does_not_lower_the_estimate() {
    let mut link = Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    link.run(Duration::from_secs(1));
    let bw = link.bbr.bw.get();
    for _ in 0..100 {
        // One segment a round trip.
        link.bbr.on_idle(link.now, None);
        link.rate.mark_app_limited(0);
        link.send();
        link.now = link.flight.back().unwrap().acked_at.unwrap();
        while !link.flight.is_empty() {
            link.ack();
        }
        link.rate.mark_app_limited(0);
    }
    assert_eq!(link.bbr.bw.get(), bw);
    link.bbr.on_idle(link.now, None);
    assert_eq!(link.bbr.pacing_rate().unwrap() / (bw / 100), 99, "it starts again at full rate");
}

#[test]
fn a_path_of_a_segment_or_two_is_filled() {
    // §4.2.3.1: a probe lasts until what super-segments need is under way, not a round trip alone.
    let mut link = Link::new(100 * MBIT, Duration::from_micros(100), 64 << 10, 0.0);
    link.run(Duration::from_millis(500));
    let goodput = link.run(Duration::from_secs(2));
    assert!(goodput > 0.98, "{goodput}");
}

#[test]
fn a_loss_conserves_what_is_in_flight_for_a_round() {
    // §4.2.3.4.
    let mut link = Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    link.run(Duration::from_secs(1));
    let before = link.bbr.cwnd();
    // Half of what is in flight is lost.
    let count = link.flight.len();
    for sent in link.flight.iter_mut().take(count / 2) {
        sent.acked_at = None;
    }
    while link.bbr.repair == Repair::None {
        link.run(Duration::from_millis(1));
    }
    let (cwnd, in_flight) = (link.bbr.cwnd(), link.in_flight);
    assert_eq!(link.bbr.repair, Repair::Conserve);
    assert!(
        cwnd < before * 3 / 4 && cwnd <= in_flight + 4 * MSS,
        "{cwnd}, {in_flight} of {before}"
    );
    link.run(Duration::from_millis(200));
    assert!(link.bbr.cwnd() >= before / 10 * 9, "little is left of it");
}

#[test]
fn marks_bound_what_is_in_flight_and_cost_little() {
    let path = || Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    let mut deaf = path();
    deaf.run(Duration::from_secs(2));
    let mut link = path();
    link.mark_bytes = 50_000;
    link.run(Duration::from_secs(2));
    assert!(link.longest < deaf.longest * 2 / 3, "STARTUP: {} of {}", link.longest, deaf.longest);
    assert!(matches!(link.bbr.mode, Mode::ProbeBw(_)), "{:?}", link.bbr.mode);
    let goodput = link.run(Duration::from_secs(2));
    assert!(goodput > 0.9, "{goodput}");
}

#[test]
fn a_mark_is_answered_as_by_cubic_and_forgotten_a_segment_a_round() {
    let mut link = Link::new(100 * MBIT, Duration::from_millis(20), 10_000_000, 0.0);
    link.run(Duration::from_secs(1));
    let in_flight = link.in_flight;
    link.bbr.on_mark(link.now, in_flight, MSS);
    assert_eq!(link.bbr.cwnd(), in_flight * 7 / 10);
    let round = link.bbr.round;
    link.run(Duration::from_millis(100));
    let rounds = link.bbr.round - round;
    assert!(rounds >= 4, "{rounds}");
    assert_eq!(link.bbr.cwnd(), in_flight * 7 / 10 + rounds * MSS);
    link.bbr.on_mark(link.now, 1 << 29, MSS);
    assert!(link.bbr.cwnd() <= in_flight / 2 + rounds * MSS, "what marks allow counts");
    link.run(Duration::from_secs(10));
    assert_eq!(link.bbr.marked_cwnd, CWND_MAX);
    assert!(link.run(Duration::from_secs(1)) > 0.97);
}

#[test]
fn probing_begins_at_any_phase_but_the_one_that_drains() {
    let mut begun = [0; CYCLE.len()];
    for us in 0..70 {
        let mut bbr = Bbr::new(10 * MSS);
        bbr.enter_probe_bw(Instant::from_nanos(1000 * us));
        let Mode::ProbeBw(phase) = bbr.mode else { panic!("{:?}", bbr.mode) };
        begun[usize::from(phase)] += 1;
    }
    assert_eq!(begun, [10, 0, 10, 10, 10, 10, 10, 10]);
}

#[test]
fn the_window_to_come_back_to_is_that_of_before_all_trouble() {
    // §4.2.3.4, BBRSaveCwnd: neither a second loss nor one while the pipe is drained lowers it.
    let mut bbr = Bbr::new(20 * MSS);
    bbr.on_loss(Instant::ZERO, 5 * MSS, MSS);
    bbr.on_loss(Instant::ZERO, 4 * MSS, MSS);
    assert_eq!((bbr.cwnd(), bbr.ssthresh()), (5 * MSS, 20 * MSS));
    let mut bbr = Bbr::new(4 * MSS);
    (bbr.mode, bbr.prior_cwnd) = (Mode::ProbeRtt, 20 * MSS);
    bbr.on_loss(Instant::ZERO, 4 * MSS, MSS);
    assert_eq!(bbr.ssthresh(), 20 * MSS);
}
