//! What stands for AWS: scripted answers of Amazon MQ, and moto.

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    boto3::python,
    common::service::{Config, free_port, wait_for},
};

/// The service asks this one instead of AWS, and says who it is.
pub(crate) fn ask(config: &mut Config, url: &str) {
    let table = format!("\n[aws]\nendpoint_url = {url:?}\n");
    config.tables += &table;
    config.environment.push(("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".into()));
    config.environment.push(("AWS_SECRET_ACCESS_KEY", "secret".into()));
}

/// Amazon MQ as a test wants it to be.
#[derive(Clone)]
pub(crate) struct AmazonMq {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

struct Script {
    /// Status, type of the error, and body.
    answer: (u16, &'static str, Value),
    /// Path and `Authorization`.
    asked: Vec<(String, String)>,
}

impl AmazonMq {
    pub(crate) async fn start() -> Self {
        let script = Script { answer: (503, "InternalServerErrorException", json!({})), asked: Vec::new() };
        let script = Arc::new(Mutex::new(script));
        let router = Router::new().fallback(answer).with_state(script.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, script }
    }

    /// From now on it describes every broker so.
    pub(crate) fn describes(&self, engine: &str, endpoints: &[&str]) {
        let instances: Vec<_> = endpoints.iter().map(|endpoint| json!({ "endpoints": [endpoint] })).collect();
        let description = json!({
            "brokerId": "b-1", "engineType": engine, "brokerState": "RUNNING", "brokerInstances": instances,
        });
        self.script().answer = (200, "", description);
    }

    /// From now on it refuses.
    pub(crate) fn refuses(&self, status: u16, error_type: &'static str) {
        let body = json!({ "errorAttribute": "broker-id", "message": "said by Amazon MQ" });
        self.script().answer = (status, error_type, body);
    }

    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.script().asked.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    let authorization = headers.get("authorization").map(|value| value.to_str().expect("is text").to_owned());
    script.asked.push((uri.to_string(), authorization.unwrap_or_default()));
    let (status, error_type, body) = &script.answer;
    (StatusCode::from_u16(*status).expect("a status"), [("x-amzn-errortype", error_type)], body.to_string())
}

/// A running moto, which stands for all of AWS. Ends when dropped.
pub(crate) struct Moto {
    child: Child,
    pub(crate) url: String,
    http: reqwest::Client,
}

impl Moto {
    pub(crate) async fn start() -> Self {
        let port = free_port();
        let child = Command::new(python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let moto = Self { child, url: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new() };
        wait_for("moto", || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        moto
    }

    /// Makes a secret, and returns its ARN.
    pub(crate) async fn create_secret(&self, name: &str, text: &str) -> String {
        let made = self.secrets_manager("CreateSecret", json!({ "Name": name, "SecretString": text })).await;
        made["ARN"].as_str().expect("an ARN").to_owned()
    }

    /// Another text takes the place of a secret's.
    pub(crate) async fn put_secret(&self, arn: &str, text: &str) {
        self.secrets_manager("PutSecretValue", json!({ "SecretId": arn, "SecretString": text })).await;
    }

    async fn secrets_manager(&self, operation: &str, body: Value) -> Value {
        let scope = "Credential=AKIDEXAMPLE/20260101/us-east-1/secretsmanager/aws4_request";
        let request = self.http.post(&self.url).header("x-amz-target", format!("secretsmanager.{operation}"));
        let request =
            request.header("authorization", format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"));
        let answer = request.header("content-type", "application/x-amz-json-1.1").body(body.to_string()).send().await;
        let answer = answer.expect("answers");
        assert!(answer.status().is_success(), "{operation}: {}", answer.status());
        answer.json().await.expect("is JSON")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
