//! What `barewire nic` does with a card that it opens: its address and link, its interrupts, a fault
//! of the IOMMU on purpose. The card is reset when it is opened, and quiet again afterwards.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use barewire_driver::intel::{self, Nic, NicConfig, PauseFrames};
use barewire_driver::pci::{PciAddress, System};
use barewire_driver::vfio::{Access, VfioFunction};
use barewire_driver::{
    Device, Features, LinkState, NicSettings, OpenOptions, PciSpec, Pool, PoolConfig, Queue,
    QueueId, RxBurst, TxBurst, TxFrame, drivers,
};

use super::stats;

use crate::output::{self, Advice};

/// How long a link may take to come up: negotiation takes a copper PHY up to three seconds.
const LINK_WAIT: Duration = Duration::from_secs(4);
const LINK_STEP: Duration = Duration::from_millis(20);
/// Time for the device to fetch one frame.
const FETCH_WAIT: Duration = Duration::from_millis(200);
/// Pause between two looks at a queue that nobody waits for.
const RECEIVE_STEP: Duration = Duration::from_millis(1);

/// A frame that says nothing to anybody: IEEE 802 local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const FRAME_LEN: usize = 60;

fn function(address: PciAddress) -> anyhow::Result<Arc<VfioFunction>> {
    let function = VfioFunction::open(&System::default(), address, Access::Auto)
        .map_err(|error| error.on_open(format!("pci:{address}")))?;
    Ok(Arc::new(function))
}

fn open(address: PciAddress, config: NicConfig) -> anyhow::Result<Arc<dyn Nic>> {
    Ok(intel::open(function(address)?, config)?)
}

/// With as many queues as the settings name.
fn open_set(card: &PciSpec) -> anyhow::Result<Arc<dyn Nic>> {
    let queues = card.settings.rss_table.iter().max().map_or(1, |last| u16::from(*last) + 1);
    let options = OpenOptions { queues, ..OpenOptions::default() };
    Ok(drivers::open_nic(function(card.address)?, &card.settings, &options)?)
}

/// The card's address, its link's state, and what comes of its settings.
///
/// # Errors
/// When it cannot be set as wanted. A card that cannot be opened is told as far as it is known.
pub(super) fn info_lines(card: &PciSpec) -> anyhow::Result<Vec<String>> {
    let usual = card.settings == NicSettings::default();
    let nic = match open_set(card) {
        Ok(nic) => nic,
        Err(error) if usual => return Ok(vec![format!("{:12} unknown: {error:#}", "link")]),
        Err(error) => return Err(error),
    };
    let link = wait_for_link(&*nic);
    let mut lines = vec![
        format!("{:12} {}", "MAC", nic.mac()),
        format!("{:12} {}", "link", output::link(link)),
        format!("{:12} {}", "pause frames", told_pause(nic.pause_frames())),
        format!("{:12} {}", "queues", nic.queues()),
    ];
    if !usual {
        let settings = card.settings.to_string();
        lines.push(format!("{:12} {}", "settings", settings.trim_start_matches(',')));
    }
    Ok(lines)
}

fn told_pause(pause: PauseFrames) -> &'static str {
    match (pause.obeyed, pause.sent) {
        (false, false) => "neither obeyed nor sent",
        (true, false) => "obeyed, not sent",
        (false, true) => "sent, not obeyed",
        (true, true) => "obeyed and sent",
    }
}

/// Waits until the link is up, and for what both sides have agreed on then.
fn wait_for_link(nic: &dyn Nic) -> LinkState {
    let end = Instant::now() + LINK_WAIT;
    loop {
        nic.poll_link();
        let link = nic.link();
        if link.up || Instant::now() >= end {
            return link;
        }
        thread::sleep(LINK_STEP);
    }
}

/// Fires every vector; the lines to print, and whether all have arrived.
///
/// # Errors
/// When the card cannot be opened.
pub(super) fn test_vectors(address: PciAddress) -> anyhow::Result<(Vec<String>, bool)> {
    let fired = open(address, NicConfig::default())?.test_vectors()?;
    if fired.is_empty() {
        let next = "it is polled instead; nothing has to be mended";
        return Err(Advice::new(format!("{address} has no MSI-X vectors"), next).into());
    }
    Ok((told_vectors(&fired), fired.iter().all(|&fired| fired)))
}

fn told_vectors(fired: &[bool]) -> Vec<String> {
    let word = |fired: &bool| if *fired { "fired" } else { "stayed silent" };
    fired.iter().enumerate().map(|(n, fired)| format!("vector {n} {}", word(fired))).collect()
}

fn small_pool() -> anyhow::Result<Pool> {
    let config = PoolConfig { slots: 1024, slot_len: 2048, cells: 64, try_huge: false };
    Pool::new(config).context("there is no memory for packets")
}

/// Makes the card read one frame from where nothing is mapped.
///
/// # Errors
/// When the card cannot be opened or started.
pub(super) fn send_unmapped(address: PciAddress) -> anyhow::Result<()> {
    let nic = open(address, NicConfig { send_unmapped: true, ..NicConfig::default() })?;
    // Without a link a card may keep its frames for later.
    wait_for_link(&*nic);
    let pool = small_pool()?;
    let mut queue = started(&*nic, &pool)?;
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&nic.mac().0);
    frame[6..12].copy_from_slice(&nic.mac().0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    let slice = pool.copy_from(&frame).context("the pool is empty")?.freeze();
    let mut burst = TxBurst::new();
    burst.push_segment(slice);
    burst.finish_frame(TxFrame::default());
    queue.tx_burst(&mut burst)?;
    thread::sleep(FETCH_WAIT);
    queue.stop();
    Ok(())
}

fn started(nic: &dyn Device, pool: &Pool) -> anyhow::Result<Box<dyn Queue>> {
    let mut queue = nic.queue(QueueId(0))?.open();
    queue.start(pool, Features::empty())?;
    Ok(queue)
}

/// Receives for a while, lets go of what comes, and gives what the queue and the hardware have
/// counted.
///
/// # Errors
/// When the card cannot be opened or started, or is unplugged meanwhile.
pub(super) fn statistics(
    card: &PciSpec,
    time: Duration,
) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let nic = open_set(card)?;
    wait_for_link(&*nic);
    let pool = small_pool()?;
    let mut queue = started(&*nic, &pool)?;
    let mut burst = RxBurst::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        if queue.rx_burst(&mut burst, barewire_driver::device::BURST_FRAMES)? == 0 {
            thread::sleep(RECEIVE_STEP);
        }
        burst.clear();
    }
    queue.stop();
    let mut counters: Vec<_> = stats::by_name(&queue.counters()).into();
    counters.extend(nic.statistics());
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_that_did_not_arrive_is_told() {
        assert_eq!(told_vectors(&[true, false]), ["vector 0 fired", "vector 1 stayed silent"]);
    }

    #[test]
    fn a_card_that_is_not_there_has_no_link_to_tell() {
        let address: PciAddress = "ffff:ff:1f.7".parse().unwrap();
        let lines = info_lines(&address.into()).unwrap();
        assert!(lines[0].starts_with("link         unknown: "), "{lines:?}");
        assert!(test_vectors(address).is_err() && send_unmapped(address).is_err());
        assert!(info_lines(&"ffff:ff:1f.7,vlan=5".parse().unwrap()).is_err());
    }
}
