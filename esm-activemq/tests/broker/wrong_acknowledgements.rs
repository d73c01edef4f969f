//! What the broker makes of acknowledgements that do not fit, which the adapter's own never are.

use std::{sync::Arc, time::Duration};

use esm_activemq::{
    client::{
        AckKind, Acknowledgement, ClientError, Connection, Consumer, ConsumerEvents, ConsumerOptions, Flaw, Transport,
    },
    openwire::{Destination, DispatchHead, MessageDispatch, MessageId},
    testing::{ADMINISTRATOR, Messages, TestBroker},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::bench::{PATIENCE, login};

struct Listening {
    messages: mpsc::Sender<MessageId>,
    end: Option<oneshot::Sender<ClientError>>,
}

impl ConsumerEvents for Listening {
    fn message(&mut self, dispatch: Box<MessageDispatch>) {
        let message_id = dispatch.message.and_then(|message| message.message_id).expect("has an id");
        self.messages.try_send(message_id).expect("has room");
    }

    fn unreadable(&mut self, head: DispatchHead, flaw: Flaw) {
        panic!("{head:?}: {flaw:?}");
    }

    fn prefetch_set(&mut self, prefetch: i32) {
        panic!("{prefetch}");
    }

    fn end(&mut self, cause: ClientError) {
        if let Some(end) = self.end.take() {
            end.send(cause).expect("is waited for");
        }
    }
}

struct Bench {
    consumer: Consumer,
    messages: mpsc::Receiver<MessageId>,
    end: oneshot::Receiver<ClientError>,
}

impl Bench {
    async fn new(transport: &Arc<Transport>, client_id: &str, queue: &str) -> Self {
        let (messages_sender, messages) = mpsc::channel(10);
        let (end_sender, end) = oneshot::channel();
        let events = Listening { messages: messages_sender, end: Some(end_sender) };
        let options = ConsumerOptions {
            destination: Destination::Queue(queue.into()),
            prefetch: 10,
            selector: None,
            exclusive: false,
            priority: 0,
        };
        let connection = Connection::open(transport.clone(), &login(ADMINISTRATOR), client_id).await.expect("logs in");
        let consumer = connection.consume(options, Box::new(events)).await.expect("consumes");
        Self { consumer, messages, end }
    }

    async fn next(&mut self) -> MessageId {
        timeout(PATIENCE, self.messages.recv()).await.expect("a message in time").expect("is open")
    }
}

/// A range of two messages that is said to have three.
fn wrong(first: &MessageId, last: &MessageId) -> Acknowledgement {
    Acknowledgement { kind: AckKind::Standard, first: first.clone(), last: last.clone(), count: 3 }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn one_that_does_not_fit_is_told_to_its_own_consumer_only() {
    let broker = TestBroker::shared();
    let (wrong_queue, right_queue) = (broker.queue("wrong"), broker.queue("right"));
    for queue in [&wrong_queue, &right_queue] {
        broker.produce(queue, Messages::text("{n}").count(2)).await;
    }
    let endpoint = broker.url.parse().expect("an endpoint");
    let transport = Transport::dial(&endpoint, &native_tls::TlsConnector::builder()).await.expect("dials");
    let transport = Arc::new(transport);
    let mut one = Bench::new(&transport, &wrong_queue, &wrong_queue).await;
    let mut other = Bench::new(&transport, &right_queue, &right_queue).await;
    let (first, last) = (one.next().await, one.next().await);

    let answered = one.consumer.acknowledge_all([], wrong(&first, &last)).within(PATIENCE).await;
    let Err(ClientError::Refused(exception)) = &answered else { panic!("{answered:?}") };
    assert!(exception.message.starts_with("Unmatched acknowledge"), "{exception}");

    one.consumer.acknowledge(wrong(&first, &last));
    let end = timeout(PATIENCE, &mut one.end).await.expect("ends in time").expect("has a cause");
    let ClientError::AckRefused(exception) = &end else { panic!("{end:?}") };
    assert!(exception.message.starts_with("Unmatched acknowledge"), "{exception}");
    one.consumer.close(-1, Duration::from_secs(5)).await.expect("closes");

    let (first, last) = (other.next().await, other.next().await);
    let fitting = Acknowledgement { kind: AckKind::Standard, first, last, count: 2 };
    other.consumer.acknowledge_all([], fitting).within(PATIENCE).await.expect("fits");
    broker.wait_until(&right_queue, |queue| queue.size == 0).await;
    broker.wait_until(&wrong_queue, |queue| queue.size == 2 && queue.inflight_count == 0).await;
}
