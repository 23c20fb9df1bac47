//! What still gets through when there is more to do than can be done.

use std::time::Duration;

use barewire_driver::PacketBuf;
use barewire_stack::sim::Pair;
use barewire_stack::{OPERATOR_PRIORITY, SocketError, SocketOption};

use super::{pattern, read_all};

#[test]
fn a_stack_that_is_behind_sheds_new_connections_but_not_the_operators() {
    let mut pair = Pair::new();
    let ordinary = pair.listen(80, 4);
    let operators = pair.listen(22, 4);
    let (client, server) = pair.connect(ordinary);
    let high = SocketOption::Priority(OPERATOR_PRIORITY);
    pair.server().set_option(operators, high).unwrap();
    // Two turns in a row, and in the next one SYNs are counted.
    pair.server().note_turn(8, 8);
    pair.server().note_turn(8, 8);
    pair.start_connect(80);
    pair.settle();
    assert!(pair.server().accept(ordinary).is_ok());
    pair.server().note_turn(8, 8);
    let shed = pair.start_connect(80);
    pair.start_connect(22);
    pair.settle();
    assert_eq!(pair.server().accept(ordinary), Err(SocketError::WouldBlock));
    assert!(pair.server().accept(operators).is_ok());
    assert_eq!(pair.server().counters().listen_shed, 1);
    // What is open goes on.
    pair.client().write(client, b"still here").unwrap();
    pair.settle();
    assert_eq!(read_all(pair.server(), server).0, b"still here");
    // The client tries again by itself.
    pair.server().note_turn(0, 8);
    pair.run_for(Duration::from_secs(2));
    assert!(pair.server().accept(ordinary).is_ok());
    assert_eq!(pair.client().take_error(shed), Ok(None));
}

#[test]
fn the_last_cells_are_for_handshakes_and_acknowledgments() {
    let mut pair = Pair::new();
    let listener = pair.listen(80, 4);
    let (client, server) = pair.connect(listener);
    let pool = pair.server().pool().clone();
    let reserve = pool.total_cells() / 16;
    let mut taken: Vec<PacketBuf> = Vec::new();
    while pool.free_cells() > reserve {
        taken.extend(pool.alloc_cell());
    }
    let answer = pattern(50_000);
    let written = pair.server().write(server, &answer).unwrap();
    pair.settle();
    assert!(pair.server().counters().tx_no_buffer > 0, "data finds no cell");
    assert_eq!(read_all(pair.client(), client).0.len(), 0);
    // A new connection opens, and data the other way is acknowledged: it is more than goes without.
    pair.client().write(client, &pattern(20_000)).unwrap();
    pair.start_connect(80);
    pair.settle();
    pair.run_for(Duration::from_millis(100));
    assert!(pair.server().accept(listener).is_ok());
    assert_eq!(read_all(pair.server(), server).0, pattern(20_000));
    // With cells the answer is sent again, as after any loss.
    drop(taken);
    let mut got = Vec::new();
    pair.run_until(|p| {
        got.extend(read_all(p.client(), client).0);
        got.len() == written
    });
    assert_eq!(got, answer[..written]);
}
