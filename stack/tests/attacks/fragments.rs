//! Fragment bombs: datagrams that never become whole, overlap, or are too large.

use std::net::SocketAddr;
use std::time::Duration;

use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::protocol;
use barewire_stack::{Family, SocketKind};

use super::{ATTACKER, Bench, SERVER};

fn fragment(ident: u16, offset: u16, len: u16, more: bool) -> Vec<u8> {
    let mut header = Ipv4Header::new(ATTACKER, SERVER, protocol::UDP, usize::from(len));
    header.ident = ident;
    header.fragment_offset = offset;
    header.more_fragments = more;
    let mut packet = vec![0; 20 + usize::from(len)];
    header.emit(&mut packet);
    packet
}

/// A connection of the client's uploads while each round of `bomb` falls.
#[track_caller]
fn upload_under(mut bomb: impl FnMut(u32) -> Vec<u8>) -> (Bench, Duration, Duration) {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 4);
    let (client, server, _) = bench.connect(listener);
    bench.upload((client, server), 500_000, |_| {});
    let quiet = bench.upload((client, server), 500_000, |_| {});
    let mut round = 0;
    let took = bench.upload((client, server), 500_000, |bench| {
        for _ in 0..100 {
            round += 1;
            let packet = bomb(round);
            bench.inject(&packet);
        }
    });
    (bench, quiet, took)
}

#[test]
fn first_fragments_without_an_end_pin_a_megabyte_at_most() {
    let (mut bench, quiet, took) = upload_under(|i| fragment(i as u16, 0, 1400, true));
    assert!(took <= quiet + Duration::from_millis(5), "{took:?}, quiet {quiet:?}");
    let held = bench.server.pool().audit().held;
    assert!(held <= 64 + 16, "{held} slots: one for each of 64 datagrams");
    bench.run_for(Duration::from_secs(31));
    assert!(bench.server.pool().audit().held <= 16, "and not for longer than 30 s");
    let counters = bench.server.counters();
    let (received, expired) = (counters.fragments_received, counters.reassembly_expired);
    assert!(received > 2_000 && expired > 0, "{received} {expired}");
}

#[test]
fn overlapping_fragments_poison_their_datagram_and_hold_nothing() {
    let (bench, quiet, took) = upload_under(|i| fragment(7, (i % 100) as u16 * 8, 1400, true));
    assert!(took <= quiet + Duration::from_millis(5), "{took:?}, quiet {quiet:?}");
    let held = bench.server.pool().audit().held;
    assert!(held <= 16, "{held} slots");
}

#[test]
fn tiny_fragments_are_bounded_in_number() {
    let (bench, quiet, took) =
        upload_under(|i| fragment((i / 8000) as u16, (i % 8000) as u16 * 8, 8, true));
    assert!(took <= quiet + Duration::from_millis(5), "{took:?}, quiet {quiet:?}");
    let held = bench.server.pool().audit().held;
    assert!(held <= 128 + 16, "{held} slots");
}

#[test]
fn datagrams_that_need_reassembly_still_get_through_a_bomb() {
    let mut bench = Bench::new();
    let server = bench.server.socket(SocketKind::Udp, Family::V4).unwrap();
    bench.server.bind(server, SocketAddr::from(([0, 0, 0, 0], 53))).unwrap();
    let client = bench.client.socket(SocketKind::Udp, Family::V4).unwrap();
    let to = Some(SocketAddr::from((SERVER, 53)));
    let (mut out, mut got) = (vec![0; 9000], 0);
    for i in 0..100u16 {
        bench.client.send_to(client, &[i as u8; 8000], to).unwrap();
        for j in 0..20 {
            bench.inject(&fragment(i * 20 + j, 0, 1400, true));
        }
        bench.run_for(Duration::from_millis(20));
        while let Ok(received) = bench.server.recv_from(server, &mut out) {
            assert_eq!(received.len, 8000);
            got += 1;
        }
    }
    assert_eq!(got, 100);
}
