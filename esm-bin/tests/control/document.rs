//! The `OpenAPI` document and the service are the same.

use std::process::Command;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    boto3::python,
    common::service::Service,
    service::{NoRabbitMq, disabled, example, with},
};

const METHODS: [Method; 6] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

async fn service() -> Service {
    Service::start(&example(&NoRabbitMq, "http://127.0.0.1:1/")).await
}

#[tokio::test]
async fn each_path_has_the_methods_of_the_document_and_no_others() {
    let service = service().await;
    let document: Value = reqwest::get(service.url("/openapi.json")).await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, documented) in document["paths"].as_object().unwrap() {
        let uuid = "91eaeb7e-c976-4939-9451-8709db01f137";
        let arn = format!("arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Aevent-source-mapping%3A{uuid}");
        let url = service.url(&path.replace("{UUID}", uuid).replace("{Resource}", &arn));
        for method in METHODS {
            let answer = Client::new().request(method.clone(), &url).send().await.unwrap();
            let is_documented = !documented[method.as_str().to_lowercase()].is_null();
            operations += usize::from(is_documented);
            assert_eq!(answer.status() != StatusCode::METHOD_NOT_ALLOWED, is_documented, "{method} {path}");
            assert_eq!(answer.headers()["x-amzn-requestid"].len(), 36);
            if !is_documented {
                assert_eq!(answer.headers()["x-amzn-errortype"], "UnknownOperationException");
                let allowed = answer.headers()["allow"].to_str().unwrap().split(", ").count();
                assert_eq!(allowed, documented.as_object().unwrap().len(), "{path}");
            }
        }
    }
    assert_eq!(operations, 8);
}

#[tokio::test]
async fn other_paths_of_awss_api_are_unknown_operations() {
    let service = service().await;
    for path in [
        "/2015-03-31/functions/f",
        "/2015-03-31/functions/f/invocations",
        "/2015-03-31/event-source-mapping",
        "/2017-03-31/x",
    ] {
        let answer = Client::new().post(service.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.headers()["x-amzn-errortype"], "UnknownOperationException", "{path}");
        assert!(answer.json::<Value>().await.unwrap()["message"].is_string(), "{path}");
    }
}

/// Every member of the document can be sent, one after the other, without being unknown.
#[tokio::test]
async fn every_member_of_the_document_is_known_and_no_other() {
    let service = service().await;
    let document: Value = reqwest::get(service.url("/openapi.json")).await.unwrap().json().await.unwrap();
    let create = &document["paths"]["/2015-03-31/event-source-mappings"]["post"];
    let members = create["requestBody"]["content"]["application/json"]["schema"]["properties"].as_object().unwrap();
    assert!(members.len() > 10);
    let says = async |name: &str| {
        let url = service.url("/2015-03-31/event-source-mappings");
        let request = with(disabled("queue"), json!({ name: [[]] }));
        Client::new().post(url).json(&request).send().await.unwrap().text().await.unwrap()
    };
    for name in members.keys() {
        let words = says(name).await;
        assert!(words.contains("can not be converted"), "{name}: {words}");
    }
    assert!(says("Absent").await.contains("Member must be one of this operation's"));
}

/// Thousands of requests that the document allows or forbids, by a program that knows nothing else.
#[tokio::test]
#[ignore = "needs schemathesis"]
async fn a_tester_of_documents_finds_no_answer_that_is_not_in_it() {
    let service = service().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("schemathesis.toml");
    // By itself it takes 413 and 414 for answers to requests that are right.
    let statuses = "[checks.negative_data_rejection]\nexpected-statuses = [400, 403, 404, 405, 409, 413, 414, 431]\n";
    std::fs::write(&settings, statuses).expect("writes");
    let examples = if std::env::var_os("ESM_TEST_ALL").is_some() { "1000" } else { "150" };
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance,unsupported_method,negative_data_rejection";
    let output = Command::new(python())
        .args([
            "-m",
            "schemathesis.cli",
            "--config-file",
            settings.to_str().unwrap(),
            "run",
            &service.url("/openapi.json"),
            "--checks",
            checks,
        ])
        .args(["--max-examples", examples, "--seed", "1", "--phases", "coverage,fuzzing", "--no-color"])
        .current_dir(&folder)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!service.log().contains("panicked"), "{}", service.log());
}
