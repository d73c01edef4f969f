//! What is RabbitMQ's own in a configuration.

use esm_rabbitmq::testing::TestBroker;

use crate::common::service::{Broker, Config};

impl Broker for TestBroker {
    const ENGINE: &'static str = "rabbitmq";
    const ADMINISTRATOR: &'static str = "guest";

    fn endpoint(&self) -> String {
        self.url.clone()
    }
}

impl Config {
    /// A mapping of a queue in a virtual host.
    pub(crate) fn mapping_in(self, virtual_host: &str, queue: &str, more: &str) -> Self {
        self.mapping(queue, &format!("virtual_host = {virtual_host:?}\n{more}"))
    }
}
