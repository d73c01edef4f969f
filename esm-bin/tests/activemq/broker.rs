//! What is ActiveMQ's own in a configuration and in events.

use esm_activemq::testing::{ADMINISTRATOR, TestBroker};
use serde_json::Value;

use crate::common::{function::Call, service::Broker};

impl Broker for TestBroker {
    const ENGINE: &'static str = "activemq";
    const ADMINISTRATOR: &'static str = ADMINISTRATOR.0;

    fn endpoint(&self) -> String {
        self.url.clone()
    }
}

/// One batch at a time, so that order shows.
pub(crate) const ONE_BY_ONE: &str = r#"tags = { "esm:maximum-concurrency" = "1" }"#;

/// The records of an invocation's event.
pub(crate) fn records(call: &Call) -> &[Value] {
    call.event["messages"].as_array().expect("a list")
}

/// The member `redelivered` of every record of an invocation.
pub(crate) fn redelivered(call: &Call) -> Vec<bool> {
    records(call).iter().map(|record| record["redelivered"].as_bool().expect("a boolean")).collect()
}
