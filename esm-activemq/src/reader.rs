//! Deliveries come in: each message is entered into the ledger and becomes its record at once.

use std::sync::{Arc, Mutex};

use esm_core::{
    destination::Original,
    memory::Hand,
    metrics::DropReason,
    source::{Arrival, Delivery, SourceError, Unusable},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::debug;

use crate::{
    client::{ClientError, ConsumerEvents, Flaw},
    consumer::{Lending, lock},
    dead_letters,
    errors::Place,
    ledger::Fate,
    openwire::{DispatchHead, MessageDispatch},
    record::{RecordEncoder, size},
};

pub(crate) struct Reader {
    pub(crate) encoder: RecordEncoder,
    /// `None` once the consumer has ended.
    pub(crate) deliveries: Option<mpsc::Sender<Arrival>>,
    pub(crate) hand: Hand,
    pub(crate) lost: Option<oneshot::Sender<SourceError>>,
    pub(crate) lending: Arc<Mutex<Lending>>,
    pub(crate) dead_letter_queue: String,
    /// There is a destination for what is given up, which needs the message itself.
    pub(crate) keeps_originals: bool,
    pub(crate) place: Place,
}

impl Reader {
    fn arrive(&mut self, arrival: Arrival) {
        let Some(deliveries) = &self.deliveries else { return };
        if let Err(error) = deliveries.try_send(arrival) {
            match error {
                mpsc::error::TrySendError::Closed(_) => self.deliveries = None,
                mpsc::error::TrySendError::Full(_) => {
                    self.broke_its_word("it lends more messages than the prefetch allows");
                }
            }
        }
    }

    fn broke_its_word(&mut self, words: &str) {
        self.lose(SourceError::Protocol { broker: self.place.broker.clone(), words: words.into() });
    }

    fn lose(&mut self, cause: SourceError) {
        self.deliveries = None;
        lock(&self.lending).lose(cause.clone());
        if let Some(lost) = self.lost.take() {
            // Who has ended the session does not ask for its cause.
            let _ = lost.send(cause);
        }
    }
}

impl ConsumerEvents for Reader {
    fn message(&mut self, dispatch: Box<MessageDispatch>) {
        if self.deliveries.is_none() {
            return; // the consumer has ended, and its messages go back
        }
        // Without a message it is the answer to a pull, which we never do.
        let Some(message) = &dispatch.message else { return };
        let Some(message_id) = &message.message_id else {
            return self.broke_its_word("it lent a message without an id");
        };
        if self.hand.is_over() {
            let receipt = lock(&self.lending).arrived(message_id, Fate::Kept); // and it goes back
            return self.arrive(Arrival::Surplus(receipt));
        }
        let fate = dead_letters::fate(dispatch.destination.as_ref(), message, &self.dead_letter_queue);
        let is_kept = self.keeps_originals || matches!(fate, Fate::Dropped(_));
        let kept = if is_kept { size(message) } else { 0 };
        let receipt = lock(&self.lending).arrived(message_id, fate);
        let original = self.keeps_originals.then(|| Original::new(message.clone()));
        let arrival = match self.encoder.arrival(&dispatch, receipt, Instant::now()) {
            Arrival::Delivery(delivery) => match self.hand.take(delivery.record.size() + kept) {
                Some(held) => Arrival::Delivery(Delivery { original, held: Some(held), ..delivery }),
                None => Arrival::Surplus(receipt),
            },
            Arrival::Unusable(unusable) => match self.hand.take(kept) {
                Some(held) => Arrival::Unusable(Unusable { original, held: Some(held), ..unusable }),
                None => Arrival::Surplus(receipt),
            },
            surplus @ Arrival::Surplus(_) => surplus,
        };
        self.arrive(arrival);
    }

    fn unreadable(&mut self, head: DispatchHead, flaw: Flaw) {
        if self.deliveries.is_none() {
            return;
        }
        let Some(message_id) = &head.message_id else {
            return self.broke_its_word("it lent a message without an id");
        };
        let fate = dead_letters::fate_of_head(&head, &self.dead_letter_queue);
        let receipt = lock(&self.lending).arrived(message_id, fate);
        let (reason, size, cause) = match flaw {
            Flaw::TooLarge { bytes } => {
                (DropReason::TooLarge, bytes, format!("{bytes} bytes are more than an event can hold"))
            }
            Flaw::Undecodable { words } => {
                (DropReason::MessageType, 0, format!("the message cannot be decoded: {words}"))
            }
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let message_id = Some(message_id.to_string());
        self.arrive(Arrival::Unusable(Unusable {
            receipt,
            message_id,
            size,
            reason,
            cause,
            original: None,
            held: None,
        }));
    }

    fn prefetch_set(&mut self, prefetch: i32) {
        if prefetch <= 0 {
            return self.lose(SourceError::QueueUnsuitable {
                broker: self.place.broker.clone(),
                queue: self.place.queue.clone(),
                words: "the broker's policy sets its prefetch to 0, so that nothing is sent unless it is pulled".into(),
            });
        }
        debug!(prefetch, "the broker set another prefetch");
        lock(&self.lending).prefetch_set(prefetch);
    }

    fn end(&mut self, cause: ClientError) {
        self.lose(self.place.explain(&cause));
    }
}
