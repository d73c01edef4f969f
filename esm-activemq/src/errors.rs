//! The broker's words become causes that people act on differently.

use esm_core::source::SourceError;

use crate::client::{ClientError, Exception};

/// Where something went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Name and endpoint.
    pub(crate) broker: String,
    /// The queue.
    pub(crate) queue: String,
}

impl Place {
    /// What a client's error means to a mapping.
    pub(crate) fn explain(&self, error: &ClientError) -> SourceError {
        let broker = self.broker.clone();
        let words = error.to_string();
        match error {
            ClientError::Unreachable { .. } => SourceError::Unreachable { broker, words },
            ClientError::Tls { .. } => SourceError::Tls { broker, words },
            ClientError::Mute(_) => SourceError::Standby { broker, words },
            ClientError::ClosedWithoutAWord => SourceError::ConnectionLimit { broker, words },
            ClientError::Refused(exception) => self.explain_refusal(exception),
            ClientError::SilentPeer(_) | ClientError::Stalled(_) => SourceError::HeartbeatLost { broker, words },
            ClientError::Stopping { .. } => SourceError::BrokerStopping { broker, words },
            ClientError::Lost { .. } | ClientError::Closed => SourceError::ConnectionLost { broker, words },
            ClientError::FrameTooLarge { .. } => SourceError::FrameTooLarge { broker, words },
            ClientError::ConsumerClosed => SourceError::ConsumerCancelled { broker, queue: self.queue.clone(), words },
            ClientError::AckRefused(_) => SourceError::AckRefused { broker, queue: self.queue.clone(), words },
            ClientError::NotOpenWire { .. }
            | ClientError::Unsendable { .. }
            | ClientError::VersionTooOld { .. }
            | ClientError::NoAnswer { .. }
            | ClientError::Protocol { .. } => SourceError::Protocol { broker, words },
        }
    }

    fn explain_refusal(&self, exception: &Exception) -> SourceError {
        let (broker, queue) = (self.broker.clone(), self.queue.clone());
        let (name, message) = (exception.simple_name(), exception.message.as_str());
        let words = exception.to_string();
        match name {
            // One class for both; only the words tell who is not let in from who may not do something.
            "SecurityException" | "JMSSecurityException" if message.contains("not authorized to create") => {
                SourceError::QueueMissing { broker, queue, words }
            }
            "SecurityException" | "JMSSecurityException" if message.contains("authorized") => {
                let what = format!("to read queue `{queue}`");
                SourceError::Authorization { broker, what, words }
            }
            "SecurityException" | "JMSSecurityException" => SourceError::Authentication { broker, words },
            "InvalidClientIDException" => SourceError::ClientIdInUse { broker, words },
            "InvalidSelectorException" | "InvalidDestinationException" => {
                SourceError::QueueUnsuitable { broker, queue, words }
            }
            "BrokerStoppedException" => SourceError::BrokerStopping { broker, words },
            _ if message.contains("at maximum limit") || message.contains("maximum number of connections") => {
                SourceError::ConnectionLimit { broker, words }
            }
            _ if message.contains("Unmatched acknowledge") || message.contains("Could not correlate") => {
                SourceError::AckRefused { broker, queue, words }
            }
            _ => SourceError::Protocol { broker, words },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(class: &str, message: &str, expected: Option<&str>) -> SourceError {
        let place = Place { broker: "pizza at tcp://h:1".into(), queue: "q".into() };
        let exception = Exception { class: class.into(), message: message.into() };
        let error = place.explain(&ClientError::Refused(exception));
        assert_eq!(error.code(), expected, "{error}");
        assert!(error.to_string().contains(message), "the broker's own words are kept: {error}");
        error
    }

    #[test]
    fn refusals_are_told_apart_by_class_and_words_whatever_the_package() {
        for package in ["java.lang", "javax.jms", "jakarta.jms"] {
            let class = format!("{package}.SecurityException");
            check(&class, "User name [joe] or password is invalid.", Some("EVENT_SOURCE_AUTHN_ERROR"));
            check(&class, "User joe is not authorized to read from: queue://q", Some("EVENT_SOURCE_AUTHZ_ERROR"));
            check(&class, "User joe is not authorized to create: queue://q", Some("ESM_CONFIG_NOT_VALID"));
        }
        let taken = "Broker: auth - Client: c already connected from tcp://127.0.0.1:1";
        let error = check("jakarta.jms.InvalidClientIDException", taken, None);
        assert!(matches!(error, SourceError::ClientIdInUse { .. }));
        check("javax.jms.InvalidSelectorException", "color = ", Some("ESM_CONFIG_NOT_VALID"));
        let error = check("javax.jms.JMSException", "Unmatched acknowledge: MessageAck {…}", None);
        assert!(matches!(error, SourceError::AckRefused { .. }));
        let error = check("java.lang.IllegalStateException", "Can't add consumer: at maximum limit: 2", None);
        assert!(matches!(error, SourceError::ConnectionLimit { .. }));
    }
}
