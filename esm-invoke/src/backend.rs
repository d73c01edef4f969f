//! What every backend can do beside invoking: show what was answered, and end in good order.

use async_trait::async_trait;
use bytes::Bytes;
use esm_core::{
    event::Event,
    invoker::{Invoke, Outcome},
};

/// A way to a function.
#[async_trait]
pub trait Backend: Invoke {
    /// Invokes the function as [`Invoke::invoke`] does, and keeps what it answered.
    async fn call(&self, event: Event) -> Reply;

    /// How the function is reached, in words for people and without secrets.
    fn describe(&self) -> String;

    /// Ends in good order whatever runs for the function, such as its processes. What is invoked
    /// afterwards may start it again.
    async fn close(&self) {}
}

/// An outcome together with the words it was told in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What became of the invocation.
    pub outcome: Outcome,
    /// The function's result, or the JSON that says what went wrong; empty if there is neither.
    pub body: Bytes,
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, body: Bytes::new() }
    }
}
