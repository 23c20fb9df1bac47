//! Attacks (RFC 4953, 5927, 5961, 6056, 6528), each with its bound, its counter, and what a
//! connection that means no harm still gets meanwhile.

mod acks;
mod bench;
mod blind;
mod floods;
mod fragments;
mod neighbors;
mod stalls;
mod storms;

use bench::{ATTACKER, Bench, CLIENT, DELAY, Puppet, SERVER, segment, to_server};
