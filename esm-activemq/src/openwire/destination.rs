//! Where messages are sent to and consumed from.

use std::fmt;

use super::{
    error::{DecodeError, Problem},
    kinds::Structure,
    reader::Reader,
    text::Text,
    writer::Writer,
};

const QUEUE: u8 = 100;
const TOPIC: u8 = 101;
const TEMP_QUEUE: u8 = 102;
const TEMP_TOPIC: u8 = 103;

/// A destination with its physical name, which peers never leave out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue: every message goes to one consumer.
    Queue(Text),
    /// A topic: every message goes to every subscriber.
    Topic(Text),
    /// A queue that lives as long as the connection which made it.
    TempQueue(Text),
    /// A topic that lives as long as the connection which made it.
    TempTopic(Text),
}

impl Destination {
    /// Its name, without its type.
    pub fn physical_name(&self) -> &Text {
        match self {
            Self::Queue(name) | Self::Topic(name) | Self::TempQueue(name) | Self::TempTopic(name) => name,
        }
    }

    pub(super) fn is_type(type_id: u8) -> bool {
        (QUEUE..=TEMP_TOPIC).contains(&type_id)
    }
}

/// As Java prints it, for instance `queue://orders`.
impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self {
            Self::Queue(_) => "queue",
            Self::Topic(_) => "topic",
            Self::TempQueue(_) => "temp-queue",
            Self::TempTopic(_) => "temp-topic",
        };
        write!(formatter, "{scheme}://{}", self.physical_name())
    }
}

impl Structure for Destination {
    fn type_id(&self) -> u8 {
        match self {
            Self::Queue(_) => QUEUE,
            Self::Topic(_) => TOPIC,
            Self::TempQueue(_) => TEMP_QUEUE,
            Self::TempTopic(_) => TEMP_TOPIC,
        }
    }

    fn read(type_id: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let variant = match type_id {
            QUEUE => Self::Queue,
            TOPIC => Self::Topic,
            TEMP_QUEUE => Self::TempQueue,
            TEMP_TOPIC => Self::TempTopic,
            other => return Err(Problem::UnexpectedType(other).into()),
        };
        let name = reader.text().and_then(|name| name.ok_or_else(|| Problem::Null.into()));
        name.map(variant).map_err(|error| error.inside("physical_name"))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.text(Some(self.physical_name()));
    }
}
