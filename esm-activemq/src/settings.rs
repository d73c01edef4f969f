//! What the adapter is told, as types that can only be built valid.

use std::{str::FromStr, sync::Arc};

use esm_core::destination::Destination;

use crate::{client::Login, record::EventProfile};

/// What one mapping reads, and how it is shown to its function.
#[derive(Clone)]
pub struct Settings {
    /// The queue, and how it is consumed.
    pub queue: Queue,
    /// Who reads it.
    pub login: Login,
    /// The client id at the broker begins with it: the mapping's UUID.
    pub client_id: String,
    /// `eventSourceArn` of the event.
    pub event_source_arn: String,
    /// The spelling of the event.
    pub profile: EventProfile,
    /// Records carry `itemIdentifier`.
    pub item_identifiers: bool,
    /// Where messages go that are given up.
    pub destination: Option<Arc<dyn Destination>>,
    /// Where our own dead letters go: those that the broker would drop.
    pub dead_letter_queue: String,
}

/// A queue as `Queues` names it: `name`, or `name?consumer.selector=…&consumer.exclusive=true&consumer.priority=5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The physical name.
    pub name: String,
    /// An SQL-92 condition on headers and properties.
    pub selector: Option<String>,
    /// Whether the broker lets one consumer at a time have the queue.
    pub exclusive: bool,
    /// Consumers with a higher priority are served first.
    pub priority: i8,
}

/// Why a text names no queue that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Nothing, or only options.
    #[error("names no queue")]
    Empty,
    /// A topic.
    #[error(
        "is no queue; read a topic through a virtual topic's queue, such as Consumer.NAME.VirtualTopic.TOPIC, or through a durable queue that the broker forwards to"
    )]
    Topic,
    /// Several destinations.
    #[error("names several destinations; make a mapping for each of them")]
    Composite,
    /// A pattern.
    #[error(
        "is a pattern for several queues; make a mapping for each of them, since copies of one message on two queues cannot be told apart by one consumer"
    )]
    Wildcard,
    /// An option that is unknown.
    #[error(
        "may have no options but consumer.selector, consumer.exclusive and consumer.priority (0 to 127); the prefetch follows from batch_size and concurrency"
    )]
    Option,
}

impl FromStr for Queue {
    type Err = QueueError;

    fn from_str(text: &str) -> Result<Self, QueueError> {
        let (name, options) = text.split_once('?').unwrap_or((text, ""));
        let name = name.strip_prefix("queue://").unwrap_or(name);
        if ["topic://", "temp-queue://", "temp-topic://"].iter().any(|prefix| name.starts_with(prefix)) {
            return Err(QueueError::Topic);
        }
        // The broker itself takes the comma for a separator, whatever stands around it.
        if name.contains(',') {
            return Err(QueueError::Composite);
        }
        if name.split('.').any(|part| matches!(part, "*" | ">")) {
            return Err(QueueError::Wildcard);
        }
        if name.trim().is_empty() {
            return Err(QueueError::Empty);
        }
        let mut queue = Self { name: name.to_owned(), selector: None, exclusive: false, priority: 0 };
        for (name, value) in url::form_urlencoded::parse(options.as_bytes()) {
            match name.as_ref() {
                "consumer.selector" if !value.is_empty() => queue.selector = Some(value.into_owned()),
                "consumer.exclusive" => queue.exclusive = value.parse().map_err(|_| QueueError::Option)?,
                "consumer.priority" => {
                    let priority = value.parse().ok().filter(|priority| *priority >= 0);
                    queue.priority = priority.ok_or(QueueError::Option)?;
                }
                _ => return Err(QueueError::Option),
            }
        }
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, Option<&str>, bool, i8), QueueError>) {
        let queue = expected.map(|(name, selector, exclusive, priority)| Queue {
            name: name.into(),
            selector: selector.map(str::to_owned),
            exclusive,
            priority,
        });
        assert_eq!(text.parse(), queue, "{text}");
    }

    #[test]
    fn a_queue_is_a_name_and_perhaps_options_of_its_consumer() {
        check("orders", Ok(("orders", None, false, 0)));
        check("queue://orders", Ok(("orders", None, false, 0)));
        check("Consumer.esm.VirtualTopic.orders", Ok(("Consumer.esm.VirtualTopic.orders", None, false, 0)));
        check(
            "orders?consumer.exclusive=true&consumer.priority=7&consumer.selector=color%20%3D%20%27red%27",
            Ok(("orders", Some("color = 'red'"), true, 7)),
        );
    }

    #[test]
    fn what_is_no_single_queue_is_refused_with_the_way_out() {
        check("", Err(QueueError::Empty));
        check("?consumer.priority=1", Err(QueueError::Empty));
        check("topic://news", Err(QueueError::Topic));
        check("temp-queue://x", Err(QueueError::Topic));
        check("a,b", Err(QueueError::Composite));
        check("queue://a,topic://b", Err(QueueError::Composite));
        check("orders.>", Err(QueueError::Wildcard));
        check("orders.*.new", Err(QueueError::Wildcard));
        check(">", Err(QueueError::Wildcard));
        check("a?consumer.prefetchSize=10", Err(QueueError::Option));
        check("a?consumer.priority=-1", Err(QueueError::Option));
        check("a?consumer.exclusive=yes", Err(QueueError::Option));
    }
}
