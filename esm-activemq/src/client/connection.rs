//! Logical connections on a transport, and what lives on them: a consumer, a producer.
//!
//! Each has a login and a client id of its own; the broker knows several on one socket apart.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use esm_core::credentials::Login;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{
    error::ClientError,
    transport::{Answer, ConsumerEvents, Transport},
};
use crate::openwire::{
    Command, ConnectionId, ConnectionInfo, ConsumerControl, ConsumerId, ConsumerInfo, Destination, Message, MessageAck,
    MessageId, ProducerId, ProducerInfo, RemoveInfo, RemovedId, SessionId, SessionInfo, Text, Throwable,
};

/// How long the broker may take to accept a login or to open a consumer.
const OPEN: Duration = Duration::from_secs(20);
/// How long it may take to keep a message.
const SEND: Duration = Duration::from_secs(30);

/// A logical connection. Dropping it makes the broker take back whatever was lent over it.
pub struct Connection {
    transport: Arc<Transport>,
    id: ConnectionId,
    session_id: SessionId,
    is_closed: AtomicBool,
}

impl Connection {
    /// Logs in. A refusal makes the broker close the whole transport some two seconds later.
    pub async fn open(transport: Arc<Transport>, login: &Login, client_id: &str) -> Result<Self, ClientError> {
        // A name that is taken would end the connection that has it. Nothing may follow the UUID: message ids
        // are made from it and read from their end.
        let name = Text::from(format!("ID:esm-{}", Uuid::new_v4()));
        let id = ConnectionId::new(name.clone());
        let session_id = SessionId::new(name, 1);
        // From here on it is cleared away, whether it is accepted, refused or not waited for.
        transport.enter();
        let connection = Self { transport, id, session_id, is_closed: AtomicBool::new(false) };
        let answer = connection.transport.ask("ConnectionInfo", |command_id| {
            Command::from(ConnectionInfo {
                command_id,
                response_required: true,
                connection_id: Some(connection.id.clone()),
                client_id: Some(client_id.into()),
                user_name: Some(login.username.as_str().into()),
                password: Some(Text::from(login.password.expose_secret()).into()),
                manageable: true,
                client_master: true,
                ..ConnectionInfo::default()
            })
        });
        if let Err(error) = answer.within(OPEN).await {
            if matches!(error, ClientError::Refused(_)) {
                // The broker does not know it, and would complain about its removal to the whole transport.
                connection.forget();
            }
            return Err(error);
        }
        connection.transport.tell(|command_id| {
            Command::from(SessionInfo {
                command_id,
                response_required: false,
                session_id: Some(connection.session_id.clone()),
            })
        });
        Ok(connection)
    }

    /// Begins to consume. What the broker lends may arrive before this returns.
    pub async fn consume(
        self,
        options: ConsumerOptions,
        events: Box<dyn ConsumerEvents>,
    ) -> Result<Consumer, ClientError> {
        let value = self.transport.new_consumer_value();
        let id = ConsumerId { connection_id: self.id.value.clone(), session_id: self.session_id.value, value };
        self.transport.register(value, events);
        let registration = Registration { transport: self.transport.clone(), value };
        let consumer = Consumer { id, destination: options.destination.clone(), registration, connection: self };
        let answer = consumer.connection.transport.ask("ConsumerInfo", |command_id| {
            Command::from(ConsumerInfo {
                command_id,
                response_required: true,
                consumer_id: Some(consumer.id.clone()),
                destination: Some(options.destination),
                prefetch_size: options.prefetch,
                dispatch_async: true,
                selector: options.selector.map(Text::from),
                exclusive: options.exclusive,
                priority: options.priority,
                ..ConsumerInfo::default()
            })
        });
        answer.within(OPEN).await?;
        Ok(consumer)
    }

    /// Prepares to send to any destination.
    pub async fn produce(self) -> Result<Producer, ClientError> {
        let id = ProducerId { connection_id: self.id.value.clone(), value: 1, session_id: self.session_id.value };
        let answer = self.transport.ask("ProducerInfo", |command_id| {
            Command::from(ProducerInfo {
                command_id,
                response_required: true,
                producer_id: Some(id.clone()),
                ..ProducerInfo::default()
            })
        });
        answer.within(OPEN).await?;
        Ok(Producer { connection: self, id, sequence: 0 })
    }

    /// The transport below.
    pub fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    fn forget(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.transport.leave();
    }

    /// Ends it in good order.
    pub async fn close(&self, patience: Duration) -> Result<(), ClientError> {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let id = RemovedId::Connection(self.id.clone());
        let removed = self.transport.ask("RemoveInfo", |command_id| remove_info(command_id, true, id, NONE_DELIVERED));
        let removed = removed.within(patience).await;
        self.transport.leave();
        removed
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !*self.is_closed.get_mut() {
            let id = RemovedId::Connection(self.id.clone());
            self.transport.tell(|command_id| remove_info(command_id, false, id, UNKNOWN_DELIVERED));
            self.transport.leave();
        }
    }
}

/// `lastDeliveredSequenceId`: no message was delivered, so none counts as redelivered.
pub const NONE_DELIVERED: i64 = -1;
/// `lastDeliveredSequenceId`: not known, so everything that was lent counts as redelivered.
pub const UNKNOWN_DELIVERED: i64 = -2;

/// How to consume.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The queue.
    pub destination: Destination,
    /// How many unacknowledged messages may be lent. 0 would mean to pull each, and exactly 1000 whatever the
    /// broker's policy says.
    pub prefetch: i32,
    /// An SQL-92 condition on headers and properties.
    pub selector: Option<String>,
    /// Whether the queue's messages go to one consumer only.
    pub exclusive: bool,
    /// Consumers with a higher one are served first.
    pub priority: i8,
}

/// What is said about messages that were lent: those from `first` to `last` in the order in which they came, and
/// of these the ones that are still lent, `count` in number.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// What is said.
    pub kind: AckKind,
    /// The first message.
    pub first: MessageId,
    /// The last one, perhaps the same.
    pub last: MessageId,
    /// How many.
    pub count: i32,
}

/// What can be said about messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// They have arrived. With a count of 0 it changes nothing, and wakes a queue that has stopped dispatching.
    Delivered,
    /// They cannot be processed, for this reason, and belong to the dead-letter queue.
    Poison(String),
    /// They were processed.
    Standard,
    /// They have expired.
    Expired,
}

/// A consumer, on a logical connection of its own. Dropping it makes the broker take back what was lent.
pub struct Consumer {
    id: ConsumerId,
    destination: Destination,
    registration: Registration,
    connection: Connection,
}

/// As long as it lives, its consumer hears of what concerns it.
struct Registration {
    transport: Arc<Transport>,
    value: i64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.transport.unregister(self.value);
    }
}

impl Consumer {
    /// Says something about messages and does not wait. A failure ends the consumer.
    pub fn acknowledge(&self, acknowledgement: Acknowledgement) {
        let command = self.ack(acknowledgement, false);
        self.connection.transport.tell(command);
    }

    /// Says something about messages, and other things before, all in one write; the answer covers everything that was
    /// said before, too. With persistent messages it costs the broker a disk synchronisation for each of the last.
    pub fn acknowledge_all(&self, before: impl IntoIterator<Item = Acknowledgement>, last: Acknowledgement) -> Answer {
        let told = before.into_iter().map(|acknowledgement| self.ack(acknowledgement, false));
        let asked = std::iter::once_with(|| self.ack(last, true));
        self.connection.transport.ask_last("MessageAck", told.chain(asked))
    }

    fn ack(&self, acknowledgement: Acknowledgement, response_required: bool) -> impl FnOnce(i32) -> Command + '_ {
        let Acknowledgement { kind, first, last, count } = acknowledgement;
        move |command_id| {
            let (ack_type, poison_cause) = match kind {
                AckKind::Delivered => (0, None),
                AckKind::Poison(cause) => (1, Some(Box::new(throwable(&cause)))),
                AckKind::Standard => (2, None),
                AckKind::Expired => (6, None),
            };
            Command::from(MessageAck {
                command_id,
                response_required,
                destination: Some(self.destination.clone()),
                transaction_id: None,
                consumer_id: Some(self.id.clone()),
                ack_type,
                first_message_id: Some(first),
                last_message_id: Some(last),
                message_count: count,
                poison_cause,
            })
        }
    }

    /// Changes the prefetch of the running consumer; what was lent beyond a smaller one stays lent.
    pub async fn set_prefetch(&self, prefetch: i32) -> Result<(), ClientError> {
        let answer = self.connection.transport.ask("ConsumerControl", |command_id| {
            Command::from(ConsumerControl {
                command_id,
                response_required: true,
                destination: Some(self.destination.clone()),
                consumer_id: Some(self.id.clone()),
                prefetch,
                ..ConsumerControl::default()
            })
        });
        answer.within(OPEN).await
    }

    /// Ends the consumer and its connection; what is still lent goes back. `last_delivered` is the broker's
    /// sequence number of the newest message that was worked on: it and those before count as redelivered.
    pub async fn close(&self, last_delivered: i64, patience: Duration) -> Result<(), ClientError> {
        let id = RemovedId::Consumer(self.id.clone());
        let transport = self.transport();
        let removed = transport.ask("RemoveInfo", |command_id| remove_info(command_id, true, id, last_delivered));
        let removed = removed.within(patience).await;
        // Messages may still have been on their way; nobody wants them any more.
        self.unregister();
        self.connection.close(patience).await.and(removed)
    }

    /// Drops the events: nothing that is still on its way arrives any more.
    pub fn unregister(&self) {
        self.transport().unregister(self.registration.value);
    }

    /// The transport below.
    pub fn transport(&self) -> &Arc<Transport> {
        &self.connection.transport
    }
}

/// The broker looks the class up, and takes one that it does not know for this one.
fn throwable(message: &str) -> Throwable {
    Throwable { class: Some("java.lang.Throwable".into()), message: Some(message.into()), ..Throwable::default() }
}

fn remove_info(command_id: i32, response_required: bool, id: RemovedId, last_delivered_sequence_id: i64) -> Command {
    Command::from(RemoveInfo { command_id, response_required, object_id: Some(id), last_delivered_sequence_id })
}

/// Sends messages, on a logical connection of its own.
pub struct Producer {
    connection: Connection,
    id: ProducerId,
    sequence: i64,
}

impl Producer {
    /// Sends a message to its destination, and returns when the broker has it. It is given a new message id.
    pub async fn send(&mut self, mut message: Message) -> Result<(), ClientError> {
        self.sequence += 1;
        message.producer_id = Some(self.id.clone());
        message.message_id = Some(MessageId {
            text_view: None,
            producer_id: Some(self.id.clone()),
            producer_sequence_id: self.sequence,
            broker_sequence_id: 0,
        });
        message.response_required = true;
        let answer =
            self.connection.transport.ask("a message", |command_id| Command::from(Message { command_id, ..message }));
        answer.within(SEND).await
    }

    /// Whether the transport below is open.
    pub fn is_open(&self) -> bool {
        self.connection.transport.is_open()
    }

    /// Ends it in good order, and the transport below.
    pub(crate) async fn close(&self, patience: Duration) -> Result<(), ClientError> {
        let closed = self.connection.close(patience).await;
        self.connection.transport.close(patience).await;
        closed
    }
}
