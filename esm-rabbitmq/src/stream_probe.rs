//! Tells streams from other queues.

use std::{sync::Arc, time::Duration};

use esm_core::source::SourceError;
use lapin::{
    Channel, ErrorKind,
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

use crate::{
    connections::{Connections, Login},
    errors::Place,
};

/// A header that a stream puts into each of its deliveries, and a condition that only a stream can be read by.
const OFFSET: &str = "x-stream-offset";
/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// Asks the broker what one queue is.
pub(crate) struct StreamProbe {
    pub(crate) connections: Arc<Connections>,
    pub(crate) login: Login,
    pub(crate) place: Place,
}

impl StreamProbe {
    /// Whether the queue whose first delivery this is is a stream. Where the header is missing it is none; where it is
    /// not, the sender may have put it there, or a shovel that reads a stream, so the broker is asked.
    pub(crate) async fn is_stream(&self, first: &Delivery) -> Result<bool, SourceError> {
        let headers = first.properties.headers().as_ref();
        if !headers.is_some_and(|headers| matches!(headers.inner().get(OFFSET), Some(AMQPValue::LongLongInt(_)))) {
            return Ok(false);
        }
        let (connection, channel) = self.connections.channel(&self.login, false).await?;
        let asked = timeout(ANSWER, self.can_be_read_from_an_offset(&channel)).await;
        drop(channel);
        self.connections.release(&connection, GOODBYE).await;
        asked.unwrap_or_else(|_| {
            let words = format!("it did not tell within {} s whether the queue is a stream", ANSWER.as_secs());
            Err(SourceError::Protocol { broker: self.place.broker.clone(), words })
        })
    }

    /// A stream lends nothing by that but what comes after; another queue refuses it, from RabbitMQ 3.10 on.
    async fn can_be_read_from_an_offset(&self, channel: &Channel) -> Result<bool, SourceError> {
        let explain = |error: lapin::Error| self.place.explain(&error);
        channel.basic_qos(1, BasicQosOptions { global: false }).await.map_err(explain)?;
        let mut arguments = FieldTable::default();
        arguments.insert(OFFSET.into(), AMQPValue::LongString("next".into()));
        let queue = self.place.queue.as_str().into();
        match channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), arguments).await {
            Ok(_) => Ok(true),
            Err(error) if is_refused_condition(&error) => Ok(false),
            Err(error) => Err(explain(error)),
        }
    }
}

fn is_refused_condition(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
        && error.get_message().to_string().contains(OFFSET)
}

#[cfg(test)]
mod tests {
    use amqprs::{BasicProperties, FieldValue};
    use futures_util::StreamExt;

    use super::*;
    use crate::testing::TestBroker;

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn only_a_stream_is_one_whatever_headers_a_message_has() {
        let broker = TestBroker::shared();
        let virtual_host = broker.virtual_host("stream probe").await;
        let connections = Connections::new("pizza".into(), vec![broker.url.parse().unwrap()], None).unwrap();
        let login = Login { virtual_host: virtual_host.clone(), username: "guest".into(), password: "guest".into() };
        let mut publisher = broker.publisher(&virtual_host).await;
        for (queue, is_stream) in [("classic", false), ("quorum", false), ("stream", true)] {
            publisher.declare(queue, queue).await;
            let (connection, channel) = connections.channel(&login, false).await.unwrap();
            channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
            let consumer =
                channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
            let mut deliveries = consumer.await.unwrap();
            let mut headers = amqprs::FieldTable::new();
            headers.insert(OFFSET.try_into().unwrap(), FieldValue::l(0));
            let properties = BasicProperties::default().with_headers(headers).finish();
            publisher.publish_messages(queue, [(properties, b"body".to_vec())]).await;

            let first = deliveries.next().await.unwrap().unwrap();
            let place = Place { queue: queue.into(), ..connection.place.clone() };
            let probe = StreamProbe { connections: connections.clone(), login: login.clone(), place };
            assert_eq!(probe.is_stream(&first).await, Ok(is_stream), "{queue}");
            let (_, other) = connections.channel(&login, false).await.unwrap();
            assert!(channel.status().connected() && other.status().connected());
        }
    }
}
