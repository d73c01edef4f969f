//! Lists, in pages and by source and function.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    boto3::Boto3,
    common::service::Service,
    service::{BROKER_ARN, FUNCTION_ARN, NoRabbitMq, disabled, example, text, with},
};

async fn service() -> Service {
    Service::start(&example(&NoRabbitMq, "http://127.0.0.1:1/")).await
}

async fn create(service: &Service, request: &Value) -> Value {
    let mappings = service.url("/2015-03-31/event-source-mappings/");
    let answer = reqwest::Client::new().post(mappings).json(request).send().await.expect("is answered");
    assert_eq!(answer.status(), 202, "{}", answer.text().await.expect("is text"));
    answer.json().await.expect("is JSON")
}

#[tokio::test]
#[ignore = "needs boto3"]
async fn a_paginator_sees_every_mapping_once_and_no_page_has_more_than_a_hundred() {
    let service = service().await;
    let mut made = HashSet::new();
    for number in 0..120 {
        made.insert(text(&create(&service, &disabled(&format!("queue {number}"))).await["UUID"]).to_owned());
    }
    let mut boto3 = Boto3::start(&service);
    let mut pages = |parameters: Value| -> Vec<Vec<String>> {
        let answer = boto3.call("paginate:list_event_source_mappings", parameters).unwrap();
        let uuids = |page: &Value| {
            let mappings = page["EventSourceMappings"].as_array().unwrap();
            mappings.iter().map(|mapping| text(&mapping["UUID"]).to_owned()).collect()
        };
        answer["Pages"].as_array().unwrap().iter().map(uuids).collect()
    };
    let mut check = |parameters: Value, sizes: &[usize]| {
        let pages = pages(parameters);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        let seen: Vec<_> = pages.into_iter().flatten().collect();
        assert_eq!(seen.len(), made.len());
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), made);
    };
    check(json!({}), &[100, 20]);
    check(json!({ "PaginationConfig": { "PageSize": 50 } }), &[50, 50, 20]);
    check(json!({ "PaginationConfig": { "PageSize": 60 }, "EventSourceArn": BROKER_ARN }), &[60, 60]);
    check(json!({ "PaginationConfig": { "PageSize": 10_000 }, "FunctionName": FUNCTION_ARN }), &[100, 20]);
}

#[tokio::test]
async fn a_list_names_those_of_a_source_and_for_a_function() {
    let service = service().await;
    let one = create(&service, &disabled("one")).await;
    let two = create(&service, &with(disabled("two"), json!({ "FunctionName": "MQ-Example-Function:live" }))).await;
    let check = async |query: &str, expected: &[&Value]| {
        let answer = reqwest::get(service.url(&format!("/2015-03-31/event-source-mappings?{query}"))).await.unwrap();
        assert_eq!(answer.status(), 200, "{query}");
        let page: Value = answer.json().await.unwrap();
        let listed: HashSet<_> =
            page["EventSourceMappings"].as_array().unwrap().iter().map(|mapping| text(&mapping["UUID"])).collect();
        assert_eq!(listed, expected.iter().map(|mapping| text(&mapping["UUID"])).collect(), "{query}");
    };
    check("", &[&one, &two]).await;
    check("Marker=", &[&one, &two]).await;
    check(&format!("EventSourceArn={BROKER_ARN}"), &[&one, &two]).await;
    check("FunctionName=MQ-Example-Function", &[&one, &two]).await;
    check(&format!("FunctionName={FUNCTION_ARN}&EventSourceArn={BROKER_ARN}"), &[&one, &two]).await;
    check("FunctionName=MQ-Example-Function:live", &[&two]).await;
    check("FunctionName=MQ-Example-Function:other", &[]).await;
    check("FunctionName=function", &[]).await;
    check("FunctionName=absent", &[]).await;
    check("EventSourceArn=arn:aws:sqs:us-east-1:123456789012:queue", &[]).await;
    let absent = "arn:aws:mq:us-east-1:123456789012:broker:Absent:b-1";
    check(&format!("EventSourceArn={absent}&FunctionName=MQ-Example-Function"), &[]).await;
}

#[tokio::test]
async fn a_wrong_parameter_is_refused() {
    let service = service().await;
    let check = async |query: &str, code: &str| {
        let answer = reqwest::get(service.url(&format!("/2015-03-31/event-source-mappings?{query}"))).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-amzn-errortype"]),
            (400, &code.parse().unwrap()),
            "{query}"
        );
    };
    check("MaxItems=0", "ValidationException").await;
    check("MaxItems=10001", "ValidationException").await;
    check("MaxItems=1&MaxItems=1", "ValidationException").await;
    check("maxItems=1", "ValidationException").await;
    check("MaxItems=99999999999999999999", "SerializationException").await;
    check("Marker=91eaeb7e-c976-4939-9451-8709db01f137", "InvalidParameterValueException").await;
    check("Marker=eA", "InvalidParameterValueException").await;
    check("FunctionName=a%20b", "ValidationException").await;
    check("FunctionName=us-east-1:f:g:h", "ValidationException").await;
    check("EventSourceArn=x", "ValidationException").await;
}
