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
/// What a header frame has besides properties, which are never split: its marks, and the body's size.
const FRAME_OVERHEAD: usize = 22;
/// What of any other text is kept: with these, and with short properties as long as they can be, a letter without the
/// message's own headers fits the smallest frame that AMQP allows.
const LONGEST_REASON: usize = 255;
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

struct Publishing {
    connection: Arc<SharedConnection>,
    username: String,
    /// On which nothing is unconfirmed. Each serves one letter at a time: the client gives a message that is returned
    /// to whichever is confirmed next on its channel.
    idle: Vec<Channel>,
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

    /// The connection that is open, or a new one that nothing is consumed on; who is logged in there, and a channel of
    /// it that is idle.
    async fn connection(&self) -> Result<(Arc<SharedConnection>, String, Option<Channel>), SourceError> {
        let mut publishing = self.publishing.lock().await;
        let open = match publishing.take().filter(|open| open.connection.is_open()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let Publishing { connection, username, idle } = publishing.insert(open);
        idle.retain(|channel| channel.status().connected());
        Ok((connection.clone(), username.clone(), idle.pop()))
    }

    async fn connect(&self) -> Result<Publishing, SourceError> {
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
        let idle = vec![confirming(channel, &self.place(&connection)).await?];
        Ok(Publishing { connection, username: login.username, idle })
    }

    fn place(&self, connection: &SharedConnection) -> Place {
        Place { queue: self.queue.clone(), ..connection.place.clone() }
    }

    /// What was published, or not; and the channel, which is idle then.
    async fn send(
        &self,
        channel: Channel,
        body: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<(Confirmation, Channel)> {
        let mandatory = BasicPublishOptions { mandatory: true, immediate: false };
        let queue = ShortString::from(self.queue.as_str());
        let confirmation = channel.basic_publish("".into(), queue, mandatory, body, properties).await?.await?;
        Ok((confirmation, channel))
    }

    /// If this connection is the one that is used, it is the next to be used no longer.
    async fn forget(&self, connection: &Arc<SharedConnection>) {
        self.publishing.lock().await.take_if(|open| Arc::ptr_eq(&open.connection, connection));
    }
}

#[async_trait]
impl Destination for RabbitDestination {
    async fn publish(&self, letter: &Letter) -> Result<(), SourceError> {
        let (connection, username, idle) = self.connection().await?;
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
        let properties = properties(&message.properties, letter, &username, frame);
        let sending = async {
            let channel = match idle {
                Some(channel) => channel,
                None => confirming(connection.channel().await?, &place).await?,
            };
            self.send(channel, &message.body, properties).await.map_err(|error| place.explain(&error))
        };
        let sent = tokio::select! {
            biased;
            // The connection is kept: it goes on when the broker lets it, and another would be blocked as well.
            blocked = connection.blocked() => return Err(blocked),
            sent = timeout(CONFIRM, sending) => sent,
        };
        let Ok(sent) = sent else {
            self.forget(&connection).await;
            return Err(refused(&format!("it did not confirm a dead letter within {} s", CONFIRM.as_secs())));
        };
        let (confirmation, channel) = sent?;
        let mut publishing = self.publishing.lock().await;
        if let Some(open) = publishing.as_mut().filter(|open| Arc::ptr_eq(&open.connection, &connection)) {
            open.idle.push(channel);
        }
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                let (broker, queue) = (place.broker.clone(), self.queue.clone());
                let words = format!("it returned a dead letter: {}", returned.reply_text);
                Err(SourceError::QueueMissing { broker, queue, words })
            }
            Confirmation::Nack(None) => Err(refused("it refused a dead letter; the queue may be full")),
            Confirmation::NotRequested => Err(refused("it confirms nothing")),
        }
    }
}

/// A channel on which the broker confirms what is published.
async fn confirming(channel: Channel, place: &Place) -> Result<Channel, SourceError> {
    let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
    selected.map(|()| channel).map_err(|error| place.explain(&error))
}

fn channel_frame_max(connection: &SharedConnection) -> u32 {
    match connection.frame_max() {
        0 => u32::MAX, // no limit
        limit => limit,
    }
}

/// What the dead letter carries: everything that the message did, persistent, but no expiry, no further recipients, and
/// no user that is not who publishes it; and the reasons. Headers that leave these no room in a frame are left out.
fn properties(original: &BasicProperties, letter: &Letter, username: &str, frame: usize) -> BasicProperties {
    let mut reasons = FieldTable::default();
    let mut keep = |name: &str, text: &str| {
        let text = &text[..text.floor_char_boundary(LONGEST_REASON)];
        reasons.insert(name.into(), AMQPValue::LongString(text.into()));
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
    let kept = with_optional(BasicProperties::default().with_delivery_mode(2), original, foreign_user.is_none());
    let room = frame.saturating_sub(FRAME_OVERHEAD + short_size(&kept));
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flatten() {
        if !LEFT_OUT.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    if table_size(&headers) + table_size(&reasons) > room {
        let bytes = table_size(&headers);
        let words = format!("{bytes} bytes of headers leave the reasons no room in a frame of {frame}");
        reasons.insert("esm_headers_left_out".into(), AMQPValue::LongString(words.into()));
        headers = FieldTable::default();
    }
    for (name, reason) in &reasons {
        headers.insert(name.clone(), reason.clone());
    }
    let room = room.saturating_sub(table_size(&headers));
    if let Some((name, cause)) = letter.reasons(room.min(LONGEST_CAUSE)).into_iter().last() {
        headers.insert(name.into(), AMQPValue::LongString(cause.into()));
    }
    kept.with_headers(headers)
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

/// The bytes of properties on the wire, headers aside.
fn short_size(properties: &BasicProperties) -> usize {
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts = texts.into_iter().flatten().map(|text| 1 + text.as_str().len()).sum::<usize>();
    texts + 2 + 8 // delivery mode and priority, and the time stamp
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
    use crate::testing::TestBroker;

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
        let kept = properties(&original, &letter("it failed"), "bob", 131_072);
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
        let own = properties(&original, &letter(""), "alice", 131_072);
        assert_eq!(own.user_id(), original.user_id());
    }

    fn filled(bytes: usize) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert("filler".into(), long(&"y".repeat(bytes)));
        BasicProperties::default().with_headers(headers)
    }

    /// With every other property as long as it can be.
    fn longest(properties: BasicProperties) -> BasicProperties {
        let text = || ShortString::from("z".repeat(255));
        properties
            .with_content_type(text())
            .with_content_encoding(text())
            .with_priority(9)
            .with_correlation_id(text())
            .with_reply_to(text())
            .with_expiration("60000".into())
            .with_message_id(text())
            .with_timestamp(1)
            .with_type(text())
            .with_user_id("guest".into())
            .with_app_id(text())
            .with_cluster_id(text())
    }

    #[test]
    fn the_cause_is_cut_to_what_the_frame_has_room_for() {
        let cause = "x".repeat(100_000);
        let cause_of = |filler| {
            let kept = properties(&filled(filler), &letter(&cause), "bob", 131_072);
            header(&kept, "filler")?;
            header(&kept, "esm_cause").map(|cause| value_size(cause) - 4)
        };
        assert_eq!(cause_of(0), Some(LONGEST_CAUSE));
        assert!(cause_of(130_000).is_some_and(|length| length > 100 && length < LONGEST_CAUSE));
        assert_eq!(cause_of(131_000), None);
    }

    #[test]
    fn headers_that_leave_the_reasons_no_room_are_left_out_and_that_is_said() {
        let check = |filler, frame| {
            let letter = Letter { queue: "q".repeat(1_000), ..letter(&"x".repeat(100_000)) };
            let kept = properties(&longest(filled(filler)), &letter, "bob", frame);
            assert!(FRAME_OVERHEAD + short_size(&kept) + table_size(kept.headers().as_ref().unwrap()) <= frame);
            assert_eq!(header(&kept, "filler"), None);
            assert_eq!(header(&kept, "esm_reason"), Some(&long("attempts")));
            assert!(matches!(header(&kept, "esm_headers_left_out"), Some(AMQPValue::LongString(_))));
            assert_eq!(kept.app_id().as_ref().map(|id| id.as_str().len()), Some(255));
        };
        check(131_000, 131_072);
        check(3_000, 4_096);
    }

    struct Bench {
        broker: TestBroker,
        virtual_host: String,
    }

    impl Bench {
        async fn new(test: &str) -> Self {
            let broker = TestBroker::shared();
            let virtual_host = broker.virtual_host(&format!("destination {test}")).await;
            broker.publisher(&virtual_host).await.declare("letters", "classic").await;
            Self { broker, virtual_host }
        }

        fn destination(&self, parameters: &str) -> RabbitDestination {
            let endpoint = format!("{}{parameters}", self.broker.url).parse().unwrap();
            let connections = Connections::new("pizza".into(), vec![endpoint], None).unwrap();
            let login = esm_core::credentials::Login { username: "guest".into(), password: "guest".into() };
            RabbitDestination::new(connections, self.virtual_host.clone(), "letters".into(), Arc::new(login))
        }
    }

    fn letter_of(properties: BasicProperties) -> Letter {
        let received = ReceivedMessage { properties, body: b"body".to_vec() };
        Letter { original: Original::new(received), ..letter(&"x".repeat(100_000)) }
    }

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn a_letter_reaches_its_queue_whatever_the_size_of_its_headers() {
        let bench = Bench::new("headers").await;
        for (parameters, filler) in
            [("", 0), ("", 127_000), ("", 131_000), ("?frame_max=8192", 0), ("?frame_max=8192", 8_000)]
        {
            for properties in [filled(filler), longest(filled(filler))] {
                let destination = bench.destination(parameters);
                destination.publish(&letter_of(properties)).await.unwrap();
                let taken = bench.broker.publisher(&bench.virtual_host).await.take("letters").await;
                assert_eq!(taken.map(|(_, body)| body), Some(b"body".to_vec()), "{parameters} {filler}");
            }
        }
    }

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn letters_that_are_published_at_once_have_a_channel_each() {
        let bench = Bench::new("channels").await;
        let destination = bench.destination("");
        for _ in 0..2 {
            let (one, other) = (letter_of(filled(0)), letter_of(filled(0)));
            let published = tokio::join!(destination.publish(&one), destination.publish(&other));
            assert_eq!(published, (Ok(()), Ok(())));
            let publishing = destination.publishing.lock().await;
            assert_eq!(publishing.as_ref().map(|open| open.idle.len()), Some(2));
        }
    }

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn a_connection_that_the_broker_blocks_is_said_at_once_and_kept() {
        let broker = TestBroker::private("blocked-letters", &["vm_memory_high_watermark.absolute = 1MB"]).await;
        let bench = Bench { broker, virtual_host: "/".into() };
        bench.broker.publisher("/").await.declare("letters", "classic").await;
        bench.broker.memory_alarm().await;
        let destination = bench.destination("");
        let letter = letter_of(filled(0));
        let mut connections = Vec::new();
        for _ in 0..3 {
            let published = timeout(CONFIRM / 2, destination.publish(&letter)).await.expect("answers at once");
            assert!(matches!(published, Err(SourceError::ConnectionBlocked { .. })), "{published:?}");
            let publishing = destination.publishing.lock().await;
            connections.push(publishing.as_ref().expect("keeps its connection").connection.clone());
        }
        assert!(connections.windows(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1])));
    }
}
