//! Peers that keep memory: windows that stay shut or open by crumbs (Sockstress, RFC 6429), tiny
//! segments, data behind gaps.

use std::time::Duration;

use barewire_stack::{SocketError, SocketId};

use super::{ATTACKER, Bench, DELAY, Puppet};

/// Bytes of the answer that every connection has asked for.
const ANSWER: usize = 256 << 10;

struct Stress {
    bench: Bench,
    listener: SocketId,
    puppets: Vec<(Puppet, SocketId, usize)>,
}

/// `count` connections with this window, each asking for a large answer.
fn stress(count: u16, window: u16) -> Stress {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 64);
    let mut puppets = Vec::new();
    for port in 2000..2000 + count {
        let puppet = Puppet::open(&mut bench, ATTACKER, port, window);
        let (server, _) = bench.server.accept(listener).unwrap();
        puppets.push((puppet, server, 0));
    }
    let mut stress = Stress { bench, listener, puppets };
    stress.write();
    stress
}

impl Stress {
    /// The application goes on writing its answers where there is room.
    fn write(&mut self) {
        let chunk = [7; 16 << 10];
        for (_, server, written) in &mut self.puppets {
            while *written < ANSWER
                && let Ok(n) = self.bench.server.write(*server, &chunk)
            {
                *written += n;
            }
        }
    }

    /// Every puppet answers what it got with an ACK and its window, as often as it was asked.
    fn acknowledge(&mut self, window: u16) {
        let seen = self.bench.take_seen(ATTACKER);
        for (puppet, _, _) in &mut self.puppets {
            let mut asked = seen.iter().filter(|h| h.dst_port == puppet.port);
            if let Some(last) = asked.next_back() {
                // A probe's byte is never taken, a crumb always.
                if window > 0 {
                    puppet.rcv_nxt = last.seq.wrapping_add(u32::from(window));
                }
                puppet.send(&mut self.bench, window, &[]);
            }
        }
    }

    fn alive(&self) -> usize {
        let state = |server| self.bench.server.figures(server).map(|info| info.state);
        let open = |s: &&(Puppet, SocketId, usize)| {
            state(s.1) == Ok(barewire_stack::tcp::State::Established)
        };
        self.puppets.iter().filter(open).count()
    }
}

#[test]
fn windows_that_stay_shut_keep_memory_for_ten_seconds_once_others_need_it() {
    let mut s = stress(600, 0);
    let pool = s.bench.server.pool().clone();
    assert!(pool.free_slots() < pool.total_slots() / 4, "{} free", pool.free_slots());
    let (client, server, time) = s.bench.connect(s.listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(1), "opening needs no memory: {time:?}");
    // The server now has a megabyte for a client that reads.
    let begin = s.bench.now;
    let (mut written, mut read) = (0, 0);
    let mut out = vec![0; 65_536];
    let mut rounds = 0;
    while read < 1_000_000 {
        match s.bench.server.write(server, &[9; 8192]) {
            Ok(n) => written += n,
            Err(SocketError::WouldBlock | SocketError::NoBuffers) => {}
            Err(error) => panic!("{error}"),
        }
        s.bench.run_for(Duration::from_millis(2));
        while let Ok(n) = s.bench.client.read(client, &mut out) {
            assert!(n > 0, "the stream ended");
            read += n;
        }
        rounds += 1;
        if rounds % 50 == 0 {
            s.acknowledge(0);
            s.write();
        }
        assert!(s.bench.now - begin < Duration::from_secs(40), "{read} of {written} bytes");
    }
    let took = s.bench.now - begin;
    let aborted = s.bench.server.counters().stalled_aborted;
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(aborted > 0, "memory came back by resets: {aborted}");
    let told = s
        .puppets
        .iter()
        .find_map(|(_, server, _)| s.bench.server.take_error(*server).ok().flatten());
    assert_eq!(told, Some(SocketError::ConnectionAborted), "the application learns of it");
}

#[test]
fn windows_that_stay_shut_may_do_so_while_there_is_memory() {
    let mut s = stress(20, 0);
    for _ in 0..120 {
        s.bench.run_for(Duration::from_secs(1));
        s.acknowledge(0);
        s.write();
    }
    assert_eq!((s.alive(), s.bench.server.counters().stalled_aborted), (20, 0));
    // Whoever opens its window after two minutes gets everything.
    let (puppet, server, _) = &mut s.puppets[0];
    let (mut puppet, server) = (*puppet, *server);
    let before = s.bench.server.bytes_unacked(server).unwrap();
    puppet.send(&mut s.bench, 65_535, &[]);
    s.bench.run_for(Duration::from_secs(1));
    let got: usize = s.bench.seen.iter().map(|seen| seen.len).sum();
    assert!(before > 20_000 && got >= 14_600, "{got} bytes at once of {before}");
}

#[test]
fn windows_of_a_few_bytes_neither_starve_others_nor_cost_a_segment_a_byte() {
    let mut s = stress(600, 8);
    let (client, server, _) = s.bench.connect(s.listener);
    let begin = s.bench.now;
    let (mut read, mut rounds) = (0, 0);
    let mut out = vec![0; 65_536];
    let sent_before = s.bench.sent[0];
    while read < 300_000 {
        let _full = s.bench.server.write(server, &[9; 8192]);
        s.bench.run_for(Duration::from_millis(2));
        while let Ok(n) = s.bench.client.read(client, &mut out) {
            read += n;
        }
        rounds += 1;
        if rounds % 100 == 0 {
            s.acknowledge(8);
        }
        assert!(s.bench.now - begin < Duration::from_secs(40), "{read} bytes");
    }
    let took = s.bench.now - begin;
    assert!(took < Duration::from_secs(15), "{took:?}");
    let crumbs = s.bench.sent[0] - sent_before;
    let limit = 400 + 600 * (rounds as u64 / 100 + 2) * 2;
    assert!(crumbs <= limit, "{crumbs} segments in {took:?}");
}

#[test]
fn segments_of_one_byte_pin_a_bounded_share_of_memory() {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 64);
    let mut puppets: Vec<_> =
        (2000..2020).map(|port| Puppet::open(&mut bench, ATTACKER, port, 65_535)).collect();
    let (client, server, _) = bench.connect_beside(listener);
    for _ in 0..1_000 {
        for puppet in &mut puppets {
            puppet.send(&mut bench, 65_535, b"x");
        }
    }
    bench.run_for(Duration::from_millis(10));
    let pool = bench.server.pool().clone();
    let free = pool.free_slots();
    assert!(free >= pool.total_slots() / 4, "{free} slots are left of {}", pool.total_slots());
    let took = bench.upload((client, server), 500_000, |_| {});
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn data_behind_gaps_pins_a_bounded_share_of_memory() {
    let mut bench = Bench::new();
    let listener = bench.listen(80, 64);
    let mut puppets: Vec<_> =
        (2000..2020).map(|port| Puppet::open(&mut bench, ATTACKER, port, 65_535)).collect();
    let (client, server, _) = bench.connect_beside(listener);
    for _ in 0..500 {
        for puppet in &mut puppets {
            puppet.snd_nxt = puppet.snd_nxt.wrapping_add(2);
            puppet.send(&mut bench, 65_535, b"x");
        }
    }
    bench.run_for(Duration::from_millis(10));
    let pool = bench.server.pool().clone();
    let free = pool.free_slots();
    assert!(free >= pool.total_slots() / 4 - 64, "{free} slots are left");
    let took = bench.upload((client, server), 500_000, |_| {});
    assert!(took < Duration::from_secs(2), "{took:?}");
}
