//! A function behind a Lambda-compatible URL that records what it is invoked with and answers as a
//! test tells it to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};

/// One invocation.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    /// The bodies of its messages as text, in order.
    pub(crate) bodies: Vec<String>,
    pub(crate) event: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Success,
    /// Names the records whose body is `poison` in `batchItemFailures`.
    NamesPoison,
    /// `X-Amz-Function-Error`.
    FunctionError,
    Status(u16),
    /// Answers with success after this time.
    After(Duration),
}

type Behaviour = Box<dyn FnMut(&Call) -> Answer + Send>;

pub(crate) struct Function {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    calls: Mutex<Vec<Call>>,
    /// No event is kept, and of each body only so many bytes.
    kept: usize,
    behaviour: Mutex<Behaviour>,
}

impl Function {
    /// A function that always succeeds.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| Answer::Success).await
    }

    /// A function that succeeds after so many other answers.
    pub(crate) async fn start_after(mut times: usize, other: fn() -> Answer) -> Self {
        Self::start_with(move |_| {
            if times == 0 {
                return Answer::Success;
            }
            times -= 1;
            other()
        })
        .await
    }

    pub(crate) async fn start_with(behaviour: impl FnMut(&Call) -> Answer + Send + 'static) -> Self {
        Self::start_keeping(usize::MAX, behaviour).await
    }

    /// One that keeps no event, and of each body only so many bytes.
    pub(crate) async fn start_keeping(kept: usize, behaviour: impl FnMut(&Call) -> Answer + Send + 'static) -> Self {
        let shared = Arc::new(Shared { calls: Mutex::default(), kept, behaviour: Mutex::new(Box::new(behaviour)) });
        let router = Router::new()
            .route("/2015-03-31/functions/function/invocations", post(invoke))
            .layer(DefaultBodyLimit::max(8 * 1024 * 1024))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url: format!("http://{address}/2015-03-31/functions/function/invocations"), shared }
    }

    pub(crate) fn behave(&self, behaviour: impl FnMut(&Call) -> Answer + Send + 'static) {
        *self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(behaviour);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every message's body, in the order of arrival, again with each retry.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.shared
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .flat_map(|call| call.bodies.clone())
            .collect()
    }
}

async fn invoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["content-length"], body.len().to_string().as_str());
    let event: Value = serde_json::from_slice(&body).expect("the event is JSON");
    assert!(body.len() < 6 * 1024 * 1024, "the event is below the limit");
    let mut call = Call { at: Instant::now(), bodies: bodies(&event), event };
    let named = named(&call);
    let answer = {
        let mut behaviour = shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner);
        behaviour(&call)
    };
    if shared.kept < usize::MAX {
        call.event = Value::Null;
        for body in &mut call.bodies {
            body.truncate(shared.kept);
            body.shrink_to_fit();
        }
    }
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    match answer {
        Answer::Success => "null".into_response(),
        Answer::NamesPoison => named.into_response(),
        Answer::FunctionError => {
            let error = r#"{"errorMessage":"told to fail","errorType":"TestError"}"#;
            ([("x-amz-function-error", "Unhandled")], error).into_response()
        }
        Answer::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Answer::After(delay) => {
            tokio::time::sleep(delay).await;
            "null".into_response()
        }
    }
}

/// How many of its messages were delivered before, as the event says.
pub(crate) fn redelivered(call: &Call) -> usize {
    records(&call.event).into_iter().filter(|record| record["redelivered"] == true).count()
}

fn named(call: &Call) -> String {
    let records = records(&call.event).into_iter().zip(&call.bodies);
    let poison = records.filter(|(_, body)| *body == "poison");
    let items: Vec<_> = poison.map(|(record, _)| json!({ "itemIdentifier": record["itemIdentifier"] })).collect();
    json!({ "batchItemFailures": items }).to_string()
}

fn bodies(event: &Value) -> Vec<String> {
    let data = records(event).into_iter().map(|record| record["data"].as_str().expect("has data"));
    data.map(|data| {
        let bytes = base64_simd::STANDARD.decode_to_vec(data).expect("is base64");
        String::from_utf8_lossy(&bytes).into_owned()
    })
    .collect()
}

/// ActiveMQ's event has one list of records, and RabbitMQ's one for each queue.
fn records(event: &Value) -> Vec<&Value> {
    if let Some(records) = event["messages"].as_array() {
        return records.iter().collect();
    }
    let queues = event["rmqMessagesByQueue"].as_object().expect("has queues");
    queues.values().flat_map(|records| records.as_array().expect("a list")).collect()
}
