//! The work for one event does not depend on how many sockets there are.

use std::time::Duration;

use barewire_stack::SocketId;
use barewire_stack::sim::{Pair, PairConfig};

use super::read_all;

/// Opens `count` connections, lets them rest, and counts what one request and its answer on the
/// last of them take: rounds, frames, events and timers.
fn work_with(count: usize) -> [usize; 4] {
    let mut config = PairConfig::default();
    config.server.stack.limits.backlog = 128;
    let mut pair = Pair::with(config);
    let listener = pair.listen(80, 128);
    let mut last: Option<(SocketId, SocketId)> = None;
    for _ in 0..count {
        last = Some(pair.connect(listener));
    }
    let (client, server) = last.unwrap();
    pair.run_for(Duration::from_secs(10));
    while pair.client().poll_event().is_some() || pair.server().poll_event().is_some() {}
    let timers = pair.client().timers() + pair.server().timers();
    pair.forget();

    pair.client().write(client, b"request").unwrap();
    let mut rounds = pair.settle();
    let mut events = 0;
    while let Some(event) = pair.server().poll_event() {
        assert_eq!(event.socket, server);
        events += 1;
    }
    assert_eq!(read_all(pair.server(), server).0, b"request");
    pair.server().write(server, b"answer").unwrap();
    rounds += pair.settle();
    while let Some(event) = pair.client().poll_event() {
        assert_eq!(event.socket, client);
        events += 1;
    }
    assert_eq!(read_all(pair.client(), client).0, b"answer");
    [rounds as usize, pair.frames().len(), events, timers]
}

#[test]
fn ten_thousand_idle_connections_add_no_work_to_an_event() {
    let alone = work_with(1);
    assert_eq!(alone[3], 0, "an idle connection has no timer");
    assert_eq!(work_with(10_000), alone);
}
