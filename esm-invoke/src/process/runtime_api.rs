//! Serves Lambda's Runtime API (version 2018-06-01) to the processes of one function.
//!
//! Whoever else connects to the port is turned away before a byte of theirs is read.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use base64_simd::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    ProcessSettings,
    failure::PostedError,
    instance::{Answer, Instance, OutOfTurn, Taken},
    peer,
    pool::Processes,
    unyielding::unyielding,
};
use crate::{frames::Frames, limits::RESULT_LIMIT};

/// How many connections one process may have, on average. The official clients have one or two.
const CONNECTIONS: usize = 16;
/// How many of those who connect are looked at at once.
const LOOKS: usize = 4;
/// How often strangers are told of, who may come at any rate.
const STRANGERS_TOLD_EVERY: Duration = Duration::from_secs(60);
/// After an error in accepting, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

const PREFIX: &str = "/2018-06-01/runtime/";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
/// A trailer of a streamed result that was broken off by an error.
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// A served port. Dropping it ends the serving.
pub(super) struct RuntimeApi {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl RuntimeApi {
    pub(super) async fn serve(settings: &ProcessSettings, processes: Arc<Processes>) -> io::Result<Self> {
        let listener = TcpListener::bind(peer::LOOPBACK).await?;
        let address = listener.local_addr()?;
        let function = HeaderValue::try_from(&settings.arn).map_err(io::Error::other)?;
        let server = Server {
            name: settings.name.clone(),
            address,
            arn: function,
            timeout: settings.timeout,
            places: Semaphore::new(usize::from(settings.instances.get()) * CONNECTIONS),
            stranger_told_at: Mutex::default(),
            processes,
        };
        let serving = tokio::spawn(Arc::new(server).accept_all(listener));
        Ok(Self { address, _serving: AbortOnDropHandle::new(serving) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Server {
    name: String,
    address: SocketAddr,
    arn: HeaderValue,
    timeout: Duration,
    /// One for each connection that the function may have.
    places: Semaphore,
    stranger_told_at: Mutex<Option<Instant>>,
    processes: Arc<Processes>,
}

impl Server {
    async fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let looks = Arc::new(Semaphore::new(LOOKS));
        loop {
            // Nobody closes the semaphore.
            let look = looks.clone().acquire_owned().await;
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(function = self.name, %error, "the Runtime API cannot take a connection");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let server = self.clone();
            connections.spawn(async move {
                let owner = server.owner(peer).await;
                drop(look);
                server.meet(stream, peer, owner).await;
            });
        }
    }

    async fn meet(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, owner: Option<Arc<Instance>>) {
        let Some(instance) = owner else {
            if self.is_first_stranger_for_long() {
                warn!(function = self.name, %peer, "something else than the function connected to its Runtime API");
            }
            return;
        };
        match self.places.try_acquire() {
            Ok(_place) => self.clone().converse(stream, instance).await,
            Err(_) => warn!(function = self.name, "the function has too many connections to the Runtime API"),
        }
    }

    fn is_first_stranger_for_long(&self) -> bool {
        let mut told_at = self.stranger_told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = told_at.is_none_or(|at| at.elapsed() >= STRANGERS_TOLD_EVERY);
        if is_first {
            *told_at = Some(Instant::now());
        }
        is_first
    }

    /// The process that has the other end of a connection, if it is the function's.
    async fn owner(&self, peer: SocketAddr) -> Option<Arc<Instance>> {
        let groups = self.processes.groups().await;
        let local = self.address;
        let group = spawn_blocking(move || peer::group_of(peer, local, &groups)).await.ok()?;
        match group {
            Ok(group) => self.processes.find(group?),
            Err(error) => {
                warn!(function = self.name, %error, "cannot tell who connected to the Runtime API");
                None
            }
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, instance: Arc<Instance>) {
        // Answers are short and waited for.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| {
            let (server, instance) = (self.clone(), instance.clone());
            async move { Ok::<_, Infallible>(server.answer(&instance, request).await) }
        });
        let connection = unyielding(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            served = connection => {
                if let Err(error) = served {
                    debug!(function = self.name, %error, "a connection to the Runtime API ended");
                }
            }
            _ = instance.ended() => {}
        }
    }

    async fn answer(&self, instance: &Instance, request: Request<Incoming>) -> Response<Reply> {
        let (head, body) = request.into_parts();
        let path: Vec<&str> = head.uri.path().strip_prefix(PREFIX).unwrap_or_default().split('/').collect();
        match (&head.method, path.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => match instance.next().await {
                Ok(taken) => self.event(taken),
                Err(OutOfTurn) => Refusal::OutOfTurn.response(),
            },
            (&Method::POST, ["invocation", id, "response"]) => result(instance, id, body).await,
            (&Method::POST, ["invocation", id, "error"]) => error(instance, id, &head.headers, body).await,
            (&Method::POST, ["init", "error"]) => init_error(instance, &head.headers, body).await,
            _ => Refusal::Unknown.response(),
        }
    }

    fn event(&self, taken: Taken) -> Response<Reply> {
        let deadline = SystemTime::now() + self.timeout;
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let mut response = Response::new(Either::Left(Frames::new(taken.event)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(request_id) = HeaderValue::from_str(&taken.request_id) {
            headers.insert("lambda-runtime-aws-request-id", request_id);
        }
        headers.insert("lambda-runtime-deadline-ms", deadline.into());
        headers.insert("lambda-runtime-invoked-function-arn", self.arn.clone());
        if let Ok(trace_id) = HeaderValue::from_str(&trace_id(deadline / 1000, &taken.request_id)) {
            headers.insert("lambda-runtime-trace-id", trace_id);
        }
        response
    }
}

/// An identifier in X-Ray's form, of a trace that nobody records. Made of the request's, which is as unique.
fn trace_id(seconds: u64, request_id: &str) -> String {
    let digits = request_id.replace('-', "");
    let (root, parent) = (digits.get(..24).unwrap_or_default(), digits.get(16..).unwrap_or_default());
    format!("Root=1-{seconds:08x}-{root};Parent={parent};Sampled=0")
}

async fn result(instance: &Instance, id: &str, body: Incoming) -> Response<Reply> {
    if !instance.works_on(id) {
        return Refusal::RequestId.response();
    }
    let (answer, refusal) = match read(body).await {
        Ok((body, trailers)) => match trailers.get(ERROR_TYPE) {
            Some(kind) => (Answer::Error(streaming_error(kind, &trailers, body)), None),
            None => (Answer::Result(body), None),
        },
        Err(Unread::TooLarge) => (Answer::TooLarge, Some(Refusal::TooLarge)),
        // The client sends it again, or its process ends, or time does.
        Err(Unread::Broken) => return Refusal::Broken.response(),
    };
    respond(instance.answer(id, answer), refusal)
}

async fn error(instance: &Instance, id: &str, headers: &HeaderMap, body: Incoming) -> Response<Reply> {
    if !instance.works_on(id) {
        return Refusal::RequestId.response();
    }
    let (answer, refusal) = match read(body).await {
        Ok((body, _)) => (Answer::Error(PostedError { kind: kind(headers), body }), None),
        Err(Unread::TooLarge) => (Answer::TooLarge, Some(Refusal::TooLarge)),
        Err(Unread::Broken) => return Refusal::Broken.response(),
    };
    respond(instance.answer(id, answer), refusal)
}

fn respond(answered: Result<(), OutOfTurn>, refusal: Option<Refusal>) -> Response<Reply> {
    match (answered, refusal) {
        (Err(OutOfTurn), _) => Refusal::RequestId.response(),
        (Ok(()), Some(refusal)) => refusal.response(),
        (Ok(()), None) => accepted(),
    }
}

async fn init_error(instance: &Instance, headers: &HeaderMap, body: Incoming) -> Response<Reply> {
    if instance.is_ready() {
        return Refusal::OutOfTurn.response();
    }
    let body = match read(body).await {
        Ok((body, _)) => body,
        Err(Unread::TooLarge) => return Refusal::TooLarge.response(),
        Err(Unread::Broken) => return Refusal::Broken.response(),
    };
    match instance.fail_init(PostedError { kind: kind(headers), body }) {
        Ok(()) => accepted(),
        Err(OutOfTurn) => Refusal::OutOfTurn.response(),
    }
}

fn kind(headers: &HeaderMap) -> Option<String> {
    headers.get(ERROR_TYPE).map(text)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A result that was streamed until an error came up: the trailers tell of it, with the error in base64.
fn streaming_error(kind: &HeaderValue, trailers: &HeaderMap, sent: Bytes) -> PostedError {
    let error = trailers.get(ERROR_BODY).and_then(|error| STANDARD.decode_to_vec(error.as_bytes()).ok());
    PostedError { kind: Some(text(kind)), body: error.map_or(sent, Bytes::from) }
}

enum Unread {
    TooLarge,
    Broken,
}

/// The body, read to its end even when it is too large: a client that is still sending hears no
/// refusal. How long that may take, the function's timeout says.
async fn read(mut body: Incoming) -> Result<(Bytes, HeaderMap), Unread> {
    let mut whole = BytesMut::new();
    let mut trailers = HeaderMap::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Unread::Broken)?.into_data() {
            Ok(bytes) => {
                size += bytes.len();
                if size <= RESULT_LIMIT {
                    whole.extend_from_slice(&bytes);
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    if size <= RESULT_LIMIT { Ok((whole.freeze(), trailers)) } else { Err(Unread::TooLarge) }
}

type Reply = Either<Frames, Full<Bytes>>;

fn accepted() -> Response<Reply> {
    json_response(StatusCode::ACCEPTED, Bytes::from_static(br#"{"status":"OK"}"#))
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Reply> {
    let mut response = Response::new(Either::Right(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What a client is told that did something wrong, in the Runtime Interface Emulator's words.
#[derive(Clone, Copy)]
enum Refusal {
    RequestId,
    OutOfTurn,
    TooLarge,
    Broken,
    Unknown,
}

impl Refusal {
    fn response(self) -> Response<Reply> {
        let too_large = format!("Exceeded maximum allowed payload size ({RESULT_LIMIT} bytes).");
        let (status, error_type, message) = match self {
            Self::RequestId => (StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
            Self::OutOfTurn => (StatusCode::FORBIDDEN, "InvalidStateTransition", "State transition is not allowed"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", too_large.as_str()),
            Self::Broken => (StatusCode::BAD_REQUEST, "InvalidRequest", "The body could not be read"),
            Self::Unknown => (StatusCode::NOT_FOUND, "InvalidPath", "The Runtime API has no such path"),
        };
        json_response(status, json!({ "errorMessage": message, "errorType": error_type }).to_string().into())
    }
}
