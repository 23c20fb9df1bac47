//! What all controllers have in common.

use super::*;

pub(super) const MSS: u32 = 1000;

/// An ACK of `acked` bytes with `in_flight` before it, all of the window used.
pub(super) fn ack(acked: u32, in_flight: u32) -> AckSample {
    AckSample {
        acked,
        una: SeqNum::default(),
        nxt: SeqNum::default(),
        now: Instant::ZERO,
        rtt: None,
        srtt: Duration::ZERO,
        in_flight,
        piped: in_flight,
        mss: MSS,
        window_limited: in_flight > 0,
        after_timeout: false,
    }
}

fn loss_based() -> [Controller; 2] {
    [Algorithm::NewReno, Algorithm::Cubic].map(|a| Controller::new(a, 10 * MSS))
}

#[test]
fn an_ack_of_nothing_new_moves_no_window() {
    for mut c in Algorithm::ALL.map(|a| Controller::new(a, 10 * MSS)) {
        let before = (c.cwnd(), c.ssthresh());
        for _ in 0..1000 {
            c.on_ack(&ack(0, 10 * MSS));
        }
        assert_eq!((c.cwnd(), c.ssthresh()), before, "{c:?}");
    }
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    for mut c in loss_based() {
        for _ in 0..1000 {
            c.on_ack(&AckSample { window_limited: false, ..ack(MSS, 4 * MSS) });
        }
        assert_eq!(c.cwnd(), 10 * MSS, "slow start: {c:?}");
        c.on_loss(Instant::ZERO, 20 * MSS, MSS);
        let before = c.cwnd();
        for _ in 0..1000 {
            c.on_ack(&AckSample { window_limited: false, ..ack(MSS, before / 2) });
        }
        assert_eq!(c.cwnd(), before, "congestion avoidance: {c:?}");
    }
}

#[test]
fn windows_have_a_floor_and_a_ceiling() {
    for mut c in loss_based() {
        for _ in 0..100 {
            c.on_loss(Instant::ZERO, c.cwnd(), MSS);
        }
        assert_eq!((c.cwnd(), c.ssthresh()), (2 * MSS, 2 * MSS), "{c:?}");
        c = Controller::new(c.algorithm(), CWND_MAX);
        c.on_ack(&ack(MSS, CWND_MAX));
        assert_eq!(c.cwnd(), CWND_MAX);
    }
}

#[test]
fn a_mark_is_answered_as_a_loss_is() {
    for (mut marked, mut lost) in loss_based().into_iter().zip(loss_based()) {
        marked.on_mark(Instant::ZERO, 10 * MSS, MSS);
        lost.on_loss(Instant::ZERO, 10 * MSS, MSS);
        assert_eq!((marked.cwnd(), marked.ssthresh()), (lost.cwnd(), lost.ssthresh()));
        assert!(marked.cwnd() < 10 * MSS);
    }
}

#[test]
fn a_change_of_controller_keeps_the_window() {
    let mut c = Controller::new(Algorithm::NewReno, 100 * MSS);
    c.on_loss(Instant::ZERO, 100 * MSS, MSS);
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr, Algorithm::NewReno, Algorithm::Cubic] {
        c.switch_to(algorithm, 10 * MSS, Instant::ZERO);
        assert_eq!((c.algorithm(), c.cwnd()), (algorithm, 50 * MSS));
    }
}

#[test]
fn a_change_to_the_same_controller_changes_nothing() {
    let mut c = Controller::new(Algorithm::Cubic, 100 * MSS);
    c.on_loss(Instant::ZERO, 100 * MSS, MSS);
    let before = format!("{c:?}");
    c.switch_to(Algorithm::Cubic, 10 * MSS, Instant::ZERO);
    assert_eq!(format!("{c:?}"), before);
}

#[test]
fn the_reduction_of_a_window_that_models_the_path_is_not_spread() {
    for c in Algorithm::ALL.map(|a| Controller::new(a, 10 * MSS)) {
        assert_eq!(c.uses_prr(), !c.models_path(), "{c:?}");
        assert_eq!(c.models_path(), c.algorithm() == Algorithm::Bbr);
    }
}

#[test]
fn an_ack_that_leaves_the_window_as_it_is_is_noted_as_any_other() {
    let first = Instant::from_millis(1000);
    for mut c in loss_based() {
        // What the window takes is known.
        c.on_ack(&AckSample { now: first, ..ack(0, 10 * MSS) });
        for lost in [false, true] {
            if lost {
                c.on_loss(first, 10 * MSS, MSS);
            }
            let samples = [1, MSS, 2 * MSS, 4 * MSS, 5 * MSS, 10 * MSS].map(|in_flight| {
                // At once, after a sampling period, and after a non-validated one.
                let times = [0, 1500, 400_000].map(|ms| first + Duration::from_millis(ms));
                let piped = [in_flight, 11 * MSS];
                let acked = [0, 1, in_flight];
                times
                    .map(|now| piped.map(|piped| acked.map(|acked| (now, piped, acked, in_flight))))
            });
            for (now, piped, acked, in_flight) in samples.into_iter().flatten().flatten().flatten()
            {
                let (window_limited, srtt) = (false, Duration::from_millis(600));
                let sample =
                    AckSample { now, piped, window_limited, srtt, ..ack(acked, in_flight) };
                let mut after = c.clone();
                after.on_ack(&sample);
                let (una, srtt_ns) = (SeqNum::default() - acked, 600_000_000);
                let mut noted = c.clone();
                let done = noted.notes(&Noted { now, una, in_flight, piped, srtt_ns });
                let expected = if done { &after } else { &c };
                assert_eq!(format!("{noted:?}"), format!("{expected:?}"), "{sample:?}");
                // The long way is taken where the window grows, before a loss.
                let usual = matches!(c, Controller::Cubic(_)) && !lost && acked > 0;
                let grows = after.cwnd() > c.cwnd();
                assert!(!usual || now > first || done != grows, "{sample:?}: {c:?}");
            }
        }
    }
}
