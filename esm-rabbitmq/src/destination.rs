//! Dead letters: what is given up is published to a queue, on a connection of its own, and confirmed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use esm_core::{
    credentials::Credentials,
    destination::{Destination, Letter},
    source::SourceError,
};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use secrecy::ExposeSecret as _;
use tokio::{sync::Mutex, time::timeout};

use crate::{
    connections::{Connections, Login, SharedConnection},
    errors::Place,
    portable,
};

/// How long the broker may take to confirm a message.
const CONFIRM: Duration = Duration::from_secs(30);
/// What of a cause reaches the dead letter, if the frame has room for it.
const LONGEST_CAUSE: usize = 4_096;
/// What a header frame has besides headers, which are never split: its own fields, and short properties.
const FRAME_OVERHEAD: usize = 4_096;
/// Headers that would send copies elsewhere, or that a queue counts by itself.
const LEFT_OUT: [&str; 4] = ["CC", "BCC", "x-delivery-count", "x-acquired-count"];

/// A message as it was received, without what belongs to its channel.
pub(crate) struct ReceivedMessage {
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

/// A queue that dead letters go to.
pub struct RabbitDestination {
    connections: Arc<Connections>,
    virtual_host: String,
    queue: String,
    credentials: Arc<dyn Credentials>,
    publishing: Mutex<Option<Publishing>>,
}

#[derive(Clone)]
struct Publishing {
    connection: Arc<SharedConnection>,
    channel: Channel,
    username: String,
}

impl RabbitDestination {
    /// A queue of the broker with these connections. Connects when there is something to publish.
    pub fn new(
        connections: Arc<Connections>,
        virtual_host: String,
        queue: String,
        credentials: Arc<dyn Credentials>,
    ) -> Self {
        Self { connections, virtual_host, queue, credentials, publishing: Mutex::default() }
    }

    /// The channel that is open, or a new one on a connection that nothing is consumed on.
    async fn publishing(&self) -> Result<Publishing, SourceError> {
        let mut publishing = self.publishing.lock().await;
        if let Some(open) = publishing.as_ref().filter(|open| open.channel.status().connected()) {
            return Ok(open.clone());
        }
        *publishing = None;
        let no_login = |words| SourceError::NoLogin { broker: self.connections.broker().into(), words };
        let login = self.credentials.login().await.map_err(no_login)?;
        let shared_by = Login {
            virtual_host: self.virtual_host.clone(),
            username: login.username.clone(),
            password: login.password.expose_secret().to_owned(),
        };
        let opened = self.connections.channel(&shared_by, true).await;
        if let Err(SourceError::Authentication { .. }) = &opened {
            self.credentials.refused(&login);
        }
        let (connection, channel) = opened?;
        let confirmed = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirmed.map_err(|error| self.place(&connection).explain(&error))?;
        Ok(publishing.insert(Publishing { connection, channel, username: login.username }).clone())
    }

    fn place(&self, connection: &SharedConnection) -> Place {
        Place { queue: self.queue.clone(), ..connection.place.clone() }
    }

    /// What was published, or not.
    async fn send(
        &self,
        channel: &Channel,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Confirmation, lapin::Error> {
        let mandatory = BasicPublishOptions { mandatory: true, immediate: false };
        let queue = ShortString::from(self.queue.as_str());
        channel.basic_publish("".into(), queue, mandatory, body, properties).await?.await
    }
}

#[async_trait]
impl Destination for RabbitDestination {
    async fn publish(&self, letter: &Letter) -> Result<(), SourceError> {
        let Publishing { connection, channel, username } = self.publishing().await?;
        let place = self.place(&connection);
        let refused = |words: &str| SourceError::Protocol { broker: place.broker.clone(), words: words.into() };
        let foreign;
        let message = match letter.original.get::<ReceivedMessage>() {
            Some(message) => message,
            None => {
                foreign = portable::received(letter.original.portable());
                &foreign
            }
        };
        let frame = usize::try_from(channel_frame_max(&connection)).unwrap_or(usize::MAX);
        let properties = properties(&message.properties, letter, &username, frame)
            .ok_or_else(|| refused("its headers leave no room in a frame for the reasons why it is given up"))?;
        match timeout(CONFIRM, self.send(&channel, &message.body, properties)).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)))) => {
                let (broker, queue) = (place.broker.clone(), self.queue.clone());
                let words = format!("it returned a dead letter: {}", returned.reply_text);
                Err(SourceError::QueueMissing { broker, queue, words })
            }
            Ok(Ok(Confirmation::Nack(None))) => Err(refused("it refused a dead letter; the queue may be full")),
            Ok(Ok(Confirmation::NotRequested)) => Err(refused("it confirms nothing")),
            Ok(Err(error)) => Err(place.explain(&error)),
            Err(_) => {
                self.publishing.lock().await.take(); // what is unconfirmed is not known to be there
                Err(refused(&format!("it did not confirm a dead letter within {} s", CONFIRM.as_secs())))
            }
        }
    }
}

fn channel_frame_max(connection: &SharedConnection) -> u32 {
    match connection.frame_max() {
        0 => u32::MAX, // no limit
        limit => limit,
    }
}

/// What the dead letter carries: everything that the message did, persistent, but no expiry, no further recipients, and
/// no user that is not who publishes it; and the reasons. `None` if that has no room in a frame.
fn properties(original: &BasicProperties, letter: &Letter, username: &str, frame: usize) -> Option<BasicProperties> {
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flatten() {
        if !LEFT_OUT.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let mut keep = |name: &str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    };
    if let Some(expiration) = original.expiration() {
        keep("esm_original_expiration", expiration.as_str());
    }
    let foreign_user = original.user_id().as_ref().filter(|user| user.as_str() != username);
    if let Some(user) = foreign_user {
        keep("esm_original_user_id", user.as_str());
    }
    for (name, text) in letter.reasons(0) {
        keep(name, &text);
    }
    let room = frame.checked_sub(FRAME_OVERHEAD)?.checked_sub(table_size(&headers))?;
    let cause = letter.reasons(room.min(LONGEST_CAUSE)).into_iter().last();
    if let Some((name, cause)) = cause {
        headers.insert(name.into(), AMQPValue::LongString(cause.into()));
    }
    let kept = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    Some(with_optional(kept, original, foreign_user.is_none()))
}

fn with_optional(mut kept: BasicProperties, original: &BasicProperties, keeps_user: bool) -> BasicProperties {
    macro_rules! keep {
        ($($get:ident $with:ident),* $(,)?) => {
            $(if let Some(value) = original.$get() {
                kept = kept.$with(value.clone());
            })*
        };
    }
    keep!(
        content_type with_content_type,
        content_encoding with_content_encoding,
        priority with_priority,
        correlation_id with_correlation_id,
        reply_to with_reply_to,
        message_id with_message_id,
        timestamp with_timestamp,
        kind with_type,
        app_id with_app_id,
        cluster_id with_cluster_id,
    );
    match original.user_id() {
        Some(user) if keeps_user => kept.with_user_id(user.clone()),
        _ => kept,
    }
}

/// The bytes of a table on the wire.
fn table_size(table: &FieldTable) -> usize {
    4 + table.into_iter().map(|(name, value)| 1 + name.as_str().len() + 1 + value_size(value)).sum::<usize>()
}

fn value_size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldTable(table) => table_size(table),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(|value| 1 + value_size(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use esm_core::{
        destination::{Original, Portable},
        metrics::DropReason,
    };

    use super::*;

    fn letter(cause: &str) -> Letter {
        Letter {
            original: Original::new(portable::received(Portable::default())),
            reason: DropReason::Attempts,
            cause: cause.into(),
            function: "f".into(),
            mapping: "m".into(),
            event_source: "b".into(),
            queue: "q".into(),
            attempts: 3,
            given_up_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
        properties.headers().as_ref()?.inner().get(name)
    }

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn a_letter_keeps_what_the_message_had_and_gains_the_reasons() {
        let mut headers = FieldTable::default();
        for name in ["CC", "BCC", "x-delivery-count", "x-death", "colour"] {
            headers.insert(name.into(), long(name));
        }
        let original = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("id".into())
            .with_type("order".into())
            .with_delivery_mode(1)
            .with_priority(7)
            .with_expiration("5000".into())
            .with_user_id("alice".into());
        let kept = properties(&original, &letter("it failed"), "bob", 131_072).expect("has room");
        assert_eq!((kept.message_id(), kept.kind()), (original.message_id(), original.kind()));
        assert_eq!((kept.priority(), kept.delivery_mode()), (&Some(7), &Some(2)));
        assert_eq!((kept.expiration(), kept.user_id()), (&None, &None));
        for (name, expected) in [
            ("x-death", "x-death"),
            ("colour", "colour"),
            ("esm_original_expiration", "5000"),
            ("esm_original_user_id", "alice"),
            ("esm_reason", "attempts"),
            ("esm_attempts", "3"),
            ("esm_cause", "it failed"),
        ] {
            assert_eq!(header(&kept, name), Some(&long(expected)), "{name}");
        }
        for name in ["CC", "BCC", "x-delivery-count"] {
            assert_eq!(header(&kept, name), None, "{name}");
        }
        let own = properties(&original, &letter(""), "alice", 131_072).expect("has room");
        assert_eq!(own.user_id(), original.user_id());
    }

    #[test]
    fn the_cause_is_cut_to_what_the_frame_has_room_for() {
        let cause = "x".repeat(100_000);
        let cause_of = |filler: usize| {
            let mut headers = FieldTable::default();
            headers.insert("filler".into(), long(&"y".repeat(filler)));
            let original = BasicProperties::default().with_headers(headers);
            let kept = properties(&original, &letter(&cause), "bob", 131_072)?;
            assert!(table_size(kept.headers().as_ref()?) <= 131_072 - FRAME_OVERHEAD);
            header(&kept, "esm_cause").map(|cause| value_size(cause) - 4)
        };
        assert_eq!(cause_of(0), Some(LONGEST_CAUSE));
        assert!(cause_of(125_000).is_some_and(|length| length > 100 && length < LONGEST_CAUSE));
        assert_eq!(cause_of(130_000), None);
    }
}
