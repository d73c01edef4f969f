//! Who may call the control API, and a line about whoever changes something.
//!
//! With an access key configured, a call needs a signature by one of them, as AWS's own tools make
//! it (`signature`). Without one, anybody who reaches the port may call, but no web page: browsers
//! run those on the same machine.
//!
//! [`guard`] goes around the routes of the control API and nothing else: metrics and health need no
//! signature. What it lets through has a [`Caller`] among its extensions.

mod audit;
mod refusal;
mod signature;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

pub use self::audit::{Peer, Subject};
pub(crate) use self::signature::{AccessKey, sign_call};
use self::{audit::Change, refusal::Refusal, signature::Presented};

/// Several times what a request with every member at its longest has.
const BODY_LIMIT: usize = 1024 * 1024;
/// Of a body that is too large, so much is read and thrown away: who is cut off while sending sees no answer.
const MOST_READ: usize = 16 * BODY_LIMIT;
/// How long a request's body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// Who may call.
#[derive(Clone, Debug)]
pub struct Access {
    keys: Vec<AccessKey>,
    region: String,
}

/// Who called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anybody, since no access key is configured.
    Anonymous,
    /// Whoever has the secret of this access key.
    AccessKey {
        /// Its public half.
        id: String,
    },
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => formatter.write_str("anonymous"),
            Self::AccessKey { id } => formatter.write_str(id),
        }
    }
}

impl Access {
    /// Signatures have to be by one of the keys and for the region. No key: anybody may call.
    pub(crate) fn new(keys: Vec<AccessKey>, region: String) -> Self {
        Self { keys, region }
    }

    /// Whether calls need a signature.
    pub fn needs_signature(&self) -> bool {
        !self.keys.is_empty()
    }

    pub(crate) fn has_the_keys_of(&self, other: &Self) -> bool {
        self.keys == other.keys
    }

    /// Who calls, and the body that the signature covers.
    async fn admit(&self, head: &axum::http::request::Parts, body: Body) -> Result<(Caller, Bytes), Refusal> {
        if self.keys.is_empty() {
            refuse_web_pages(&head.headers)?;
            return Ok((Caller::Anonymous, read(body).await?));
        }
        // What the head tells is judged first: whoever has no key at all mostly fails by it, and no body is read.
        let presented = Presented::read(head, &self.region, SystemTime::now())?;
        let body = read(body).await?;
        let key = presented.verify(&self.keys, head, &body)?;
        Ok((Caller::AccessKey { id: key.id.clone() }, body))
    }
}

/// Puts the guard around routes, which must not be nested in others: the whole path is signed.
pub fn guard(routes: Router, access: Arc<Access>) -> Router {
    routes.layer(from_fn_with_state(access, admit))
}

async fn admit(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let change = Change::of(&head);
    match access.admit(&head, body).await {
        Ok((caller, body)) => {
            head.extensions.insert(caller.clone());
            let request = Request::from_parts(head, body.into());
            match change {
                None => next.run(request).await,
                Some(change) => complete(change, caller, next, request).await,
            }
        }
        Err(refusal) => {
            audit::refused(&head, &refusal);
            refusal.into_response()
        }
    }
}

/// Carries out a change, and audits it, also if its caller does not wait for the end.
async fn complete(change: Change, caller: Caller, next: Next, request: Request) -> Response {
    let changed = tokio::spawn(async move {
        let response = next.run(request).await;
        change.audit(&caller, &response);
        response
    });
    changed.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    timeout(BODY_PATIENCE, read_all(body)).await.unwrap_or(Err(Refusal::TooSlow))
}

async fn read_all(mut body: Body) -> Result<Bytes, Refusal> {
    let (mut bytes, mut size) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        // The connection broke, and nobody reads the answer.
        let frame = frame.map_err(|_| Refusal::TooSlow)?;
        let Ok(data) = frame.into_data() else { continue };
        size = size.saturating_add(data.len());
        if size <= BODY_LIMIT {
            bytes.extend_from_slice(&data);
        } else if size > MOST_READ {
            break;
        }
    }
    if size > BODY_LIMIT { Err(Refusal::TooLarge) } else { Ok(bytes.into()) }
}

/// A browser says where the page is from that wants to change something, and by which name it came here:
/// a page may have a name of its own lead to this machine.
fn refuse_web_pages(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.contains_key(ORIGIN) {
        return Err(Refusal::WebPage);
    }
    match headers.get(HOST) {
        Some(host) if !is_nobodys_name(host) => Err(Refusal::Host),
        _ => Ok(()),
    }
}

fn is_nobodys_name(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}
