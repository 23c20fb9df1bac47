//! Two connections and a wire that loses, reorders, duplicates and delays, in virtual time: what
//! one writes the other reads, whatever happens, and both end.

use std::collections::BTreeMap;

use super::*;
use crate::Rng;

const MSS: u16 = 1000;

struct End {
    tcb: Tcb,
    to_write: u32,
    written: u32,
    read: u32,
    eof: bool,
    closed_writing: bool,
    time_wait: bool,
}

struct Frame {
    to: usize,
    header: TcpHeader,
    data: Vec<u8>,
}

struct Pipe {
    rng: Rng,
    pool: Pool,
    now: Instant,
    ends: [End; 2],
    /// Frames in flight by arrival time and a tie-breaker.
    wire: BTreeMap<(Instant, u64), Frame>,
    frames: u64,
    loss: f64,
    limits: TxLimits,
}

fn stream_byte(end: usize, position: u32) -> u8 {
    byte_at(position.wrapping_add(end as u32 * 12_345))
}

impl Pipe {
    fn new(seed: u128, loss: f64, config: TcpConfig) -> Pipe {
        let mut rng = Rng::new(seed);
        let now = Instant::from_millis(1_000);
        let config = Rc::new(config);
        let mut end = |close: bool| {
            // Half of the connections wrap around 2^32 early.
            let iss =
                if rng.chance(0.5) { u32::MAX - rng.below(60_000) as u32 } else { rng.next_u32() };
            let open = Open { iss, ts_offset: rng.next_u32(), mss: MSS };
            End {
                tcb: Tcb::connect(Rc::clone(&config), open, now),
                to_write: rng.below(150_000) as u32,
                written: 0,
                read: 0,
                eof: false,
                closed_writing: close,
                time_wait: false,
            }
        };
        let ends = [end(false), end(false)];
        let max_bytes = [1000, 5_500, 65_536][rng.below(3) as usize];
        Pipe {
            pool: Trace::pool(),
            now,
            ends,
            wire: BTreeMap::new(),
            frames: 0,
            loss,
            limits: TxLimits {
                max_bytes,
                max_pieces: 1 + rng.below(40) as u16,
                cut: Cut::default(),
            },
            rng,
        }
    }

    /// Makes end 1 a server: it is made of the first SYN of end 0.
    fn handshake(&mut self) {
        let syn = self.ends[0].tcb.poll_transmit(self.now, &self.limits, &mut vec![]).unwrap();
        let config = Rc::new(self.ends[1].tcb.config().clone());
        let open = Open { iss: self.rng.next_u32(), ts_offset: 7, mss: MSS };
        let mut half = HalfOpen::new(self.now, &syn.header, &config, open);
        for _ in 0..100 {
            let header = half.syn_ack(self.now, &config);
            self.deliver(Frame { to: 0, header, data: vec![] });
            let ack = self.ends[0].tcb.poll_transmit(self.now, &self.limits, &mut vec![]).unwrap();
            if self.rng.chance(self.loss) {
                continue;
            }
            let outcome = half.handle_segment(self.now, &ack.header, 0, &config);
            assert_eq!(outcome, HalfOpenOutcome::Establish);
            self.ends[1].tcb = half.into_tcb(self.now, config);
            self.deliver(Frame { to: 1, header: ack.header, data: vec![] });
            return;
        }
        panic!("a hundred losses in a row");
    }

    /// Cuts a super-segment into wire segments and puts them on the wire, or joins them.
    fn send(&mut self, from: usize, t: Transmit, data: Vec<u8>) {
        let to = 1 - from;
        if self.rng.chance(0.3) || data.len() <= t.mss as usize {
            self.put(Frame { to, header: t.header, data });
            return;
        }
        let count = data.len().div_ceil(t.mss as usize);
        for (i, chunk) in data.chunks(t.mss as usize).enumerate() {
            let mut header = t.header;
            header.seq = header.seq.wrapping_add((i * t.mss as usize) as u32);
            if i + 1 < count {
                header.flags -= TcpFlags::FIN | TcpFlags::PSH;
            }
            self.put(Frame { to, header, data: chunk.to_vec() });
        }
    }

    fn put(&mut self, frame: Frame) {
        if self.rng.chance(self.loss) {
            return;
        }
        let copies = 1 + u32::from(self.rng.chance(self.loss / 2.0));
        for _ in 0..copies {
            let jitter = if self.rng.chance(self.loss) { self.rng.below(40_000) } else { 0 };
            let at = self.now + Duration::from_micros(5_000 + jitter);
            self.frames += 1;
            let copy = Frame { to: frame.to, header: frame.header, data: frame.data.clone() };
            self.wire.insert((at, self.frames), copy);
        }
    }

    fn deliver(&mut self, frame: Frame) {
        let mut payload: Vec<PacketSlice> = frame
            .data
            .chunks(1500)
            .map(|c| self.pool.copy_from(c).expect("a slot").freeze())
            .collect();
        if self.ends[frame.to].tcb.state() == State::Closed {
            // The 4-tuple is forgotten. A peer whose every ACK was lost for the whole of TIME-WAIT
            // may not know yet that all has arrived; the RST ends it without an error.
            let from = 1 - frame.to;
            let state = self.ends[from].tcb.state();
            let done =
                matches!(state, State::TimeWait | State::Closing | State::LastAck | State::Closed);
            assert!(done, "one end has forgotten a connection that is {state} at the other");
            if let Some(header) = reset_for(&frame.header, frame.data.len() as u32) {
                self.deliver(Frame { to: from, header, data: vec![] });
            }
            return;
        }
        let end = &mut self.ends[frame.to];
        let outcome = end.tcb.handle_segment(
            self.now,
            Segment {
                ecn: Ecn::NotEct,
                header: &frame.header,
                payload: &mut payload,
                payload_len: frame.data.len() as u32,
                wire_segments: frame.data.len().div_ceil(MSS as usize).max(1) as u16,
                memory: Memory::Plenty,
            },
        );
        match outcome {
            Outcome::Continue | Outcome::Closed => {}
            Outcome::TimeWait => end.time_wait = true,
            Outcome::Reset(rst) => panic!("an answer of {rst:?} to a good peer"),
        }
    }

    fn application(&mut self, i: usize) {
        let (now, pool) = (self.now, self.pool.clone());
        let end = &mut self.ends[i];
        while end.written < end.to_write {
            let n = (1 + self.rng.below(5_000) as u32).min(end.to_write - end.written);
            let data: Vec<u8> = (end.written..end.written + n).map(|p| stream_byte(i, p)).collect();
            let result = if self.rng.chance(0.5) {
                end.tcb.write(&pool, &data)
            } else {
                let slice = pool.copy_from(&data[..data.len().min(2048)]).unwrap().freeze();
                let len = slice.len();
                end.tcb.write_owned(slice).map(|()| len).map_err(|(error, _)| error)
            };
            match result {
                Ok(n) => end.written += n as u32,
                Err(SocketError::WouldBlock) => break,
                Err(error) => panic!("write: {error}"),
            }
        }
        if end.written == end.to_write && !end.closed_writing && end.tcb.state().can_write() {
            assert_eq!(end.tcb.shutdown_write(now), Ok(Outcome::Continue));
            end.closed_writing = true;
        }
        // Sometimes the reader is slow, so that windows close.
        while !end.eof && self.rng.chance(0.7) {
            let mut out = vec![0; 1 + self.rng.below(9_000) as usize];
            match end.tcb.read(&mut out) {
                Ok(0) => end.eof = true,
                Ok(n) => {
                    for (k, &byte) in out[..n].iter().enumerate() {
                        let position = end.read + k as u32;
                        assert_eq!(byte, stream_byte(1 - i, position), "byte {position}");
                    }
                    end.read += n as u32;
                }
                Err(SocketError::WouldBlock) => break,
                Err(error) => panic!("read: {error}"),
            }
        }
    }

    fn transmit(&mut self, i: usize) {
        for _ in 0..10_000 {
            let mut pieces = Vec::new();
            let tcb = &mut self.ends[i].tcb;
            let Some(t) = tcb.poll_transmit(self.now, &self.limits, &mut pieces) else {
                assert!(!tcb.wants_transmit(), "asks for polls that send nothing");
                tcb.sendq.records.check(tcb.snd.una, tcb.snd.nxt);
                return;
            };
            let data = pieces.iter().flat_map(|p| p.iter().copied()).collect();
            self.send(i, t, data);
        }
        panic!("transmits without end");
    }

    fn finished(&self) -> bool {
        self.ends.iter().all(|e| {
            let over = e.time_wait || e.tcb.state() == State::Closed;
            over && e.eof && e.written == e.to_write
        })
    }

    fn run(&mut self) {
        for _ in 0..400_000 {
            for i in 0..2 {
                self.application(i);
                self.transmit(i);
            }
            if self.finished() {
                return;
            }
            let arrival = self.wire.first_key_value().map(|(k, _)| k.0);
            let timers = self.ends.iter().filter_map(|e| e.tcb.poll_at());
            // The application looks again now and then.
            let next = timers.chain(arrival).min().unwrap_or(Instant::FAR_FUTURE);
            self.now = next.max(self.now).min(self.now + Duration::from_millis(50));
            while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
                let frame = entry.remove();
                self.deliver(frame);
            }
            for end in &mut self.ends {
                let _ = end.tcb.handle_timeout(self.now);
                assert_eq!(end.tcb.take_error(), None);
            }
        }
        panic!(
            "no end at {}: {:?} {:?}",
            self.now,
            self.ends[0].tcb.info(),
            self.ends[1].tcb.info()
        );
    }

    fn check(mut self) {
        self.run();
        for i in 0..2 {
            assert_eq!(self.ends[i].read, self.ends[1 - i].written, "all was read");
        }
        let pool = self.pool.clone();
        drop(self);
        assert!(pool.audit().all_free());
    }
}

fn config_of(seed: u128) -> TcpConfig {
    let mut rng = Rng::new(seed ^ 0xc0ffee);
    TcpConfig {
        recv_buffer_bytes: [4_000, 20_000, 65_535, 300_000][rng.below(4) as usize],
        send_buffer_bytes: [3_000, 30_000, 300_000][rng.below(3) as usize],
        timestamps: rng.chance(0.5),
        window_scale: rng.chance(0.5),
        nodelay: rng.chance(0.5),
        cork: rng.chance(0.2),
        sack: rng.chance(0.8),
        dsack: rng.chance(0.8),
        rack_tlp: rng.chance(0.7),
        rto_restart: rng.chance(0.3),
        data_retries: 60,
        ..TcpConfig::default()
    }
}

#[track_caller]
fn over_seeds(seeds: std::ops::Range<u128>, loss: f64, passive: bool) {
    for seed in seeds {
        eprint_on_panic(seed, || {
            let mut pipe = Pipe::new(seed, loss, config_of(seed));
            if passive {
                pipe.handshake();
            }
            pipe.check();
        });
    }
}

/// Says which seed it was when a run fails.
fn eprint_on_panic(seed: u128, run: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if let Err(panic) = result {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        panic!("seed {seed}: {}", text.unwrap_or_default());
    }
}

#[test]
fn streams_arrive_over_a_perfect_wire() {
    over_seeds(0..10, 0.0, true);
}

#[test]
fn streams_arrive_over_a_wire_with_few_faults() {
    over_seeds(100..140, 0.02, true);
}

#[test]
fn streams_arrive_over_a_wire_with_many_faults() {
    over_seeds(200..230, 0.15, true);
}

#[test]
fn simultaneous_opens_and_closes_survive_faults() {
    over_seeds(300..330, 0.05, false);
}
