//! The whole service in this process, asked over HTTP.

use std::{collections::HashMap, time::Duration};

use esm::{
    config::{self, Config},
    mappings::Endpoint,
    serve::{End, Service},
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing listens at port 1, so the first mapping keeps trying; the second is not to run.
const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
[brokers.pizza]
engine = "rabbitmq"
endpoints = ["amqp://127.0.0.1:1"]
[secrets.login]
username = "guest"
password = { env = "PASSWORD" }
[functions.f]
http = { url = "http://127.0.0.1:1/" }
[[event_source_mappings]]
function_name = "f"
event_source = "pizza"
queues = ["one"]
secret = "login"
[[event_source_mappings]]
function_name = "f"
event_source = "pizza"
queues = ["two"]
secret = "login"
enabled = false
"#;

/// Of a service that keeps its store in this folder.
fn configuration(folder: &TempDir) -> Config {
    let environment = HashMap::from([("PASSWORD".into(), "hunter2".into())]);
    config::read(CONFIGURATION, folder.path(), &environment).unwrap_or_else(|problems| panic!("{problems:?}"))
}

async fn get(service: &Service, path: &str) -> Response {
    reqwest::get(format!("http://{}{path}", service.address())).await.expect("is answered")
}

#[tokio::test]
async fn readiness_tells_of_each_mapping_and_one_in_trouble_does_not_spoil_it() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(configuration(&folder)).await.unwrap();
    let mut answer = get(&service, "/readyz").await;
    while answer.status() != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = get(&service, "/readyz").await;
    }
    let readiness: Value = answer.json().await.unwrap();
    let [one, two] = readiness["EventSourceMappings"].as_array().unwrap().as_slice() else { panic!("{readiness}") };
    let result = one["LastProcessingResult"].as_str().unwrap();
    assert!(result.starts_with("PROBLEM: broker `pizza"), "{result}");
    assert_eq!(
        [&one["FunctionName"], &one["EventSource"], &one["Queue"]],
        ["f", "pizza", "one"].map(|text| json!(text)).each_ref()
    );
    assert_eq!(one["UUID"].as_str().unwrap().len(), 36);
    assert_eq!(two["State"], "Disabled");
    assert_eq!(two["StateTransitionReason"], "USER_INITIATED");
    assert_eq!(two["LastProcessingResult"], "No records processed");
    assert_eq!(service.drain().await, End::Drained);
}

#[tokio::test]
async fn metrics_and_health_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(configuration(&folder)).await.unwrap();
    let uuid = configuration(&folder).mappings[0].uuid;

    assert_eq!(get(&service, "/healthz").await.status(), StatusCode::OK);
    let page = get(&service, "/").await.text().await.unwrap();
    assert!(page.contains(env!("CARGO_PKG_VERSION")) && page.contains("rabbitmq") && page.contains("/metrics"));
    let metrics = get(&service, "/metrics").await;
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4");
    let metrics = metrics.text().await.unwrap();
    for series in [&format!("esm_source_connected{{mapping=\"{uuid}\"}} 0"), "process_resident_memory_bytes"] {
        assert!(metrics.contains(series), "{series} is not in {metrics}");
    }
    assert!(!metrics.contains("hunter2"));
    let absent = get(&service, "/absent").await;
    assert_eq!(absent.status(), StatusCode::NOT_FOUND);
    assert!(absent.json::<Value>().await.unwrap()["Message"].is_string());
    let posted = reqwest::Client::new().post(format!("http://{}/healthz", service.address())).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_taken_port_is_told_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(configuration(&folder)).await.unwrap();
    let mut configuration = configuration(&folder);
    let error = Service::start(self::configuration(&folder)).await.err().expect("the folder is taken");
    assert!(format!("{error:#}").starts_with("server.data_dir: `"), "{error:#}");
    configuration.server.listen = service.address();
    let other_folder = tempfile::tempdir().unwrap();
    configuration.server.data_dir = other_folder.path().into();
    let error = Service::start(configuration).await.err().expect("the port is taken");
    assert!(error.to_string().starts_with("server.listen: cannot listen on 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn with_an_access_key_only_signed_calls_reach_the_control_api() {
    let folder = tempfile::tempdir().unwrap();
    let keys = "\n[[server.access_keys]]\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = { env = \"SECRET\" }\n";
    let environment = HashMap::from([("PASSWORD".into(), "hunter2".into()), ("SECRET".into(), "wJalrXUtnFEMI".into())]);
    let config = config::read(&format!("{CONFIGURATION}{keys}"), folder.path(), &environment);
    let service = Service::start(config.unwrap_or_else(|problems| panic!("{problems:?}"))).await.unwrap();
    let list = async |key: &[(&str, &str)]| {
        let environment = key.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let endpoint = Endpoint::new(&format!("http://{}", service.address()), &environment).unwrap();
        endpoint.list(false).await.map_err(|error| error.to_string())
    };
    let (id, secret) = (("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"));

    assert!(list(&[]).await.unwrap_err().contains("403"));
    assert!(list(&[id, ("AWS_SECRET_ACCESS_KEY", "guessed")]).await.unwrap_err().contains("403"));
    assert!(list(&[id, secret, ("AWS_REGION", "eu-west-1")]).await.unwrap_err().contains("403"));
    assert!(list(&[id, secret]).await.unwrap().contains("pizza"));
    for path in ["/healthz", "/metrics"] {
        assert_eq!(get(&service, path).await.status(), StatusCode::OK);
    }
    let mut result = String::new();
    while !result.starts_with("PROBLEM") {
        let readiness: Value = get(&service, "/readyz").await.json().await.unwrap();
        result = readiness["EventSourceMappings"][0]["LastProcessingResult"].as_str().unwrap().to_owned();
    }
    assert_eq!(result, "PROBLEM", "the words are for who has a key");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_after_another_reading_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let renew = || {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
        let authority = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([authority]).build().unwrap()
    };
    let read = || {
        let tls = "tls = { cert_file = \"cert.pem\", key_file = \"key.pem\" }\n[brokers.pizza]";
        let text = CONFIGURATION.replace("[brokers.pizza]", tls);
        config::read(&text, folder.path(), &HashMap::from([("PASSWORD".into(), "hunter2".into())]))
    };
    let old = renew();
    let mut service = Service::start(read().unwrap_or_else(|problems| panic!("{problems:?}"))).await.unwrap();
    let url = format!("https://{}/healthz", service.address());
    assert_eq!(old.get(&url).send().await.unwrap().status(), StatusCode::OK);
    let new = renew();
    assert!(new.get(&url).send().await.is_err(), "it was not read yet");

    service.reload(&|_| read());

    assert_eq!(new.get(&url).send().await.unwrap().status(), StatusCode::OK);
}
