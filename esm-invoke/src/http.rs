//! Invokes a function behind a URL that speaks Lambda's Invoke API, or takes events as a webhook.
//!
//! The line between "it cannot have run" and "it may have run" is the last piece of the event: what
//! fails before it is sent is [`Outcome::Unavailable`] and spends nothing, what fails afterwards is
//! [`Outcome::FunctionError`]. An answer that comes early is taken at its word.

use std::{
    error::Error,
    io, iter, mem,
    pin::pin,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use base64_simd::STANDARD;
use esm_core::{
    event::Event,
    invoker::{Invoke, Outcome, Reply},
    tls::TlsMaterial,
};
use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    header::{
        ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName,
        HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    },
};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use native_tls::{TlsConnector, TlsConnectorBuilder};
use percent_encoding::percent_decode_str;
use url::{Position, Url};

use crate::{
    answer::{Answer, public},
    backend::Backend,
    body::{EventBody, Overdue, Progress},
    connector::Connector,
    limits::{result_too_large, task_timed_out},
    members::for_log,
    signature::{self, Signer},
};

/// How long a connection may stay unused. Servers close idle connections (gunicorn after 2 s,
/// Node.js after 5 s), and a request that meets such a close looks like a function that died. So
/// ours go first.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// How long connecting may take, with name resolution and TLS.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers that say how a request is sent, which is not for settings to say.
const OURS: [HeaderName; 7] = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE];

/// How the other side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As Lambda's Invoke API does: the result is in a body with status 200, and so are errors.
    Lambda,
    /// As AWS itself does, where a header tells an error from a result, whatever the body says.
    Aws,
    /// As webhooks do: a status from 200 to 299 is success, whatever the body says.
    Webhook,
}

/// How to reach one function.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpSettings {
    /// The URL to post events to, `http` or `https`. User and password in it are sent as Basic
    /// authentication; they and the query appear in no message.
    pub url: String,
    /// How long the function may run, counted from when the event was fully sent.
    pub timeout: Duration,
    /// How long connecting may take, with name resolution and TLS. 5 s by default.
    pub connect_timeout: Duration,
    /// How long the other side may take nothing while the event is being sent. 30 s by default.
    pub stall_timeout: Duration,
    /// What answers mean. Lambda's by default.
    pub protocol: Protocol,
    /// Further headers; their values may be secret, and appear in no message.
    pub headers: Vec<(String, String)>,
    /// User and password for Basic authentication, in place of any in the URL.
    pub login: Option<(String, String)>,
    /// What TLS trusts, and shows. By default it trusts the system's authorities, and shows nothing.
    pub tls: Option<TlsMaterial>,
    /// The key of the signature that events are sent with, if any.
    pub signing_key: Option<String>,
}

impl HttpSettings {
    /// Settings with the defaults named at each field.
    pub fn new(url: impl Into<String>, timeout: Duration) -> Self {
        Self {
            url: url.into(),
            timeout,
            connect_timeout: CONNECT_TIMEOUT,
            stall_timeout: Duration::from_secs(30),
            protocol: Protocol::Lambda,
            headers: Vec::new(),
            login: None,
            tls: None,
            signing_key: None,
        }
    }
}

/// Why settings do not make an invoker. The URL itself is never part of the text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpSettingsError {
    /// It cannot be read as a URL.
    #[error("the URL cannot be read: {0}")]
    Url(String),
    /// Its scheme is something else than `http` or `https`.
    #[error("a URL of a function begins with http:// or https://, not with `{0}:`")]
    Scheme(String),
    /// The system's TLS library could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// There is nothing to protect.
    #[error("tls has no effect on a URL that begins with http://")]
    TlsUnused,
    /// A header's name or value is none, or is not for settings to choose.
    #[error("`{0}` is no header that can be set, or its value has characters that headers cannot have")]
    Header(String),
    /// The key cannot be one.
    #[error("events cannot be signed with this key")]
    SigningKey,
}

/// Invokes the function behind one URL. Connections are kept and reused; each carries one
/// invocation at a time.
pub struct HttpInvoker {
    client: Client<Connector, EventBody>,
    #[cfg(feature = "lambda")]
    url: Url,
    uri: Uri,
    headers: HeaderMap,
    /// The URL as people may see it.
    endpoint: String,
    protocol: Protocol,
    signer: Option<Signer>,
    timeout: Duration,
    stall_timeout: Duration,
}

impl HttpInvoker {
    /// Checks the settings and sets up the client. Connects to nothing yet.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpSettingsError> {
        let HttpSettings { url, timeout, connect_timeout, stall_timeout, protocol, .. } = settings;
        let mut url = parse(&url)?;
        let login = take_login(&mut url);
        let uri = url[..Position::AfterQuery].parse().map_err(unreadable)?;
        let tls = match (url.scheme(), &settings.tls) {
            ("https", None) => Some(system_tls()?),
            ("https", Some(tls)) => Some(connector(&mut tls.connector())?),
            (_, None) => None,
            (_, Some(_)) => return Err(HttpSettingsError::TlsUnused),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if protocol != Protocol::Webhook {
            headers.insert("x-amz-invocation-type", HeaderValue::from_static("RequestResponse"));
        }
        if let Some((username, password)) = settings.login.or(login) {
            let login = STANDARD.encode_to_string(format!("{username}:{password}"));
            let (name, value) = header(AUTHORIZATION.to_string(), &format!("Basic {login}"))?;
            headers.insert(name, value);
        }
        for (name, value) in settings.headers {
            let (name, value) = header(name, &value)?;
            headers.insert(name, value);
        }
        let signer = settings.signing_key.map(|key| Signer::new(&key)).transpose();
        Ok(Self {
            client: client(tls, connect_timeout),
            endpoint: public(&url),
            #[cfg(feature = "lambda")]
            url,
            uri,
            headers,
            protocol,
            signer: signer.map_err(|_| HttpSettingsError::SigningKey)?,
            timeout,
            stall_timeout,
        })
    }

    /// Posts the event with these headers. Beside the reply stands the type of the error that the service gave, if any.
    pub(crate) async fn post(&self, event: Event, mut headers: HeaderMap) -> (Reply, Option<String>) {
        // Proxies may change these, so no signature covers them.
        for (name, value) in [(ACCEPT, "*/*"), (USER_AGENT, concat!("esm/", env!("CARGO_PKG_VERSION")))] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        let (body, progress) = EventBody::new(event);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        self.exchange(request, &progress).await
    }

    /// The headers that every request has.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Where events are posted to.
    #[cfg(feature = "lambda")]
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL as people may see it.
    #[cfg(feature = "lambda")]
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn exchange(&self, request: Request<EventBody>, progress: &Progress) -> (Reply, Option<String>) {
        let mut overdue = pin!(progress.clone().overdue(self.stall_timeout, self.timeout));
        let response = tokio::select! {
            response = self.client.request(request) => response,
            overdue = &mut overdue => return (self.overdue(overdue).into(), None),
        };
        let mut response = match response {
            Ok(response) => response,
            Err(error) => return (self.never_answered(&error, progress).into(), None),
        };
        let mut answer = Answer {
            endpoint: &self.endpoint,
            protocol: self.protocol,
            status: response.status(),
            headers: mem::take(response.headers_mut()),
            body: Vec::new(),
        };
        let read = tokio::select! {
            read = read(response, &mut answer) => read,
            overdue = &mut overdue => Err(Broken::Overdue(overdue)),
        };
        match read {
            // An error is known by its head; as much of its body as came is good enough.
            Err(broken) if answer.is_result() => (self.broke_off(broken).into(), None),
            _ => {
                let error_type = answer.error_type().map(str::to_owned);
                (Reply { outcome: answer.outcome(SystemTime::now()), body: answer.body.into() }, error_type)
            }
        }
    }

    fn never_answered(&self, error: &legacy::Error, progress: &Progress) -> Outcome {
        let cause = root(error);
        if speaks_no_http(error) {
            let reason = format!("{} does not speak HTTP ({cause}); check scheme and port", self.endpoint);
            Outcome::NotUsable { reason }
        } else if progress.is_complete() && !was_refused(error) && !refuses_certificate(&cause) {
            connection_lost(format!("the connection was lost before an answer came: {cause}"))
        } else {
            self.unavailable(&cause)
        }
    }

    fn broke_off(&self, broken: Broken) -> Outcome {
        match broken {
            Broken::TooLarge => result_too_large(),
            Broken::Overdue(Overdue::Answering) => timed_out(self.timeout),
            Broken::Overdue(Overdue::Sending) => {
                connection_lost("the answer began before the event was taken, and did not end".into())
            }
            Broken::Connection(error) => {
                connection_lost(format!("the connection was lost within the answer: {}", root(&error)))
            }
        }
    }

    fn overdue(&self, overdue: Overdue) -> Outcome {
        match overdue {
            Overdue::Answering => timed_out(self.timeout),
            Overdue::Sending => {
                let stalled = self.stall_timeout.as_secs_f64();
                self.unavailable(&format!("nothing of the event was taken for {stalled} seconds"))
            }
        }
    }

    fn unavailable(&self, cause: &str) -> Outcome {
        let reason = format!("cannot send to {}: {cause}", self.endpoint);
        Outcome::Unavailable { reason, retry_after: None }
    }
}

#[async_trait]
impl Invoke for HttpInvoker {
    async fn invoke(&self, event: Event) -> Reply {
        let mut headers = self.headers().clone();
        if let Some(signature) = self.signer.as_ref().and_then(|signer| signature(signer, event.clone())) {
            headers.insert(signature::HEADER, signature);
        }
        self.post(event, headers).await.0
    }
}

#[async_trait]
impl Backend for HttpInvoker {
    fn describe(&self) -> String {
        match self.protocol {
            Protocol::Lambda | Protocol::Aws => format!("Lambda's Invoke API at {}", self.endpoint),
            Protocol::Webhook => format!("a webhook at {}", self.endpoint),
        }
    }
}

/// Why an answer was not read to its end.
enum Broken {
    Connection(hyper::Error),
    Overdue(Overdue),
    TooLarge,
}

async fn read(mut response: Response<Incoming>, answer: &mut Answer<'_>) -> Result<(), Broken> {
    let limit = answer.body_limit();
    while let Some(frame) = response.frame().await {
        let Ok(chunk) = frame.map_err(Broken::Connection)?.into_data() else { continue };
        if answer.body.len() + chunk.len() > limit {
            return Err(Broken::TooLarge);
        }
        answer.body.extend_from_slice(&chunk);
    }
    Ok(())
}

fn parse(text: &str) -> Result<Url, HttpSettingsError> {
    let url = Url::parse(text).map_err(unreadable)?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(HttpSettingsError::Scheme(url.scheme().to_owned()))
    }
}

fn unreadable(error: impl Error) -> HttpSettingsError {
    HttpSettingsError::Url(error.to_string())
}

/// Takes user and password out of a URL.
fn take_login(url: &mut Url) -> Option<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    // A URL with a host can do without them.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    (login != Default::default()).then_some(login)
}

/// Reading the system's certificates takes a tenth of a second and a megabyte, so all invokers
/// share them.
pub(crate) fn system_tls() -> Result<TlsConnector, HttpSettingsError> {
    static SYSTEM_TLS: LazyLock<native_tls::Result<TlsConnector>> = LazyLock::new(TlsConnector::new);
    SYSTEM_TLS.as_ref().cloned().map_err(|error| HttpSettingsError::Tls(error.to_string()))
}

fn connector(builder: &mut TlsConnectorBuilder) -> Result<TlsConnector, HttpSettingsError> {
    builder.build().map_err(|error| HttpSettingsError::Tls(error.to_string()))
}

fn header(name: String, value: &str) -> Result<(HeaderName, HeaderValue), HttpSettingsError> {
    match (HeaderName::try_from(&name), HeaderValue::from_str(value)) {
        (Ok(known), Ok(mut value)) if !OURS.contains(&known) => {
            value.set_sensitive(true);
            Ok((known, value))
        }
        _ => Err(HttpSettingsError::Header(name)),
    }
}

fn signature(signer: &Signer, event: Event) -> Option<HeaderValue> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    HeaderValue::try_from(signer.sign(now.as_secs(), event)).ok()
}

/// It follows no redirect, which is for a person to look at, and heeds no proxy of the environment, which was meant for
/// other programs. A request that was not begun, on a kept connection that turns out closed, is sent again on a new
/// one; nothing else is.
fn client(tls: Option<TlsConnector>, connect_timeout: Duration) -> Client<Connector, EventBody> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(Connector::new(tls, connect_timeout))
}

fn timed_out(timeout: Duration) -> Outcome {
    Outcome::FunctionError { error_type: "Sandbox.Timedout".into(), message: task_timed_out(timeout) }
}

fn connection_lost(message: String) -> Outcome {
    Outcome::FunctionError { error_type: "Runtime.ConnectionLost".into(), message }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| (*error).source())
}

/// The end of the chain says what happened, what stands before it only where.
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(|| "no cause is known".into(), |root| for_log(&root.to_string()))
}

/// An end that closes a connection without having read all it was sent answers with a reset; one
/// that dies after it read the event closes in good order. So a reset means that the event was not
/// taken: by a server that was just closing an idle connection, or by a proxy in front of a
/// container that is not up yet.
fn was_refused(error: &legacy::Error) -> bool {
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// With TLS 1.3 a client may send before the server has judged its certificate. A server that then says one of these
/// (RFC 8446, section 6.2) has read nothing of it.
fn refuses_certificate(cause: &str) -> bool {
    const ALERTS: [&str; 8] = [
        "certificate required",
        "bad certificate",
        "unsupported certificate",
        "certificate revoked",
        "certificate expired",
        "certificate unknown",
        "unknown ca",
        "access denied",
    ];
    cause.split_once(" alert ").is_some_and(|(_, alert)| ALERTS.iter().any(|known| alert.starts_with(known)))
}

fn speaks_no_http(error: &legacy::Error) -> bool {
    chain(error)
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(|error| error.is_parse() && error.to_string() == "invalid HTTP version parsed")
}
