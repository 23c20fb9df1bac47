//! A network card between a host's memory and a cable.

use std::any::Any;
use std::collections::VecDeque;

use barewire_driver::{
    Arm, Capabilities, DeviceError, Features, PacketBuf, PacketSlice, Pool, Queue, QueueCounters,
    QueueError, RxBurst, TxBurst,
};

/// Puts received frames into slots of the receiver's own pool, as a card's DMA does.
///
/// A local cable hands the sender's slices over. Here each host accounts for its own memory, so a
/// card posts slots in advance and copies each frame into them; the copy is the device's and is not
/// counted in `bytes_copied`. A frame that finds too few slots posted is lost and counted.
pub struct Card {
    inner: Box<dyn Queue>,
    ring_len: usize,
    pool: Option<Pool>,
    posted: VecDeque<PacketBuf>,
    arrived: RxBurst,
    no_buffer: u64,
}

impl Card {
    /// A card in front of `inner` that keeps `ring_len` slots posted.
    pub fn new(inner: Box<dyn Queue>, ring_len: usize) -> Card {
        Card {
            inner,
            ring_len,
            pool: None,
            posted: VecDeque::new(),
            arrived: RxBurst::new(),
            no_buffer: 0,
        }
    }

    fn post(&mut self) {
        let Some(pool) = &self.pool else { return };
        while self.posted.len() < self.ring_len {
            let Some(slot) = pool.alloc() else { return };
            self.posted.push_back(slot);
        }
    }
}

/// Copies one frame into posted slots and adds their slices to `burst`; false if there are too few.
fn receive(posted: &mut VecDeque<PacketBuf>, frame: &[PacketSlice], burst: &mut RxBurst) -> bool {
    let len: usize = frame.iter().map(|piece| piece.len()).sum();
    let slot_len = posted.front().map_or(1, |slot| slot.len());
    let needed = len.div_ceil(slot_len).max(1);
    if posted.len() < needed {
        return false;
    }
    let mut bytes = frame.iter().flat_map(|piece| piece.chunks(slot_len));
    let mut rest: &[u8] = &[];
    for mut slot in posted.drain(..needed) {
        let mut used = 0;
        while used < slot_len {
            if rest.is_empty() {
                match bytes.next() {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            let take = rest.len().min(slot_len - used);
            slot[used..used + take].copy_from_slice(&rest[..take]);
            rest = &rest[take..];
            used += take;
        }
        slot.truncate(used);
        burst.push_segment(slot.freeze());
    }
    true
}

impl Queue for Card {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn start(&mut self, pool: &Pool, wanted: Features) -> Result<Features, DeviceError> {
        let granted = self.inner.start(pool, wanted)?;
        self.pool = Some(pool.clone());
        self.post();
        Ok(granted)
    }

    fn rx_burst(&mut self, burst: &mut RxBurst, max: usize) -> Result<usize, QueueError> {
        let result = self.inner.rx_burst(&mut self.arrived, max);
        let mut received = 0;
        for frame in self.arrived.frames() {
            if receive(&mut self.posted, self.arrived.segments(frame), burst) {
                burst.finish_frame(*frame);
                received += 1;
            } else {
                self.no_buffer += 1;
            }
        }
        self.arrived.clear();
        self.post();
        result.map(|_| received)
    }

    fn tx_burst(&mut self, burst: &mut TxBurst) -> Result<usize, QueueError> {
        self.inner.tx_burst(burst)
    }

    fn tx_room(&self) -> usize {
        self.inner.tx_room()
    }

    fn reclaim(&mut self) -> usize {
        self.inner.reclaim()
    }

    fn pending_tx(&self) -> usize {
        self.inner.pending_tx()
    }

    fn arm(&mut self) -> Arm {
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn counters(&self) -> QueueCounters {
        let inner = self.inner.counters();
        QueueCounters { rx_no_buffer: inner.rx_no_buffer + self.no_buffer, ..inner }
    }

    fn stop(&mut self) {
        self.posted.clear();
        self.arrived.clear();
        self.pool = None;
        self.inner.stop();
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_driver::cable::{self, CableConfig};
    use barewire_driver::{PoolConfig, TxFrame};

    fn pool(slots: u32) -> Pool {
        Pool::new(PoolConfig { slots, slot_len: 2048, cells: 4, try_huge: false }).unwrap()
    }

    #[test]
    fn frames_cross_into_the_receivers_memory_and_free_the_senders() {
        let (ours, theirs) = (pool(8), pool(8));
        let (a, b) = cable::local(CableConfig { mtu: 9000, ..CableConfig::new("card") }).unwrap();
        let (mut a, mut b) = (Card::new(Box::new(a), 2), Card::new(Box::new(b), 4));
        let granted = a.start(&ours, cable::FEATURES).unwrap();
        b.start(&theirs, granted).unwrap();
        let mut burst = TxBurst::new();
        // 6,000 bytes in slices that do not line up with the receiver's slots.
        for len in [100, 2048, 1804, 2048] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            burst.push_segment(ours.copy_from(&bytes).unwrap().freeze());
        }
        burst.finish_frame(TxFrame::default());
        let sent: Vec<u8> = burst.front().unwrap().1.iter().flat_map(|s| s.to_vec()).collect();
        // Two more, for one of which no slot is left: the first took three of four.
        for _ in 0..2 {
            burst.push_segment(ours.copy_from(&[7; 60]).unwrap().freeze());
            burst.finish_frame(TxFrame::default());
        }
        let mut received = RxBurst::new();
        while !burst.is_empty() {
            a.tx_burst(&mut burst).unwrap();
        }
        assert_eq!(b.rx_burst(&mut received, 64).unwrap(), 2);
        let frame = received.frames()[0];
        let got: Vec<u8> = received.segments(&frame).iter().flat_map(|s| s.to_vec()).collect();
        assert!(got == sent && frame.count == 3);
        assert_eq!(b.counters().rx_no_buffer, 1);
        assert_eq!(ours.audit().held, 2, "only the slots that our card has posted");
        a.stop();
        b.stop();
        received.clear();
        assert!(ours.audit().all_free() && theirs.audit().all_free());
    }
}
