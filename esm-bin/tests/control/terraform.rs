//! What Terraform's provider for AWS calls, in its order, for `aws_lambda_event_source_mapping`.

use esm_activemq::testing::TestBroker as ActiveMq;
use esm_rabbitmq::testing::TestBroker as RabbitMq;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    boto3::Boto3,
    common::{
        function::Function,
        service::{Broker, PATIENCE, Service},
    },
    service::{BROKER_ARN, FUNCTION_ARN, SECRET_ARN, gone, settled, signed_example, text},
};

/// Reads a resource: both calls have to work.
fn read(boto3: &mut Boto3, uuid: &str) -> (Value, Value) {
    let mapping = boto3.call("get_event_source_mapping", json!({ "UUID": uuid })).expect("succeeds");
    let tags = boto3.call("list_tags", json!({ "Resource": mapping["EventSourceMappingArn"] })).expect("succeeds");
    (mapping, tags)
}

/// What is compared with the plan.
fn planned(mapping: &Value) -> Value {
    let names = ["BatchSize", "FunctionArn", "EventSourceArn", "Queues", "SourceAccessConfigurations", "State"];
    names.iter().map(|name| ((*name).to_owned(), mapping[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

async fn update(boto3: &mut Boto3, uuid: &str, changes: Value) -> Value {
    let mut request = json!({ "UUID": uuid, "FunctionName": FUNCTION_ARN });
    request.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
    boto3.call("update_event_source_mapping", request).expect("succeeds");
    settled(boto3, uuid, &["Disabling", "Enabling", "Updating"]).await
}

async fn applies_plans_changes_and_destroys<B: Broker>(broker: &B, queue: &str, access: Value) {
    let function = Function::start().await;
    let service = Service::start(&signed_example(broker, &function.url)).await;
    let mut boto3 = Boto3::start(&service);
    let boto3 = &mut boto3;

    // Create: always says whether it is enabled.
    let request = json!({
        "BatchSize": 100,
        "Enabled": true,
        "EventSourceArn": BROKER_ARN,
        "FunctionName": FUNCTION_ARN,
        "Queues": [queue],
        "SourceAccessConfigurations": access,
        "Tags": { "managed": "yes" },
    });
    let made = boto3.call("create_event_source_mapping", request).expect("succeeds");
    let uuid = text(&made["UUID"]);
    let created = settled(boto3, uuid, &["Creating", "Enabling", "Disabling"]).await;
    assert_eq!(created["State"], "Enabled");

    // Read, and a plan that finds nothing to do, also once more.
    let (mapping, tags) = read(boto3, uuid);
    let expected = json!({
        "BatchSize": 100,
        "FunctionArn": FUNCTION_ARN,
        "EventSourceArn": BROKER_ARN,
        "Queues": [queue],
        "SourceAccessConfigurations": access,
        "State": "Enabled",
    });
    assert_eq!(planned(&mapping), expected);
    assert_eq!(tags, json!({ "Tags": { "managed": "yes" } }));
    assert_eq!(read(boto3, uuid), (mapping, tags));

    // Update, also of the filter and of tags.
    let changed = update(boto3, uuid, json!({ "BatchSize": 10 })).await;
    assert_eq!((&changed["State"], &changed["BatchSize"]), (&json!("Enabled"), &json!(10)));
    let filter = json!({ "FilterCriteria": { "Filters": [{ "Pattern": "{\"data\":[\"x\"]}" }] } });
    assert_eq!(update(boto3, uuid, filter.clone()).await["FilterCriteria"], filter["FilterCriteria"]);
    assert!(update(boto3, uuid, json!({ "FilterCriteria": {} })).await["FilterCriteria"].is_null());
    let arn = &made["EventSourceMappingArn"];
    boto3.call("tag_resource", json!({ "Resource": arn, "Tags": { "new": "tag" } })).expect("succeeds");
    boto3.call("untag_resource", json!({ "Resource": arn, "TagKeys": ["managed"] })).expect("succeeds");
    assert_eq!(read(boto3, uuid).1, json!({ "Tags": { "new": "tag" } }));

    // Disable, and a plan that finds nothing to do.
    assert_eq!(update(boto3, uuid, json!({ "Enabled": false })).await["State"], "Disabled");
    assert_eq!(read(boto3, uuid).0["State"], "Disabled");
    assert_eq!(update(boto3, uuid, json!({ "Enabled": true })).await["State"], "Enabled");

    // Destroy: tried again while it is in use.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = boto3.call("delete_event_source_mapping", json!({ "UUID": uuid })) {
        assert_eq!(error.class, "ResourceInUseException");
        assert!(Instant::now() < deadline, "the mapping stays in use");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    gone(boto3, uuid).await;
}

#[tokio::test]
#[ignore = "needs a broker and boto3"]
async fn a_rabbitmq_mapping_is_applied_planned_changed_and_destroyed() {
    let broker = RabbitMq::shared();
    let virtual_host = "terraform";
    broker.create_virtual_host(virtual_host).await;
    let publisher = broker.publisher(virtual_host).await;
    publisher.declare("test", "classic").await;
    let access = json!([{ "Type": "BASIC_AUTH", "URI": SECRET_ARN }, { "Type": "VIRTUAL_HOST", "URI": virtual_host }]);
    applies_plans_changes_and_destroys(&broker, "test", access).await;
    publisher.close().await;
    broker.delete_virtual_host(virtual_host).await;
}

#[tokio::test]
#[ignore = "needs a broker and boto3"]
async fn an_activemq_mapping_is_applied_planned_changed_and_destroyed() {
    let broker = ActiveMq::shared();
    let queue = broker.queue("terraform");
    applies_plans_changes_and_destroys(&broker, &queue, json!([{ "Type": "BASIC_AUTH", "URI": SECRET_ARN }])).await;
}
