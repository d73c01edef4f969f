//! Where a broker listens: `tcp://host[:61616]`, `ssl://host[:61617]`, or several of them as
//! `failover:(…)`, as ActiveMQ's clients write it.

use std::{fmt, str::FromStr, time::Duration};

use url::{Host, Url};

/// One address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// How long the peer may be silent (`wireFormat.maxInactivityDuration`).
    pub(crate) max_inactivity: Option<Duration>,
}

/// What one text of a configuration names: an endpoint, or several that stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// In the order in which they were written.
    pub endpoints: Vec<Endpoint>,
    /// They are tried in an order left to chance (`randomize`, which is the default of `failover:`).
    pub randomize: bool,
    /// The broker may name other endpoints, and ask to go there (`updateURIsSupported`). Not by default: who
    /// answers at an endpoint could send the login elsewhere.
    pub update_uris: bool,
}

/// Why a text is no address. Never repeats the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form.
    #[error("must be tcp://host:port, ssl://host:port or failover:(…,…)")]
    Malformed,
    /// Holds a login.
    #[error("must not hold a user name or password: name a secret in the mapping instead")]
    Login,
    /// Holds a path.
    #[error("must not hold a path: name the queue in the mapping instead")]
    Path,
    /// Holds an option of an endpoint that is unknown, or out of range.
    #[error("may have no option but wireFormat.maxInactivityDuration, in milliseconds from 1000 to 3600000")]
    EndpointOption,
    /// Holds an option of `failover:` that is unknown.
    #[error(
        "failover: may have no options but randomize and updateURIsSupported, each true or false; esm reconnects for as long as it takes, after 0.5 s doubling to 30 s"
    )]
    FailoverOption,
}

/// A shorter time would be used up by a pause of the broker's garbage collector.
const MAX_INACTIVITY_MILLISECONDS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

impl Endpoint {
    /// Whether both lead to the same place, whatever their options.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|_| AddressError::Malformed)?;
        let tls = match url.scheme() {
            "tcp" => false,
            "ssl" => true,
            _ => return Err(AddressError::Malformed),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Login);
        }
        if !matches!(url.path(), "" | "/") {
            return Err(AddressError::Path);
        }
        // Of a scheme that `url` does not know, it leaves an IPv4 address a name, which does no harm.
        let host = match url.host().ok_or(AddressError::Malformed)? {
            Host::Domain("") => return Err(AddressError::Malformed),
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let mut max_inactivity = None;
        for (name, value) in url.query_pairs() {
            let milliseconds = value.parse().ok().filter(|value| MAX_INACTIVITY_MILLISECONDS.contains(value));
            match (name.as_ref(), milliseconds) {
                ("wireFormat.maxInactivityDuration", Some(milliseconds)) => {
                    max_inactivity = Some(Duration::from_millis(milliseconds));
                }
                _ => return Err(AddressError::EndpointOption),
            }
        }
        let port = url.port().unwrap_or(if tls { 61_617 } else { 61_616 });
        Ok(Self { tls, host, port, max_inactivity })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "ssl" } else { "tcp" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(failover) = text.strip_prefix("failover:") else {
            return Ok(Self { endpoints: vec![text.parse()?], randomize: false, update_uris: false });
        };
        let failover = failover.strip_prefix("//").unwrap_or(failover);
        let (list, options) = match failover.strip_prefix('(') {
            Some(rest) => rest.split_once(')').ok_or(AddressError::Malformed)?,
            None => (failover, ""),
        };
        let endpoints: Result<Vec<_>, _> = list.split(',').map(|endpoint| endpoint.trim().parse()).collect();
        let mut address = Self { endpoints: endpoints?, randomize: true, update_uris: false };
        let options = match options.strip_prefix('?') {
            Some(options) => options,
            None if options.is_empty() => options,
            None => return Err(AddressError::Malformed),
        };
        for (name, value) in url::form_urlencoded::parse(options.as_bytes()) {
            let option = match name.as_ref() {
                "randomize" => &mut address.randomize,
                "updateURIsSupported" => &mut address.update_uris,
                _ => return Err(AddressError::FailoverOption),
            };
            *option = value.parse().map_err(|_| AddressError::FailoverOption)?;
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], AddressError>) {
        let parsed = text.parse::<Address>();
        let endpoints = parsed.map(|address| address.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>());
        assert_eq!(endpoints, expected.map(|list| list.iter().map(|text| (*text).to_owned()).collect()), "{text}");
    }

    #[test]
    fn an_address_is_one_endpoint_or_several_that_stand_in_for_each_other() {
        check("tcp://localhost", Ok(&["tcp://localhost:61616"]));
        check("tcp://127.0.0.1:61616", Ok(&["tcp://127.0.0.1:61616"]));
        check("ssl://b-1.mq.example", Ok(&["ssl://b-1.mq.example:61617"]));
        check("tcp://[::1]:61616", Ok(&["tcp://[::1]:61616"]));
        check("tcp://h?wireFormat.maxInactivityDuration=3000", Ok(&["tcp://h:61616"]));
        check("failover:(tcp://a:1,ssl://b:2)", Ok(&["tcp://a:1", "ssl://b:2"]));
        check("failover://(tcp://a:1, tcp://b:2)?randomize=false", Ok(&["tcp://a:1", "tcp://b:2"]));
        check("failover:tcp://a:1", Ok(&["tcp://a:1"]));
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        for text in ["localhost:61616", "amqp://h", "tcp://", "tcp://h:99999", "failover:(tcp://a", "failover:()"] {
            check(text, Err(AddressError::Malformed));
        }
        check("tcp://user:secret@h", Err(AddressError::Login));
        check("tcp://h/queue", Err(AddressError::Path));
        check("tcp://h?wireFormat.cacheSize=50", Err(AddressError::EndpointOption));
        check("tcp://h?wireFormat.maxInactivityDuration=0", Err(AddressError::EndpointOption));
        check("failover:(tcp://a)?maxReconnectAttempts=3", Err(AddressError::FailoverOption));
        check("failover:(tcp://a)?randomize=perhaps", Err(AddressError::FailoverOption));
        check("failover:(tcp://a)randomize=false", Err(AddressError::Malformed));
    }

    #[test]
    fn failover_shuffles_unless_told_otherwise_and_follows_the_broker_only_if_told_to() {
        let options = |text: &str| {
            let address: Address = text.parse().unwrap();
            (address.randomize, address.update_uris)
        };
        assert_eq!(options("tcp://a"), (false, false));
        assert_eq!(options("failover:(tcp://a,tcp://b)"), (true, false));
        assert_eq!(options("failover:(tcp://a)?randomize=false&updateURIsSupported=true"), (false, true));
    }
}
