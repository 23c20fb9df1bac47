//! A stack on raw IPv4 packets: the public [`Stack`] as a test bench.
//!
//! ```text
//!   packets ──▶ handle_packet ─┐              ┌─▶ poll_packet ─▶ packets, each with its time
//!   time    ──▶ poll ──────────┼─▶  Stack  ───┤
//!   calls   ──▶ write, read, … ┘              └─▶ poll ─▶ the next deadline
//! ```
//!
//! One interface without link headers, so nothing asks for neighbours: what the stack sends is a
//! function of the settings, the packets, the calls and the times that were passed in.
//! `examples/bench.rs` of this crate is a whole connection, and its `README.md` has a table of the
//! calls.

use barewire_driver::device::Features;
use barewire_driver::{MacAddr, Pool};
use thiserror::Error;

use super::Stack;
use super::settings::{SettingError, Settings};
use crate::error::SocketError;
use crate::interface::{IfaceId, InterfaceConfig};
use crate::time::Instant;

/// The only interface of a raw stack.
const RAW: IfaceId = IfaceId(0);

/// Most payload bytes of a sent super-segment: with IP and TCP headers and all options it is still
/// an IP packet.
const TSO_MAX_BYTES: u32 = 65_535 - 80;

/// Most segments in a sent packet.
const TX_MAX_SEGS: u16 = 64;

/// Why a stack on raw packets could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RawError {
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingError),
    /// There is no memory for packets.
    #[error("no packet memory: {0}")]
    Pool(#[from] barewire_driver::mem::PoolError),
    /// The interface or its routes do not fit.
    #[error("no interface: {0}")]
    Interface(#[from] SocketError),
}

/// An IP packet that the stack has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPacket {
    /// When.
    pub at: Instant,
    /// All of it, from the IP header on, with its checksums.
    pub bytes: Vec<u8>,
    /// Payload bytes of each segment that a card would make of it; 0 if it is one segment. Only
    /// with the setting `tso`.
    pub segment_bytes: u16,
}

impl Stack {
    /// A stack with one interface that takes and gives raw IPv4 packets.
    ///
    /// ```
    /// use barewire_stack::{Family, Instant, Settings, SocketKind, Stack};
    ///
    /// let settings = Settings::new().with("mtu", 1400)?.with("rto_initial", "500ms")?;
    /// let mut stack = Stack::raw(&settings)?;
    /// let socket = stack.socket(SocketKind::Tcp, Family::V4)?;
    /// let _in_progress = stack.connect(socket, "10.0.0.2:80".parse()?);
    /// let syn = stack.poll_packet().ok_or("a SYN")?;
    /// let mut now = Instant::ZERO;
    /// let again = loop {
    ///     now = stack.poll(now).ok_or("a SYN is due")?;
    ///     stack.poll(now);
    ///     if let Some(packet) = stack.poll_packet() {
    ///         break packet;
    ///     }
    /// };
    /// assert!(again.at - syn.at >= std::time::Duration::from_millis(500));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RawError`].
    pub fn raw(settings: &Settings) -> Result<Stack, RawError> {
        settings.check()?;
        let pool = Pool::new(settings.pool)?;
        let mut stack = Stack::new(settings.stack.clone(), pool);
        let mut interface = InterfaceConfig {
            mac: MacAddr::default(),
            mtu: settings.mtu,
            tx_max_segs: TX_MAX_SEGS,
            ..InterfaceConfig::ip(settings.address)
        };
        if settings.tso {
            interface.features |= Features::TSO4;
            interface.tso_max_bytes = TSO_MAX_BYTES;
        }
        let iface = stack.add_interface(interface)?;
        if let Some(gateway) = settings.gateway {
            stack.add_route(settings.default_network(), Some(gateway.into()), iface)?;
        }
        Ok(stack)
    }

    /// Takes in one IPv4 packet, of up to 65,535 bytes whatever the MTU is.
    ///
    /// # Errors
    /// [`SocketError::NoBuffers`] if packet memory has no room; nothing has been taken in then.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Result<(), SocketError> {
        self.handle_bytes(now, RAW, packet)
    }

    /// The next packet that the stack sends at its present time, [`Stack::now`]. Ask until there is
    /// none, after every packet, call and [`Stack::poll`].
    pub fn poll_packet(&mut self) -> Option<SentPacket> {
        let at = self.now();
        self.egress.iface(RAW)?;
        let burst = self.poll_transmit(RAW);
        let (frame, pieces) = burst.front()?;
        let segment_bytes = frame.tso_mss;
        let bytes = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        burst.take_front();
        Some(SentPacket { at, bytes, segment_bytes })
    }
}
