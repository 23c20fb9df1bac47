//! Paths that take smaller segments than the link: routers that say so, liars, and black holes.

use super::super::congestion::{Algorithm, Controller};
use super::*;

/// A peer behind a path that silently drops segments with more payload than `limit`.
struct Hole {
    limit: u32,
    /// Everything before this has arrived, and these ranges behind it.
    next: u32,
    beyond: Vec<(u32, u32)>,
    /// The sizes of the segments that arrived.
    sizes: Vec<u32>,
}

impl Hole {
    fn new(limit: u32) -> Hole {
        Hole { limit, next: 1, beyond: Vec::new(), sizes: Vec::new() }
    }

    /// Takes what leaves now to the peer and its answers back, after a millisecond each way. True
    /// if anything left.
    fn exchange(&mut self, t: &mut Trace) -> bool {
        let mut arrivals = 0;
        let mut any = false;
        while let Some((sent, data)) = t.poll() {
            any = true;
            let from = sent.header.seq.wrapping_sub(t.iss);
            let (mut at, end) = (from, from + data.len() as u32);
            while at < end {
                let size = u32::from(sent.mss).min(end - at);
                if size <= self.limit {
                    arrivals += 1;
                    self.sizes.push(size);
                    self.beyond.push((at, at + size));
                }
                at += size;
            }
        }
        t.now += Duration::from_millis(2);
        self.beyond.sort_unstable();
        for &(from, to) in &self.beyond {
            if from <= self.next {
                self.next = self.next.max(to);
            }
        }
        let next = self.next;
        self.beyond.retain(|&(_, to)| to > next);
        for _ in 0..arrivals {
            t.rx(&format!("A 1 ack {next}"));
        }
        any
    }

    /// Until everything that was written is acknowledged.
    fn run(&mut self, t: &mut Trace) {
        for _ in 0..100_000 {
            if !self.exchange(t) {
                if t.tcb.bytes_unacked() + t.tcb.bytes_unsent() == 0 {
                    return;
                }
                t.wait_for_timer();
            }
        }
        panic!("{} bytes never arrive", t.tcb.bytes_unacked());
    }
}

#[test]
fn a_black_hole_is_found_and_what_fits_through_it() {
    // RFC 4821 §7.7 and §7.2.
    let mut t = Trace::established(plain());
    let mut hole = Hole::new(1300);
    for _ in 0..40 {
        t.write(60_000);
        hole.run(&mut t);
        t.wait(500);
    }
    assert_eq!(hole.next, 40 * 60_000 + 1);
    let mss = u32::from(t.tcb.info().mss);
    assert!((1300 - 32..=1300).contains(&mss), "{mss}");
    let full = hole.sizes.iter().filter(|&&size| size == mss).count();
    assert!(full > hole.sizes.len() / 2, "{full} of {} segments", hole.sizes.len());
    t.end();
}

#[test]
fn a_path_that_has_healed_is_used_again() {
    // RFC 1191 §6.3.
    let mut t = Trace::established(plain());
    let mut hole = Hole::new(600);
    t.write(60_000);
    hole.run(&mut t);
    assert!(t.tcb.info().mss <= 600);
    hole.limit = 9_000;
    for _ in 0..15 {
        t.wait(60_000);
        t.write(60_000);
        hole.run(&mut t);
    }
    assert_eq!(t.tcb.info().mss, 1460);
    t.end();
}

#[test]
fn a_lost_probe_costs_no_congestion_window() {
    // RFC 4821 §7.4.
    let mut t = Trace::established(plain());
    t.write(60_000);
    let mut hole = Hole::new(1300);
    hole.run(&mut t);
    t.wait(5_000);
    // Slow start goes on until well after the searches that follow.
    let mut least = u32::MAX;
    for _ in 0..20 {
        t.write(60_000);
        hole.run(&mut t);
        least = least.min(t.tcb.info().cwnd_bytes / 1460);
    }
    assert!(least > 2, "{least} segments");
    assert!(t.tcb.info().mss >= 1300 - 32);
    t.end();
}

#[test]
fn without_probing_nothing_is_suspected() {
    let mut t = Trace::established(TcpConfig { mtu_probing: false, data_retries: 5, ..plain() });
    t.write(1460);
    let mut outcome = Outcome::Continue;
    while outcome == Outcome::Continue {
        for (from, to) in t.drain() {
            assert_eq!((from, to), (1, 1461));
        }
        outcome = t.wait_outcome(200_000);
    }
    assert_eq!(outcome, Outcome::Closed);
    t.end();
}

#[test]
fn a_claim_against_the_evidence_needs_the_segments_silence() {
    // RFC 5927 §7.2: full segments have arrived, so that a claim is doubted.
    let mut t = Trace::established(plain());
    t.write(1460);
    t.tx("PA 1:1461 ack 1");
    t.rx("A 1 ack 1461");
    t.write(1460);
    t.tx("PA 1461:2921 ack 1");
    let claim = IcmpError::FragmentationNeeded { mss: 1000 };
    assert_eq!(t.tcb.handle_icmp(t.now, claim, ISS + 1461), Outcome::Continue);
    t.quiet();
    assert_eq!(t.tcb.info().mss, 1460);
    t.rx("A 1 ack 2921");
    t.write(1460);
    t.tx("PA 2921:4381 ack 1");
    assert_eq!(t.tcb.info().mss, 1460, "it was a lie");
    assert_eq!(t.tcb.handle_icmp(t.now, claim, ISS + 2921), Outcome::Continue);
    t.quiet();
    while t.tcb.info().mss == 1460 {
        t.wait_for_timer();
        let _ = t.drain();
    }
    assert_eq!(t.tcb.info().mss, 1000, "nothing was heard of it");
    t.end();
}

#[test]
fn a_claim_about_the_first_full_segment_counts_at_once_and_has_a_floor() {
    let mut t = Trace::established(plain());
    t.write(1460);
    t.tx("PA 1:1461 ack 1");
    let claim = IcmpError::FragmentationNeeded { mss: 68 - 40 };
    assert_eq!(t.tcb.handle_icmp(t.now, claim, ISS + 1), Outcome::Continue);
    t.tx("PA 1:1461 ack 1 step 536");
    t.end();
}

/// With segments of 1000 bytes and a probe of another size out.
fn probing(size: u16) -> Trace {
    let mut t = Trace::settled(plain());
    t.tcb.snd.mss = 1000;
    t.tcb.path_probed(t.tcb.snd.una, size);
    t
}

#[test]
fn a_claim_about_a_probe_counts_if_it_explains_why_that_was_lost() {
    let mut t = probing(1200);
    let (probe, path) = (t.tcb.snd.una, format!("{:?}", t.tcb.path));
    for (at, mss) in [(probe, 1200), (probe, 1300), (probe + 1, 1100)] {
        t.tcb.path_claimed(t.now, at, mss);
        assert_eq!(format!("{:?}", t.tcb.path), path, "{mss} bytes fit");
    }
    t.tcb.path_claimed(t.now, probe, 1100);
    assert!(format!("{:?}", t.tcb.path).contains("high: 1100"), "{:?}", t.tcb.path);
}

#[test]
fn a_search_ends_when_less_than_32_bytes_are_to_be_gained() {
    for (lost, high) in [(1034, 1033), (1033, 1032), (1032, 1460)] {
        let mut t = probing(lost);
        t.tcb.path_resent(t.now, t.tcb.snd.una, u32::from(lost));
        assert!(format!("{:?}", t.tcb.path).contains(&format!("high: {high}")), "{lost}");
    }
}

#[test]
fn silence_about_less_than_a_segment_or_behind_a_small_window_is_no_black_hole() {
    for (bytes, window, suspected) in
        [(3000, 65_535, true), (3000, 1459, false), (1459, 65_535, false)]
    {
        let mut t = Trace::settled(plain());
        t.write(bytes);
        t.drain();
        t.tcb.snd.wnd = window;
        t.tcb.path_silent(t.now, 10);
        assert_eq!(t.tcb.snd.mss < 1460, suspected, "{bytes} bytes, a window of {window}");
    }
}

#[test]
fn a_window_from_when_segments_were_smaller_lets_one_larger_segment_go() {
    for algorithm in [Algorithm::NewReno, Algorithm::Cubic] {
        let mut t = Trace::established(plain());
        t.tcb.controller = Controller::new(algorithm, 524);
        t.write(2920);
        t.tx("A 1:1461 ack 1");
        assert!(t.poll().is_none());
        t.rx("A 1 ack 1461");
        t.tx("PA 1461:2921 ack 1");
    }
}
