//! What a mapping says of itself: the members that AWS's API has for it.

use std::{borrow::Cow, str::FromStr};

use tokio::sync::watch;

use crate::source::SourceError;

/// `LastProcessingResult` of a mapping that has processed nothing yet.
pub const NO_RECORDS_PROCESSED: &str = "No records processed";
const USER_INITIATED: &str = "USER_INITIATED";
const OK: &str = "OK";

/// `State`, as AWS documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet connected for the first time.
    Creating,
    /// Not yet connected after it was disabled.
    Enabling,
    /// Running, or retrying.
    Enabled,
    /// Ending its work.
    Disabling,
    /// Not running.
    Disabled,
    /// Not yet running as it was last asked for.
    Updating,
    /// Ending its work, and then it is gone.
    Deleting,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Enabling,
        Self::Enabled,
        Self::Disabling,
        Self::Disabled,
        Self::Updating,
        Self::Deleting,
    ];

    /// As AWS spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Enabling => "Enabling",
            Self::Enabled => "Enabled",
            Self::Disabling => "Disabling",
            Self::Disabled => "Disabled",
            Self::Updating => "Updating",
            Self::Deleting => "Deleting",
        }
    }

    /// Whether a mapping in this state is to run.
    pub fn wants_to_run(self) -> bool {
        match self {
            Self::Creating | Self::Enabling | Self::Enabled | Self::Updating => true,
            Self::Disabling | Self::Disabled | Self::Deleting => false,
        }
    }

    /// Whether nothing is on its way to another state, so that a change may begin.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Enabled | Self::Disabled)
    }
}

/// A text is no state.
#[derive(Debug, thiserror::Error)]
#[error("there is no state of this name")]
pub struct NoState;

impl FromStr for State {
    type Err = NoState;

    fn from_str(text: &str) -> Result<Self, NoState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(NoState)
    }
}

/// What a mapping does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `State`.
    pub state: State,
    /// `StateTransitionReason`: `USER_INITIATED`, or a documented code and a sentence.
    pub state_transition_reason: Cow<'static, str>,
    /// `LastProcessingResult`: `No records processed`, `OK`, or `PROBLEM: ` and a sentence.
    pub last_processing_result: Cow<'static, str>,
    /// Whether a session with the broker is open.
    pub connected: bool,
    /// Whether what is wrong is wrong with the source, so that a session mends it.
    source_problem: bool,
}

impl Status {
    /// A mapping that nobody has started.
    pub fn new(state: State) -> Self {
        Self {
            state,
            state_transition_reason: USER_INITIATED.into(),
            last_processing_result: NO_RECORDS_PROCESSED.into(),
            connected: false,
            source_problem: false,
        }
    }

    /// What became of what was processed, which is true for longer than the mapping runs. What is wrong with its
    /// source is not.
    pub fn lasting_result(&self) -> Option<&str> {
        let is_lasting = !self.source_problem && self.last_processing_result != NO_RECORDS_PROCESSED;
        is_lasting.then_some(&*self.last_processing_result)
    }
}

/// The writing end of a mapping's status. Clones write the same status.
#[derive(Clone, Debug)]
pub struct StatusWriter(watch::Sender<Status>);

impl StatusWriter {
    pub(crate) fn new(state: State) -> Self {
        Self(watch::Sender::new(Status::new(state)))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// A session is open: whatever was wrong with the source is not any more.
    pub(crate) fn connected(&self) {
        self.0.send_modify(|status| {
            status.connected = true;
            status.state = State::Enabled;
            if std::mem::take(&mut status.source_problem) {
                status.state_transition_reason = USER_INITIATED.into();
                status.last_processing_result = OK.into();
            }
        });
    }

    /// There is no session, or it is in trouble, for this reason.
    pub(crate) fn source_problem(&self, error: &SourceError, connected: bool) {
        self.0.send_modify(|status| {
            status.state = State::Enabled; // it keeps trying
            status.connected = connected;
            status.source_problem = true;
            status.state_transition_reason = match error.code() {
                Some(code) => format!("{code}: {error}").into(),
                None => USER_INITIATED.into(),
            };
            status.last_processing_result = format!("PROBLEM: {error}").into();
        });
    }

    /// The function cannot be used as it is configured. Returns whether that is news.
    pub(crate) fn function_not_usable(&self, reason: &str) -> bool {
        self.0.send_if_modified(|status| {
            status.state_transition_reason = format!("FUNCTION_CONFIG_NOT_VALID: {reason}").into();
            replace(&mut status.last_processing_result, format!("PROBLEM: {reason}").into())
        })
    }

    /// Something is wrong that is neither the source's fault nor the function's configuration.
    /// Returns whether that is news.
    pub(crate) fn problem(&self, words: &str) -> bool {
        self.0
            .send_if_modified(|status| replace(&mut status.last_processing_result, format!("PROBLEM: {words}").into()))
    }

    /// A batch was processed.
    pub(crate) fn processed(&self) {
        self.0.send_if_modified(|status| {
            let healed = replace(&mut status.last_processing_result, Cow::Borrowed(OK));
            replace(&mut status.state_transition_reason, Cow::Borrowed(USER_INITIATED)) || healed
        });
    }

    /// Nobody is connected any more, and that is as it should be.
    pub(crate) fn disabled(&self) {
        self.0.send_modify(|status| {
            status.connected = false;
            status.state = State::Disabled;
        });
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}
