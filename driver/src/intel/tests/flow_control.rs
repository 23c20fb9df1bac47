//! Pause frames on an e1000e: its registers as plain words, enough for bring-up to go through.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;

use super::*;
use crate::bus::{BusError, DmaMapping, Function, Registers};
use crate::intel::FlowControl;
use crate::mem::Region;
use crate::sys::EventFd;

const CTRL: u32 = 0x0000;
const STATUS: u32 = 0x0008;
const MDIC: u32 = 0x0020;
const PBA: u32 = 0x1000;
const FCRTL: u32 = 0x2160;
const FCRTH: u32 = 0x2168;
const RAL: u32 = 0x5400;

/// An 82574 that keeps what is written to it, ends every reset at once and answers as its own PHY.
#[derive(Debug)]
struct Words {
    values: Mutex<HashMap<u32, u32>>,
    events: Vec<EventFd>,
}

#[derive(Clone, Debug)]
struct Card(Arc<Words>);

impl Card {
    fn new() -> Card {
        let values = HashMap::from([(PBA, 0x0014_0014), (RAL, 0x1200_5452), (RAL + 4, 0x5634)]);
        let events = (0..5).map(|_| EventFd::new().unwrap()).collect();
        Card(Arc::new(Words { values: Mutex::new(values), events }))
    }
}

impl Registers for Card {
    fn read(&self, offset: u32) -> u32 {
        let value = self.0.values.lock().unwrap().get(&offset).copied().unwrap_or(0);
        match offset {
            CTRL => value & !(1 << 26),
            STATUS => 0,
            MDIC => value | 1 << 28,
            _ => value,
        }
    }

    fn write(&self, offset: u32, value: u32) {
        self.0.values.lock().unwrap().insert(offset, value);
    }
}

impl Function for Card {
    fn id(&self) -> (u16, u16) {
        (0x8086, 0x10d3)
    }
    fn address(&self) -> String {
        "model:82574".into()
    }
    fn registers(&self) -> Arc<dyn Registers> {
        Arc::new(self.clone())
    }
    fn map(&self, _: &Arc<Region>) -> Result<Box<dyn DmaMapping>, BusError> {
        Err(BusError::Unsupported("no queue is started here".into()))
    }
    fn set_bus_master(&self, _: bool) -> Result<(), BusError> {
        Ok(())
    }
    fn reset(&self) -> Result<(), BusError> {
        Ok(())
    }
    fn vectors(&self) -> u16 {
        5
    }
    fn enable_vectors(&self, count: u16) -> Result<Vec<RawFd>, BusError> {
        Ok(self.0.events.iter().take(usize::from(count)).map(AsRawFd::as_raw_fd).collect())
    }
    fn is_gone(&self) -> bool {
        false
    }
}

const XON_ENABLE: u32 = 1 << 31;

/// Both marks after bring-up with pause frames, after turning them off, and on again.
fn marks(function: Arc<dyn Function>, mtu: u16) -> [(u32, u32); 3] {
    let registers = function.registers();
    let marks = || (registers.read(FCRTL), registers.read(FCRTH));
    let config = NicConfig { flow_control: FlowControl::Full, mtu, ..small(1) };
    let nic = open(function, config).unwrap();
    let at_first = marks();
    nic.set_flow_control(FlowControl::Off).unwrap();
    let off = marks();
    nic.set_flow_control(FlowControl::Full).unwrap();
    [at_first, off, marks()]
}

#[test]
fn both_ways_to_turn_pause_frames_on_set_the_same_marks() {
    let igb = || Arc::new(IgbModel::new(MAC).unwrap());
    let wanted = |low, high| [(low | XON_ENABLE, high), (0, 0), (low | XON_ENABLE, high)];
    assert_eq!(marks(igb(), 1500), wanted(28_208, 29_712));
    assert_eq!(marks(igb(), 9216), wanted(14_880, 16_384));
    assert_eq!(marks(Arc::new(Card::new()), 1500), wanted(15_920, 17_424));
    assert_eq!(marks(Arc::new(Card::new()), 9216), wanted(8_736, 10_240));
}
