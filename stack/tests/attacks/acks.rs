//! Receivers that lie about what they have received (Savage et al. 1999; RFC 3465, RFC 5961 §5).

use std::time::Duration;

use barewire_stack::SocketId;

use super::{ATTACKER, Bench, DELAY, Puppet};

/// A connection whose peer asks for a megabyte.
fn asked() -> (Bench, Puppet, SocketId) {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 4);
    let puppet = Puppet::open(&mut bench, ATTACKER, 4000, 65_535);
    let (server, _) = bench.server.accept(listener).unwrap();
    bench.run_for(Duration::from_millis(100));
    let _ = bench.take_seen(ATTACKER);
    (bench, puppet, server)
}

fn write(bench: &mut Bench, server: SocketId) {
    while bench.server.write(server, &[5; 16_384]).is_ok() {}
}

/// Payload bytes that the server has sent to the attacker since the last call.
fn received(bench: &mut Bench) -> usize {
    let bytes: usize =
        bench.seen.iter().map(|seen| seen.len - seen.tcp.map_or(0, |tcp| tcp.header_len())).sum();
    bench.seen.clear();
    bytes
}

#[test]
fn an_ack_in_a_hundred_pieces_opens_the_window_by_what_it_acknowledges() {
    // ACK division: growth counts bytes (RFC 3465 §2.1), and no more than two segments an ACK.
    let windows = [1, 100].map(|pieces| {
        let (mut bench, mut puppet, server) = asked();
        write(&mut bench, server);
        bench.run_for(2 * DELAY);
        let first = received(&mut bench) as u32;
        assert_eq!(first, 14_600);
        let begin = puppet.rcv_nxt;
        for piece in 1..=pieces {
            puppet.rcv_nxt = begin.wrapping_add(first * piece / pieces);
            puppet.send(&mut bench, 65_535, &[]);
        }
        let info = bench.server.tcp_info(server).unwrap();
        info.tcpi_snd_cwnd * info.tcpi_snd_mss
    });
    let [whole, divided] = windows;
    assert!(divided <= 2 * 14_600, "at most doubled: {divided}");
    assert!(whole <= divided, "{whole} {divided}");
}

#[test]
fn acks_of_what_was_never_sent_are_not_believed() {
    let (mut bench, mut puppet, server) = asked();
    write(&mut bench, server);
    bench.run_for(2 * DELAY);
    let before = bench.server.tcp_info(server).unwrap();
    let _ = received(&mut bench);
    let begin = puppet.rcv_nxt;
    for ahead in 1..=1_000 {
        puppet.rcv_nxt = begin.wrapping_add(14_600 + ahead * 1_460);
        puppet.send(&mut bench, 65_535, &[]);
    }
    bench.run_for(2 * DELAY);
    let after = bench.server.tcp_info(server).unwrap();
    assert_eq!(after.tcpi_snd_cwnd, before.tcpi_snd_cwnd);
    assert_eq!(after.tcpi_bytes_acked, before.tcpi_bytes_acked);
    assert_eq!(received(&mut bench), 0, "no byte more is sent");
    let counters = bench.server.counters();
    assert!(counters.tcp_drop_bad_ack + counters.tcp_challenges_limited >= 1_000, "{counters:?}");
}

#[test]
fn optimistic_acks_get_no_more_than_the_senders_own_bounds() {
    // A receiver that acknowledges what is still on its way makes the round trip look shorter. It
    // cannot make the server send beyond its window and send buffer, and who loses a segment that
    // it has acknowledged has lost it for itself. What others get is the same.
    let (mut bench, mut puppet, server) = asked();
    let listener = bench.listen(81, 4);
    let mut most = 0;
    for _ in 0..400 {
        write(&mut bench, server);
        let in_flight = bench.server.figures(server).unwrap().in_flight_bytes;
        most = most.max(in_flight);
        // Everything that has left is acknowledged before it can have arrived.
        puppet.rcv_nxt = puppet.rcv_nxt.wrapping_add(in_flight);
        puppet.send(&mut bench, 65_535, &[]);
        bench.run_for(Duration::from_millis(1));
    }
    assert!(most <= 65_535, "{most} in flight, the peer's window");
    assert_eq!(bench.server.tcp_info(server).unwrap().tcpi_total_retrans, 0);
    let (client, other, time) = bench.connect(listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(1), "{time:?}");
    let took = bench.upload((client, other), 500_000, |_| {});
    assert!(took <= Duration::from_millis(150), "{took:?}");
}

#[test]
fn forged_duplicate_acks_make_nothing_leave_twice_beyond_the_window() {
    // Duplicate ACK spoofing: each may let one more segment leave (RFC 5681 §3.2), never more than
    // was in flight, whatever their number.
    let (mut bench, mut puppet, server) = asked();
    write(&mut bench, server);
    bench.run_for(2 * DELAY);
    let first = received(&mut bench);
    for _ in 0..10_000 {
        puppet.send(&mut bench, 65_535, &[]);
    }
    bench.run_for(2 * DELAY);
    let provoked = received(&mut bench);
    assert!(provoked <= 65_535, "{provoked} bytes after {first}");
    let in_flight = bench.server.figures(server).unwrap().in_flight_bytes;
    assert!(in_flight <= 65_535, "{in_flight}");
}
