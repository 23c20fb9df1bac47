//! Send buffers, empty pools, readiness.

use super::*;

#[test]
fn the_send_buffer_is_a_bound() {
    let mut t = Trace::established(TcpConfig { send_buffer_bytes: 3000, ..plain() });
    let data = bytes(1, 5001);
    assert_eq!(t.tcb.write(&t.pool, &data), Ok(3000));
    assert_eq!(t.tcb.write(&t.pool, &data), Err(SocketError::WouldBlock));
    assert!(!t.tcb.readiness().contains(Readiness::WRITABLE));
    t.tx("PA 1:3001 ack 1");
    t.rx("A 1 ack 501");
    assert_eq!(t.tcb.write_room(), 500);
    assert!(!t.tcb.readiness().contains(Readiness::WRITABLE), "too little to wake for");
    t.rx("A 1 ack 1461");
    assert!(t.tcb.readiness().contains(Readiness::WRITABLE));
    t.end();
}

#[test]
fn an_empty_pool_takes_what_fits_and_then_says_so() {
    let mut t = Trace::established(plain());
    let held: Vec<_> = (0..2046).map(|_| t.pool.alloc().unwrap()).collect();
    let data = bytes(1, 10_001);
    assert_eq!(t.tcb.write(&t.pool, &data), Ok(4096));
    assert_eq!(t.tcb.write(&t.pool, &data), Err(SocketError::NoBuffers));
    t.tx("PA 1:4097 ack 1");
    drop(held);
    t.end();
}

#[test]
fn tiny_owned_slices_are_bounded_in_number() {
    let config = TcpConfig { send_buffer_bytes: 1 << 18, ..plain() };
    let mut t = Trace::established(config);
    let one = t.pool.copy_from(b"x").unwrap().freeze();
    let mut taken = 0;
    while t.tcb.write_owned(one.clone()).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, sendq::CHUNKS_MIN + (1 << 18) / sendq::BYTES_PER_CHUNK_MIN);
    drop(one);
    t.end();
}

#[test]
fn readiness_follows_the_connection() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.readiness(), Readiness::WRITABLE);
    t.rx("PA 1:11 ack 1");
    assert_eq!(t.tcb.readiness(), Readiness::WRITABLE | Readiness::READABLE);
    t.read(10);
    t.rx("FA 11 ack 1");
    let eof = Readiness::READABLE | Readiness::READ_CLOSED;
    assert_eq!(t.tcb.readiness(), Readiness::WRITABLE | eof);
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    assert_eq!(t.tcb.readiness(), Readiness::WRITABLE | Readiness::WRITE_CLOSED | eof);
    t.end();
}

#[test]
fn an_empty_write_is_nothing() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.write(&t.pool, &[]), Ok(0));
    t.quiet();
    t.end();
}
