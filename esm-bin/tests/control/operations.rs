//! Every operation and every error, as AWS's SDK for Python takes them.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    boto3::Boto3,
    common::{function::Function, service::Service},
    service::{
        BROKER_ARN, FUNCTION_ARN, NoActiveMq, NoRabbitMq, SECRET_ARN, disabled, gone, settled, signed_example, text,
        with,
    },
};

const FUNCTION_URL: &str = "http://127.0.0.1:1/";

async fn rabbitmq() -> (Service, Boto3) {
    let service = Service::start(&signed_example(&NoRabbitMq, FUNCTION_URL)).await;
    let boto3 = Boto3::start(&service);
    (service, boto3)
}

#[tokio::test]
#[ignore = "needs boto3"]
async fn a_mapping_is_made_read_changed_tagged_and_deleted() {
    let (_service, mut boto3) = rabbitmq().await;
    let request = with(
        disabled("ExampleQueue"),
        json!({
            "BatchSize": 7,
            "MaximumBatchingWindowInSeconds": 3,
            "FilterCriteria": { "Filters": [{ "Pattern": "{\"data\":{\"kind\":[\"order\"]}}" }] },
            "ScalingConfig": { "MaximumConcurrency": 4 },
            "MaximumRetryAttempts": -1,
            "SourceAccessConfigurations": [
                { "Type": "BASIC_AUTH", "URI": SECRET_ARN },
                { "Type": "VIRTUAL_HOST", "URI": "/orders" },
            ],
            "Tags": { "team": "pizza", "a b": "é@:/=+-_." },
        }),
    );

    let made = boto3.call("create_event_source_mapping", request.clone()).unwrap();

    let (uuid, arn) = (text(&made["UUID"]), text(&made["EventSourceMappingArn"]));
    assert_eq!(arn, format!("arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}"));
    let mut expected = with(
        request,
        json!({
            "FunctionName": null, "Enabled": null, "Tags": null, "UUID": uuid, "EventSourceMappingArn": arn,
            "FunctionArn": FUNCTION_ARN, "State": "Disabled", "StateTransitionReason": "USER_INITIATED",
            "LastProcessingResult": "No records processed", "LastModified": made["LastModified"],
        }),
    );
    assert_eq!(made, expected);
    assert!(made["LastModified"].as_f64().unwrap() > 1_700_000_000.0);
    assert_eq!(boto3.call("get_event_source_mapping", json!({ "UUID": uuid })).unwrap(), expected);
    let listed = boto3.call("list_event_source_mappings", json!({})).unwrap();
    assert_eq!(listed, json!({ "EventSourceMappings": [expected] }));

    let request = json!({ "UUID": uuid, "BatchSize": 8, "FilterCriteria": {}, "ScalingConfig": {} });
    let changed = boto3.call("update_event_source_mapping", request).unwrap();
    expected = with(
        expected,
        json!({
            "BatchSize": 8, "FilterCriteria": null, "ScalingConfig": null, "LastModified": changed["LastModified"],
        }),
    );
    assert_eq!(changed, expected);
    assert!(changed["LastModified"].as_f64() > made["LastModified"].as_f64());

    let resource = json!({ "Resource": arn });
    let tags = boto3.call("list_tags", resource.clone()).unwrap();
    assert_eq!(tags, json!({ "Tags": { "team": "pizza", "a b": "é@:/=+-_." } }));
    boto3.call("tag_resource", with(resource.clone(), json!({ "Tags": { "team": "pasta", "new": "" } }))).unwrap();
    boto3.call("untag_resource", with(resource.clone(), json!({ "TagKeys": ["a b", "absent"] }))).unwrap();
    assert_eq!(boto3.call("list_tags", resource).unwrap(), json!({ "Tags": { "team": "pasta", "new": "" } }));

    let deleted = boto3.call("delete_event_source_mapping", json!({ "UUID": uuid })).unwrap();
    assert_eq!(deleted["State"], "Deleting");
    gone(&mut boto3, uuid).await;
}

fn check(boto3: &mut Boto3, operation: &str, parameters: Value, status: u16, class: &str, message: &str) {
    let asked = format!("{operation} {parameters}");
    let error = boto3.call(operation, parameters).expect_err(&asked);
    assert_eq!(error.class, class, "{error:?}");
    assert_eq!(error.response["ResponseMetadata"]["HTTPStatusCode"], status, "{error:?}");
    assert!(error.message.starts_with(message), "{} does not start with {message}", error.message);
    let modelled = !["ValidationException", "SerializationException"].contains(&text(&error.response["Error"]["Code"]));
    // What the model has no exception for is a bare client error with that code.
    assert_eq!(modelled, class != "ClientError", "{error:?}");
    if modelled {
        assert_eq!(error.response["Type"], "User", "{error:?}");
    }
}

#[tokio::test]
#[ignore = "needs boto3"]
async fn errors_become_the_exceptions_of_the_model() {
    const CREATE: &str = "create_event_source_mapping";
    const UPDATE: &str = "update_event_source_mapping";
    const INVALID: &str = "InvalidParameterValueException";
    const NOT_FOUND: &str = "ResourceNotFoundException";
    let (_service, mut boto3) = rabbitmq().await;
    let boto3 = &mut boto3;
    let unknown = "91eaeb7e-c976-4939-9451-8709db01f137";
    let no_resource = "The resource you requested does not exist.";
    let made = boto3.call(CREATE, disabled("one")).unwrap();
    let uuid = text(&made["UUID"]);

    check(boto3, "get_event_source_mapping", json!({ "UUID": unknown }), 404, NOT_FOUND, no_resource);
    check(boto3, "delete_event_source_mapping", json!({ "UUID": unknown }), 404, NOT_FOUND, no_resource);
    check(boto3, UPDATE, json!({ "UUID": unknown }), 404, NOT_FOUND, no_resource);
    let arn = format!("arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{unknown}");
    let no_mapping = format!("Event source mapping not found: {arn}");
    check(boto3, "list_tags", json!({ "Resource": arn }), 404, NOT_FOUND, &no_mapping);
    check(boto3, "tag_resource", json!({ "Resource": arn, "Tags": { "a": "b" } }), 404, NOT_FOUND, &no_mapping);
    check(boto3, "untag_resource", json!({ "Resource": arn, "TagKeys": ["a"] }), 404, NOT_FOUND, &no_mapping);

    let refused = |more: Value| with(disabled("two"), more);
    check(boto3, CREATE, refused(json!({ "EventSourceArn": null })), 400, INVALID, "Unrecognized event source.");
    let other = "arn:aws:mq:us-east-1:123456789012:broker:Other:b-1";
    check(boto3, CREATE, refused(json!({ "EventSourceArn": other })), 400, INVALID, "Unrecognized event source.");
    let sqs = "arn:aws:sqs:us-east-1:123456789012:queue";
    check(boto3, CREATE, refused(json!({ "EventSourceArn": sqs })), 400, INVALID, "Unrecognized event source.");
    check(boto3, CREATE, refused(json!({ "FunctionName": "absent" })), 400, INVALID, "Function does not exist");
    let unsupported = "Unsupported 'startingPosition' parameter for given event source mapping type.";
    check(boto3, CREATE, refused(json!({ "StartingPosition": "LATEST" })), 400, INVALID, unsupported);
    let filter = json!({ "FilterCriteria": { "Filters": [{ "Pattern": "{\"data\":1}" }] } });
    check(boto3, CREATE, refused(filter), 400, INVALID, "Invalid filter pattern definition.");
    let limit = "1 validation error detected: Value '10001' at 'batchSize' failed to satisfy constraint: Member must \
                 have value less than or equal to 10000";
    check(boto3, CREATE, refused(json!({ "BatchSize": 10_001 })), 400, "ClientError", limit);

    let conflict = format!(
        "An event source mapping with event source (\"{BROKER_ARN}\"), function (\"{FUNCTION_ARN}\"), queues \
         (\"one\") already exists. Please update or delete the existing mapping with UUID {uuid}"
    );
    check(boto3, CREATE, disabled("one"), 409, "ResourceConflictException", &conflict);
    let both = json!([{ "Type": "BASIC_AUTH", "URI": SECRET_ARN }, { "Type": "VIRTUAL_HOST", "URI": "/" }]);
    let changes = json!({ "UUID": uuid, "SourceAccessConfigurations": both });
    check(boto3, UPDATE, changes, 400, INVALID, "Invalid parameters: VIRTUAL_HOST");
    let changes = json!({ "UUID": uuid, "SourceAccessConfigurations": [] });
    check(boto3, UPDATE, changes, 400, INVALID, "Invalid parameters: sourceAccessConfigurations");
    assert_eq!(boto3.call("get_event_source_mapping", json!({ "UUID": uuid })).unwrap(), made, "nothing was changed");
}

#[tokio::test]
#[ignore = "needs boto3"]
async fn activemq_has_a_login_and_no_virtual_host() {
    let service = Service::start(&signed_example(&NoActiveMq, FUNCTION_URL)).await;
    let mut boto3 = Boto3::start(&service);
    let both = json!([{ "Type": "BASIC_AUTH", "URI": SECRET_ARN }, { "Type": "VIRTUAL_HOST", "URI": "/" }]);
    let request = with(disabled("one"), json!({ "SourceAccessConfigurations": both }));
    let words = "Unsupported source access configurations type for given event source mapping type.";
    let invalid = "InvalidParameterValueException";
    check(&mut boto3, "create_event_source_mapping", request, 400, invalid, words);

    let made = boto3.call("create_event_source_mapping", disabled("one")).unwrap();
    let changes = json!({ "UUID": made["UUID"], "SourceAccessConfigurations": [] });
    let words = "BASIC_AUTH source access configuration was not provided";
    check(&mut boto3, "update_event_source_mapping", changes, 400, invalid, words);
}

/// A broker that takes connections and never says a word keeps a mapping on its way.
#[tokio::test]
#[ignore = "needs boto3"]
async fn a_mapping_on_its_way_to_another_state_is_in_use() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = signed_example(&NoRabbitMq, FUNCTION_URL);
    config.endpoints = vec![format!("amqp://{}", silent.local_addr().unwrap())];
    let service = Service::start(&config).await;
    let mut boto3 = Boto3::start(&service);
    let made = boto3.call("create_event_source_mapping", with(disabled("one"), json!({ "Enabled": true }))).unwrap();
    assert_eq!(made["State"], "Creating");

    let uuid = json!({ "UUID": made["UUID"] });
    let in_use = "ResourceInUseException";
    let words = "Cannot update the event source mapping because it is in use.";
    check(&mut boto3, "update_event_source_mapping", uuid.clone(), 400, in_use, words);
    let words = "Cannot delete the event source mapping because it is in use.";
    check(&mut boto3, "delete_event_source_mapping", uuid, 400, in_use, words);
}

#[tokio::test]
#[ignore = "needs boto3"]
async fn a_mapping_that_cannot_reach_its_broker_is_enabled_says_why_and_can_be_deleted() {
    let (_service, mut boto3) = rabbitmq().await;
    let made = boto3.call("create_event_source_mapping", with(disabled("one"), json!({ "Enabled": true }))).unwrap();
    let uuid = text(&made["UUID"]);

    let enabled = settled(&mut boto3, uuid, &["Creating"]).await;

    assert_eq!(enabled["State"], "Enabled");
    let result = text(&enabled["LastProcessingResult"]);
    assert!(result.starts_with("PROBLEM: ") && result.contains("127.0.0.1:1"), "{result}");
    boto3.call("delete_event_source_mapping", json!({ "UUID": uuid })).unwrap();
    gone(&mut boto3, uuid).await;
}

#[tokio::test]
#[ignore = "needs a broker and boto3"]
async fn what_was_processed_last_is_known_while_a_mapping_is_disabled_and_after_a_restart() {
    let broker = esm_rabbitmq::testing::TestBroker::shared();
    let virtual_host = broker.virtual_host("last result").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start().await;
    let mut service = Service::start(&signed_example(&broker, &function.url)).await;
    let mut boto3 = Boto3::start(&service);
    let access = json!([
        { "Type": "BASIC_AUTH", "URI": SECRET_ARN },
        { "Type": "VIRTUAL_HOST", "URI": virtual_host },
    ]);
    let request = with(disabled("queue"), json!({ "Enabled": true, "SourceAccessConfigurations": access }));
    let made = boto3.call("create_event_source_mapping", request).unwrap();
    let uuid = text(&made["UUID"]);
    settled(&mut boto3, uuid, &["Creating"]).await;
    publisher.publish("queue", ["a message"]).await;
    service.metric_becomes("esm_deleted_events_total", &[], 1).await;

    boto3.call("update_event_source_mapping", json!({ "UUID": uuid, "Enabled": false })).unwrap();
    assert_eq!(settled(&mut boto3, uuid, &["Disabling"]).await["LastProcessingResult"], "OK");
    boto3.call("update_event_source_mapping", json!({ "UUID": uuid, "Enabled": true })).unwrap();
    assert_eq!(settled(&mut boto3, uuid, &["Enabling"]).await["LastProcessingResult"], "OK");

    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    service.start_again().await;
    let after = boto3.call("get_event_source_mapping", json!({ "UUID": uuid })).unwrap();
    assert_eq!((&after["State"], &after["LastProcessingResult"]), (&json!("Enabled"), &json!("OK")));
}
