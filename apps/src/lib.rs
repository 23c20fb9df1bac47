//! Sockets over a user-space network card.
