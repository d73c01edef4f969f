//! What the adapter is told, as types that can only be built valid.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use esm_core::{credentials::Credentials, destination::Destination};
use url::{Host, Url};

/// One address of a broker: `amqp://host[:5672]` or `amqps://host[:5671]`, perhaps with the
/// parameters `heartbeat` (seconds) and `frame_max` (bytes) of RabbitMQ's URIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) heartbeat: Option<u16>,
    pub(crate) frame_max: Option<u32>,
}

/// The smallest frame that AMQP allows, and the largest that memory for 64 of them is given to.
const FRAME_MAX: RangeInclusive<u32> = 4_096..=1024 * 1024;

/// Why a text is no endpoint. Never repeats the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not of the form.
    #[error("must be amqp://host:port or amqps://host:port")]
    Malformed,
    /// Holds a login.
    #[error("must not hold a user name or password: name a secret in the mapping instead")]
    Login,
    /// Holds a virtual host.
    #[error("must not hold a path: name the virtual host in the mapping instead")]
    Path,
    /// Holds a parameter that is unknown, or out of range.
    #[error("may have no parameters but heartbeat, in seconds from 1 on, and frame_max, in bytes from 4096 to 1048576")]
    Parameter,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text).map_err(|_| EndpointError::Malformed)?;
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(EndpointError::Malformed),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Login);
        }
        if !matches!(url.path(), "" | "/") {
            return Err(EndpointError::Path);
        }
        let host = match url.host().ok_or(EndpointError::Malformed)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let (mut heartbeat, mut frame_max) = (None, None);
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "heartbeat" => heartbeat = Some(number_in(1..=u16::MAX, &value)?),
                "frame_max" => frame_max = Some(number_in(FRAME_MAX, &value)?),
                _ => return Err(EndpointError::Parameter),
            }
        }
        let port = url.port().unwrap_or(if tls { 5671 } else { 5672 });
        Ok(Self { tls, host, port, heartbeat, frame_max })
    }
}

fn number_in<N: FromStr + PartialOrd>(range: RangeInclusive<N>, text: &str) -> Result<N, EndpointError> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or(EndpointError::Parameter)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

/// How often the quorum queues of a broker take a message back before they drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryLimit {
    /// As its version does by itself.
    ByVersion,
    /// As somebody has set it.
    Times(u32),
    /// As often as it comes.
    Never,
}

/// What one mapping reads, and how it is shown to its function.
#[derive(Clone)]
pub struct Settings {
    /// The virtual host, as RabbitMQ spells it (`/`, not `%2F`).
    pub virtual_host: String,
    /// The queue.
    pub queue: String,
    /// Who reads it.
    pub credentials: Arc<dyn Credentials>,
    /// Identifies the consumer at the broker: the mapping's UUID.
    pub consumer_tag: String,
    /// `eventSourceArn` of the event.
    pub event_source_arn: String,
    /// `deliveryMode`, `priority` and `headers` are never null, for consumers that cannot read that.
    pub strict_consumers: bool,
    /// The bytes of long strings and byte arrays are 0 to 255, not -128 to 127.
    pub unsigned_header_bytes: bool,
    /// Records carry `itemIdentifier`.
    pub item_identifiers: bool,
    /// Where messages go that are given up.
    pub destination: Option<Arc<dyn Destination>>,
    /// How often its quorum queues take a message back.
    pub delivery_limit: DeliveryLimit,
    /// The broker's `consumer_timeout`, if it has one: more than [`esm_core::source::HOLD_MARGIN`].
    pub consumer_timeout: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, EndpointError>) {
        let parsed = text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn endpoints_have_a_scheme_a_host_and_a_port() {
        check("amqp://localhost", Ok("amqp://localhost:5672"));
        check("amqps://b-1.mq.example:5671", Ok("amqps://b-1.mq.example:5671"));
        check("amqps://broker", Ok("amqps://broker:5671"));
        check("amqp://[::1]:5673/", Ok("amqp://[::1]:5673"));
        check("amqp://h?heartbeat=5", Ok("amqp://h:5672"));
        check("localhost:5672", Err(EndpointError::Malformed));
        check("http://localhost", Err(EndpointError::Malformed));
        check("amqp://", Err(EndpointError::Malformed));
        check("amqp://h:99999", Err(EndpointError::Malformed));
        check("amqp://user:secret@h", Err(EndpointError::Login));
        check("amqp://h/vhost", Err(EndpointError::Path));
        check("amqp://h?heartbeat=soon", Err(EndpointError::Parameter));
        check("amqp://h?heartbeat=0", Err(EndpointError::Parameter));
        check("amqp://h?frame_max=262144&heartbeat=5", Ok("amqp://h:5672"));
        check("amqp://h?heartbeat=5&frame_max=0", Err(EndpointError::Parameter));
        check("amqp://h?frame_max=0", Err(EndpointError::Parameter));
        check("amqp://h?channel_max=1", Err(EndpointError::Parameter));
    }
}
