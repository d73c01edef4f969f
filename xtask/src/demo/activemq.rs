//! ActiveMQ: messages of its own Java client, and one that comes over STOMP.

use std::process::{Command, Stdio};

use anyhow::Result;

use super::{Scene, Stage};
use crate::brokers::Node;
use crate::java::Tool;
use crate::process;

/// Among those that STOMP may send to without a login.
const QUEUE: &str = "stomp.orders";

pub(super) struct Show<'a> {
    stage: &'a Stage<'a>,
    node: &'a Node,
    tool: Tool,
}

impl<'a> Show<'a> {
    pub(super) fn open(stage: &'a Stage<'a>, node: &'a Node) -> Result<Self> {
        Ok(Self { stage, node, tool: Tool::start(&node.source(), stage.folder)? })
    }

    fn produce(&mut self, words: &[(&str, &str)]) -> Result<()> {
        let words = [("queue", QUEUE)].iter().chain(words).map(|(key, value)| (*key, (*value).to_owned()));
        self.tool.ask(self.stage.interrupt, "produce", &words.collect::<Vec<_>>()).map(drop)
    }
}

impl Scene for Show<'_> {
    fn queue(&self) -> &'static str {
        QUEUE
    }

    fn messages(&self) -> u64 {
        3
    }

    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn announcement(&self) -> String {
        "Now a text and some bytes go into the queue, both through ActiveMQ's own client in Java, and a text over \
         STOMP."
            .to_owned()
    }

    fn send(&mut self) -> Result<()> {
        self.produce(&[
            ("type", "text"),
            ("body", r#"{"order":1,"customer":"Zoë","pizzas":["margherita","funghi"]}"#),
            ("correlation", "order-1"),
            ("jms_type", "order.placed"),
            ("reply_to", "replies"),
            ("property.pizzas", "int:2"),
            ("property.distance", "float:2.5"),
            ("property.express", "boolean:true"),
        ])?;
        self.produce(&[("type", "bytes"), ("body", "some bytes"), ("priority", "9"), ("group", "customer-7")])?;
        let mut command = Command::new(self.stage.programs.example("stomp_send"));
        let address = format!("127.0.0.1:{}", self.node.activemq()?.stomp_port());
        command.args(["--address", &address, "--queue", QUEUE, "a text over STOMP"]);
        process::output(command.stdout(Stdio::null())).map(drop)
    }

    fn hints(&self) -> Result<String> {
        let port = self.node.activemq()?.stomp_port();
        Ok(format!(
            "  cargo run -p esm-activemq --example stomp_send -- --address 127.0.0.1:{port} --queue {QUEUE} 'a text'"
        ))
    }

    fn rest(&mut self) -> Result<String> {
        let left = self.tool.ask(self.stage.interrupt, "browse", &[("queue", QUEUE.to_owned())])?;
        Ok(left.to_string())
    }
}
