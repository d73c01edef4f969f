//! The string forms of ids, which people see and brokers print.

use std::fmt;

use super::{
    commands::{BrokerId, ConnectionId, ConsumerId, LocalTransactionId, MessageId, ProducerId, SessionId},
    error::{DecodeError, Problem},
    kinds::Structure,
    reader::Reader,
    text::Text,
    writer::Writer,
};

/// What a [`RemoveInfo`](super::RemoveInfo) removes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemovedId {
    /// A connection with everything that belongs to it.
    Connection(ConnectionId),
    /// A session with its consumers and producers.
    Session(SessionId),
    /// A consumer.
    Consumer(ConsumerId),
    /// A producer.
    Producer(ProducerId),
}

impl Structure for RemovedId {
    fn type_id(&self) -> u8 {
        match self {
            Self::Connection(id) => id.type_id(),
            Self::Session(id) => id.type_id(),
            Self::Consumer(id) => id.type_id(),
            Self::Producer(id) => id.type_id(),
        }
    }

    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match type_id {
            ConnectionId::TYPE => Structure::read(type_id, reader).map(Self::Connection),
            SessionId::TYPE => Structure::read(type_id, reader).map(Self::Session),
            ConsumerId::TYPE => Structure::read(type_id, reader).map(Self::Consumer),
            ProducerId::TYPE => Structure::read(type_id, reader).map(Self::Producer),
            other => Err(Problem::UnexpectedType(other).into()),
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Connection(id) => id.write(writer),
            Self::Session(id) => id.write(writer),
            Self::Consumer(id) => id.write(writer),
            Self::Producer(id) => id.write(writer),
        }
    }
}

impl ConnectionId {
    /// The id with this value.
    pub fn new(value: impl Into<Text>) -> Self {
        Self { value: Some(value.into()) }
    }
}

impl SessionId {
    /// The session with this number of a connection.
    pub fn new(connection_id: impl Into<Text>, value: i64) -> Self {
        Self { connection_id: Some(connection_id.into()), value }
    }
}

impl ConsumerId {
    /// The consumer with this number of a session.
    pub fn new(connection_id: impl Into<Text>, session_id: i64, value: i64) -> Self {
        Self { connection_id: Some(connection_id.into()), session_id, value }
    }
}

impl ProducerId {
    /// The producer with this number of a session.
    pub fn new(connection_id: impl Into<Text>, session_id: i64, value: i64) -> Self {
        Self { connection_id: Some(connection_id.into()), value, session_id }
    }
}

impl MessageId {
    /// A copy that does not keep the frame alive that this id came in.
    #[must_use]
    pub fn detached(&self) -> Self {
        let detached = |text: &Option<Text>| text.as_ref().map(Text::detached);
        let producer_id = self.producer_id.as_ref().map(|producer_id| ProducerId {
            connection_id: detached(&producer_id.connection_id),
            ..producer_id.clone()
        });
        Self { text_view: detached(&self.text_view), producer_id, ..self.clone() }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.value.as_ref(), formatter)
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.value.as_ref(), formatter)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.connection_id.as_ref(), formatter)?;
        write!(formatter, ":{}", self.value)
    }
}

impl fmt::Display for ConsumerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.connection_id.as_ref(), formatter)?;
        write!(formatter, ":{}:{}", self.session_id, self.value)
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.connection_id.as_ref(), formatter)?;
        write!(formatter, ":{}:{}", self.session_id, self.value)
    }
}

impl fmt::Display for LocalTransactionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TX:")?;
        if let Some(connection_id) = &self.connection_id {
            connection_id.fmt(formatter)?;
        }
        write!(formatter, ":{}", self.value)
    }
}

/// The JMS message id: `ID:` and what the producer's client chose, or the producer's id and its count.
impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text_view) = &self.text_view {
            let prefix = if text_view.as_bytes().starts_with(b"ID:") { "" } else { "ID:" };
            return write!(formatter, "{prefix}{text_view}");
        }
        if let Some(producer_id) = &self.producer_id {
            producer_id.fmt(formatter)?;
        }
        write!(formatter, ":{}", self.producer_sequence_id)
    }
}

fn write_text(text: Option<&Text>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.map_or(Ok(()), |text| formatter.write_str(&text.to_str()))
}
