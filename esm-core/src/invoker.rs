//! The seam to functions: an event goes out, an outcome comes back.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::event::Event;

/// Invokes one function. Implemented once per backend of `esm-invoke`.
#[async_trait]
pub trait Invoke: Send + Sync {
    /// Sends the event and waits for the function's answer, for as long as the function's timeout
    /// allows. An implementation never retries by itself: what an outcome means is decided by the
    /// caller. Dropping the future gives the invocation up; the function may have run.
    async fn invoke(&self, event: Event) -> Reply;
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

/// What became of one invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function returned.
    Success,
    /// The function ran and failed, or may have run: it raised an error, crashed, ran out of time,
    /// or broke the connection before it answered. Spends an attempt.
    FunctionError {
        /// The error's type, such as `Sandbox.Timedout`.
        error_type: String,
        /// The error's text, cut to a size fit for a log.
        message: String,
    },
    /// The function's side refused for lack of capacity. Spends nothing.
    Throttled {
        /// What was said.
        reason: String,
        /// The wait that was asked for.
        retry_after: Option<Duration>,
    },
    /// The function could not be reached, or its platform failed. Spends nothing.
    Unavailable {
        /// What went wrong.
        reason: String,
        /// The wait that was asked for.
        retry_after: Option<Duration>,
    },
    /// The event was refused for its size. Fewer records may pass.
    TooLarge {
        /// What was said.
        reason: String,
    },
    /// The function does not exist, may not be called, or is broken as configured: only a person
    /// can mend it. Spends nothing.
    NotUsable {
        /// What was said.
        reason: String,
    },
}

impl Outcome {
    /// Whether the function ran, or may have run.
    pub(crate) fn ran(&self) -> bool {
        match self {
            Self::Success | Self::FunctionError { .. } => true,
            Self::Throttled { .. } | Self::Unavailable { .. } | Self::TooLarge { .. } | Self::NotUsable { .. } => false,
        }
    }
}
