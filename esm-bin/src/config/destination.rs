//! `destination_config`: the queue that messages go to when they are given up, by an ARN of our own form, since AWS has
//! none for queues of brokers.

use std::sync::Arc;

use esm_core::destination::Destination;
use percent_encoding::percent_decode_str;

use super::{
    broker::{Broker, Engine},
    entry::Entry,
    mapping::Route,
    problem::Reported,
    targets::Targets,
};
use crate::adapters::DestinationSettings;

const FORM: &str = "must be arn:aws:mq:<region>:<account>:queue:<broker>:<virtual host, percent-encoded; empty for \
                    ActiveMQ>:<queue>";

/// A queue for what is given up.
pub(super) struct OnFailure<'a> {
    pub(super) arn: String,
    broker: Arc<Broker>,
    virtual_host: Option<String>,
    queue: String,
    entry: Entry<'a>,
}

/// None if nothing is named, as clients of AWS send it.
pub(super) fn read<'a>(entry: &Entry<'a>, targets: &Targets) -> Result<Option<OnFailure<'a>>, Reported> {
    entry.table(|table| {
        let on_failure = table.optional("on_failure", |entry| {
            entry.table(|table| table.optional("destination", |entry| on_failure(entry, targets)))
        });
        Ok(on_failure?.flatten())
    })
}

fn on_failure<'a>(entry: &Entry<'a>, targets: &Targets) -> Result<OnFailure<'a>, Reported> {
    let arn = entry.text()?;
    let parts: Vec<&str> = arn.splitn(9, ':').collect();
    let [_, _, "mq", _, _, "queue", name, virtual_host, queue] = *parts.as_slice() else {
        return Err(entry.report(FORM));
    };
    if queue.is_empty() {
        return Err(entry.report(FORM));
    }
    let broker = targets.brokers.get(name).cloned().unwrap_or_else(|| {
        Err(entry.report(format_args!("names the broker {name:?}, and there is no such table of [brokers]")))
    })?;
    let place: Vec<&str> = broker.arn.split(':').take(5).collect();
    if parts[..5] != *place {
        let place = place.join(":");
        return Err(entry.report(format_args!("must begin with {place}:queue:, as the ARN of the broker {name} does")));
    }
    let decoded = percent_decode_str(virtual_host).decode_utf8();
    let virtual_host = decoded.map_err(|_| entry.report("has a virtual host that is not UTF-8"))?.into_owned();
    let virtual_host = match (broker.engine, virtual_host.as_str()) {
        (Engine::Activemq, "") => None,
        (Engine::Activemq, _) => {
            return Err(entry.report("names a virtual host, and ActiveMQ has none; leave it empty"));
        }
        (Engine::Rabbitmq, "") => Some("/".to_owned()),
        (Engine::Rabbitmq, _) => Some(virtual_host),
    };
    let queue = queue.to_owned();
    Ok(OnFailure { arn, broker, virtual_host, queue, entry: entry.clone() })
}

impl OnFailure<'_> {
    /// The destination for a mapping, whose login publishes.
    pub(super) fn open(&self, route: &Route<'_>) -> Result<Arc<dyn Destination>, Reported> {
        let Self { broker, virtual_host, queue, entry, .. } = self;
        if broker.engine != route.broker.engine {
            return Err(entry.report("must be a queue of a broker of the same kind, since messages keep their form"));
        }
        let is_same_place = broker.name == route.broker.name && *virtual_host == route.virtual_host;
        if is_same_place && *queue == route.queue {
            return Err(entry.report("is the queue that the mapping reads: what is given up would come again"));
        }
        Ok((broker.destinations)(DestinationSettings {
            virtual_host: virtual_host.clone().unwrap_or_default(),
            queue: queue.clone(),
            login: route.login.as_ref().clone(),
            publisher: format!("{}-letters", route.uuid),
        }))
    }
}
