//! Sockets over a user-space network card.

pub mod http;
