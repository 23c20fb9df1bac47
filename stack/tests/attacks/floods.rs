//! Many packets: SYNs, ACKs, scans.

use std::net::Ipv4Addr;
use std::time::Duration;

use barewire_stack::Rng;
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader, Timestamps};

use super::{ATTACKER, Bench, DELAY, Puppet, SERVER, segment, to_server};

fn anybody(rng: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::new(172, 16 + rng.below(16) as u8, rng.below(256) as u8, rng.below(256) as u8)
}

fn forged_syn(rng: &mut Rng) -> Vec<u8> {
    let port = 1024 + rng.below(60_000) as u16;
    let mut syn = to_server(port, TcpFlags::SYN, rng.next_u32(), 0);
    syn.options.mss = Some(1460);
    segment(anybody(rng), SERVER, &syn, &[])
}

#[test]
fn a_hundred_thousand_syns_leave_clients_their_handshake_and_their_options() {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 128);
    let mut rng = Rng::new(1);
    let held = bench.server.pool().audit().held;
    let mut took = Vec::new();
    for thousand in 0..100 {
        for _ in 0..10 {
            for _ in 0..100 {
                let syn = forged_syn(&mut rng);
                bench.inject(&syn);
            }
            bench.run_for(Duration::from_millis(1));
        }
        if thousand % 10 == 9 {
            let (client, server, time) = bench.connect(listener);
            took.push(time);
            let info = bench.server.figures(server).unwrap();
            assert!(info.timestamps && info.window_scales.is_some(), "cookies keep options");
            bench.client.abort(client).unwrap();
            bench.server.abort(server).unwrap();
        }
    }
    let counters = *bench.server.counters();
    // A handshake is one round trip and a half; the poll in `connect` adds a millisecond.
    assert!(took.iter().all(|&t| t <= 3 * DELAY + Duration::from_millis(1)), "{took:?}");
    assert_eq!(bench.server.half_open(), 128, "the listener's own bound");
    assert_eq!(counters.cookies_accepted, 10);
    assert!(counters.cookies_sent >= 99_000, "{}", counters.cookies_sent);
    bench.run_for(Duration::from_millis(20));
    assert_eq!(bench.server.pool().audit().held, held, "SYNs hold no packet memory");
    assert!(bench.server.sockets() <= 2);
}

#[test]
fn guessed_cookies_open_nothing() {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 128);
    let mut rng = Rng::new(2);
    for _ in 0..200 {
        let syn = forged_syn(&mut rng);
        bench.inject(&syn);
    }
    assert!(bench.server.counters().cookies_sent > 0, "cookies are being taken");
    for i in 0..100_000 {
        let mut ack = to_server(2000 + (i % 60_000) as u16, TcpFlags::ACK, rng.next_u32(), 0);
        ack.ack = rng.next_u32();
        ack.options.timestamps = Some(Timestamps { val: 1, ecr: rng.next_u32() });
        let from = anybody(&mut rng);
        bench.inject(&segment(from, SERVER, &ack, b"GET / HTTP/1.1"));
        if i % 1000 == 0 {
            bench.run_for(Duration::from_millis(10));
        }
    }
    let counters = *bench.server.counters();
    assert_eq!((counters.cookies_accepted, counters.cookies_refused), (0, 100_000));
    // One guess in 2^28 is right; the RSTs for the rest are limited, too.
    assert!(counters.tcp_resets_sent < 3_000 && counters.tcp_resets_limited > 97_000);
    let (_, _, time) = bench.connect(listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(1), "{time:?}");
}

#[test]
fn a_port_scan_gets_so_many_answers_a_second_and_clients_go_on() {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 16);
    let (client, server, _) = bench.connect(listener);
    // The congestion window grows with the first half.
    bench.upload((client, server), 500_000, |_| {});
    let quiet = bench.upload((client, server), 500_000, |_| {});
    let mut port = 1000u16;
    let begin = bench.now;
    let scanned = bench.upload((client, server), 500_000, |bench| {
        for _ in 0..200 {
            port = port.wrapping_add(1).max(81);
            let probe = TcpHeader { dst_port: port, ..to_server(4000, TcpFlags::SYN, 1, 0) };
            bench.inject(&segment(ATTACKER, SERVER, &probe, &[]));
        }
    });
    assert!(scanned <= quiet, "nothing of it is felt: {scanned:?}, quiet {quiet:?}");
    let seconds = (bench.now - begin).as_secs() + 2;
    let counters = *bench.server.counters();
    assert!(counters.tcp_resets_sent <= seconds * 1125, "{counters:?}");
    let scans = counters.tcp_resets_sent + counters.tcp_resets_limited;
    assert!(scans >= 5_000 && counters.tcp_resets_limited > 3_000, "{counters:?}");
}

#[test]
fn the_limit_of_resets_cannot_be_counted_down_by_another() {
    // Who sends forged probes and then counts what is left of the second's RSTs learns nothing
    // certain: the budget is another one every second.
    let mut bench = Bench::new();
    let mut left = Vec::new();
    for _ in 0..20 {
        let before = bench.server.counters().tcp_resets_sent;
        for _ in 0..1500 {
            let probe = TcpHeader { dst_port: 9, ..to_server(4000, TcpFlags::SYN, 1, 0) };
            bench.inject(&segment(ATTACKER, SERVER, &probe, &[]));
        }
        left.push(bench.server.counters().tcp_resets_sent - before);
        bench.run_for(Duration::from_secs(1));
    }
    left.sort_unstable();
    left.dedup();
    assert!(left.len() > 10, "{left:?}");
    assert!(left.iter().all(|n| (875..=1125).contains(n)), "{left:?}");
}

#[test]
fn a_flood_of_fast_open_data_costs_a_queue_and_not_more() {
    // RFC 7413 §5.1: an attacker who has a cookie of his own sends it with data from many ports.
    let mut bench = Bench::new();
    let listener = bench.listen(80, 4096);
    let option = barewire_stack::SocketOption::FastOpen(16);
    bench.server.set_option(listener, option).unwrap();
    let mut ask = to_server(1000, TcpFlags::SYN, 1, 0);
    ask.options.fast_open = Some(barewire_stack::wire::tcp::FastOpenCookie::REQUEST);
    bench.inject(&segment(ATTACKER, SERVER, &ask, &[]));
    bench.run_for(2 * DELAY);
    let cookie = bench.take_seen(ATTACKER)[0].options.fast_open.expect("a cookie");
    for port in 2000..3000 {
        let mut syn = to_server(port, TcpFlags::SYN, 1, 0);
        syn.options.fast_open = Some(cookie);
        bench.inject(&segment(ATTACKER, SERVER, &syn, &[b'x'; 1000]));
        // He tries to get his places back by resets.
        bench.inject(&segment(ATTACKER, SERVER, &to_server(port, TcpFlags::RST, 1001, 0), &[]));
    }
    bench.run_for(Duration::from_millis(100));
    let counters = *bench.server.counters();
    assert_eq!(counters.fast_open_accepted, 16);
    assert_eq!(counters.fast_open_full, 984);
    let pinned = bench.server.pool().audit().held;
    assert!(pinned <= 32, "{pinned} slots");
    let (_, _, time) = bench.connect(listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(2), "{time:?}");
    // A cookie forged for others is refused.
    let mut syn = to_server(9, TcpFlags::SYN, 1, 0);
    syn.options.fast_open = Some(cookie);
    bench.inject(&segment(Ipv4Addr::new(172, 17, 0, 9), SERVER, &syn, b"x"));
    assert_eq!(bench.server.counters().fast_open_refused, 1);
}

#[test]
fn connections_that_say_nothing_fill_the_accept_queue_and_no_more() {
    let mut bench = Bench::with(4096, |config| config.limits.backlog = 64);
    let listener = bench.listen(80, 64);
    for port in 2000..2300 {
        let mut syn = to_server(port, TcpFlags::SYN, 5_000, 0);
        syn.options.mss = Some(1460);
        bench.inject(&segment(ATTACKER, SERVER, &syn, &[]));
    }
    bench.run_for(2 * DELAY);
    for syn_ack in bench.take_seen(ATTACKER) {
        let mut puppet = Puppet {
            from: ATTACKER,
            port: syn_ack.dst_port,
            snd_nxt: 5_001,
            rcv_nxt: syn_ack.seq.wrapping_add(1),
        };
        puppet.send(&mut bench, 1000, &[]);
    }
    assert_eq!(bench.server.sockets(), 65, "the listener and its backlog");
    assert!(bench.server.counters().accept_overflow > 0);
    // An application that accepts gets to the client through them.
    let (_, _, time) = bench.connect(listener);
    assert!(time <= Duration::from_secs(8), "{time:?}");
}
