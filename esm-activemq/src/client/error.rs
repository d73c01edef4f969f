//! What goes wrong between a client and a broker, told apart by what people do about it.

use std::{fmt, time::Duration};

/// An exception that the broker sent, as words: its class is compared and never acted on otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The class's name, such as `javax.jms.InvalidClientIDException`.
    pub class: String,
    /// What it says.
    pub message: String,
}

impl Exception {
    /// The class without its package: ActiveMQ 6 says `jakarta.jms` where 5 says `javax.jms`.
    pub fn simple_name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.simple_name();
        if self.message.is_empty() { f.write_str(name) } else { write!(f, "{} ({name})", self.message) }
    }
}

/// Why there is no connection, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there, or the way there is broken.
    #[error("{words}")]
    Unreachable {
        /// The system's words.
        words: String,
    },
    /// No trust between us and the broker.
    #[error("{words}")]
    Tls {
        /// The TLS library's words.
        words: String,
    },
    /// It accepts connections and says nothing.
    #[error("it accepted the connection and said nothing within {} s, as a standby or a proxy does", .0.as_secs())]
    Mute(Duration),
    /// It accepted the connection and closed it without a word.
    #[error("it accepted the connection and closed it without a word; it may have reached its connection limit")]
    ClosedWithoutAWord,
    /// What is there speaks something else.
    #[error("it does not speak OpenWire there ({words}); check the port, and whether it is tcp or ssl")]
    NotOpenWire {
        /// What was seen.
        words: String,
    },
    /// It speaks a version that is too old.
    #[error("it speaks OpenWire version {theirs}, and esm needs 10 or newer (ActiveMQ 5.9 or newer)")]
    VersionTooOld {
        /// The peer's version.
        theirs: i32,
    },
    /// It refused a command.
    #[error("{0}")]
    Refused(Exception),
    /// It did not answer a command.
    #[error("it did not answer {command} within {} s", .limit.as_secs())]
    NoAnswer {
        /// The command's name.
        command: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// What was to be sent does not fit into the protocol.
    #[error("{command} cannot be sent: {words}")]
    Unsendable {
        /// The command's name.
        command: &'static str,
        /// What does not fit.
        words: String,
    },
    /// It fell silent.
    #[error("nothing was heard of it for {} s", .0.as_secs())]
    SilentPeer(Duration),
    /// It takes nothing any more.
    #[error("it took nothing of what was sent for {} s", .0.as_secs())]
    Stalled(Duration),
    /// It is going down, or asks us to leave.
    #[error("{words}")]
    Stopping {
        /// What it said.
        words: String,
    },
    /// It closed the connection, or the way there broke.
    #[error("{words}")]
    Lost {
        /// The system's words.
        words: String,
    },
    /// It announced a frame that is larger than any may be.
    #[error("it announced a {command} of {bytes} bytes, and at most {limit} are read")]
    FrameTooLarge {
        /// The command's name.
        command: &'static str,
        /// What it announced.
        bytes: u64,
        /// What is allowed.
        limit: usize,
    },
    /// It sent what cannot be understood.
    #[error("it sent what is no OpenWire: {words}")]
    Protocol {
        /// What was wrong.
        words: String,
    },
    /// It ended the consumer.
    #[error("it closed the consumer, as its policy for slow consumers does")]
    ConsumerClosed,
    /// It refused an acknowledgement that nobody waited for.
    #[error("it refused an acknowledgement: {0}")]
    AckRefused(Exception),
    /// We ended the connection ourselves.
    #[error("the connection was closed")]
    Closed,
}
