//! The least a program can do with amqprs: read a queue and acknowledge it. `cargo xtask bench` compares `esm`
//! with it.
//!
//! When it has its messages it says so, and waits for the end of its input, so that somebody can look at what
//! it has cost.

use std::error::Error;
use std::io::{self, Read as _};

use amqprs::channel::{BasicAckArguments, BasicConsumeArguments, BasicQosArguments};
use amqprs::connection::{Connection, OpenConnectionArguments};
use clap::Parser;

/// Reads messages from a RabbitMQ queue and acknowledges them.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    queue: String,
    #[arg(long)]
    count: u64,
    #[arg(long, default_value_t = 1000)]
    prefetch: u16,
    #[arg(long, default_value_t = 100)]
    ack_every: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let open = OpenConnectionArguments::new(&arguments.host, arguments.port, "guest", "guest");
    let connection = Connection::open(&open).await?;
    let channel = connection.open_channel(None).await?;
    channel.basic_qos(BasicQosArguments::new(0, arguments.prefetch, false)).await?;
    let consume = BasicConsumeArguments::new(&arguments.queue, "amqprs");
    let (_, mut messages) = channel.basic_consume_rx(consume).await?;
    for number in 1..=arguments.count {
        let message = messages.recv().await.ok_or("the broker cancelled the consumer")?;
        if number.is_multiple_of(arguments.ack_every) || number == arguments.count {
            let tag = message.deliver.as_ref().ok_or("a message without a tag")?.delivery_tag();
            channel.basic_ack(BasicAckArguments::new(tag, true)).await?;
        }
    }
    println!("done");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
