//! Ctrl-C and SIGTERM: the first asks for a graceful end, a second one ends at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Exit status of a command that a second signal ended, as shells write it for SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Tells when the user has asked for the end.
pub(crate) struct Stop {
    asked: Receiver<()>,
}

impl Stop {
    /// Takes the signals over from the system's defaults.
    pub(crate) fn install() -> io::Result<Stop> {
        let once = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order the first signal sets the flag, and only a second one finds it set.
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&once))?;
            flag::register(signal, Arc::clone(&once))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (tell, asked) = sync_channel(1);
        thread::Builder::new().name("signals".into()).spawn(move || {
            if signals.forever().next().is_some() {
                // Nobody may be listening any more, when the command has ended by itself.
                let _ = tell.send(());
            }
        })?;
        Ok(Stop { asked })
    }

    /// Waits for `timeout` at most; true once the end has been asked for.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        match self.asked.recv_timeout(timeout) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    #[test]
    fn the_first_signal_asks_for_the_end_and_ends_nothing() {
        let stop = Stop::install().unwrap();
        assert!(!stop.wait(Duration::from_millis(1)));
        raise(SIGTERM).unwrap();
        assert!(stop.wait(Duration::from_secs(10)));
    }
}
