//! The client's errors become causes that people can act on, with the broker's words kept.

use esm_core::source::SourceError;
use lapin::{
    ErrorKind,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

/// Where something happened.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The broker's name and the endpoint.
    pub(crate) broker: String,
    pub(crate) virtual_host: String,
    pub(crate) queue: String,
}

impl Place {
    pub(crate) fn explain(&self, error: &lapin::Error) -> SourceError {
        let broker = self.broker.clone();
        match error.kind() {
            ErrorKind::ProtocolError(error) => self.explain_amqp(error),
            ErrorKind::MissingHeartbeatError => {
                SourceError::HeartbeatLost { broker, words: "no heartbeat for two intervals".into() }
            }
            ErrorKind::IOError(cause) => SourceError::ConnectionLost { broker, words: cause.to_string() },
            ErrorKind::InvalidChannel(_)
            | ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidConnectionState(_) => {
                SourceError::ConnectionLost { broker, words: "it is closed".into() }
            }
            ErrorKind::ParsingError(cause) => SourceError::Unreadable {
                broker,
                queue: self.queue.clone(),
                words: format!(
                    "a property or a header's name may not be UTF-8; if this comes again and again, take the first \
                     message off the queue ({cause})"
                ),
            },
            other => SourceError::Protocol { broker, words: lapin::Error::from(other.clone()).to_string() },
        }
    }

    fn explain_amqp(&self, error: &AMQPError) -> SourceError {
        let words = error.get_message().to_string();
        let Self { broker, virtual_host, queue } = self.clone();
        match error.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if words.contains("Login was refused") => {
                SourceError::Authentication { broker, words }
            }
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if words.contains("exclusive use") => {
                SourceError::QueueUnsuitable { broker, queue, words }
            }
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                SourceError::Authorization { broker, what: format!("reading queue `{queue}`"), words }
            }
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => SourceError::QueueMissing { broker, queue, words },
            AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => SourceError::QueueUnsuitable { broker, queue, words },
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) if words.contains("timed out") => {
                SourceError::HeldTooLong { broker, queue, words }
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if words.contains("not found") => {
                SourceError::VirtualHostMissing { broker, virtual_host, words }
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if words.contains("access to vhost") => {
                SourceError::Authorization { broker, what: format!("access to virtual host `{virtual_host}`"), words }
            }
            AMQPErrorKind::Hard(
                AMQPHardError::CONNECTIONFORCED
                | AMQPHardError::NOTALLOWED
                | AMQPHardError::INTERNALERROR
                | AMQPHardError::RESOURCEERROR,
            ) => SourceError::ClosedByBroker { broker, words },
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => SourceError::Protocol { broker, words },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: impl Into<AMQPErrorKind>, words: &str, expected: fn(&SourceError) -> bool) {
        let place = Place { broker: "b".into(), virtual_host: "/".into(), queue: "q".into() };
        let error = lapin::Error::from(ErrorKind::ProtocolError(AMQPError::new(kind.into(), words.into())));
        let explained = place.explain(&error);
        assert!(expected(&explained), "{words} became {explained:?}");
        assert!(explained.to_string().contains(words), "the broker's words are kept: {explained}");
    }

    #[test]
    fn the_brokers_words_tell_causes_apart() {
        use AMQPHardError::{CONNECTIONFORCED, NOTALLOWED};
        use AMQPSoftError::{ACCESSREFUSED, NOTFOUND, PRECONDITIONFAILED, RESOURCELOCKED};
        check(ACCESSREFUSED, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN", |error| {
            matches!(error, SourceError::Authentication { .. })
        });
        check(ACCESSREFUSED, "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'u'", |error| {
            matches!(error, SourceError::Authorization { .. })
        });
        check(ACCESSREFUSED, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", |error| {
            matches!(error, SourceError::QueueUnsuitable { .. })
        });
        check(NOTFOUND, "NOT_FOUND - no queue 'q' in vhost '/'", |error| {
            matches!(error, SourceError::QueueMissing { .. })
        });
        check(RESOURCELOCKED, "RESOURCE_LOCKED - cannot obtain exclusive access", |error| {
            matches!(error, SourceError::QueueUnsuitable { .. })
        });
        check(
            PRECONDITIONFAILED,
            "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1000 ms.",
            |error| matches!(error, SourceError::HeldTooLong { .. }),
        );
        check(NOTALLOWED, "NOT_ALLOWED - vhost nowhere not found", |error| {
            matches!(error, SourceError::VirtualHostMissing { .. })
        });
        check(NOTALLOWED, "NOT_ALLOWED - access to vhost '/' refused for user 'u'", |error| {
            matches!(error, SourceError::Authorization { .. })
        });
        check(CONNECTIONFORCED, "CONNECTION_FORCED - Closed via management plugin", |error| {
            matches!(error, SourceError::ClosedByBroker { .. })
        });
    }
}
