//! A line for every change that somebody asked for: who, what, and what came of it. Also for every
//! call that was refused. None holds a body or a secret.

use std::{borrow::Cow, net::SocketAddr};

use axum::{
    http::{Method, request::Parts},
    response::Response,
};
use percent_encoding::percent_decode_str;
use tracing::{info, warn};

use super::{Caller, refusal::Refusal};

const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
const TAGS: &str = "/2017-03-31/tags";

/// Where a request came from: an extension of it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a call was about, where its path does not tell: an extension of the response. The UUID of
/// a mapping that was made.
#[derive(Clone, Debug)]
pub struct Subject(pub String);

/// A call that is meant to change something.
pub(super) struct Change {
    operation: Cow<'static, str>,
    subject: Option<String>,
    peer: Option<Peer>,
}

impl Change {
    /// `None`: the call only reads.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        if head.method == Method::GET || head.method == Method::HEAD {
            return None;
        }
        let (operation, subject) = operation(&head.method, head.uri.path());
        Some(Self { operation, subject, peer: head.extensions.get().copied() })
    }

    pub(super) fn audit(self, caller: &Caller, response: &Response) {
        let subject = response.extensions().get().map(|Subject(subject)| subject.clone()).or(self.subject);
        let error = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        info!(
            target: "audit",
            %caller,
            peer = self.peer.map(|Peer(address)| address.to_string()),
            operation = %self.operation,
            subject,
            status = response.status().as_u16(),
            error,
            "a change was asked for"
        );
    }
}

pub(super) fn refused(head: &Parts, refusal: &Refusal) {
    let peer = head.extensions.get().map(|Peer(address)| address.to_string());
    let (operation, _) = operation(&head.method, head.uri.path());
    warn!(target: "audit", peer, %operation, reason = %refusal, "a call was refused");
}

/// AWS's name of what is asked for, and what it is about.
fn operation(method: &Method, path: &str) -> (Cow<'static, str>, Option<String>) {
    let within = |folder: &str| path.strip_prefix(folder).map(|rest| rest.trim_matches('/')).map(decoded);
    let (name, subject) = match (method.as_str(), within(MAPPINGS), within(TAGS)) {
        ("POST", Some(_), _) => ("CreateEventSourceMapping", None),
        ("PUT", Some(uuid), _) => ("UpdateEventSourceMapping", Some(uuid)),
        ("DELETE", Some(uuid), _) => ("DeleteEventSourceMapping", Some(uuid)),
        ("GET", Some(uuid), _) if uuid.is_empty() => ("ListEventSourceMappings", None),
        ("GET", Some(uuid), _) => ("GetEventSourceMapping", Some(uuid)),
        ("GET", _, Some(arn)) => ("ListTags", Some(arn)),
        ("POST", _, Some(arn)) => ("TagResource", Some(arn)),
        ("DELETE", _, Some(arn)) => ("UntagResource", Some(arn)),
        _ => return (format!("{method} {path}").into(), None),
    };
    (name.into(), subject)
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
