//! Ctrl-C and SIGTERM, as something that can be waited for.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::failure::{Exit, Failure, Result};
use crate::output;

/// How often one who waits for input looks whether there was a signal.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Tells of the first Ctrl-C or SIGTERM.
pub(crate) struct Interrupt(Receiver<()>);

impl Interrupt {
    /// From now on, the first signal is told here, and what is to happen at the second one is
    /// `at_second` and the end of the process. Once a process.
    pub(crate) fn listen(mut at_second: impl FnMut() + Send + 'static) -> Result<Self> {
        let (sender, receiver) = channel();
        let mut is_second = false;
        ctrlc::set_handler(move || {
            if std::mem::replace(&mut is_second, true) {
                at_second();
                std::process::exit(Exit::Interrupted as i32);
            }
            let _ = sender.send(());
        })
        .map_err(|e| Failure::error(format!("cannot handle signals: {e}")))?;
        Ok(Self(receiver))
    }

    /// Waits until there is something to read, or its end: true; false if it comes first.
    pub(crate) fn may_read(&self, input: impl AsFd) -> bool {
        loop {
            if self.wait(Duration::ZERO) {
                return false;
            }
            if output::wait_for_input(&input, LOOK_INTERVAL) {
                return true;
            }
        }
    }

    /// Waits for it: true; or for so long: false.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        match self.0.recv_timeout(timeout) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the handler is kept for ever"),
        }
    }
}
