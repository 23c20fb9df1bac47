//! Off-path attackers: they forge a client's segments and see no answer (RFC 5961, RFC 5927).

use std::time::Duration;

use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::protocol;
use barewire_stack::wire::tcp::TcpFlags;
use barewire_stack::{Rng, SocketId};

use super::{ATTACKER, Bench, CLIENT, Puppet, SERVER, segment, to_server};

struct Victim {
    bench: Bench,
    ends: (SocketId, SocketId),
    /// The client's port, which the attacker is taken to know.
    port: u16,
    /// What half a megabyte takes in peace, and with a congestion window that starts anew.
    quiet: Duration,
    cold: Duration,
}

fn victim() -> Victim {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 16);
    let (client, server, _) = bench.connect(listener);
    let port = bench.client.local_addr(client).unwrap().port();
    let cold = bench.upload((client, server), 500_000, |_| {});
    // The congestion window and buffers have grown with the first half.
    let quiet = bench.upload((client, server), 500_000, |_| {});
    Victim { bench, ends: (client, server), port, quiet, cold }
}

/// The victim uploads half a megabyte while `forge` makes a hundred packets every millisecond.
fn under_fire(v: &mut Victim, mut forge: impl FnMut(&mut Rng, u16) -> Vec<u8>) -> Duration {
    let (mut rng, port) = (Rng::new(7), v.port);
    v.bench.upload(v.ends, 500_000, |bench| {
        for _ in 0..100 {
            let packet = forge(&mut rng, port);
            bench.inject(&packet);
        }
    })
}

#[test]
fn blind_resets_are_challenged_within_a_limit_and_end_nothing() {
    // RFC 5961 §3: only the exact number resets, one in 2^32.
    let mut v = victim();
    let took = under_fire(&mut v, |rng, port| {
        segment(CLIENT, SERVER, &to_server(port, TcpFlags::RST, rng.next_u32(), 0), &[])
    });
    assert!(took <= v.quiet + Duration::from_millis(5), "{took:?}, quiet {:?}", v.quiet);
    let counters = *v.bench.server.counters();
    assert!(counters.tcp_drop_outside_window > 1_000, "{counters:?}");
}

#[test]
fn resets_that_sweep_the_whole_space_get_ten_challenges_a_second() {
    let mut v = victim();
    let window = v.bench.server.figures(v.ends.1).unwrap().rcv_wnd_bytes;
    let mut hits = 0;
    // A hundred RSTs into each window of the sequence space.
    let step = window / 100;
    let begin = v.bench.now;
    let mut seq = 0u32;
    loop {
        v.bench.inject(&segment(CLIENT, SERVER, &to_server(v.port, TcpFlags::RST, seq, 0), &[]));
        hits += 1;
        if hits % 500 == 0 {
            v.bench.run_for(Duration::from_millis(1));
        }
        let (next, wrapped) = seq.overflowing_add(step);
        if wrapped {
            break;
        }
        seq = next;
    }
    let counters = *v.bench.server.counters();
    let challenged = counters.tcp_drop_challenged;
    let seconds = (v.bench.now - begin).as_secs() + 2;
    assert!(challenged <= 10 * seconds, "{challenged} challenges in {seconds} s");
    assert!(counters.tcp_challenges_limited >= 80, "{counters:?}");
    let took = v.bench.upload(v.ends, 500_000, |_| {});
    assert!(took <= v.cold + Duration::from_millis(5), "{took:?}, cold {:?}", v.cold);
}

#[test]
fn blind_syns_are_challenged_and_reset_nothing() {
    // RFC 5961 §4.
    let mut v = victim();
    let took = under_fire(&mut v, |rng, port| {
        segment(CLIENT, SERVER, &to_server(port, TcpFlags::SYN, rng.next_u32(), 0), &[])
    });
    // To a sender without SACK three challenge ACKs look like a loss: they cost it a congestion
    // window, as often as their limit allows.
    assert!(took <= 2 * v.cold, "{took:?}, cold {:?}", v.cold);
    let counters = *v.bench.server.counters();
    assert!(counters.tcp_challenges_limited > 1_000, "{counters:?}");
}

#[test]
fn blind_data_does_not_get_into_the_stream() {
    // RFC 5961 §5: besides the sequence number the acknowledgment must be near, and there is the
    // timestamp (RFC 7323 §5). `upload` checks every byte.
    let mut v = victim();
    let took = under_fire(&mut v, |rng, port| {
        let mut header = to_server(port, TcpFlags::ACK, rng.next_u32(), rng.next_u32());
        header.options.timestamps = Some(barewire_stack::wire::tcp::Timestamps {
            val: rng.next_u32(),
            ecr: rng.next_u32(),
        });
        segment(CLIENT, SERVER, &header, &[b'!'; 500])
    });
    assert!(took <= v.quiet + Duration::from_millis(50), "{took:?}, quiet {:?}", v.quiet);
}

/// An ICMP error about a segment that the client is said to have sent with `seq`.
fn icmp_error(port: u16, seq: u32, kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    let mut packet = vec![0; 20 + 8 + 28];
    Ipv4Header::new(ATTACKER, CLIENT, protocol::ICMP, 36).emit(&mut packet);
    let quoted = &mut packet[28..];
    Ipv4Header::new(CLIENT, SERVER, protocol::TCP, 1000).emit(quoted);
    quoted[20..22].copy_from_slice(&port.to_be_bytes());
    quoted[22..24].copy_from_slice(&80u16.to_be_bytes());
    quoted[24..28].copy_from_slice(&seq.to_be_bytes());
    packet[20] = kind;
    packet[21] = code;
    packet[26..28].copy_from_slice(&mtu.to_be_bytes());
    let mut sum = barewire_driver::mem::Checksum::new();
    sum.add(&packet[20..]);
    packet[22..24].copy_from_slice(&sum.finish().to_be_bytes());
    packet
}

#[test]
fn blind_icmp_errors_end_and_shrink_nothing() {
    // RFC 5927 §4.1: what is quoted must be in flight. §5.2: hard errors are soft ones here.
    let mut v = victim();
    let mss = v.bench.client.figures(v.ends.0).unwrap().mss;
    let (mut rng, port) = (Rng::new(9), v.port);
    let took = v.bench.upload(v.ends, 500_000, |bench| {
        for i in 0..100u32 {
            let code = [1, 2, 3, 4][i as usize % 4];
            let packet = icmp_error(port, rng.next_u32(), 3, code, 68);
            bench.inject_client(&packet);
        }
    });
    assert!(took <= v.quiet + Duration::from_millis(5), "{took:?}, quiet {:?}", v.quiet);
    assert_eq!(v.bench.client.figures(v.ends.0).unwrap().mss, mss);
}

#[test]
fn even_an_icmp_error_that_hits_shrinks_segments_to_a_bound_and_ends_nothing() {
    let mut v = victim();
    v.bench.client.write(v.ends.0, &[1; 100]).unwrap();
    v.bench.flush();
    let seq = v.bench.last_seq_of_client;
    for code in [1, 2, 3, 4] {
        v.bench.inject_client(&icmp_error(v.port, seq, 3, code, 68));
    }
    let info = v.bench.client.figures(v.ends.0).unwrap();
    assert_eq!(info.state, barewire_stack::tcp::State::Established);
    assert!(info.mss >= 536 - 12, "{}", info.mss);
    assert_eq!(v.bench.client.take_error(v.ends.0), Ok(None));
}

#[test]
fn what_one_connection_is_challenged_does_not_show_on_another() {
    // The side channel of CVE-2016-5696: with a count that all share, an attacker sees by his own
    // connection's challenge ACKs whether his forged segments hit the victim's window.
    let challenges = |provoked: bool| {
        let mut v = victim();
        let mut puppet = Puppet::open(&mut v.bench, ATTACKER, 7777, 65_535);
        v.bench.run_for(Duration::from_millis(1_000));
        let _ = v.bench.take_seen(ATTACKER);
        for _ in 0..if provoked { 200 } else { 0 } {
            v.bench.inject(&segment(CLIENT, SERVER, &to_server(v.port, TcpFlags::SYN, 1, 0), &[]));
        }
        puppet.snd_nxt = puppet.snd_nxt.wrapping_add(10);
        for _ in 0..200 {
            let header = to_server(puppet.port, TcpFlags::RST, puppet.snd_nxt, 0);
            v.bench.inject(&segment(ATTACKER, SERVER, &header, &[]));
        }
        v.bench.run_for(Duration::from_millis(100));
        v.bench.take_seen(ATTACKER).len()
    };
    assert_eq!(challenges(true), challenges(false));
}

#[test]
fn source_ports_and_sequence_numbers_cannot_be_foretold() {
    // RFC 6056 and RFC 6528: somebody who sees the ports and numbers of connections to himself
    // knows those to others no better than by guessing.
    let mut bench = Bench::new();
    let mut ports = Vec::new();
    let mut isns = Vec::new();
    for i in 0..200u32 {
        let server = [10, 0, 1, (i % 2) as u8];
        let socket = bench
            .client
            .socket(barewire_stack::SocketKind::Tcp, barewire_stack::Family::V4)
            .unwrap();
        let _in_progress = bench.client.connect(socket, (server, 80).into());
        bench.run_for(Duration::from_millis(1));
        let port = bench.client.local_addr(socket).unwrap().port();
        ports.push((i % 2, port));
        isns.push(bench.last_seq_of_client);
        bench.client.abort(socket).unwrap();
    }
    for of in 0..2 {
        let seen: Vec<u16> = ports.iter().filter(|p| p.0 == of).map(|p| p.1).collect();
        let mut unique = seen.clone();
        unique.sort_unstable();
        unique.dedup();
        assert!(unique.len() >= 99, "a port comes again as late as can be");
    }
    let apart = |(_, a): &(u32, u16), (_, b): &(u32, u16)| a.abs_diff(*b);
    let near = ports.windows(2).filter(|w| apart(&w[0], &w[1]) < 100).count();
    assert!(near < 20, "{near} neighbours: one server's ports tell those of another");
    let near = isns.windows(2).filter(|w| w[1].wrapping_sub(w[0]) < 1_000_000).count();
    assert!(near <= 2, "{near} numbers follow each other");
}
