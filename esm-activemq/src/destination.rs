//! Dead letters that go to a queue of the mapping's choice: published on a transport that nothing is consumed on, and
//! confirmed.

use std::sync::Arc;

use async_trait::async_trait;
use esm_core::{
    destination::{Destination, Letter},
    source::SourceError,
};

use crate::{client::Login, connections::Connections, dead_letters, openwire::Message};

/// What of a cause reaches the dead letter: it becomes a property, which may hold 64 KiB.
const LONGEST_CAUSE: usize = 4_096;

/// A queue that dead letters go to.
pub struct ActiveMqDestination {
    connections: Arc<Connections>,
    broker: String,
    queue: String,
    login: Login,
    /// The client id at the broker begins with it.
    client_id: String,
}

impl ActiveMqDestination {
    /// A queue of the broker with these connections. Connects when there is something to publish.
    pub fn new(connections: Arc<Connections>, broker: String, queue: String, login: Login, client_id: String) -> Self {
        Self { connections, broker, queue, login, client_id }
    }
}

#[async_trait]
impl Destination for ActiveMqDestination {
    async fn publish(&self, letter: &Letter) -> Result<(), SourceError> {
        let refused = |words: String| SourceError::Protocol { broker: self.broker.clone(), words };
        let message = letter.original.get::<Message>();
        let message = message.ok_or_else(|| refused("the message is none of ActiveMQ's".into()))?;
        let reasons = letter.reasons(LONGEST_CAUSE);
        let cause = reasons.last().map(|(_, cause)| cause.clone()).unwrap_or_default();
        let message = dead_letters::letter(message, &self.queue, &cause, reasons)
            .map_err(|error| refused(format!("no dead letter can be made of it: {error}")))?;
        let client_id = format!("{}-{:08x}", self.client_id, fastrand::u32(..));
        self.connections.publish(&self.login, &client_id, message).await
    }
}
