//! `DestinationConfig.OnFailure`: the queue that messages go to when they are given up, by an ARN of our own form,
//! since AWS has none for queues of brokers.

use std::sync::Arc;

use esm_core::destination::Destination;
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::spec::{Member, Violation};
use crate::{
    adapters::DestinationSettings,
    config::{Broker, Engine, Targets, Unresolved},
    secrets::Secret,
};

const FORM: &str = "must be arn:aws:mq:<region>:<account>:queue:<broker>:<virtual host, percent-encoded; empty for \
                    ActiveMQ>:<queue>";

/// A queue for what is given up.
pub(super) struct OnFailure {
    broker: Arc<Broker>,
    virtual_host: Option<String>,
    queue: String,
}

impl OnFailure {
    /// The queue that an ARN names, on the broker that the mapping reads or on another.
    pub(super) fn find(arn: &str, source: &Arc<Broker>, targets: &Targets) -> Result<Self, Violation> {
        let violation = |words: String| Violation::new(Member::DestinationConfig, words);
        let parts: Vec<&str> = arn.splitn(9, ':').collect();
        let [_, _, "mq", _, _, "queue", name, virtual_host, queue] = *parts.as_slice() else {
            return Err(violation(FORM.into()));
        };
        if queue.is_empty() {
            return Err(violation(FORM.into()));
        }
        let broker = if source.name == name { Ok(source.clone()) } else { targets.broker(name) };
        let broker = broker.map_err(|why| match why {
            Unresolved::Because(_) | Unresolved::Unknown(_) => {
                violation(format!("names the broker {name:?}, and there is no such table of [brokers]"))
            }
            reported @ Unresolved::Reported(_) => Violation::unresolved(Member::DestinationConfig, reported),
        })?;
        let place: Vec<&str> = broker.arn.split(':').take(5).collect();
        if parts[..5] != *place {
            let place = place.join(":");
            return Err(violation(format!("must begin with {place}:queue:, as the ARN of the broker {name} does")));
        }
        let decoded = percent_decode_str(virtual_host).decode_utf8();
        let decoded = decoded.map_err(|_| violation("has a virtual host that is not UTF-8".into()))?;
        let virtual_host = match (broker.engine, &*decoded) {
            (Engine::Activemq, "") => None,
            (Engine::Activemq, _) => {
                return Err(violation("names a virtual host, and ActiveMQ has none; leave it empty".into()));
            }
            (Engine::Rabbitmq, "") => Some("/".to_owned()),
            (Engine::Rabbitmq, name) => Some(name.to_owned()),
        };
        Ok(Self { broker, virtual_host, queue: queue.to_owned() })
    }

    /// Why what a queue's mapping gives up cannot go there.
    pub(super) fn check(&self, broker: &Broker, virtual_host: Option<&str>, queue: &str) -> Option<Violation> {
        let is_same_place = self.broker.arn == broker.arn && self.virtual_host.as_deref() == virtual_host;
        let words = "is the queue that the mapping reads: what is given up would come again";
        (is_same_place && self.queue == queue).then(|| Violation::new(Member::DestinationConfig, words))
    }

    /// The destination for a mapping, whose login publishes.
    pub(super) fn open(&self, uuid: Uuid, secret: Arc<Secret>) -> Arc<dyn Destination> {
        (self.broker.destinations)(DestinationSettings {
            virtual_host: self.virtual_host.clone().unwrap_or_default(),
            queue: self.queue.clone(),
            credentials: secret,
            publisher: format!("{uuid}-letters"),
        })
    }
}
