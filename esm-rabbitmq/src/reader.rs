//! Reads one consumer's deliveries for as long as they come, and says why they end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use esm_core::{
    destination::Original,
    memory::Hand,
    source::{Arrival, Receipt, SourceError},
};
use lapin::{Channel, ErrorKind, message::Delivery};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, Instant, timeout},
};

use crate::{
    consumer::look_for_queue, destination::ReceivedMessage, errors::Place, greeting::Version, record::RecordEncoder,
    stream::Deliveries, stream_probe::StreamProbe,
};

/// How long the broker's reason for closing a connection may come after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long the broker may take to say whether a queue is there.
const ANSWER: Duration = Duration::from_secs(5);

pub(crate) struct Reader {
    pub(crate) messages: Deliveries,
    pub(crate) encoder: RecordEncoder,
    /// There is a destination for what is given up, which needs the message itself.
    pub(crate) keeps_originals: bool,
    /// As large as what can be lent at once.
    pub(crate) deliveries: mpsc::Sender<Arrival>,
    pub(crate) hand: Hand,
    /// Set before the consumer is ended by us.
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) channel: Channel,
    pub(crate) version: Option<Version>,
    pub(crate) place: Place,
    pub(crate) stream_probe: StreamProbe,
    /// What the broker said when it closed the connection.
    pub(crate) closed: watch::Receiver<Option<SourceError>>,
}

impl Reader {
    pub(crate) async fn run(mut self, lost: oneshot::Sender<SourceError>) {
        if let Some(cause) = self.read().await {
            // Nobody listens if the session was given up at the same moment.
            let _ = lost.send(cause);
        }
    }

    /// Reads until the end, and returns why if we did not ask for it.
    async fn read(&mut self) -> Option<SourceError> {
        let mut is_first = true;
        while let Some(next) = self.messages.next().await {
            match next {
                Ok(message) => {
                    if std::mem::take(&mut is_first) {
                        match self.stream_probe.is_stream(&message).await {
                            Ok(false) => {}
                            Ok(true) => {
                                let words = "it is a stream; only classic and quorum queues can be read";
                                return Some(self.unsuitable(words));
                            }
                            Err(error) => return Some(error),
                        }
                    }
                    let arrival = self.arrival(message);
                    match self.deliveries.try_send(arrival) {
                        Ok(()) => {}
                        Err(mpsc::error::TrySendError::Closed(_)) => return None,
                        Err(mpsc::error::TrySendError::Full(_)) => {
                            return Some(self.unsuitable("it sends more than the prefetch allows"));
                        }
                    }
                }
                Err(_) if self.cancelled.load(Ordering::Acquire) => return None,
                Err(error) => return Some(self.explain(&error).await),
            }
        }
        if self.cancelled.load(Ordering::Acquire) {
            return None;
        }
        Some(self.explain_cancellation().await)
    }

    fn arrival(&mut self, message: Delivery) -> Arrival {
        let surplus = Arrival::Surplus(Receipt(message.delivery_tag));
        if self.hand.is_over() {
            return surplus;
        }
        let mut delivery = self.encoder.delivery(&message, Instant::now());
        let kept = if self.keeps_originals { message.data.len() } else { 0 };
        let Some(held) = self.hand.take(delivery.record.size() + kept) else { return surplus };
        delivery.held = Some(held);
        if self.keeps_originals {
            let received = ReceivedMessage { properties: message.properties, body: message.data };
            delivery.original = Some(Original::new(received));
        }
        Arrival::Delivery(delivery)
    }

    /// A broker that closes the connection says why and is gone at once; which of the two reaches
    /// this consumer first is chance.
    async fn explain(&mut self, error: &lapin::Error) -> SourceError {
        if matches!(error.kind(), ErrorKind::IOError(_))
            && let Ok(Ok(closed)) = timeout(LAST_WORDS, self.closed.wait_for(Option::is_some)).await
            && let Some(cause) = &*closed
        {
            return cause.clone();
        }
        self.place.explain(error)
    }

    /// A broker that cancels a consumer does not say why.
    async fn explain_cancellation(&self) -> SourceError {
        let Place { broker, queue, .. } = self.place.clone();
        if self.version.is_some_and(Version::cancels_who_holds_too_long) && self.queue_is_there().await {
            let words = "it cancelled the consumer although the queue is there; consumer_timeout_in_seconds must not be \
                         more than the consumer timeout of the queue, its policy and the broker";
            return SourceError::HeldTooLong { broker, queue, words: words.into() };
        }
        let words = "the queue was deleted, or the node that leads it went away";
        SourceError::ConsumerCancelled { broker, queue, words: words.into() }
    }

    async fn queue_is_there(&self) -> bool {
        timeout(ANSWER, look_for_queue(&self.channel, &self.place)).await.is_ok_and(|looked| looked.is_ok())
    }

    fn unsuitable(&self, words: &str) -> SourceError {
        SourceError::QueueUnsuitable {
            broker: self.place.broker.clone(),
            queue: self.place.queue.clone(),
            words: words.into(),
        }
    }
}
