//! The conversation on one transport as a state machine: frames and the passing of time go in,
//! [`Action`]s and bytes to send come out. It knows no socket and reads no clock.
//!
//! Several logical connections share a transport, each with a login, sessions and consumers of its
//! own; commands are numbered over all of them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::error::{ClientError, Exception};
use crate::openwire::{
    BrokerInfo, Command, ConnectionControl, ConsumerControl, Decoder, DispatchHead, EncodeError, Encoder,
    KeepAliveInfo, MessageDispatch, NegotiationError, ShutdownInfo, Text, Throwable, WireFormat, WireFormatInfo,
    negotiate, oversized_dispatch_head,
};

/// The first frame is a `WireFormatInfo` of some 300 bytes; what announces more is something else.
const FIRST_FRAME_LIMIT: usize = 64 * 1024;
/// No record can be made of a larger frame: an event has at most 6 MiB, the body a third more than in the frame.
/// A larger dispatch is passed over, and its message given up by its head.
pub(crate) const FRAME_LIMIT: usize = 8 * 1024 * 1024;
/// The head of a dispatch ends before: it is a few ids and names, each with at most 64 KiB.
pub(crate) const HEAD: usize = 1024 * 1024;
/// How long a broker may be silent that knows no such time itself.
const UNWATCHED: Duration = Duration::from_secs(60);
/// What of a broker's words reaches errors and logs.
const WORDS_LIMIT: usize = 1_000;

/// What is to be done about a frame.
pub(crate) enum Action {
    /// Nothing.
    Nothing,
    /// Both sides agree on a wire format.
    Open(BrokerTerms),
    /// A command was answered.
    Answer {
        /// The command's number.
        command_id: i32,
        /// What the broker said.
        result: Result<(), Exception>,
    },
    /// A consumer got a message.
    Deliver(Box<MessageDispatch>),
    /// A consumer got a message that cannot be decoded beyond its head.
    DeliverHead {
        /// What can be said of it.
        head: Box<DispatchHead>,
        /// Why that is all.
        flaw: Flaw,
    },
    /// The broker changes or ends a consumer.
    ControlConsumer(Box<ConsumerControl>),
    /// The broker tells where else its like can be found, or asks us to go there.
    ControlConnection(Box<ConnectionControl>),
    /// A command that nobody waits for has failed.
    Complain(Exception),
    /// The broker says who it is.
    Introduce(Box<BrokerInfo>),
    /// The conversation is over.
    End(ClientError),
}

/// Why of a message only its head is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is too large to be read.
    TooLarge {
        /// The frame's length.
        bytes: u64,
    },
    /// It is no OpenWire.
    Undecodable {
        /// What is wrong with it.
        words: String,
    },
}

/// What the two sides agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokerTerms {
    pub(crate) max_inactivity: Duration,
    pub(crate) initial_delay: Duration,
}

pub(crate) struct Session {
    ours: WireFormatInfo,
    /// Set once the peer's `WireFormatInfo` has come.
    formats: Option<(Decoder, Encoder)>,
    output: BytesMut,
    last_command_id: i32,
    inactivity: Inactivity,
    /// The broker does not watch over silence, and says nothing by itself: so it is asked.
    must_ask: bool,
}

impl Session {
    /// A session whose first words are ready to be sent: some brokers stay silent until they have them.
    pub(crate) fn new(ours: WireFormatInfo) -> Self {
        let mut output = BytesMut::new();
        let sent = Encoder::new(WireFormat::INITIAL).encode(&Command::WireFormatInfo(ours.clone()), &mut output);
        debug_assert!(sent.is_ok(), "its names are short");
        Self { ours, formats: None, output, last_command_id: 0, inactivity: Inactivity::default(), must_ask: false }
    }

    /// How long the next frame may be.
    pub(crate) fn frame_limit(&self) -> usize {
        if self.formats.is_some() { FRAME_LIMIT } else { FIRST_FRAME_LIMIT }
    }

    /// Takes note that something was heard.
    pub(crate) fn heard(&mut self) {
        self.inactivity.heard = true;
    }

    /// Takes a frame, without its length.
    pub(crate) fn handle(&mut self, frame: Bytes) -> Action {
        let Some((decoder, _)) = &mut self.formats else { return self.shake_hands(frame) };
        match decoder.decode(frame.clone()) {
            Ok(command) => self.obey(command),
            Err(error) => match oversized_dispatch_head(&frame) {
                Ok(Some(head)) => {
                    Action::DeliverHead { head: Box::new(head), flaw: Flaw::Undecodable { words: error.to_string() } }
                }
                _ if is_dispatch(&frame) => Action::End(ClientError::Unreadable { words: error.to_string() }),
                _ => Action::End(ClientError::Protocol { words: error.to_string() }),
            },
        }
    }

    /// Takes the beginning of a frame of `bytes` that is too large to be read. `None`: more of it is needed.
    pub(crate) fn handle_head(&mut self, beginning: &[u8], bytes: u64) -> Option<Action> {
        Some(match oversized_dispatch_head(beginning) {
            Ok(Some(head)) => Action::DeliverHead { head: Box::new(head), flaw: Flaw::TooLarge { bytes } },
            Ok(None) if beginning.len() < HEAD => return None,
            _ if is_dispatch(beginning) => {
                Action::End(ClientError::Unreadable { words: format!("{bytes} bytes, and no head that can be read") })
            }
            _ => Action::End(ClientError::FrameTooLarge { command: "frame", bytes, limit: self.frame_limit() }),
        })
    }

    fn shake_hands(&mut self, frame: Bytes) -> Action {
        let not_openwire = |words: String| Action::End(ClientError::NotOpenWire { words });
        let theirs = match Decoder::new(WireFormat::INITIAL).decode(frame) {
            Ok(Command::WireFormatInfo(theirs)) => theirs,
            Ok(_) => return not_openwire("it began with another command than WireFormatInfo".into()),
            Err(error) => return not_openwire(error.to_string()),
        };
        let negotiated = match negotiate(&self.ours, &theirs) {
            Ok(negotiated) => negotiated,
            Err(NegotiationError::Version(theirs)) => return Action::End(ClientError::VersionTooOld { theirs }),
            Err(error) => return not_openwire(error.to_string()),
        };
        self.formats = Some((Decoder::new(negotiated.format), Encoder::new(negotiated.format)));
        let milliseconds = |value: i64| Duration::from_millis(u64::try_from(value).unwrap_or(0));
        self.must_ask = negotiated.max_inactivity_duration == 0;
        if self.must_ask {
            return Action::Open(BrokerTerms { max_inactivity: UNWATCHED, initial_delay: UNWATCHED / 3 });
        }
        Action::Open(BrokerTerms {
            max_inactivity: milliseconds(negotiated.max_inactivity_duration),
            initial_delay: milliseconds(negotiated.max_inactivity_duration_initial_delay),
        })
    }

    fn obey(&mut self, command: Command) -> Action {
        match command {
            Command::MessageDispatch(dispatch) => Action::Deliver(dispatch),
            Command::Response(response) => Action::Answer { command_id: response.correlation_id, result: Ok(()) },
            Command::ExceptionResponse(response) => Action::Answer {
                command_id: response.correlation_id,
                result: Err(exception(response.exception.as_deref())),
            },
            Command::KeepAliveInfo(keep_alive) => {
                if keep_alive.response_required {
                    let answer = KeepAliveInfo { command_id: keep_alive.command_id, response_required: false };
                    // It has nothing that could fail to fit.
                    let _ = self.encode(&answer.into());
                }
                Action::Nothing
            }
            Command::ConsumerControl(control) => Action::ControlConsumer(control),
            Command::ConnectionControl(control) => Action::ControlConnection(control),
            Command::ConnectionError(error) => Action::Complain(exception(error.exception.as_deref())),
            Command::BrokerInfo(broker) => Action::Introduce(broker),
            Command::ShutdownInfo(_) => Action::End(ClientError::Stopping { words: "it is shutting down".into() }),
            // Nothing else concerns a consumer; what newer brokers may say is passed over.
            _ => Action::Nothing,
        }
    }

    /// Sends a command that is given its number.
    pub(crate) fn send(&mut self, command: impl FnOnce(i32) -> Command) -> Result<i32, EncodeError> {
        self.last_command_id = self.last_command_id.wrapping_add(1);
        let command = command(self.last_command_id);
        self.encode(&command)?;
        Ok(self.last_command_id)
    }

    /// The last words.
    pub(crate) fn say_goodbye(&mut self) {
        let goodbye = |command_id| ShutdownInfo { command_id, response_required: false }.into();
        let _ = self.send(goodbye);
    }

    fn encode(&mut self, command: &Command) -> Result<(), EncodeError> {
        let Some((_, encoder)) = &mut self.formats else { return Ok(()) };
        encoder.encode(command, &mut self.output)?;
        self.inactivity.said = true;
        Ok(())
    }

    /// Whether there is something to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Hands over what is to be sent. `sent` is what the last call handed over, to be used again.
    pub(crate) fn take_output(&mut self, sent: &mut BytesMut) {
        sent.clear();
        std::mem::swap(&mut self.output, sent);
    }

    /// Notes that a third of the time has passed in which each side has to be heard.
    pub(crate) fn tick(&mut self, max_inactivity: Duration) -> Result<(), ClientError> {
        if !std::mem::take(&mut self.inactivity.said) || self.must_ask {
            let response_required = self.must_ask;
            let keep_alive = |command_id| KeepAliveInfo { command_id, response_required }.into();
            let _ = self.send(keep_alive);
            self.inactivity.said = false;
        }
        let heard = std::mem::take(&mut self.inactivity.heard);
        self.inactivity.silent_ticks = if heard { 0 } else { self.inactivity.silent_ticks + 1 };
        if self.inactivity.silent_ticks > SILENT_TICKS { Err(ClientError::SilentPeer(max_inactivity)) } else { Ok(()) }
    }
}

fn is_dispatch(frame: &[u8]) -> bool {
    frame.first() == Some(&MessageDispatch::TYPE)
}

/// Three would be the whole time; one more, since the first silent tick may have begun with a word.
const SILENT_TICKS: u32 = 3;

/// How often each side has to say something: three times in `max_inactivity`.
pub(crate) fn tick_interval(max_inactivity: Duration) -> Duration {
    max_inactivity / 3
}

#[derive(Default)]
struct Inactivity {
    /// Something was heard since the last tick.
    heard: bool,
    /// Something was said since the last tick.
    said: bool,
    silent_ticks: u32,
}

/// The broker's words, short enough for a log and free of control characters.
fn exception(throwable: Option<&Throwable>) -> Exception {
    let words = |text: Option<&Text>| {
        let text = text.map(|text| text.to_str().into_owned()).unwrap_or_default();
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_LIMIT).collect::<String>()
    };
    Exception {
        class: words(throwable.and_then(|throwable| throwable.class.as_ref())),
        message: words(throwable.and_then(|throwable| throwable.message.as_ref())),
    }
}
