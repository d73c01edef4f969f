//! A session on one queue: a logical connection on a shared transport, and a consumer on it.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use async_trait::async_trait;
use esm_core::{
    memory::Hand,
    source::{Connect, Session, SourceError, Terms},
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::{
    client::ConsumerOptions,
    connections::Connections,
    consumer::{ActiveMqConsumer, Lending, keep_waking, on_the_wire},
    errors::Place,
    openwire::Destination,
    reader::Reader,
    record::RecordEncoder,
    settings::Settings,
};

/// What Java's client lets nobody exceed.
const PREFETCH_LIMIT: u32 = 32_767;

/// One queue, as one mapping reads it.
pub struct ActiveMqSource {
    connections: Arc<Connections>,
    settings: Settings,
}

impl ActiveMqSource {
    /// Reads a queue over connections that are shared with other sources of the same broker.
    pub fn new(connections: Arc<Connections>, settings: Settings) -> Self {
        Self { connections, settings }
    }
}

#[async_trait]
impl Connect for ActiveMqSource {
    fn prefetch_limit(&self) -> u32 {
        PREFETCH_LIMIT
    }

    async fn connect(&self, terms: Terms) -> Result<Session, SourceError> {
        let Settings { queue, credentials, client_id, event_source_arn, profile, item_identifiers, .. } =
            &self.settings;
        // A name stays taken for up to a minute after a connection was lost half-way.
        let client_id = format!("{client_id}-{:08x}", fastrand::u32(..));
        let login = self.connections.login(credentials.as_ref()).await?;
        let opened = self.connections.connection(&login, &client_id, terms.alone).await;
        if let Err(SourceError::Authentication { .. }) = &opened {
            credentials.refused(&login);
        }
        let (connection, place) = opened?;
        let place = Place { queue: queue.name.clone(), ..place };

        // As large as the largest prefetch that it may ever have, which costs nothing until it is used.
        let (sender, deliveries) = mpsc::channel(PREFETCH_LIMIT as usize + 1);
        let (lost_sender, lost) = oneshot::channel();
        let (_, trouble) = watch::channel(None);
        let prefetch = on_the_wire(terms.prefetch.min(PREFETCH_LIMIT));
        let waker = Arc::new(Notify::new());
        let lending = Arc::new(Mutex::new(Lending::new(prefetch, waker.clone())));
        let hand = Hand::new(terms.memory);
        let reader = Reader {
            hand: hand.clone(),
            encoder: RecordEncoder::new(*profile).with_item_identifiers(*item_identifiers),
            deliveries: Some(sender),
            lost: Some(lost_sender),
            lending: lending.clone(),
            dead_letter_queue: self.settings.dead_letter_queue.clone(),
            keeps_originals: self.settings.destination.is_some(),
            place: place.clone(),
        };
        let options = ConsumerOptions {
            destination: Destination::Queue(queue.name.as_str().into()),
            prefetch,
            selector: queue.selector.clone(),
            exclusive: queue.exclusive,
            priority: queue.priority,
        };
        let consumer = connection.consume(options, Box::new(reader)).await.map_err(|error| place.explain(&error))?;
        let consumer = Arc::new(consumer);
        let waking = keep_waking(consumer.clone(), lending.clone(), waker).in_current_span();
        Ok(Session {
            deliveries,
            hand,
            lost,
            trouble,
            outdated: Box::pin({
                let credentials = credentials.clone();
                async move { credentials.superseded(&login).await }
            }),
            envelope: RecordEncoder::envelope(event_source_arn),
            prefetch: prefetch.unsigned_abs(),
            hold_limit: None,
            delivery_limit: None,
            unique_ids: true,
            destination: self.settings.destination.clone(),
            consumer: Arc::new(ActiveMqConsumer {
                consumer,
                connections: self.connections.clone(),
                settings: self.settings.clone(),
                place,
                lending,
                cancelled: AtomicBool::new(false),
                _waking: AbortOnDropHandle::new(tokio::spawn(waking)),
            }),
        })
    }
}
