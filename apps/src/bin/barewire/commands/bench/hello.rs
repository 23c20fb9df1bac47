//! The first bytes of a connection: what the client wants of the server.
//!
//! ```text
//!    0        8      9       10        12       16       20       24       32
//!   ├────────┼──────┼───────┼─────────┼────────┼────────┼────────┼────────┤
//!   │ magic  │ mode │ flags │ 0       │ size   │ answer │ millis │ 0      │   big-endian
//!   └────────┴──────┴───────┴─────────┴────────┴────────┴────────┴────────┘
//! ```

use std::time::Duration;

use thiserror::Error;

use crate::cli::{Direction, SIZE_MAX};

/// Bytes of a hello.
pub(super) const HELLO_LEN: usize = 32;

/// What the server sends once it has understood.
pub(super) const ACK: [u8; 8] = *b"bw-go-1\n";

/// What the client sends once all its connections have been understood: the time begins.
pub(super) const GO: [u8; 1] = *b"!";

const MAGIC: [u8; 8] = *b"bw-load1";
const FLAG_OWNED: u8 = 1;

/// Longest time that a client may ask for: an hour, as `--seconds` has it.
const MILLIS_MAX: u32 = 3_600_000;

/// What one connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Bytes, one way or both.
    Stream(Direction),
    /// Requests and answers until the client ends.
    Requests,
    /// One request and one answer, without ACK and GO in between.
    Once,
}

impl Mode {
    const ALL: [Mode; 5] = [
        Mode::Stream(Direction::Up),
        Mode::Stream(Direction::Down),
        Mode::Stream(Direction::Both),
        Mode::Requests,
        Mode::Once,
    ];

    fn code(self) -> u8 {
        match self {
            Mode::Stream(Direction::Up) => 1,
            Mode::Stream(Direction::Down) => 2,
            Mode::Stream(Direction::Both) => 3,
            Mode::Requests => 4,
            Mode::Once => 5,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) mode: Mode,
    /// Packet memory is to be handed over instead of copied.
    pub(super) owned: bool,
    /// Bytes of a request.
    pub(super) size: u32,
    /// Bytes of an answer.
    pub(super) answer: u32,
    /// For how long the server is to send where it sends without being asked.
    pub(super) millis: u32,
}

/// Why a hello is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum BadHello {
    /// The other side is something else, or of another version.
    #[error("it is no client of `barewire bench` of this version")]
    Magic,
    /// There is no such mode or flag.
    #[error("it asks for mode {0} with flags {1}, which are not known")]
    Mode(u8, u8),
    /// A size or a time that no client of this version asks for.
    #[error("it asks for a size or a time out of bounds")]
    Bounds,
}

impl Hello {
    pub(super) fn time(&self) -> Duration {
        Duration::from_millis(self.millis.into())
    }

    pub(super) fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.mode.code();
        bytes[9] = if self.owned { FLAG_OWNED } else { 0 };
        bytes[12..16].copy_from_slice(&self.size.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.answer.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.millis.to_be_bytes());
        bytes
    }

    /// # Errors
    /// [`BadHello`]: whatever follows cannot be understood.
    pub(super) fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Hello, BadHello> {
        if bytes[..8] != MAGIC {
            return Err(BadHello::Magic);
        }
        let (code, flags) = (bytes[8], bytes[9]);
        let mode = Mode::ALL.into_iter().find(|mode| mode.code() == code);
        let mode = mode.filter(|_| flags & !FLAG_OWNED == 0).ok_or(BadHello::Mode(code, flags))?;
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let hello = Hello {
            mode,
            owned: flags & FLAG_OWNED != 0,
            size: word(12),
            answer: word(16),
            millis: word(20),
        };
        let sizes = 1..=SIZE_MAX;
        let bounded = sizes.contains(&hello.size) && sizes.contains(&hello.answer);
        if bounded && hello.millis <= MILLIS_MAX { Ok(hello) } else { Err(BadHello::Bounds) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        mode: Mode::Stream(Direction::Both),
        owned: true,
        size: 64,
        answer: SIZE_MAX,
        millis: 1500,
    };

    #[test]
    fn a_hello_is_read_as_it_was_written() {
        for mode in Mode::ALL {
            let hello = Hello { mode, ..HELLO };
            assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }
        assert_eq!(HELLO.time(), Duration::from_millis(1500));
    }

    #[test]
    fn what_no_client_says_is_refused() {
        let mut other = HELLO.encode();
        other[7] += 1;
        assert_eq!(Hello::decode(&other), Err(BadHello::Magic));
        for (at, value, says) in [(8, 0, (0, 1)), (8, 6, (6, 1)), (9, 2, (3, 2))] {
            let mut bytes = HELLO.encode();
            bytes[at] = value;
            assert_eq!(Hello::decode(&bytes), Err(BadHello::Mode(says.0, says.1)));
        }
        for hello in [
            Hello { size: 0, ..HELLO },
            Hello { size: SIZE_MAX + 1, ..HELLO },
            Hello { answer: 0, ..HELLO },
            Hello { millis: MILLIS_MAX + 1, ..HELLO },
        ] {
            assert_eq!(Hello::decode(&hello.encode()), Err(BadHello::Bounds), "{hello:?}");
        }
    }
}
