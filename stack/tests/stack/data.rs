//! Moving data: segmentation, copies, readiness (SOCKETS §3).

use std::collections::VecDeque;
use std::net::Shutdown;
use std::time::Duration;

use barewire_driver::{Features, MacAddr};
use barewire_stack::sim::{Pair, PairConfig};
use barewire_stack::tcp::Readiness;
use barewire_stack::wire::ethernet::{EthernetHeader, ethertype};
use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::tcp::{TcpFlags, TcpHeader};
use barewire_stack::wire::{protocol, pseudo_header};
use barewire_stack::{Event, SocketError, SocketId, Stack};

use super::{pair_with, pattern, read_all};

/// Settings under which a segment holds 1,460 bytes.
fn plain() -> Pair {
    pair_with(|tcp| tcp.timestamps = false)
}

#[test]
fn five_thousand_bytes_leave_as_three_full_segments_and_the_rest() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    pair.forget();
    assert_eq!(pair.client().write(client, &pattern(5_000)), Ok(5_000));
    pair.settle();
    let sent: Vec<_> = pair.segments().iter().filter(|s| s.host == 0).map(|s| s.len).collect();
    assert_eq!(sent, [1460, 1460, 1460, 620]);
    assert_eq!(read_all(pair.server(), server), (pattern(5_000), false));
}

#[test]
fn a_card_that_segments_gets_five_thousand_bytes_as_one_frame() {
    let mut config = PairConfig::default();
    config.client.features |= Features::TX_CHECKSUM | Features::TSO4;
    for host in [&mut config.client, &mut config.server] {
        host.stack.tcp.timestamps = false;
    }
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    pair.forget();
    pair.client().write(client, &pattern(5_000)).unwrap();
    pair.settle();
    let sent: Vec<_> =
        pair.segments().iter().filter(|s| s.host == 0).map(|s| (s.len, s.tso_mss)).collect();
    assert_eq!(sent, [(5_000, 1460)]);
    assert_eq!(read_all(pair.server(), server), (pattern(5_000), false));
    assert_eq!(pair.server().counters().tcp_bad_checksum, 0);
}

#[test]
fn write_and_read_copy_a_byte_once_each() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let copied = |p: &mut Pair| [0, 1].map(|h| p.host(h).pool.counters().bytes_copied);
    let before = copied(&mut pair);
    pair.client().write(client, &pattern(10_000)).unwrap();
    pair.settle();
    let sent = copied(&mut pair);
    assert_eq!((sent[0] - before[0], sent[1] - before[1]), (10_000, 0));
    assert_eq!(read_all(pair.server(), server).0.len(), 10_000);
    assert_eq!(copied(&mut pair)[1] - before[1], 10_000);
}

#[test]
fn owned_memory_is_not_copied_on_its_way_to_the_peer() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let copied = |p: &mut Pair| [0, 1].map(|h| p.host(h).pool.counters().bytes_copied);
    let before = copied(&mut pair);
    let whole = pattern(10 * 1460);
    for chunk in whole.chunks(1460) {
        let mut slot = pair.client().pool().alloc().unwrap();
        slot[..1460].copy_from_slice(chunk);
        slot.truncate(1460);
        pair.client().write_owned(client, slot.freeze()).unwrap();
    }
    let mut got = Vec::new();
    pair.run_until(|p| {
        while let Ok(Some(slice)) = p.server().read_owned(server, 65_536) {
            got.extend_from_slice(&slice);
        }
        got.len() == whole.len()
    });
    assert!(got == whole);
    assert_eq!(copied(&mut pair), before, "neither end has copied a byte");
}

#[test]
fn owned_slices_are_taken_as_there_is_room_and_given_as_they_are_asked_for() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let room = pair.client().write_room(client).unwrap();
    let whole = pattern(room + 50_000);
    let pool = pair.client().pool().clone();
    let mut waiting: VecDeque<_> =
        whole.chunks(1000).map(|chunk| pool.copy_from(chunk).unwrap().freeze()).collect();
    let taken = pair.client().write_slices(client, &mut waiting).unwrap();
    // The last one is taken whole while there is any room.
    assert!((room..room + 1000).contains(&taken), "{taken} of {room}");
    let left: usize = waiting.iter().map(|slice| slice.len()).sum();
    assert_eq!(taken + left, whole.len());
    let full = pair.client().write_slices(client, &mut waiting);
    assert_eq!(full, Err(SocketError::WouldBlock));
    assert_eq!(waiting.iter().map(|slice| slice.len()).sum::<usize>(), left, "nothing is taken");

    let (mut got, mut slices) = (Vec::new(), VecDeque::new());
    pair.run_until(|p| {
        if !waiting.is_empty() {
            let _ = p.client().write_slices(client, &mut waiting);
        }
        // 777 is no multiple of what arrives: slices are split.
        while let Ok(bytes) = p.server().read_slices(server, 777, &mut slices) {
            assert!((1..=777).contains(&bytes));
            assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), bytes);
            slices.drain(..).for_each(|slice| got.extend_from_slice(&slice));
        }
        got.len() == whole.len()
    });
    assert!(got == whole);

    let none = pair.server().read_slices(server, 0, &mut slices);
    assert_eq!(none, Err(SocketError::InvalidInput));
    pair.client().shutdown(client, Shutdown::Write).unwrap();
    pair.settle();
    assert_eq!(pair.server().read_slices(server, 1, &mut slices), Ok(0), "the end");
    let mut late = VecDeque::from([pool.copy_from(b"late").unwrap().freeze()]);
    let refused = pair.client().write_slices(client, &mut late);
    assert_eq!((refused, late.len()), (Err(SocketError::BrokenPipe), 1));
}

#[test]
fn a_small_message_is_copied_once_to_where_its_frame_will_be() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, _server) = pair.connect(listener);
    for (len, copied) in [(100, 100), (184, 184), (185, 185)] {
        let before = pair.host(0).pool.counters().bytes_copied;
        pair.client().write(client, &[7; 185][..len]).unwrap();
        pair.settle();
        assert_eq!(pair.host(0).pool.counters().bytes_copied - before, copied, "{len} bytes");
    }
}

#[test]
fn small_writes_of_one_turn_leave_as_one_segment() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let sent = pair.host(0).stack.counters().tcp_segments_sent;
    for byte in 0..6 {
        pair.client().write(client, &[byte; 100]).unwrap();
    }
    pair.settle();
    assert_eq!(pair.host(0).stack.counters().tcp_segments_sent - sent, 1);
    let mut got = [0; 700];
    assert_eq!(pair.server().read(server, &mut got), Ok(600));
    assert!((0..600).all(|i| usize::from(got[i]) == i / 100));
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_is_lost() {
    let mut pair = pair_with(|tcp| {
        (tcp.send_buffer_bytes, tcp.recv_buffer_bytes) = (16 << 10, 16 << 10);
    });
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let whole = pattern(200_000);
    let mut written = 0;
    for _ in 0..60 {
        match pair.client().write(client, &whole[written..]) {
            Ok(n) => written += n,
            Err(SocketError::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
        pair.run_for(Duration::from_secs(1));
    }
    assert!((30_000..36_000).contains(&written), "two buffers, not {written}");
    let mut got = Vec::new();
    pair.run_until(|p| {
        if let Ok(n) = p.client().write(client, &whole[written..]) {
            written += n;
        }
        got.extend(read_all(p.server(), server).0);
        got.len() == whole.len()
    });
    assert!(got == whole);
}

#[test]
fn an_event_tells_growth_once_and_again_after_would_block() {
    let mut pair = plain();
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let events = |p: &mut Pair| {
        let of_server = |e: &Event| e.socket == server;
        std::iter::from_fn(|| p.server().poll_event()).filter(of_server).collect::<Vec<_>>()
    };
    events(&mut pair);
    for _ in 0..3 {
        pair.client().write(client, b"a").unwrap();
        pair.run_for(Duration::from_secs(1));
    }
    let told = events(&mut pair);
    assert_eq!(told.len(), 1, "readable is news once: {told:?}");
    assert!(told[0].ready.contains(Readiness::READABLE));
    assert_eq!(read_all(pair.server(), server), (b"aaa".to_vec(), false));
    pair.client().write(client, b"b").unwrap();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(events(&mut pair).len(), 1);
}

#[test]
fn writers_leave_memory_for_the_acks_that_free_theirs() {
    let mut config = PairConfig::default();
    config.client.pool.slots = 256;
    config.client.ring_len = 64;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 64);
    let conns: Vec<_> = (0..8).map(|_| pair.connect(listener)).collect();
    let block = pattern(1 << 20);
    pair.host(1).deaf = true;
    for &(client, _) in &conns {
        while pair.client().write(client, &block).is_ok() {
            pair.settle();
        }
    }
    let full = pair.client().write(conns[0].0, &block);
    assert!(matches!(full, Err(SocketError::NoBuffers | SocketError::WouldBlock)), "{full:?}");
    assert!(pair.client().pool().free_slots() > 0);
    // As soon as the server hears again everything drains.
    pair.host(1).deaf = false;
    pair.run_until(|p| {
        conns.iter().all(|&(client, server)| {
            read_all(p.server(), server);
            p.client().bytes_unacked(client) == Ok(0)
        })
    });
}

#[test]
fn a_connection_to_an_own_address_works_without_the_card() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 1);
    let stack = pair.server();
    let client = super::tcp(stack);
    assert_eq!(stack.connect(client, Pair::server_addr(80)), Err(SocketError::InProgress));
    let mut accepted = None;
    pair.run_until(|p| {
        accepted = accepted.or(p.server().accept(listener).ok());
        accepted.is_some()
    });
    let (server, _) = accepted.unwrap();
    let whole = pattern(100_000);
    let (mut written, mut got) = (0, Vec::new());
    pair.run_until(|p| {
        if let Ok(n) = p.server().write(client, &whole[written..]) {
            written += n;
        }
        got.extend(read_all(p.server(), server).0);
        got.len() == whole.len()
    });
    assert!(got == whole);
    assert_eq!(pair.frames().len(), 0, "nothing went over the cable");
}

#[test]
fn readers_that_stall_do_not_keep_the_others_from_receiving() {
    let mut config = PairConfig::default();
    config.server.pool.slots = 512;
    config.client.stack.tcp.send_autotune = false;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 16);
    let stalled: Vec<_> = (0..8).map(|_| pair.connect(listener)).collect();
    let (client, server) = pair.connect(listener);
    for &(client, _) in &stalled {
        let _ = pair.client().write(client, &pattern(400_000));
    }
    pair.run_for(Duration::from_secs(2));
    assert!(pair.server().counters().rx_memory_pressure > 0, "{:?}", pair.server().counters());
    assert!(pair.server().pool().free_slots() > 0);
    let data = pattern(100_000);
    assert_eq!(pair.client().write(client, &data), Ok(data.len()));
    let mut received = Vec::new();
    pair.run_until(|p| {
        received.extend(read_all(p.server(), server).0);
        received.len() >= data.len()
    });
    assert_eq!(received, data);
    // Once they read again, nothing of theirs is lost.
    for (_, server) in stalled {
        let mut received = Vec::new();
        pair.run_until(|p| {
            received.extend(read_all(p.server(), server).0);
            received.len() >= 400_000
        });
        assert_eq!(received, pattern(400_000));
    }
}

/// Writes as much as the server's stack takes of `data` from `at` on; gives where it ends.
fn write_on(stack: &mut Stack, socket: SocketId, data: &[u8], mut at: usize) -> usize {
    loop {
        match stack.write(socket, &data[at..]) {
            Ok(0) | Err(SocketError::WouldBlock | SocketError::NoBuffers) => return at,
            Ok(n) => at += n,
            Err(error) => panic!("write: {error}"),
        }
    }
}

/// A server with slots for four full send buffers, a listener on it, and a client that takes little.
fn short_of_slots() -> (Pair, SocketId) {
    let mut config = PairConfig::default();
    config.server.pool.slots = 2048;
    config.client.stack.tcp.recv_buffer_bytes = 4096;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 64);
    (pair, listener)
}

#[test]
fn clients_that_stop_reading_do_not_keep_the_others_from_being_sent_to() {
    let (mut pair, listener) = short_of_slots();
    let data = pattern(1 << 20);
    let mut stalled: Vec<_> = (0..40).map(|_| (pair.connect(listener), 0)).collect();
    for _ in 0..20 {
        for ((_, server), at) in &mut stalled {
            *at = write_on(pair.server(), *server, &data, *at);
        }
        pair.run_for(Duration::from_millis(100));
    }
    assert!(pair.server().counters().tx_memory_pressure > 0);
    assert!(pair.server().spare_slots() > 0, "stalled clients have taken everything");
    let (client, server) = pair.connect(listener);
    let (mut sent, mut received) = (0, Vec::new());
    pair.run_until(|p| {
        sent = write_on(p.server(), server, &data[..200_000], sent);
        received.extend(read_all(p.client(), client).0);
        received.len() == 200_000
    });
    assert_eq!(received, data[..200_000]);
    // One that was held back is told when it may go on.
    let ((client, server), at) = stalled[39];
    while pair.server().poll_event().is_some() {}
    let mut told = false;
    pair.run_until(|p| {
        read_all(p.client(), client);
        let events = std::iter::from_fn(|| p.server().poll_event());
        told |= events.into_iter().any(|event| event.socket == server);
        told
    });
    assert!(write_on(pair.server(), server, &data, at) > at);
}

#[test]
fn small_pieces_fill_segments_larger_than_a_slot() {
    let mut config = PairConfig::default();
    config.cable.mtu = 9000;
    (config.client.mtu, config.server.mtu) = (9000, 9000);
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 1);
    let (client, server) = pair.connect(listener);
    let data = pattern(60_000);
    for piece in data.chunks(300) {
        let slice = pair.client().pool().copy_from(piece).unwrap().freeze();
        pair.client().write_owned(client, slice).unwrap();
    }
    let mut received = Vec::new();
    pair.run_until(|p| {
        received.extend(read_all(p.server(), server).0);
        received.len() >= data.len()
    });
    assert_eq!(received, data);
    assert!(pair.client().counters().tx_joined > 0, "pieces were copied together");
    assert_eq!(pair.client().counters().tx_no_buffer, 0);
}

/// A segment of one byte from the client's port `from`, in a frame for the server.
fn one_byte(from: u16, seq: u32, ack: u32) -> Vec<u8> {
    let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let mut frame = vec![0; 55];
    let (dst_mac, src_mac) = (MacAddr::local(2), MacAddr::local(1));
    EthernetHeader { dst: dst_mac, src: src_mac, ethertype: ethertype::IPV4 }.emit(&mut frame);
    Ipv4Header::new(src, dst, protocol::TCP, 21).emit(&mut frame[14..]);
    let flags = TcpFlags::ACK;
    let header = TcpHeader { src_port: from, dst_port: 80, seq, ack, flags, ..Default::default() };
    header.emit(&mut frame[34..]);
    let mut sum = pseudo_header(src.into(), dst.into(), protocol::TCP, 21);
    sum.add(&frame[34..]);
    frame[50..52].copy_from_slice(&sum.finish().to_be_bytes());
    frame
}

#[test]
fn data_behind_gaps_does_not_take_the_memory_of_others() {
    let mut config = PairConfig::default();
    config.server.pool.slots = 1024;
    for host in [&mut config.client, &mut config.server] {
        host.stack.tcp.timestamps = false;
    }
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 16);
    let bombs: Vec<_> = (0..8).map(|_| pair.connect(listener)).collect();
    let handshakes: Vec<_> =
        pair.segments().iter().filter(|s| s.host == 0 && s.len == 0).map(|s| s.header).collect();
    let iface = pair.host(1).iface();
    for i in 0..400 {
        for (client, _) in &bombs {
            let port = pair.client().local_addr(*client).unwrap().port();
            let Some(last) = handshakes.iter().rev().find(|h| h.src_port == port) else { panic!() };
            let now = pair.now();
            let frame = one_byte(port, last.seq.wrapping_add(2 + 2 * i), last.ack);
            pair.server().handle_bytes(now, iface, &frame).unwrap();
        }
        pair.settle();
    }
    assert!(pair.server().counters().rx_memory_pressure > 0, "{:?}", pair.server().counters());
    assert!(pair.server().spare_slots() > 0, "there is memory left to send from");
    let (client, server) = pair.connect(listener);
    let data = pattern(100_000);
    let (mut up, mut down) = (0, 0);
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    pair.run_until(|p| {
        up = write_on(p.client(), client, &data, up);
        down = write_on(p.server(), server, &data, down);
        at_server.extend(read_all(p.server(), server).0);
        at_client.extend(read_all(p.client(), client).0);
        at_server.len() == data.len() && at_client.len() == data.len()
    });
    assert!(at_server == data && at_client == data);
}

#[test]
fn who_asked_for_room_in_vain_hears_when_there_is_some() {
    let (mut pair, listener) = short_of_slots();
    let data = pattern(1 << 20);
    // Half of the memory waits for clients that do not read.
    for _ in 0..40 {
        let (_, server) = pair.connect(listener);
        write_on(pair.server(), server, &data, 0);
    }
    let (client, server) = pair.connect(listener);
    let mut written = 0;
    // Never more than there is room for, so that no write is refused.
    while let Ok(room @ 1..) = pair.server().write_room(server) {
        written += pair.server().write(server, &data[written..written + room]).unwrap();
        assert!(written < 256 << 10, "memory is scarce");
    }
    while pair.server().poll_event().is_some() {}
    let (mut read, mut told) = (0, false);
    pair.run_until(|p| {
        read += read_all(p.client(), client).0.len();
        while let Some(event) = p.server().poll_event() {
            told |= event.socket == server && event.ready.contains(Readiness::WRITABLE);
        }
        read == written
    });
    pair.run_for(Duration::from_millis(100));
    while let Some(event) = pair.server().poll_event() {
        told |= event.socket == server && event.ready.contains(Readiness::WRITABLE);
    }
    assert!(told, "nobody wakes the writer");
    assert!(pair.server().write_room(server).unwrap() > 0);
}
