//! AWS's command line, which prints what its users see.

use serde_json::{Value, json};

use crate::{
    boto3::{aws, aws_prints},
    common::service::Service,
    service::{BROKER_ARN, FUNCTION_ARN, NoRabbitMq, SECRET_ARN, signed_example, text},
};

#[tokio::test]
#[ignore = "needs awscli"]
async fn every_command_for_mappings_and_tags_works() {
    let service = Service::start(&signed_example(&NoRabbitMq, "http://127.0.0.1:1/")).await;
    let login = format!("Type=BASIC_AUTH,URI={SECRET_ARN}");
    let create = ["create-event-source-mapping", "--no-enabled", "--event-source-arn", BROKER_ARN];
    let route = ["--function-name", FUNCTION_ARN, "--queues", "queue", "--source-access-configurations", &login];
    let made = aws_prints(&service, &[&create[..], &route, &["--tags", "team=pizza"]].concat());
    let (uuid, arn) = (text(&made["UUID"]), text(&made["EventSourceMappingArn"]));

    let listed = aws_prints(&service, &["list-event-source-mappings", "--function-name", FUNCTION_ARN]);
    assert_eq!(listed, json!({ "EventSourceMappings": [made] }));
    assert_eq!(
        aws_prints(&service, &["list-event-source-mappings", "--event-source-arn", BROKER_ARN, "--max-items", "1"]),
        listed
    );
    assert_eq!(aws_prints(&service, &["get-event-source-mapping", "--uuid", uuid]), made);
    assert_eq!(aws_prints(&service, &["list-tags", "--resource", arn]), json!({ "Tags": { "team": "pizza" } }));
    aws_prints(&service, &["tag-resource", "--resource", arn, "--tags", r#"{"a b":"c","d":"é"}"#]);
    aws_prints(&service, &["untag-resource", "--resource", arn, "--tag-keys", "team", "d"]);
    assert_eq!(aws_prints(&service, &["list-tags", "--resource", arn]), json!({ "Tags": { "a b": "c" } }));
    let update = ["update-event-source-mapping", "--uuid", uuid, "--maximum-batching-window-in-seconds", "5"];
    let filter = ["--filter-criteria", r#"{"Filters":[{"Pattern":"{\"data\":[\"x\"]}"}]}"#];
    let changed = aws_prints(&service, &[&update[..], &filter].concat());
    assert_eq!(changed["MaximumBatchingWindowInSeconds"], 5);
    assert_eq!(changed["FilterCriteria"]["Filters"][0]["Pattern"], r#"{"data":["x"]}"#);
    assert_eq!(aws_prints(&service, &["delete-event-source-mapping", "--uuid", uuid])["State"], "Deleting");
}

#[tokio::test]
#[ignore = "needs awscli"]
async fn an_error_is_printed_with_its_code_and_words() {
    let service = Service::start(&signed_example(&NoRabbitMq, "http://127.0.0.1:1/")).await;
    let uuid = "91eaeb7e-c976-4939-9451-8709db01f137";
    let output = aws(&service, &["get-event-source-mapping", "--uuid", uuid]);
    let words = String::from_utf8_lossy(&output.stderr);
    let expected = "An error occurred (ResourceNotFoundException) when calling the GetEventSourceMapping operation: The \
                    resource you requested does not exist.";
    assert!(!output.status.success() && words.contains(expected), "{words}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).ok(), None);
}
