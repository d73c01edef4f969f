//! Reads one consumer's deliveries for as long as they come, and says why they end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use esm_core::{
    destination::Original,
    source::{Arrival, SourceError},
};
use futures_util::StreamExt;
use lapin::ErrorKind;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, Instant, timeout},
};

use crate::{destination::ReceivedMessage, errors::Place, record::RecordEncoder};

/// How long the broker's reason for closing a connection may come after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub(crate) struct Reader {
    pub(crate) messages: lapin::Consumer,
    pub(crate) encoder: RecordEncoder,
    /// There is a destination for what is given up, which needs the message itself.
    pub(crate) keeps_originals: bool,
    /// As large as the prefetch.
    pub(crate) deliveries: mpsc::Sender<Arrival>,
    /// Set before the consumer is ended by us.
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) place: Place,
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
        while let Some(next) = self.messages.next().await {
            match next {
                Ok(message) => {
                    let Some(mut delivery) = self.encoder.delivery(&message, Instant::now()) else {
                        return Some(self.unsuitable("it is a stream; only classic and quorum queues can be read"));
                    };
                    if self.keeps_originals {
                        let received = ReceivedMessage { properties: message.properties, body: message.data };
                        delivery.original = Some(Original::new(received));
                    }
                    match self.deliveries.try_send(Arrival::Delivery(delivery)) {
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
        Some(SourceError::ConsumerCancelled {
            broker: self.place.broker.clone(),
            queue: self.place.queue.clone(),
            words: "the queue was deleted, the node that leads it went away, or a delivery was held too long".into(),
        })
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

    fn unsuitable(&self, words: &str) -> SourceError {
        SourceError::QueueUnsuitable {
            broker: self.place.broker.clone(),
            queue: self.place.queue.clone(),
            words: words.into(),
        }
    }
}
