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
use esm_core::{status, supervisor::Supervised};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::adapters::FEATURES;

/// What requests are answered from.
pub struct Shared {
    /// Every metric.
    pub registry: Registry,
    /// Every mapping, in the configuration's order.
    pub mappings: Vec<Listed>,
    /// Cancelled when the service is about to end.
    pub draining: CancellationToken,
}

/// A mapping, whether it runs or not.
pub struct Listed {
    /// Whether it is to run.
    pub enabled: bool,
    /// What it does now.
    pub supervised: Supervised,
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
    let ready = !draining && shared.mappings.iter().filter(|listed| listed.enabled).all(is_up);
    let event_source_mappings = shared.mappings.iter().map(MappingStatus::of).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, draining, event_source_mappings })).into_response()
}

/// Whether the mapping runs, or has tried and keeps trying. One broker that is down must
/// not make a service unready that does its work for the others.
fn is_up(listed: &Listed) -> bool {
    listed.supervised.status.borrow().state == status::State::Enabled
}

impl MappingStatus {
    fn of(listed: &Listed) -> Self {
        let Supervised { mapping, status } = &listed.supervised;
        let status = status.borrow();
        Self {
            uuid: mapping.uuid.to_string(),
            function_name: mapping.function.clone(),
            event_source: mapping.event_source.clone(),
            queue: mapping.queue.clone(),
            state: status.state.as_str(),
            state_transition_reason: status.state_transition_reason.to_string(),
            last_processing_result: status.last_processing_result.to_string(),
        }
    }
}

async fn page() -> Html<String> {
    let (version, features) = (env!("CARGO_PKG_VERSION"), FEATURES.join(", "));
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>esm</title>\n\
         <h1>esm {version}</h1>\n<p>Event source mappings: from broker queues to functions. Built with: {features}.</p>\n\
         <ul>\n<li><a href=\"/readyz\">/readyz</a>: what each mapping does\n<li><a href=\"/metrics\">/metrics</a>: \
         numbers for Prometheus\n<li><a href=\"/healthz\">/healthz</a>: whether the process is alive\n</ul>\n</html>\n"
    ))
}

#[cfg(test)]
mod tests {
    use esm_core::{
        mapping::{BatchSize, BatchingWindow, DeadLetter, Mapping, MaximumConcurrency, RedeliveryPolicy},
        status::Status,
    };
    use tokio::sync::watch;
    use uuid::Uuid;

    use super::*;

    fn listed(enabled: bool, state: status::State) -> Listed {
        let mapping = Mapping {
            uuid: Uuid::nil(),
            function: "f".into(),
            event_source: "b".into(),
            queue: "q".into(),
            batch_size: BatchSize::default(),
            window: BatchingWindow::default(),
            maximum_concurrency: MaximumConcurrency::ONE,
            redelivery: RedeliveryPolicy::RABBITMQ,
            dead_letter: DeadLetter::Park,
            filter: None,
        };
        let status = watch::channel(Status::new(state)).1;
        Listed { enabled, supervised: Supervised { mapping: Arc::new(mapping), status } }
    }

    async fn check(mappings: Vec<Listed>, draining: bool, expected: StatusCode) {
        let shared = Shared { registry: Registry::new(), mappings, draining: CancellationToken::new() };
        if draining {
            shared.draining.cancel();
        }
        assert_eq!(readyz(State(Arc::new(shared))).await.status(), expected);
    }

    #[tokio::test]
    async fn ready_means_that_every_enabled_mapping_runs_or_has_said_why_not() {
        use status::State::{Creating, Disabled, Enabled};
        let (ok, not_yet) = (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE);
        check(vec![], false, ok).await;
        check(vec![listed(true, Enabled), listed(false, Disabled)], false, ok).await;
        check(vec![listed(true, Enabled), listed(true, Creating)], false, not_yet).await;
        check(vec![listed(true, Disabled)], false, not_yet).await;
        check(vec![listed(true, Enabled)], true, not_yet).await;
    }
}
