//! The signals that ask the process to end, or to read its configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM, SIGINT and SIGHUP, from its making on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// What is asked for next. May be dropped half-way.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End { signal: "SIGTERM", number: 15 },
            _ = self.interrupt.recv() => Asked::End { signal: "SIGINT", number: 2 },
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// The next one's name and number that asks for the end. May be dropped half-way.
    pub(crate) async fn end(&mut self) -> (&'static str, u8) {
        loop {
            if let Asked::End { signal, number } = self.next().await {
                return (signal, number);
            }
        }
    }
}

/// What a signal asks for.
pub(crate) enum Asked {
    End { signal: &'static str, number: u8 },
    Reload,
}
