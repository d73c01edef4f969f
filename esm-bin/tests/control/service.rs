//! What the tests of the control API configure and expect.

use std::time::Duration;

use esm_activemq::testing::TestBroker as ActiveMq;
use esm_rabbitmq::testing::TestBroker as RabbitMq;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    boto3::Boto3,
    common::service::{Broker, Config, PATIENCE},
};

impl Broker for RabbitMq {
    const ENGINE: &'static str = "rabbitmq";
    const ADMINISTRATOR: &'static str = "guest";

    fn endpoint(&self) -> String {
        self.url.clone()
    }
}

impl Broker for ActiveMq {
    const ENGINE: &'static str = "activemq";
    const ADMINISTRATOR: &'static str = "admin";

    fn endpoint(&self) -> String {
        self.url.clone()
    }
}

/// A RabbitMQ that nobody listens for: whatever is said about mappings is said without one.
pub(crate) struct NoRabbitMq;

impl Broker for NoRabbitMq {
    const ENGINE: &'static str = "rabbitmq";
    const ADMINISTRATOR: &'static str = "guest";

    fn endpoint(&self) -> String {
        "amqp://127.0.0.1:1".into()
    }
}

/// An ActiveMQ that nobody listens for.
pub(crate) struct NoActiveMq;

impl Broker for NoActiveMq {
    const ENGINE: &'static str = "activemq";
    const ADMINISTRATOR: &'static str = "admin";

    fn endpoint(&self) -> String {
        "tcp://127.0.0.1:1".into()
    }
}

pub(crate) const BROKER_ARN: &str =
    "arn:aws:mq:us-east-1:123456789012:broker:ExampleMQBroker:b-24cacbb4-b295-49b7-8543-7ce7ce9dfb98";
pub(crate) const FUNCTION_ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:MQ-Example-Function";
pub(crate) const SECRET_ARN: &str =
    "arn:aws:secretsmanager:us-east-1:123456789012:secret:ExampleMQBrokerUserPassword-xPBMTt";

/// Who AWS's clients are in these tests.
pub(crate) const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET_ACCESS_KEY: &str = "secret";

/// A service that knows AWS's example names, and has no mapping yet.
pub(crate) fn example<B: Broker>(broker: &B, function_url: &str) -> Config {
    let mut config = Config::new(broker, function_url);
    config.broker = format!("arn = {BROKER_ARN:?}");
    config.tables = format!(
        "[functions.MQ-Example-Function]\nhttp = {{ url = {function_url:?} }}\n\
         [secrets.{SECRET_ARN:?}]\nusername = {:?}\npassword = {{ env = \"ADMINISTRATOR_PASSWORD\" }}\n",
        B::ADMINISTRATOR
    );
    config
}

/// The same service, which takes signed calls only: those of AWS's own clients.
pub(crate) fn signed_example<B: Broker>(broker: &B, function_url: &str) -> Config {
    let mut config = example(broker, function_url);
    config.server = format!(
        "[[server.access_keys]]\naccess_key_id = {ACCESS_KEY_ID:?}\nsecret_access_key = {{ env = \"CALLERS_SECRET\" }}\n"
    );
    config.environment.push(("CALLERS_SECRET", SECRET_ACCESS_KEY.into()));
    config
}

/// A request for a mapping that does not run.
pub(crate) fn disabled(queue: &str) -> Value {
    json!({
        "EventSourceArn": BROKER_ARN,
        "FunctionName": FUNCTION_ARN,
        "Queues": [queue],
        "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": SECRET_ARN }],
        "Enabled": false,
    })
}

/// The request and these members; null takes one away.
pub(crate) fn with(mut request: Value, more: Value) -> Value {
    let members = request.as_object_mut().expect("an object");
    let Value::Object(more) = more else { panic!("no object") };
    for (name, value) in more {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    request
}

/// Polls a mapping as tools do, until its state is none of these, and returns what it is then.
pub(crate) async fn settled(boto3: &mut Boto3, uuid: &str, pending: &[&str]) -> Value {
    let polling = async {
        loop {
            let mapping = boto3.call("get_event_source_mapping", json!({ "UUID": uuid })).expect("is there");
            if !pending.contains(&text(&mapping["State"])) {
                return mapping;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, polling).await.expect("the state settles")
}

/// Waits until nobody knows the mapping any more.
pub(crate) async fn gone(boto3: &mut Boto3, uuid: &str) {
    let polling = async {
        loop {
            match boto3.call("get_event_source_mapping", json!({ "UUID": uuid })) {
                Ok(mapping) => assert_eq!(mapping["State"], "Deleting"),
                Err(error) => return assert_eq!(error.class, "ResourceNotFoundException"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, polling).await.expect("the mapping goes");
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
