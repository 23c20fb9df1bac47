//! Options of the sockets of threads, and connections that are opened with some.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::PoisonError;

use barewire_stack::engine::Wait;
use barewire_stack::{OptionName, SocketOption};

use super::{
    TcpListener, TcpStream, UdpSocket, Waiting, each_addr, get_timeout, set_timeout, to_io,
};
use crate::runtime::Barewire;

impl Waiting {
    /// Takes the options that say how long calls wait; they are of no concern to the engine.
    fn set(&self, option: SocketOption) -> Option<io::Result<()>> {
        match option {
            SocketOption::RecvTimeout(timeout) => Some(set_timeout(&self.read_timeout, timeout)),
            SocketOption::SendTimeout(timeout) => Some(set_timeout(&self.write_timeout, timeout)),
            _ => None,
        }
    }

    fn get(&self, name: OptionName) -> Option<SocketOption> {
        match name {
            OptionName::RecvTimeout => {
                Some(SocketOption::RecvTimeout(get_timeout(&self.read_timeout)))
            }
            OptionName::SendTimeout => {
                Some(SocketOption::SendTimeout(get_timeout(&self.write_timeout)))
            }
            _ => None,
        }
    }
}

impl TcpStream {
    /// Sets any option of SOCKETS.md, by its POSIX name.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        if let Some(done) = self.waiting().set(option) {
            return done;
        }
        self.stream()?.set_option(option).map_err(to_io)?;
        if let SocketOption::Linger(linger) = option {
            // The drop of the last clone waits, and has to know.
            let kept = &self.connection().linger;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = linger;
        }
        Ok(())
    }

    /// The value of any option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn option(&self, name: OptionName) -> io::Result<SocketOption> {
        match self.waiting().get(name) {
            Some(option) => Ok(option),
            None => self.stream()?.option(name).map_err(to_io),
        }
    }

    /// Connects through `instance` with options that are set before the SYN leaves, and sends
    /// `data`: its front with the SYN where the server has given a fast open cookie before
    /// (RFC 7413), so that a request and its answer take one round trip.
    ///
    /// # Errors
    /// As [`TcpStream::connect_on`] and writing; what the stack answers to an option.
    pub fn connect_with<A: ToSocketAddrs>(
        instance: &Barewire,
        addr: A,
        options: &[SocketOption],
        data: &[u8],
    ) -> io::Result<TcpStream> {
        let (stream, taken) =
            each_addr(addr, |addr| TcpStream::open_with(instance, &addr, options, data))?;
        (&stream).write_all(&data[taken..])?;
        Ok(stream)
    }

    fn open_with(
        instance: &Barewire,
        addr: &SocketAddr,
        options: &[SocketOption],
        data: &[u8],
    ) -> io::Result<(TcpStream, usize)> {
        let waiting = Waiting::default();
        let mut others = Vec::with_capacity(options.len());
        for &option in options {
            match waiting.set(option) {
                Some(done) => done?,
                None => others.push(option),
            }
        }
        // SO_SNDTIMEO limits connecting, too.
        let wait = Wait::for_at_most(get_timeout(&waiting.write_timeout));
        let engines = instance.engines();
        let (stream, taken) = engines.connect_with(*addr, &others, data, wait).map_err(to_io)?;
        let stream = TcpStream::with_waiting(stream, instance.clone(), waiting);
        let linger = others.iter().rev().find_map(|option| match option {
            SocketOption::Linger(linger) => Some(*linger),
            _ => None,
        });
        if let Some(linger) = linger {
            let kept = &stream.connection().linger;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = linger;
        }
        Ok((stream, taken))
    }
}

impl TcpListener {
    /// Sets any option of SOCKETS.md; connections accepted from now on inherit it.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        match self.waiting().set(option) {
            Some(done) => done,
            None => self.listener().set_option(option).map_err(to_io),
        }
    }

    /// The value of any option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn option(&self, name: OptionName) -> io::Result<SocketOption> {
        match self.waiting().get(name) {
            Some(option) => Ok(option),
            None => self.listener().option(name).map_err(to_io),
        }
    }
}

impl UdpSocket {
    /// Sets any option of SOCKETS.md, by its POSIX name.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        match self.waiting().set(option) {
            Some(done) => done,
            None => self.socket().set_option(option).map_err(to_io),
        }
    }

    /// The value of any option.
    ///
    /// # Errors
    /// What the stack answers.
    pub fn option(&self, name: OptionName) -> io::Result<SocketOption> {
        match self.waiting().get(name) {
            Some(option) => Ok(option),
            None => self.socket().option(name).map_err(to_io),
        }
    }
}
