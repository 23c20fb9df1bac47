//! Ends that disagree, or are made to, must not answer each other for ever.

use std::time::Duration;

use barewire_stack::wire::tcp::TcpFlags;

use super::{ATTACKER, Bench, CLIENT, DELAY, Puppet, SERVER, segment, to_server};

#[test]
fn two_stacks_out_of_step_exchange_ten_segments_a_second_and_fall_silent() {
    // RFC 5961 §7; the "ACK storm" of an injected byte: the server has data that the client never
    // sent, so each takes the other's ACK for one of the future and answers it.
    let mut bench = Bench::new();
    let listener = bench.listen(80, 4);
    let (client, server, _) = bench.connect(listener);
    bench.upload((client, server), 1_000, |_| {});
    bench.run_for(Duration::from_secs(2));
    let port = bench.client.local_addr(client).unwrap().port();
    // An attacker on the path knows the numbers.
    bench.client.write(client, b"x").unwrap();
    bench.flush();
    let seq = bench.last_seq_of_client.wrapping_add(1);
    bench.run_for(Duration::from_secs(1));
    let (ts, ack) = bench.last_of_client;
    let mut forged = to_server(port, TcpFlags::ACK, seq, ack);
    forged.options.timestamps = Some(ts);
    let before = bench.sent;
    bench.inject(&segment(CLIENT, SERVER, &forged, b"injected"));
    bench.run_for(Duration::from_secs(10));
    let segments = [0, 1].map(|i| bench.sent[i] - before[i]);
    assert!(bench.server.bytes_readable(server).unwrap() >= 8, "the attack has worked");
    assert!(segments.iter().all(|&n| n <= 110), "{segments:?} in ten seconds");
    // Whoever has something to say is told where the other is, and the storm has cost no one else.
    let (_, _, time) = bench.connect(listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(1), "{time:?}");
}

#[test]
fn an_endless_stream_of_old_segments_is_answered_ten_times_a_second() {
    let mut bench = Bench::new();
    bench.listen(80, 4);
    let mut puppet = Puppet::open(&mut bench, ATTACKER, 4000, 1000);
    puppet.send(&mut bench, 1000, b"hello");
    bench.run_for(Duration::from_secs(1));
    let _ = bench.take_seen(ATTACKER);
    let old = to_server(4000, TcpFlags::ACK, puppet.snd_nxt.wrapping_sub(3), puppet.rcv_nxt);
    for _ in 0..10_000 {
        bench.inject(&segment(ATTACKER, SERVER, &old, &[]));
        bench.run_for(Duration::from_millis(1));
    }
    let answers = bench.take_seen(ATTACKER).len();
    assert!((90..=110).contains(&answers), "{answers} in ten seconds");
    assert!(bench.server.counters().tcp_challenges_limited > 9_000);
}

#[test]
fn half_open_connections_answer_twice_a_second() {
    let mut bench = Bench::new();
    bench.listen(80, 4);
    let syn = segment(ATTACKER, SERVER, &to_server(4000, TcpFlags::SYN, 1, 0), &[]);
    for _ in 0..3_000 {
        bench.inject(&syn);
        bench.run_for(Duration::from_millis(1));
    }
    let answers = bench.take_seen(ATTACKER).len();
    // The answer, six to its repetitions, and two that the server sends by itself.
    assert!(answers <= 9, "{answers} SYN-ACKs in three seconds");
    assert!(bench.server.counters().half_open_replies_limited > 2_900);
}

#[test]
fn connections_in_time_wait_answer_twice_a_second_and_are_not_assassinated() {
    // RFC 1337: neither old data nor an RST that it provokes ends TIME-WAIT.
    let mut bench = Bench::new();
    let listener = bench.listen(80, 4);
    let mut puppet = Puppet::open(&mut bench, ATTACKER, 4000, 1000);
    let (server, _) = bench.server.accept(listener).unwrap();
    bench.server.close(server).unwrap();
    bench.run_for(2 * DELAY);
    puppet.rcv_nxt = puppet.rcv_nxt.wrapping_add(1);
    let fin = TcpFlags::FIN | TcpFlags::ACK;
    let fin = to_server(4000, fin, puppet.snd_nxt, puppet.rcv_nxt);
    bench.inject(&segment(ATTACKER, SERVER, &fin, &[]));
    assert_eq!(bench.server.time_wait(), 1);
    bench.run_for(2 * DELAY);
    let _ = bench.take_seen(ATTACKER);
    for _ in 0..3_000 {
        bench.inject(&segment(ATTACKER, SERVER, &fin, &[]));
        let reset = to_server(4000, TcpFlags::RST, puppet.snd_nxt.wrapping_add(1), 0);
        bench.inject(&segment(ATTACKER, SERVER, &reset, &[]));
        bench.run_for(Duration::from_millis(1));
    }
    let answers = bench.take_seen(ATTACKER);
    assert!((5..=7).contains(&answers.len()), "{} in three seconds", answers.len());
    assert!(answers.iter().all(|h| h.flags == TcpFlags::ACK));
    assert!(bench.server.counters().time_wait_replies_limited > 2_900);
    assert_eq!(bench.server.time_wait(), 1, "and it lasts");
}

#[test]
fn time_wait_is_bounded_in_number() {
    let mut bench = Bench::with(4096, |config| config.limits.time_wait = 100);
    let listener = bench.listen(80, 64);
    for port in 2000..2300 {
        let mut puppet = Puppet::open(&mut bench, ATTACKER, port, 1000);
        let (server, _) = bench.server.accept(listener).unwrap();
        bench.server.close(server).unwrap();
        bench.run_for(2 * DELAY);
        puppet.rcv_nxt = puppet.rcv_nxt.wrapping_add(1);
        let flags = TcpFlags::FIN | TcpFlags::ACK;
        let fin = to_server(port, flags, puppet.snd_nxt, puppet.rcv_nxt);
        bench.inject(&segment(ATTACKER, SERVER, &fin, &[]));
    }
    assert_eq!((bench.server.time_wait(), bench.server.sockets()), (100, 1));
    assert_eq!(bench.server.counters().time_wait_full, 200);
    let (_, _, time) = bench.connect(listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(1), "{time:?}");
}

#[test]
fn orphans_are_bounded_in_number_and_in_time() {
    let mut bench = Bench::with(4096, |config| config.limits.orphans = 50);
    let listener = bench.listen(80, 64);
    for port in 2000..2200 {
        let _silent = Puppet::open(&mut bench, ATTACKER, port, 1000);
        let (server, _) = bench.server.accept(listener).unwrap();
        bench.server.write(server, b"never acknowledged").unwrap();
        bench.server.close(server).unwrap();
    }
    bench.run_for(DELAY);
    assert_eq!((bench.server.orphans(), bench.server.counters().orphans_aborted), (50, 150));
    let (_, _, time) = bench.connect(listener);
    assert!(time <= 3 * DELAY + Duration::from_millis(1), "{time:?}");
    bench.run_for(Duration::from_secs(1_200));
    assert_eq!(bench.server.orphans(), 0, "the retransmissions of the last have run out");
}
