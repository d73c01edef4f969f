//! The three commands of AWS's page on Amazon MQ, as that page has them, and what it says they print.

use esm_activemq::testing::{Messages, TestBroker as ActiveMq};
use esm_rabbitmq::testing::TestBroker as RabbitMq;
use serde_json::{Value, json};

use crate::{
    boto3::{Boto3, aws, aws_prints},
    common::{
        function::Function,
        service::{Service, wait_for},
    },
    service::{BROKER_ARN, FUNCTION_ARN, SECRET_ARN, settled, signed_example, text},
};

/// Makes a mapping by the page's command.
fn create(service: &Service, queue: &str, access: &[&str]) -> Value {
    let access: Vec<&str> = ["--source-access-configuration"].iter().chain(access).copied().collect();
    let route = ["--event-source-arn", BROKER_ARN, "--function-name", FUNCTION_ARN, "--queues", queue];
    let made = aws_prints(service, &[&["create-event-source-mapping"], &route[..], &access[..]].concat());
    let uuid = text(&made["UUID"]);
    let expected = json!({
        "UUID": uuid,
        "BatchSize": 100,
        "EventSourceArn": BROKER_ARN,
        "FunctionArn": FUNCTION_ARN,
        "LastProcessingResult": "No records processed",
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
        "Queues": [queue],
    });
    holds(&made, &expected);
    let login = json!({ "Type": "BASIC_AUTH", "URI": SECRET_ARN });
    assert!(made["SourceAccessConfigurations"].as_array().expect("a list").contains(&login));
    made
}

/// Changes it by the page's command, and reads it by the third.
async fn update_and_get(service: &Service, made: &Value) {
    let uuid = text(&made["UUID"]);
    let mut boto3 = Boto3::start(service);
    settled(&mut boto3, uuid, &["Creating"]).await;
    let mut expected = json!({
        "UUID": uuid,
        "BatchSize": 2,
        "EventSourceArn": BROKER_ARN,
        "FunctionArn": FUNCTION_ARN,
        "LastProcessingResult": "No records processed",
        "State": "Updating",
        "StateTransitionReason": "USER_INITIATED",
    });
    holds(&aws_prints(service, &["update-event-source-mapping", "--uuid", uuid, "--batch-size", "2"]), &expected);
    settled(&mut boto3, uuid, &["Updating"]).await;
    expected["State"] = "Enabled".into();
    holds(&aws_prints(service, &["get-event-source-mapping", "--uuid", uuid]), &expected);
}

/// Every member of the page's output has its value. The time is the command line's own form of ours.
fn holds(printed: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("members") {
        assert_eq!(&printed[name], value, "{name} in {printed}");
    }
    assert!(printed["LastModified"].is_string() || printed["LastModified"].is_number(), "{printed}");
    let arn = format!("arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{}", text(&printed["UUID"]));
    assert_eq!(printed["EventSourceMappingArn"], arn);
}

#[tokio::test]
#[ignore = "needs a broker and awscli"]
async fn a_rabbitmq_mapping_made_by_the_pages_commands_delivers() {
    let broker = RabbitMq::shared();
    let mut publisher = broker.publisher("/").await;
    publisher.declare("ExampleQueue", "classic").await;
    let function = Function::start().await;
    let service = Service::start(&signed_example(&broker, &function.url)).await;

    let login = format!("Type=BASIC_AUTH,URI={SECRET_ARN}");
    let made = create(&service, "ExampleQueue", &["Type=VIRTUAL_HOST,URI=/", &login]);

    assert!(
        made["SourceAccessConfigurations"].as_array().unwrap().contains(&json!({ "Type": "VIRTUAL_HOST", "URI": "/" })),
        "what was sent is shown"
    );
    update_and_get(&service, &made).await;
    publisher.publish("ExampleQueue", ["one", "two", "three"]).await;
    wait_for("three messages", || (function.bodies().len() == 3).then_some(())).await;
    assert_eq!(function.bodies(), ["one", "two", "three"]);
    assert!(function.calls().iter().all(|call| call.bodies.len() <= 2), "the batch size is the changed one");
    let calls = function.calls();
    let event = &calls[0].event;
    assert_eq!((&event["eventSource"], &event["eventSourceArn"]), (&json!("aws:rmq"), &json!(BROKER_ARN)));
    assert!(event["rmqMessagesByQueue"]["ExampleQueue::/"].is_array());
    publisher.delete("ExampleQueue").await;
}

#[tokio::test]
#[ignore = "needs a broker and awscli"]
async fn an_activemq_mapping_made_by_the_pages_commands_delivers() {
    let broker = ActiveMq::shared();
    let queue = broker.queue("ExampleQueue");
    let function = Function::start().await;
    let service = Service::start(&signed_example(&broker, &function.url)).await;
    let login = format!("Type=BASIC_AUTH,URI={SECRET_ARN}");

    let route = ["--event-source-arn", BROKER_ARN, "--function-name", FUNCTION_ARN, "--queues", &queue];
    let access = ["--source-access-configuration", "Type=VIRTUAL_HOST,URI=/", &login];
    let refused = aws(&service, &[&["create-event-source-mapping"], &route[..], &access].concat());
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(
        words.contains("(InvalidParameterValueException)")
            && words.contains("Unsupported source access configurations"),
        "{words}"
    );

    let made = create(&service, &queue, &[&login]);

    assert_eq!(made["SourceAccessConfigurations"].as_array().unwrap().len(), 1);
    update_and_get(&service, &made).await;
    broker.produce(&queue, Messages::text("message {n}").count(3)).await;
    wait_for("three messages", || (function.bodies().len() == 3).then_some(())).await;
    assert!(function.calls().iter().all(|call| call.bodies.len() <= 2), "the batch size is the changed one");
    let calls = function.calls();
    assert_eq!(
        (&calls[0].event["eventSource"], &calls[0].event["eventSourceArn"]),
        (&json!("aws:mq"), &json!(BROKER_ARN))
    );
}
