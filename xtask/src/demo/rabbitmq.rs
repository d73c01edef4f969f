//! RabbitMQ: a quorum queue, and a publisher that shares no code with `esm`.

use anyhow::Result;

use super::{Scene, Stage};
use crate::brokers::Node;
use crate::http;
use crate::services;

const QUEUE: &str = "orders";
const MESSAGES: u64 = 8;

/// To RabbitMQ's management: show messages and leave them where they are.
const ASK_FOR_MESSAGES: &str = r#"{"count":10,"ackmode":"ack_requeue_true","encoding":"auto"}"#;

pub(super) struct Show<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) node: &'a Node,
}

impl Show<'_> {
    fn publish(&self, options: &[&str]) -> Result<()> {
        services::publish(self.stage.programs, &self.node.source().endpoint, QUEUE, options)
    }
}

impl Scene for Show<'_> {
    fn queue(&self) -> &'static str {
        QUEUE
    }

    fn messages(&self) -> u64 {
        MESSAGES
    }

    fn prepare(&mut self) -> Result<()> {
        self.publish(&["--declare", "quorum", "--count", "0"])
    }

    fn announcement(&self) -> String {
        format!(
            "Now {MESSAGES} messages go into the queue, with properties and headers of many types, through a client \
             that shares no code with esm."
        )
    }

    fn send(&mut self) -> Result<()> {
        self.publish(&["--count", &MESSAGES.to_string(), "--all-properties"])
    }

    fn hints(&self) -> Result<String> {
        let rabbitmq = self.node.rabbitmq()?;
        Ok(format!(
            "  broker: http://127.0.0.1:{} (guest, guest)\n  \
             cargo run -p esm-rabbitmq --example publish -- --url amqp://127.0.0.1:{} --queue {QUEUE} --count 3",
            rabbitmq.management_port(),
            rabbitmq.amqp_port(),
        ))
    }

    fn rest(&mut self) -> Result<String> {
        let port = self.node.rabbitmq()?.management_port();
        http::post(port, &format!("/api/queues/%2F/{QUEUE}/get"), ASK_FOR_MESSAGES)
    }
}
