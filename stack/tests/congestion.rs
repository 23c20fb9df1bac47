//! What controllers make of a fast link that loses frames: the figures that they are chosen for.

use std::time::Duration;

use barewire_stack::sim::Bulk;
use barewire_stack::tcp::Algorithm;

const GBIT: f64 = 1e9;

/// One flow over 10 Gbit/s and 1 ms, where one frame of a hundred is lost.
fn lossy(algorithm: Algorithm) -> Bulk {
    Bulk {
        seed: 2,
        flows: 1,
        algorithm,
        buffer_bytes: 8 << 20,
        rate_bps: 10_000_000_000,
        queue_bytes: 1_250_000,
        mark_bytes: None,
        loss: 0.01,
        rtt: Duration::from_millis(1),
        warm_up: Duration::from_millis(300),
        measured: Duration::from_millis(200),
    }
}

#[test]
fn bbr_takes_nine_tenths_of_a_fast_link_that_loses_a_hundredth() {
    let report = lossy(Algorithm::Bbr).run().unwrap();
    let gbit = report.total_bps() / GBIT;
    assert!(gbit > 9.0, "{gbit} Gbit/s, {:?}", report.bottleneck);
}

#[test]
fn cubic_goes_as_far_as_losses_allow() {
    // M. Mathis et al., "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm": Reno
    // gets MSS / RTT · sqrt(3/2 / p) = 0.142 Gbit/s; CUBIC is not below it.
    let bulk = Bulk { measured: Duration::from_secs(2), ..lossy(Algorithm::Cubic) };
    let report = bulk.run().unwrap();
    let gbit = report.total_bps() / GBIT;
    assert!((0.105..0.3).contains(&gbit), "{gbit} Gbit/s, {:?}", report.bottleneck);
}

#[test]
fn both_fill_a_clean_link_and_bbr_overfills_no_queue() {
    let clean = |algorithm| Bulk {
        loss: 0.0,
        rate_bps: 100_000_000,
        queue_bytes: 1_000_000,
        rtt: Duration::from_millis(20),
        warm_up: Duration::from_secs(2),
        measured: Duration::from_secs(2),
        ..lossy(algorithm)
    };
    let bbr = clean(Algorithm::Bbr).run().unwrap();
    assert!(bbr.total_bps() > 0.9 * 100e6, "{bbr:?}");
    assert_eq!(bbr.bottleneck.full, 0, "{bbr:?}");
    let cubic = clean(Algorithm::Cubic).run().unwrap();
    assert!(cubic.total_bps() > 0.9 * 100e6, "{cubic:?}");
}

/// Two flows over 100 Mbit/s and 20 ms, before which twice what is under way has room.
fn slow(algorithm: Algorithm) -> Bulk {
    Bulk {
        flows: 2,
        loss: 0.0,
        rate_bps: 100_000_000,
        queue_bytes: 500_000,
        rtt: Duration::from_millis(20),
        warm_up: Duration::from_secs(2),
        measured: Duration::from_secs(4),
        ..lossy(algorithm)
    }
}

#[test]
fn marks_keep_every_controller_from_filling_the_queue() {
    for algorithm in Algorithm::ALL {
        let report = Bulk { mark_bytes: Some(125_000), ..slow(algorithm) }.run().unwrap();
        assert!(report.total_bps() > 0.85 * 100e6, "{algorithm}: {report:?}");
        // What BBR has under way when STARTUP's first mark comes back does not all find room.
        let bottleneck = report.bottleneck;
        assert!(bottleneck.full * 1000 < bottleneck.carried, "{algorithm}: {report:?}");
        assert!(bottleneck.marked > 0, "{algorithm}: {report:?}");
        assert!(report.jain() > 0.8, "{algorithm}: {report:?}");
    }
}

#[test]
fn bbr_finds_the_bandwidth_although_the_send_buffer_is_always_full() {
    // What is in flight fills the buffer in STARTUP already: that is no application's rate.
    let bulk =
        Bulk { flows: 1, buffer_bytes: 512 << 10, queue_bytes: 250_000, ..slow(Algorithm::Bbr) };
    let report = bulk.run().unwrap();
    assert!(report.total_bps() > 0.93 * 100e6, "{report:?}");
    let frames = report.bottleneck.carried;
    assert!(report.bottleneck.full < frames / 50, "STARTUP ends: {report:?}");
}
