//! A session on one queue: a channel of a shared connection, and a consumer on it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use esm_core::{
    memory::Hand,
    source::{Connect, HOLD_MARGIN, Session, SourceError, Terms},
};
use lapin::Channel;
use secrecy::ExposeSecret;
use tokio::{
    sync::{Mutex, Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::{
    connections::{Connections, Login},
    consumer::{Consuming, RabbitConsumer, look_for_queue, wire_prefetch},
    errors::Place,
    greeting::Version,
    ledger::Ledger,
    reader::Reader,
    record::{HeaderBytes, RecordEncoder},
    settings::{DeliveryLimit, Settings},
    stream::Deliveries,
    stream_probe::StreamProbe,
};

/// How long the broker may take to open a consumer.
pub(crate) const OPEN: Duration = Duration::from_secs(30);
/// A consumer lends as many as its prefetch; one that took its place while everything was still lent as many again, and
/// one with a smaller prefetch comes on top of both. Costs nothing until it is used.
const LENT_AT_MOST: usize = 4 * u16::MAX as usize;

/// One queue, as one mapping reads it.
pub struct RabbitSource {
    connections: Arc<Connections>,
    settings: Settings,
}

impl RabbitSource {
    /// Reads a queue over connections that are shared with other sources of the same broker.
    pub fn new(connections: Arc<Connections>, settings: Settings) -> Self {
        Self { connections, settings }
    }

    async fn consume(
        &self,
        channel: &Channel,
        prefetch: u16,
        place: &Place,
    ) -> Result<(Consuming, lapin::Consumer), SourceError> {
        look_for_queue(channel, place).await?;
        Consuming::begin(channel, &self.settings.consumer_tag, prefetch, place).await
    }
}

#[async_trait]
impl Connect for RabbitSource {
    fn prefetch_limit(&self) -> u32 {
        u16::MAX.into()
    }

    /// At quorum queues.
    fn counts_losses(&self) -> bool {
        true
    }

    async fn connect(&self, terms: Terms) -> Result<Session, SourceError> {
        let Settings { virtual_host, queue, credentials, .. } = &self.settings;
        let no_login = |words| SourceError::NoLogin { broker: self.connections.broker().into(), words };
        let login = credentials.login().await.map_err(no_login)?;
        let shared_by = Login {
            virtual_host: virtual_host.clone(),
            username: login.username.clone(),
            password: login.password.expose_secret().to_owned(),
        };
        let opened = self.connections.channel(&shared_by, terms.alone).await;
        if let Err(SourceError::Authentication { .. }) = &opened {
            credentials.refused(&login);
        }
        let (connection, channel) = opened?;
        let place = Place { queue: queue.clone(), ..connection.place.clone() };
        let prefetch = wire_prefetch(terms.prefetch);
        let (consuming, messages) =
            timeout(OPEN, self.consume(&channel, prefetch, &place)).await.map_err(|_| SourceError::Protocol {
                broker: place.broker.clone(),
                words: format!("it did not open a consumer within {} s", OPEN.as_secs()),
            })??;

        let (sender, deliveries) = mpsc::channel(LENT_AT_MOST);
        let (successors, later_consumers) = mpsc::channel(1);
        let hand = Hand::new(terms.memory);
        let (lost_sender, lost) = oneshot::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let encoder = RecordEncoder::new(
            if self.settings.unsigned_header_bytes { HeaderBytes::Unsigned } else { HeaderBytes::Signed },
            self.settings.strict_consumers,
        )
        .with_item_identifiers(self.settings.item_identifiers);
        let reader = Reader {
            messages: Deliveries::new(messages, later_consumers),
            encoder,
            keeps_originals: self.settings.destination.is_some(),
            deliveries: sender,
            hand: hand.clone(),
            cancelled: cancelled.clone(),
            channel: channel.clone(),
            version: connection.version,
            place: place.clone(),
            closed: connection.closed.clone(),
            stream_probe: StreamProbe { connections: self.connections.clone(), login: shared_by, place: place.clone() },
        };
        let reading = tokio::spawn(reader.run(lost_sender).in_current_span());
        Ok(Session {
            deliveries,
            hand: hand.clone(),
            lost,
            trouble: connection.trouble.clone(),
            outdated: Box::pin({
                let credentials = credentials.clone();
                async move { credentials.superseded(&login).await }
            }),
            envelope: RecordEncoder::envelope(&self.settings.event_source_arn, queue, virtual_host),
            prefetch: prefetch.into(),
            delivery_limit: match self.settings.delivery_limit {
                DeliveryLimit::ByVersion => connection.version.and_then(Version::default_delivery_limit),
                DeliveryLimit::Times(limit) => Some(limit),
                DeliveryLimit::Never => None,
            },
            hold_limit: self.settings.consumer_timeout.map(|limit| limit.saturating_sub(HOLD_MARGIN)),
            unique_ids: false, // the sender chooses them
            destination: self.settings.destination.clone(),
            consumer: Arc::new(RabbitConsumer {
                channel,
                consuming: Mutex::new(consuming),
                hand,
                successors,
                has_destination: self.settings.destination.is_some(),
                place,
                connections: self.connections.clone(),
                connection,
                cancelled,
                ledger: Mutex::new(Ledger::new()),
                _reading: AbortOnDropHandle::new(reading),
                advanced: Notify::new(),
            }),
        })
    }
}
