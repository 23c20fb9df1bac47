//! CUBIC against the formulas of RFC 9438.

use super::super::tests::{MSS, ack};
use super::*;
use crate::tcp::seq::SeqNum;
use crate::time::Duration;

const MSS_F: f64 = MSS as f64;

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000_000 + ms)
}

/// An ACK of one segment at a time, with a round trip of `rtt_ms`.
fn ack_at(ms: u64, cwnd: u32, rtt_ms: u64) -> AckSample {
    AckSample { now: at(ms), srtt: Duration::from_millis(rtt_ms), ..ack(MSS, cwnd) }
}

/// Feeds one window of ACKs a round trip from `from_ms` to `to_ms`; the window at the end.
fn run(c: &mut Cubic, from_ms: u64, to_ms: u64, rtt_ms: u64) -> u32 {
    let mut ms = from_ms;
    while ms < to_ms {
        let acks = c.cwnd() / MSS;
        for _ in 0..acks {
            c.on_ack(&ack_at(ms, c.cwnd(), rtt_ms));
        }
        ms += rtt_ms;
    }
    c.cwnd()
}

#[test]
fn the_cube_root_is_exact() {
    for (n, root) in [(0, 0), (1, 1), (7, 1), (8, 2), (26, 2), (27, 3)] {
        assert_eq!(cube_root(n), root);
    }
    let big = 4_000_000_000_000u64;
    let cube = u128::from(big).pow(3);
    assert_eq!((cube_root(cube - 1), cube_root(cube), cube_root(cube + 1)), (big - 1, big, big));
}

#[test]
fn k_is_the_cube_root_of_the_lost_segments_over_c() {
    // W_max = 1,000 segments, 300 of them lost: K = cbrt(300 / 0.4) = 9.0856 s.
    let k = k_s(300.0 * MSS_F, MSS_F);
    assert!((k - 750f64.cbrt()).abs() < 1e-5, "{k}");
    assert!((k - 9.085_603).abs() < 1e-5, "{k}");
    // The same number of segments takes the same time, however large they are.
    assert!((k_s(300.0 * 9000.0, 9000.0) - k).abs() < 1e-5);
}

#[test]
fn a_loss_leaves_seven_tenths() {
    let mut c = Cubic::new(1000 * MSS);
    c.on_loss(at(0), 1000 * MSS, MSS);
    assert_eq!((c.cwnd(), c.ssthresh()), (700 * MSS, 700 * MSS));
    let mut small = Cubic::new(2 * MSS);
    small.on_loss(at(0), 2 * MSS, MSS);
    assert_eq!((small.cwnd(), small.ssthresh()), (2 * MSS, 2 * MSS), "two segments at least");
}

#[test]
fn the_window_is_back_at_w_max_after_k_and_goes_on_beyond() {
    // 200 ms: the curve, not Reno's line, is what counts.
    let mut c = Cubic::new(1000 * MSS);
    c.on_loss(at(0), 1000 * MSS, MSS);
    // W_cubic(5 s) = 0.4 (5 - 9.0856)^3 + 1000 = 972.7; a round trip of ACKs closes 1 - 1/e of the
    // distance to it.
    let five = run(&mut c, 0, 5_000, 200);
    assert!((five / MSS).abs_diff(973) <= 3, "{five}");
    let nine = run(&mut c, 5_000, 9_000, 200);
    assert!((nine / MSS).abs_diff(1000) <= 1, "{nine}");
    // W_cubic(15 s) = 0.4 (15 - 9.0856)^3 + 1000 = 1082.7.
    let fifteen = run(&mut c, 9_000, 15_000, 200);
    assert!((fifteen / MSS).abs_diff(1083) <= 5, "{fifteen}");
}

#[test]
fn no_round_trip_adds_more_than_half_the_window() {
    let mut c = Cubic::new(10 * MSS);
    c.on_loss(at(0), 10 * MSS, MSS);
    c.on_ack(&ack_at(0, c.cwnd(), 100));
    // An hour later the curve is far above.
    let before = c.cwnd();
    for _ in 0..before / MSS {
        c.on_ack(&ack_at(3_600_000, before, 100));
    }
    assert!(c.cwnd() > before && c.cwnd() <= before * 3 / 2 + before / 4, "{}", c.cwnd());
}

#[test]
fn where_reno_would_be_faster_it_is_reno() {
    // 1 ms: in a second Reno adds 0.53 segments in each of 1,000 round trips, the curve 0.
    let mut c = Cubic::new(100 * MSS);
    c.on_loss(at(0), 100 * MSS, MSS);
    let in_20_ms = run(&mut c, 0, 20, 1);
    let expected = 70.0 + 20.0 * ALPHA;
    assert!((f64::from(in_20_ms) / MSS_F - expected).abs() < 0.5, "{in_20_ms}");
    // §4.3: from the old window on, Reno's own step of one segment a round trip.
    let back = run(&mut c, 20, 57, 1);
    assert!((back / MSS).abs_diff(100) <= 1, "{back}");
    let later = run(&mut c, 57, 77, 1);
    assert!((later - back).abs_diff(20 * MSS) <= 2 * MSS, "{later}");
}

#[test]
fn fast_convergence_gives_way() {
    let mut c = Cubic::new(1000 * MSS);
    c.on_loss(at(0), 1000 * MSS, MSS);
    assert_eq!(f64::from(c.now.w_max), 1000.0 * MSS_F);
    // Reduced again at 700 of 1,000: W_max = 700 (1 + 0.7) / 2 = 595.
    c.on_loss(at(100), 700 * MSS, MSS);
    assert!((f64::from(c.now.w_max) / MSS_F - 595.0).abs() < 1e-6, "{}", c.now.w_max);
    assert_eq!(c.cwnd(), 490 * MSS);
}

#[test]
fn after_a_timeout_the_curve_begins_where_slow_start_ends() {
    let mut c = Cubic::new(100 * MSS);
    c.on_rto(at(0), 100 * MSS, MSS, true);
    assert_eq!((c.cwnd(), c.ssthresh()), (MSS, 70 * MSS));
    c.on_rto(at(1000), MSS, MSS, false);
    assert_eq!(c.ssthresh(), 70 * MSS, "held when the same data is lost again");
    while c.cwnd() < c.ssthresh() {
        c.on_ack(&ack_at(1_100, c.cwnd(), 100));
    }
    c.on_ack(&ack_at(1_200, c.cwnd(), 100));
    assert_eq!(c.now.k_s, 0.0);
    assert!((f64::from(c.now.w_max) / MSS_F - 70.0).abs() < 1.1, "{}", c.now.w_max);
}

#[test]
fn time_in_which_the_window_is_not_used_does_not_count() {
    let (mut steady, mut paused) = (Cubic::new(1000 * MSS), Cubic::new(1000 * MSS));
    for c in [&mut steady, &mut paused] {
        c.on_loss(at(0), 1000 * MSS, MSS);
        run(c, 0, 4_000, 200);
    }
    // The application writes little for a minute: the window stays, and the curve waits.
    let before = paused.cwnd();
    for ms in (4_000..64_000).step_by(200) {
        paused.on_ack(&AckSample { window_limited: false, ..ack_at(ms, before / 4, 200) });
    }
    assert_eq!(paused.cwnd(), before);
    let (steady, paused) =
        (run(&mut steady, 4_000, 8_000, 200), run(&mut paused, 64_000, 68_000, 200));
    assert!(steady.abs_diff(paused) <= 2 * MSS, "{steady} {paused}");
}

#[test]
fn idle_time_does_not_count_either_and_may_restart_the_window() {
    let mut c = Cubic::new(1000 * MSS);
    c.on_loss(at(0), 1000 * MSS, MSS);
    run(&mut c, 0, 4_000, 200);
    let (epoch, before) = (c.now.epoch, c.cwnd());
    c.on_idle(at(63_800), None);
    assert_eq!(c.now.epoch, epoch + Duration::from_secs(60));
    assert_eq!(c.cwnd(), before);
    c.on_idle(at(63_800), Some(10 * MSS));
    assert_eq!((c.cwnd(), c.ssthresh()), (10 * MSS, 700 * MSS));
}

#[test]
fn a_spurious_loss_is_taken_back_with_its_curve() {
    let mut c = Cubic::new(1000 * MSS);
    c.on_loss(at(0), 1000 * MSS, MSS);
    run(&mut c, 0, 4_000, 200);
    let before = c.now;
    c.on_loss(at(4_100), c.cwnd(), MSS);
    assert_ne!(c.now.w_max, before.w_max);
    c.undo();
    assert_eq!(c.cwnd(), before.cwnd as u32);
    assert_eq!((c.now.w_max, c.now.k_s, c.now.epoch), (before.w_max, before.k_s, before.epoch));
}

#[test]
fn a_queue_that_grows_ends_slow_start_before_a_loss() {
    // 100 segments fit into the path; beyond them each adds to the round trip of 50 ms.
    let mut c = Cubic::new(10 * MSS);
    let (mut una, mut ms) = (0u32, 0);
    for _ in 0..40 {
        if c.ssthresh() < CWND_MAX {
            break;
        }
        let window = c.cwnd() / MSS;
        let rtt = 50 + u64::from(window.saturating_sub(100)) / 2;
        for _ in 0..window {
            una += 1;
            c.on_ack(&AckSample {
                rtt: Some(Duration::from_millis(rtt)),
                una: crate::tcp::seq::SeqNum::new(una),
                nxt: crate::tcp::seq::SeqNum::new(una + window),
                ..ack_at(ms, c.cwnd(), rtt)
            });
        }
        ms += rtt;
    }
    assert!(c.ssthresh() <= c.cwnd(), "slow start is over");
    // Without it the window would have doubled until the queue overflowed.
    assert!((100 * MSS..700 * MSS).contains(&c.cwnd()), "{}", c.cwnd());
}

#[test]
fn a_rest_changes_nothing_that_is_kept() {
    let mut c = Cubic::new(1000 * MSS);
    c.on_loss(at(0), 1000 * MSS, MSS);
    run(&mut c, 0, 5000, 100);
    let kept = c.to_rest();
    let back = Cubic::from_rest(kept, 10 * MSS).to_rest();
    assert_eq!(format!("{kept:?}"), format!("{back:?}"));
    assert!(kept.started && kept.cwnd_prior > kept.ssthresh as f32);
}

#[test]
fn the_first_slow_start_ends_at_the_window_that_it_has_reached() {
    // RFC 9406 §4.2: a queue of 20 ms from the third round on, and five rounds of looking at it.
    let mut c = Cubic::new(10 * MSS);
    let (mut una, mut round, mut before) = (SeqNum::new(0), 0, 0);
    while c.ssthresh() == CWND_MAX {
        assert!(round < 20, "slow start goes on for ever");
        let (cwnd, nxt) = (c.cwnd(), una + 10 * MSS);
        let rtt = Duration::from_millis(if round < 2 { 40 } else { 60 });
        for i in 1..=10 {
            let sent = AckSample { una: una + i * MSS, nxt: nxt + i * MSS, ..ack(MSS, cwnd) };
            before = c.cwnd();
            c.on_ack(&AckSample { rtt: Some(rtt), ..sent });
            assert!(c.cwnd() > before, "it has grown to its end");
            if c.ssthresh() < CWND_MAX {
                break;
            }
        }
        (una, round) = (una + 10 * MSS, round + 1);
    }
    assert!(round >= 7 && before > 20 * MSS, "{round} rounds");
    assert_eq!(c.ssthresh(), c.cwnd());
}

#[test]
fn a_recovery_that_ends_with_little_in_flight_lets_out_no_burst() {
    // RFC 6582 §3.2, full acknowledgment, option 1.
    for (in_flight, window) in [(0, 2), (1, 2), (3, 4), (699, 700), (900, 700)] {
        let mut c = Cubic::new(1000 * MSS);
        c.on_loss(at(0), 1000 * MSS, MSS);
        c.on_recovered(at(1), in_flight * MSS, 0, MSS);
        assert_eq!(c.cwnd(), window * MSS, "{in_flight} segments in flight");
    }
}
