//! What the igb rings cost a forwarded packet of 64 bytes: received on a queue, handed to the same
//! queue's transmit ring, reported, let go of.
//!
//! ```text
//!   model: finishes receive descriptors ─▶ rx_burst ─▶ move ─▶ tx_burst ─▶ model: reports ─▶ reclaim
//!          not measured                     receive    move     send       not measured       reclaim
//! ```
//!
//! The model only touches descriptors, so what is measured is the driver, `move` being the loop of
//! whoever forwards. A doorbell is a store, as to a mapped register, and the model hears of it
//! outside of what is measured. Frames arrive with a checksum verdict and a hash.
//!
//! Nanoseconds are the median of several runs on an idle machine; instructions are counted by
//! callgrind, under which this program runs itself, once for each part and batch. They repeat to
//! the digit, on whatever machine, as long as the compiler is the same.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::os::fd::RawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use barewire_driver::bus::{BusError, DmaMapping, Function, Registers};
use barewire_driver::intel::{NicConfig, open};
use barewire_driver::model::{Kind, NicModel};
use barewire_driver::{
    Features, MacAddr, Pool, PoolConfig, Queue, QueueId, Region, RxBurst, TxBurst, TxFrame,
};

/// Bytes in a frame of 64 with its check sequence, which the device strips and adds.
const FRAME_LEN: u16 = 60;

const BATCHES: [usize; 4] = [1, 8, 32, 64];

/// Packets from one turn of the model to the next: half of the rings.
const LAP: usize = 256;

/// Laps in one run that is timed, and runs of which the median counts.
const TIMED_LAPS: usize = 2_000;
const TIMED_RUNS: usize = 9;

/// Laps of two runs whose difference is counted: what comes before and after the laps cancels out.
const COUNTED_LAPS: [usize; 2] = [20, 120];

/// What is counted, by the name of the function that does it.
const PARTS: [&str; 4] = ["measured_receive", "measured_move", "measured_send", "measured_reclaim"];

/// Tail registers of queue 0 (82576 §8.10.8, §8.12.11).
const RDT: u32 = 0x2818;
const TDT: u32 = 0x3818;

/// The model, its doorbells a store each until [`Card::deliver`].
#[derive(Clone, Debug)]
struct Card {
    model: NicModel,
    tails: Arc<[AtomicU32; 2]>,
}

impl Card {
    fn deliver(&self) {
        for (register, tail) in [RDT, TDT].into_iter().zip(&*self.tails) {
            Registers::write(&self.model, register, tail.load(Ordering::Relaxed));
        }
    }
}

impl Registers for Card {
    fn read(&self, offset: u32) -> u32 {
        Registers::read(&self.model, offset)
    }

    fn write(&self, offset: u32, value: u32) {
        match offset {
            RDT => self.tails[0].store(value, Ordering::Relaxed),
            TDT => self.tails[1].store(value, Ordering::Relaxed),
            _ => Registers::write(&self.model, offset, value),
        }
    }
}

impl Function for Card {
    fn id(&self) -> (u16, u16) {
        self.model.id()
    }

    fn address(&self) -> String {
        self.model.address()
    }

    fn registers(&self) -> Arc<dyn Registers> {
        Arc::new(self.clone())
    }

    fn map(&self, region: &Arc<Region>) -> Result<Box<dyn DmaMapping>, BusError> {
        self.model.map(region)
    }

    fn set_bus_master(&self, on: bool) -> Result<(), BusError> {
        self.model.set_bus_master(on)
    }

    fn reset(&self) -> Result<(), BusError> {
        self.model.reset()
    }

    fn vectors(&self) -> u16 {
        self.model.vectors()
    }

    fn enable_vectors(&self, count: u16) -> Result<Vec<RawFd>, BusError> {
        self.model.enable_vectors(count)
    }

    fn is_gone(&self) -> bool {
        self.model.is_gone()
    }
}

struct Forwarder {
    card: Card,
    queue: Box<dyn Queue>,
    rx: RxBurst,
    tx: TxBurst,
    _pool: Pool,
}

impl Forwarder {
    fn new() -> Forwarder {
        let model = NicModel::new(Kind::I82576, MacAddr::local(1)).expect("eventfds");
        let card = Card { model, tails: Arc::default() };
        let nic = open(Arc::new(card.clone()), NicConfig::default()).expect("the model opens");
        card.model.set_faults(|faults| (faults.hold_transmit, faults.discard_sent) = (true, true));
        let config = PoolConfig { slots: 2048, slot_len: 2048, cells: 16, try_huge: false };
        let pool = Pool::new(config).expect("memory");
        let mut queue = nic.queue(QueueId(0)).expect("the first").open();
        queue.start(&pool, Features::all()).expect("the queue starts");
        Forwarder { card, queue, rx: RxBurst::new(), tx: TxBurst::new(), _pool: pool }
    }

    #[inline(never)]
    fn measured_receive(&mut self, batch: usize) -> usize {
        self.queue.rx_burst(&mut self.rx, batch).expect("the device is there")
    }

    #[inline(never)]
    fn measured_move(&mut self) {
        let tx = &mut self.tx;
        self.rx.drain(|_, segments| {
            segments.for_each(|segment| tx.push_segment(segment));
            tx.finish_frame(TxFrame::default());
        });
    }

    #[inline(never)]
    fn measured_send(&mut self) -> usize {
        self.queue.tx_burst(&mut self.tx).expect("the device is there")
    }

    #[inline(never)]
    fn measured_reclaim(&mut self) -> usize {
        self.queue.reclaim()
    }

    /// Forwards [`LAP`] packets; gives the time that all parts took.
    fn lap(&mut self, batch: usize) -> Duration {
        self.card.deliver();
        let completed = self.card.model.complete_receive(0, LAP as u32, FRAME_LEN);
        assert_eq!(completed as usize, LAP, "the ring was filled");
        let start = Instant::now();
        for _ in 0..LAP / batch {
            assert_eq!(self.measured_receive(batch), batch);
            self.measured_move();
            assert_eq!(self.measured_send(), batch);
        }
        let took = start.elapsed();
        self.card.deliver();
        self.card.model.run_transmit();
        let start = Instant::now();
        assert_eq!(self.measured_reclaim(), LAP);
        took + start.elapsed()
    }
}

fn nanoseconds(batch: usize) -> f64 {
    let mut forwarder = Forwarder::new();
    let mut run = || {
        let took: Duration = (0..TIMED_LAPS).map(|_| forwarder.lap(batch)).sum();
        took.as_secs_f64() * 1e9 / (TIMED_LAPS * LAP) as f64
    };
    run();
    let mut runs: Vec<f64> = (0..TIMED_RUNS).map(|_| run()).collect();
    runs.sort_by(f64::total_cmp);
    runs[TIMED_RUNS / 2]
}

/// Instructions in one part of a run of this program under callgrind.
fn callgrind(part: &str, batch: usize, laps: usize) -> Result<u64, String> {
    let out = std::env::temp_dir().join(format!("nic_rings.{}.{part}", std::process::id()));
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let run = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect=*::{part}"))
        .arg(program)
        .args(["--laps", &laps.to_string(), &batch.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error} (Debian: apt-get install valgrind)"))?;
    let profile = fs::read_to_string(&out);
    // Nothing is lost if it stays behind.
    let _ = fs::remove_file(&out);
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned());
    }
    let profile = profile.map_err(|error| error.to_string())?;
    let total = profile.lines().find_map(|line| {
        line.strip_prefix("summary:").or(line.strip_prefix("totals:"))?.trim().parse().ok()
    });
    total.filter(|count| *count > 0).ok_or(format!("callgrind counted nothing in {part}"))
}

/// Instructions a packet in each part.
fn instructions(batch: usize) -> Result<[f64; PARTS.len()], String> {
    let mut counts = [0.0; PARTS.len()];
    for (count, part) in counts.iter_mut().zip(PARTS) {
        let [few, many] = COUNTED_LAPS;
        let (less, more) = (callgrind(part, batch, few)?, callgrind(part, batch, many)?);
        *count = more.saturating_sub(less) as f64 / ((many - few) * LAP) as f64;
    }
    Ok(counts)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--laps") {
        let number = |n: usize| args[at + n].parse::<usize>().expect("a number");
        let (laps, batch) = (number(1), number(2));
        let mut forwarder = Forwarder::new();
        for _ in 0..laps {
            forwarder.lap(batch);
        }
        return;
    }
    println!("igb rings, frames of 64 bytes received and sent again; a packet takes:");
    println!("{:>6} | {:^55} | {:^14}", "", "instructions (callgrind)", "nanoseconds");
    println!(
        "{:>6} | {:>9} {:>6} {:>9} {:>8} {:>19} | {:>14}",
        "batch", "receive", "send", "reclaim", "driver", "with moving it", "with moving it"
    );
    for batch in BATCHES {
        let ns = nanoseconds(batch);
        match instructions(batch) {
            Ok([receive, moving, send, reclaim]) => {
                let driver = receive + send + reclaim;
                let all = driver + moving;
                println!(
                    "{batch:>6} | {receive:>9.1} {send:>6.1} {reclaim:>9.1} {driver:>8.1} {all:>19.1} | {ns:>14.1}"
                );
            }
            Err(error) => {
                println!("{batch:>6} | {:^55} | {ns:>14.1}", "not counted");
                eprintln!("instructions are not counted: {error}");
            }
        }
    }
}
