//! What the listener answers: the control API behind its guard, and for everybody metrics, health and
//! a page that says what this is.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    adapters::FEATURES,
    api::openapi,
    control::plane::{self, ControlPlane},
};

/// What requests are answered from.
pub struct Shared {
    /// Every metric.
    pub registry: Registry,
    /// Every mapping.
    pub plane: ControlPlane,
    /// Cancelled when the service is about to end.
    pub draining: CancellationToken,
    /// Whether the control API answers anybody: then so does `/readyz` in full.
    pub is_open: bool,
}

/// Answers for everything under the listener. `control` has a guard around it already.
pub fn router(shared: Shared, control: Router) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || refusal(StatusCode::METHOD_NOT_ALLOWED, "this path is only read"))
        .with_state(Arc::new(shared))
        .merge(openapi::router())
        .merge(control)
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "Message": message }))).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match TextEncoder::new().encode_to_string(&shared.registry.gather()) {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            error!(%error, "cannot write the metrics");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Readiness {
    ready: bool,
    draining: bool,
    event_source_mappings: Vec<MappingStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MappingStatus {
    #[serde(rename = "UUID")]
    uuid: String,
    function_name: String,
    event_source: String,
    queue: String,
    state: &'static str,
    state_transition_reason: String,
    last_processing_result: String,
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let draining = shared.draining.is_cancelled();
    let readiness = match shared.plane.readiness().await {
        Ok(readiness) => readiness,
        Err(error) if shared.is_open => return refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(_) => return refusal(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be used"),
    };
    let ready = !draining && readiness.is_ready;
    let mappings = readiness.mappings.into_iter().map(MappingStatus::from);
    let event_source_mappings =
        if shared.is_open { mappings.collect() } else { mappings.map(MappingStatus::for_strangers).collect() };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, draining, event_source_mappings })).into_response()
}

impl From<plane::MappingStatus> for MappingStatus {
    fn from(mapping: plane::MappingStatus) -> Self {
        Self {
            uuid: mapping.uuid.to_string(),
            function_name: mapping.function_name,
            event_source: mapping.event_source,
            queue: mapping.queue,
            state: mapping.state.as_str(),
            state_transition_reason: mapping.state_transition_reason,
            last_processing_result: mapping.last_processing_result,
        }
    }
}

impl MappingStatus {
    /// Without words that came from brokers, functions and backends, which may hold what only callers of the
    /// control API may know: with what stands before the first colon, such as `PROBLEM`.
    fn for_strangers(mut self) -> Self {
        for text in [&mut self.state_transition_reason, &mut self.last_processing_result] {
            let end = text.find([':', ';']).unwrap_or(text.len());
            text.truncate(end);
        }
        self
    }
}

async fn page() -> Html<String> {
    let (version, features) = (env!("CARGO_PKG_VERSION"), FEATURES.join(", "));
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>esm</title>\n\
         <h1>esm {version}</h1>\n<p>Event source mappings: from broker queues to functions. Built with: {features}.</p>\n\
         <ul>\n<li><a href=\"/readyz\">/readyz</a>: what each mapping does\n<li><a href=\"/metrics\">/metrics</a>: \
         numbers for Prometheus\n<li><a href=\"/healthz\">/healthz</a>: whether the process is alive\n\
         <li><a href=\"/openapi.json\">/openapi.json</a>: the control API, for programs\n</ul>\n</html>\n"
    ))
}
