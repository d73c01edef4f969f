//! The seam to where messages go that are given up: a queue that each is published to before the original is
//! acknowledged.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use crate::{mapping::Mapping, metrics::DropReason, source::SourceError};

/// A queue for dead letters. Implemented once per adapter crate.
#[async_trait]
pub trait Destination: Send + Sync {
    /// Publishes a message with its body and its properties, and with [`Letter::reasons`] beside these. Returns when
    /// the broker has confirmed that the queue has it. What fails is tried again by the caller, and may then have been
    /// published already.
    async fn publish(&self, letter: &Letter) -> Result<(), SourceError>;
}

/// A message as its adapter received it. Only an adapter with a destination keeps it.
#[derive(Clone)]
pub struct Original(Arc<dyn Kept>);

impl Original {
    /// Keeps a message.
    pub fn new(message: impl Kept) -> Self {
        Self(Arc::new(message))
    }

    /// The message, for the adapter whose type it is.
    pub fn get<M: Kept>(&self) -> Option<&M> {
        let message: &dyn Any = &*self.0;
        message.downcast_ref()
    }

    /// The message, for an adapter of other brokers.
    pub fn portable(&self) -> Portable {
        self.0.portable()
    }
}

/// What an adapter keeps of a message.
pub trait Kept: Any + Send + Sync {
    /// The message in a form that brokers of every kind have.
    fn portable(&self) -> Portable;
}

/// A message without what is a broker's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Portable {
    /// What it says.
    pub body: Body,
    /// What its sender or its broker called it.
    pub message_id: Option<String>,
    /// What it belongs to.
    pub correlation_id: Option<String>,
    /// Its type, by its sender's word.
    pub message_type: Option<String>,
    /// The higher, the sooner.
    pub priority: Option<u8>,
    /// When it was sent, in milliseconds since 1970.
    pub sent_at_ms: Option<i64>,
    /// Its headers or properties, and what has no place elsewhere.
    pub properties: Vec<(String, Value)>,
}

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Characters.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

/// The value of a header or a property.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value {
    Null,
    Boolean(bool),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Text(String),
}

impl fmt::Debug for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }
}

/// A message that is given up, and why.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The message.
    pub original: Original,
    /// How it is counted.
    pub reason: DropReason,
    /// Why, for people; perhaps long.
    pub cause: String,
    /// The function's name.
    pub function: String,
    /// The mapping's UUID.
    pub mapping: String,
    /// The broker's name.
    pub event_source: String,
    /// The queue that it was read from.
    pub queue: String,
    /// How often the function has failed with it.
    pub attempts: u32,
    /// When it was given up.
    pub given_up_at: SystemTime,
}

impl Letter {
    pub(crate) fn new(original: Original, reason: DropReason, cause: &str, attempts: u32, mapping: &Mapping) -> Self {
        Self {
            original,
            reason,
            cause: cause.to_owned(),
            function: mapping.function.clone(),
            mapping: mapping.uuid.to_string(),
            event_source: mapping.event_source.clone(),
            queue: mapping.queue.clone(),
            attempts,
            given_up_at: SystemTime::now(),
        }
    }

    /// What is added to the message, as names and texts: the cause comes last, and has at most so many bytes.
    pub fn reasons(&self, longest_cause: usize) -> [(&'static str, String); 8] {
        let given_up_at = self.given_up_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        [
            ("esm_reason", self.reason.as_str().to_owned()),
            ("esm_function", self.function.clone()),
            ("esm_mapping", self.mapping.clone()),
            ("esm_event_source", self.event_source.clone()),
            ("esm_queue", self.queue.clone()),
            ("esm_attempts", self.attempts.to_string()),
            ("esm_given_up_at", given_up_at.as_millis().to_string()),
            ("esm_cause", self.cause[..self.cause.floor_char_boundary(longest_cause)].to_owned()),
        ]
    }
}
