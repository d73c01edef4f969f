//! The least a program can do with lapin: read a queue and acknowledge it. `cargo xtask bench` compares `esm`
//! with it.
//!
//! When it has its messages it says so, and waits for the end of its input, so that somebody can look at what
//! it has cost.

use std::error::Error;
use std::io::{self, Read as _};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

/// Reads messages from a RabbitMQ queue and acknowledges them.
#[derive(Parser)]
struct Arguments {
    /// The broker, with virtual host, as `amqp://host:port/%2f`
    #[arg(long)]
    url: String,
    #[arg(long)]
    queue: String,
    #[arg(long)]
    count: u64,
    #[arg(long, default_value_t = 1000)]
    prefetch: u16,
    #[arg(long, default_value_t = 100)]
    ack_every: u64,
    /// Take each body for the time of sending, in nanoseconds since 1970, and tell how long it took
    #[arg(long)]
    latency: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let connection = Connection::connect(&arguments.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(arguments.prefetch, BasicQosOptions::default()).await?;
    let queue = arguments.queue.as_str().into();
    let consume = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue, "lapin".into(), consume, FieldTable::default()).await?;
    let mut nanoseconds = Vec::new();
    for number in 1..=arguments.count {
        let delivery = consumer.next().await.ok_or("the broker cancelled the consumer")??;
        if arguments.latency {
            nanoseconds.extend(nanoseconds_on_the_way(&delivery.data));
        }
        if number.is_multiple_of(arguments.ack_every) || number == arguments.count {
            delivery.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    if arguments.latency {
        println!("{}", summary(&mut nanoseconds));
    }
    println!("done");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn nanoseconds_on_the_way(body: &[u8]) -> Option<u64> {
    let sent: u64 = str::from_utf8(body).ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(now).ok()?.checked_sub(sent)
}

/// In the form in which the sample function tells it.
fn summary(nanoseconds: &mut [u64]) -> serde_json::Value {
    nanoseconds.sort_unstable();
    let microseconds = |quantile: usize| {
        let place = nanoseconds.len().saturating_sub(1) * quantile / 1_000;
        nanoseconds.get(place).map(|nanoseconds| nanoseconds / 1_000)
    };
    serde_json::json!({
        "latency_us": {"p50": microseconds(500), "p99": microseconds(990), "max": microseconds(1_000)},
    })
}
