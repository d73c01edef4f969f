//! The seam to brokers: an adapter opens sessions, lends deliveries and settles their receipts.

use std::{pin::Pin, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, Instant},
};

use crate::{
    destination::{Destination, Original},
    event::{Envelope, Record},
    memory::{Hand, Held},
    metrics::DropReason,
};

/// What is kept free of a broker's limit for holding a delivery.
pub const HOLD_MARGIN: Duration = Duration::from_secs(60);

/// Opens sessions on one queue of one broker. Implemented once per adapter crate.
#[async_trait]
pub trait Connect: Send + Sync {
    /// The largest prefetch that the protocol can express.
    fn prefetch_limit(&self) -> u32;

    /// Whether the broker counts a lost session as a delivery of everything that it had lent, and gives messages up for
    /// that.
    fn counts_losses(&self) -> bool {
        false
    }

    /// Opens a session.
    ///
    /// Must not declare or change anything on the broker by itself; a broker may create what is consumed from. May be
    /// dropped half-way.
    async fn connect(&self, terms: Terms) -> Result<Session, SourceError>;
}

/// What a session is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The broker lends at most so many unsettled deliveries.
    pub prefetch: u32,
    /// The session shares its connection with no other, since it may end it.
    pub alone: bool,
    /// The bytes that its deliveries may take here.
    pub memory: usize,
}

/// An open session. Dropping it ends it; whatever was not settled goes back to the broker.
pub struct Session {
    /// What the broker lends, in its order. Holds as many as can ever be lent at once, so that the adapter's
    /// reader never waits for room. Ends after [`Consumer::cancel`], and when the session is lost.
    pub deliveries: mpsc::Receiver<Arrival>,
    /// Settles what was delivered.
    pub consumer: Arc<dyn Consumer>,
    /// What the deliveries take, kept by the adapter's reader.
    pub hand: Hand,
    /// Resolves when the session is lost, with the cause.
    pub lost: oneshot::Receiver<SourceError>,
    /// A condition that lasts and is not a loss, such as a blocked connection.
    pub trouble: watch::Receiver<Option<SourceError>>,
    /// Resolves when another session should take the place of this one in good order, since its login has changed.
    pub outdated: Outdated,
    /// What stands around the records of an event.
    pub envelope: Envelope,
    /// The number of unsettled deliveries at which the broker stops sending.
    pub prefetch: u32,
    /// How long the broker lets a delivery be held, [`HOLD_MARGIN`] already taken off.
    pub hold_limit: Option<Duration>,
    /// How often the broker takes a message of this queue back before it drops it, where it counts that.
    pub delivery_limit: Option<u32>,
    /// The broker makes the message ids, so that a message is known when it comes again.
    pub unique_ids: bool,
    /// Where messages go that are given up, if the mapping names a queue for them.
    pub destination: Option<Arc<dyn Destination>>,
}

/// Resolves once, or never.
pub type Outdated = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The consuming end of one session. An implementation settles a receipt at most once and never on
/// another session.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// Tells the broker what became of deliveries. `receipts` are in the order of delivery.
    ///
    /// Must not be dropped half-way.
    async fn settle(&self, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError>;

    /// Takes a message that cannot be processed to the queue's dead-letter target, with the cause if the broker keeps
    /// one. Must not be dropped half-way.
    async fn dead_letter(&self, receipt: Receipt, cause: &str) -> Result<DeadLettered, SourceError>;

    /// Changes how many deliveries the broker lends at most. What is lent stays lent, and may come on top of that for
    /// a while; nothing goes back, and the order stays as it is.
    ///
    /// Must not be dropped half-way.
    async fn set_prefetch(&self, prefetch: u32) -> Result<(), SourceError>;

    /// Asks the broker to send nothing more. When this returns, every delivery that was on its way
    /// is in [`Session::deliveries`], which then ends.
    async fn cancel(&self) -> Result<(), SourceError>;

    /// Ends the session in good order; what was not settled goes back to the broker.
    async fn close(&self);
}

/// What the broker lent us.
#[derive(Debug)]
pub enum Arrival {
    /// A message as a record.
    Delivery(Delivery),
    /// A message of which no record can be made.
    Unusable(Unusable),
    /// A message for which the session's [`Hand`] has no room: nothing of it is kept, and it has to go back.
    Surplus(Receipt),
}

/// A message of which no record can be made.
#[derive(Debug)]
pub struct Unusable {
    /// What settles it.
    pub receipt: Receipt,
    /// The message's own id, for logs.
    pub message_id: Option<String>,
    /// Its bytes, where they are known.
    pub size: usize,
    /// How it is counted.
    pub reason: DropReason,
    /// Why, for people.
    pub cause: String,
    /// The message itself, if there is a destination for it.
    pub original: Option<Original>,
    /// What it takes of its session's [`Hand`].
    pub held: Option<Held>,
}

/// A message as a record.
#[derive(Debug)]
pub struct Delivery {
    /// Its part of the function's event.
    pub record: Record,
    /// What settles it.
    pub receipt: Receipt,
    /// When it arrived here.
    pub received_at: Instant,
    /// When its time to live ends, counted from its arrival: certain, never early.
    pub expires_at: Option<Instant>,
    /// When the sender or the broker says that it was sent.
    pub sent_at: Option<SystemTime>,
    /// How old it was when it arrived, as far as the broker tells.
    pub age: Duration,
    /// The group in whose order it has to be processed.
    pub group: Option<Group>,
    /// How often the broker has taken it back, where it counts that.
    pub returns: u32,
    /// How often the function has failed with it. Adapters write 0.
    pub failed: u32,
    /// The message itself, if there is a destination for what is given up.
    pub original: Option<Original>,
    /// What it takes of its session's [`Hand`].
    pub held: Option<Held>,
}

/// The name of a message group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group(pub Arc<str>);

/// What settles a delivery: a number that only the adapter understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub u64);

/// What the broker is told about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It was processed and may be forgotten.
    Ack,
    /// It was not processed and is to be delivered again.
    Return {
        /// The function was invoked with it.
        tried: bool,
    },
    /// Its time to live has ended here, and the broker is to apply its rules for that.
    Expire,
}

/// What became of a message that was to be dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLettered {
    /// The broker has taken it.
    Taken,
    /// The broker would destroy it. It is still lent.
    NoTarget {
        /// Why, for people.
        why: String,
    },
    /// The target cannot be reached for now. It is still lent, and this may be asked again.
    NotYet {
        /// Why.
        error: SourceError,
    },
}

/// Why a session could not be opened, or was lost. `words` are the broker's own where it said any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The login was refused.
    #[error("broker `{broker}` refused the login: {words}")]
    Authentication {
        /// Name and endpoint.
        broker: String,
        /// Said by the broker.
        words: String,
    },
    /// There is nothing to log in with.
    #[error("cannot log in to broker `{broker}`: {words}")]
    NoLogin {
        /// Its name.
        broker: String,
        /// Which secret is missing, and why.
        words: String,
    },
    /// Logged in, but not allowed.
    #[error("broker `{broker}` does not allow {what}: {words}")]
    Authorization {
        /// Name and endpoint.
        broker: String,
        /// The act and its object.
        what: String,
        /// Said by the broker.
        words: String,
    },
    /// The virtual host does not exist.
    #[error("broker `{broker}` has no virtual host `{virtual_host}`: {words}")]
    VirtualHostMissing {
        /// Name and endpoint.
        broker: String,
        /// The virtual host.
        virtual_host: String,
        /// Said by the broker.
        words: String,
    },
    /// The queue does not exist.
    #[error("broker `{broker}` has no queue `{queue}`: {words}")]
    QueueMissing {
        /// Name and endpoint.
        broker: String,
        /// The queue.
        queue: String,
        /// Said by the broker.
        words: String,
    },
    /// The queue exists and cannot be consumed as it is.
    #[error("queue `{queue}` on broker `{broker}` cannot be consumed: {words}")]
    QueueUnsuitable {
        /// Name and endpoint.
        broker: String,
        /// The queue.
        queue: String,
        /// The reason.
        words: String,
    },
    /// The broker ended the consumer, as it does when the queue is deleted.
    #[error("broker `{broker}` cancelled the consumer of queue `{queue}`: {words}")]
    ConsumerCancelled {
        /// Name and endpoint.
        broker: String,
        /// The queue.
        queue: String,
        /// The likely reason.
        words: String,
    },
    /// A delivery was held longer than the broker allows.
    #[error("broker `{broker}` ended the consumer of queue `{queue}` because a delivery was held too long: {words}")]
    HeldTooLong {
        /// Name and endpoint.
        broker: String,
        /// The queue.
        queue: String,
        /// Said by the broker.
        words: String,
    },
    /// The broker accepts nothing on this connection for now.
    #[error("broker `{broker}` blocks the connection: {words}")]
    ConnectionBlocked {
        /// Name and endpoint.
        broker: String,
        /// Said by the broker.
        words: String,
    },
    /// The broker, or a person at it, closed the connection.
    #[error("broker `{broker}` closed the connection: {words}")]
    ClosedByBroker {
        /// Name and endpoint.
        broker: String,
        /// Said by the broker.
        words: String,
    },
    /// The broker has as many connections or consumers as it allows.
    #[error("broker `{broker}` takes no further connection: {words}")]
    ConnectionLimit {
        /// Name and endpoint.
        broker: String,
        /// Said by the broker, if it said anything.
        words: String,
    },
    /// Something is there and not, or not yet, at work.
    #[error("broker `{broker}` is not active: {words}")]
    Standby {
        /// Name and endpoint.
        broker: String,
        /// What it does instead.
        words: String,
    },
    /// Somebody else is connected by the same name.
    #[error("broker `{broker}` has a client of this name already: {words}")]
    ClientIdInUse {
        /// Name and endpoint.
        broker: String,
        /// Said by the broker.
        words: String,
    },
    /// The broker is going down, or asks to go elsewhere.
    #[error("broker `{broker}` ends the connection: {words}")]
    BrokerStopping {
        /// Name and endpoint.
        broker: String,
        /// Said by the broker.
        words: String,
    },
    /// The broker announced more than is read at once.
    #[error("broker `{broker}` sent a frame that is too large: {words}")]
    FrameTooLarge {
        /// Name and endpoint.
        broker: String,
        /// The numbers.
        words: String,
    },
    /// The broker took an acknowledgement for wrong. What it did not settle comes again.
    #[error("broker `{broker}` refused an acknowledgement of queue `{queue}`: {words}")]
    AckRefused {
        /// Name and endpoint.
        broker: String,
        /// The queue.
        queue: String,
        /// Said by the broker.
        words: String,
    },
    /// The broker fell silent.
    #[error("broker `{broker}` fell silent: {words}")]
    HeartbeatLost {
        /// Name and endpoint.
        broker: String,
        /// How long, where known.
        words: String,
    },
    /// No connection to the broker.
    #[error("broker `{broker}` cannot be reached: {words}")]
    Unreachable {
        /// Name and endpoint.
        broker: String,
        /// The system's words.
        words: String,
    },
    /// No trust between us and the broker.
    #[error("TLS with broker `{broker}` failed: {words}")]
    Tls {
        /// Name and endpoint.
        broker: String,
        /// The TLS library's words.
        words: String,
    },
    /// The connection broke.
    #[error("lost the connection to broker `{broker}`: {words}")]
    ConnectionLost {
        /// Name and endpoint.
        broker: String,
        /// The system's words.
        words: String,
    },
    /// A message came that the client cannot read, which ended the connection.
    #[error("broker `{broker}` sent a message that cannot be read, perhaps from queue `{queue}`: {words}")]
    Unreadable {
        /// Name and endpoint.
        broker: String,
        /// The queue of this session.
        queue: String,
        /// What to do.
        words: String,
    },
    /// The broker or its client broke the protocol.
    #[error("unexpected answer from broker `{broker}`: {words}")]
    Protocol {
        /// Name and endpoint.
        broker: String,
        /// What happened.
        words: String,
    },
}

impl SourceError {
    /// Whether another endpoint of the same broker may fare better.
    pub fn concerns_the_endpoint(&self) -> bool {
        !matches!(
            self,
            Self::Authentication { .. }
                | Self::NoLogin { .. }
                | Self::Authorization { .. }
                | Self::VirtualHostMissing { .. }
        )
    }

    /// What it comes to that every endpoint of a broker failed.
    pub fn at_every_endpoint(broker: &str, failures: Vec<Self>) -> Self {
        match <[Self; 1]>::try_from(failures) {
            Ok([error]) => error,
            Err(errors) => {
                let words = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                Self::Unreachable { broker: broker.to_owned(), words }
            }
        }
    }

    /// The documented code that a mapping's `StateTransitionReason` begins with, where one applies.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Authentication { .. } | Self::NoLogin { .. } => Some("EVENT_SOURCE_AUTHN_ERROR"),
            Self::Authorization { .. } => Some("EVENT_SOURCE_AUTHZ_ERROR"),
            Self::VirtualHostMissing { .. } | Self::QueueMissing { .. } | Self::QueueUnsuitable { .. } => {
                Some("ESM_CONFIG_NOT_VALID")
            }
            Self::ConsumerCancelled { .. }
            | Self::HeldTooLong { .. }
            | Self::ConnectionLimit { .. }
            | Self::Standby { .. }
            | Self::ClientIdInUse { .. }
            | Self::BrokerStopping { .. }
            | Self::FrameTooLarge { .. }
            | Self::AckRefused { .. }
            | Self::ConnectionBlocked { .. }
            | Self::ClosedByBroker { .. }
            | Self::HeartbeatLost { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::ConnectionLost { .. }
            | Self::Unreadable { .. }
            | Self::Protocol { .. } => None,
        }
    }
}
