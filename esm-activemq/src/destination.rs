//! Dead letters that go to a queue of the mapping's choice: published on a transport that nothing is consumed on, and
//! confirmed.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use esm_core::{
    credentials::Credentials,
    destination::{Destination, Letter},
    source::SourceError,
};

use crate::{connections::Connections, dead_letters, openwire::Message, portable};

/// A queue that dead letters go to.
pub struct ActiveMqDestination {
    connections: Arc<Connections>,
    broker: String,
    queue: String,
    credentials: Arc<dyn Credentials>,
    /// The client id at the broker begins with it.
    client_id: String,
}

impl ActiveMqDestination {
    /// A queue of the broker with these connections. Connects when there is something to publish.
    pub fn new(
        connections: Arc<Connections>,
        broker: String,
        queue: String,
        credentials: Arc<dyn Credentials>,
        client_id: String,
    ) -> Self {
        Self { connections, broker, queue, credentials, client_id }
    }
}

#[async_trait]
impl Destination for ActiveMqDestination {
    async fn publish(&self, letter: &Letter) -> Result<(), SourceError> {
        let refused = |words: String| SourceError::Protocol { broker: self.broker.clone(), words };
        let message = match letter.original.get::<Message>() {
            Some(message) => Ok(Cow::Borrowed(message)),
            None => portable::received(letter.original.portable()).map(Cow::Owned),
        };
        let no_letter = |error: String| refused(format!("no dead letter can be made of it: {error}"));
        let message = message.map_err(no_letter)?;
        let reasons = letter.reasons(dead_letters::LONGEST_CAUSE);
        let cause = reasons.last().map(|(_, cause)| cause.clone()).unwrap_or_default();
        let message = dead_letters::letter(&message, &self.queue, &cause, reasons).map_err(no_letter)?;
        let client_id = format!("{}-{:08x}", self.client_id, fastrand::u32(..));
        let login = self.connections.login(self.credentials.as_ref()).await?;
        let published = self.connections.publish(&login, &client_id, message).await;
        if let Err(SourceError::Authentication { .. }) = &published {
            self.credentials.refused(&login);
        }
        published
    }
}
