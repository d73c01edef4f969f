//! Publishes messages with many types of properties and headers, through a client that shares no code with the
//! one that `esm` reads with.
//!
//! ```text
//! cargo run -p esm-rabbitmq --example publish -- --queue orders --declare quorum --confirm --count 10
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{
    Ack, BasicProperties, ByteArray, Cancel, CloseChannel, DecimalValue, FieldArray, FieldTable, FieldValue, Nack,
    Return, ShortStr,
};
use clap::{Parser, ValueEnum};
use tokio::sync::Notify;
use tokio::time::{self, Instant, MissedTickBehavior};

/// How many messages may wait for the broker's confirmation.
const UNCONFIRMED: usize = 2_000;

/// Publishes messages to a RabbitMQ queue.
#[derive(Parser)]
struct Arguments {
    /// The broker, as `amqp://[user:password@]host:port`; the default login is guest
    #[arg(long, default_value = "amqp://127.0.0.1:5672")]
    url: String,
    #[arg(long, default_value = "/")]
    vhost: String,
    #[arg(long)]
    queue: String,
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Fill the body up to this size; without it the body is a small JSON document
    #[arg(long)]
    body_bytes: Option<usize>,
    /// Make the body the time of sending, in nanoseconds since 1970
    #[arg(long, conflicts_with = "body_bytes")]
    body_time: bool,
    /// How many headers; their types take turns
    #[arg(long, default_value_t = HEADERS)]
    headers: usize,
    /// Set nearly every property instead of a few
    #[arg(long)]
    all_properties: bool,
    /// Declare the queue first
    #[arg(long)]
    declare: Option<QueueType>,
    /// Wait until the broker has confirmed every message
    #[arg(long)]
    confirm: bool,
    /// Messages per second; without it as fast as it goes
    #[arg(long)]
    rate: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum QueueType {
    Quorum,
    Classic,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let connection = connect(&arguments).await?;
    let channel = connection.open_channel(None).await?;
    let journal = Arc::new(Journal::default());
    channel.register_callback(Listener(Arc::clone(&journal))).await?;
    if let Some(queue_type) = arguments.declare {
        declare(&channel, &arguments.queue, queue_type).await?;
    }
    if arguments.confirm {
        channel.confirm_select(ConfirmSelectArguments::new(false)).await?;
    }
    publish(&channel, &arguments, &journal).await?;
    // Closing is answered, so by then the broker has read everything.
    channel.close().await?;
    connection.close().await?;
    let returned = journal.returned();
    if returned > 0 {
        return Err(format!("{returned} messages came back: is there a queue `{}`?", arguments.queue).into());
    }
    println!("published {} messages to {}", arguments.count, arguments.queue);
    Ok(())
}

async fn connect(arguments: &Arguments) -> Result<Connection, Box<dyn Error>> {
    let address = arguments.url.strip_prefix("amqp://").ok_or("the URL should begin with amqp://")?;
    let (login, address) = address.trim_end_matches('/').rsplit_once('@').unwrap_or(("guest:guest", address));
    let (user, password) = login.split_once(':').ok_or("the login should be user:password")?;
    let (host, port) = address.trim_end_matches('/').rsplit_once(':').unwrap_or((address, "5672"));
    let mut open = OpenConnectionArguments::new(host, port.parse()?, user, password);
    open.virtual_host(&arguments.vhost).connection_name("publish");
    Ok(Connection::open(&open).await?)
}

async fn declare(channel: &Channel, queue: &str, queue_type: QueueType) -> Result<(), Box<dyn Error>> {
    let name = match queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
    };
    let mut table = FieldTable::new();
    table.insert("x-queue-type".try_into()?, text(name)?);
    let mut declare = QueueDeclareArguments::durable_client_named(queue);
    channel.queue_declare(declare.arguments(table).finish()).await?;
    Ok(())
}

async fn publish(channel: &Channel, arguments: &Arguments, journal: &Journal) -> Result<(), Box<dyn Error>> {
    let mut pace = arguments.rate.map(pace);
    let route = BasicPublishArguments::new("", &arguments.queue).mandatory(true).finish();
    for number in 1..=arguments.count {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let properties = properties(number, arguments)?;
        if arguments.confirm {
            journal.below(UNCONFIRMED).await?;
            journal.sent(number);
        }
        channel.basic_publish(properties, body(number, arguments), route.clone()).await?;
    }
    journal.below(1).await
}

/// Ticks that stay evenly spaced; one that was missed is made up for.
fn pace(rate: u32) -> time::Interval {
    let mut pace = time::interval_at(Instant::now(), Duration::from_secs(1) / rate.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    pace
}

fn body(number: u64, arguments: &Arguments) -> Vec<u8> {
    match arguments.body_bytes {
        Some(bytes) => format!("message {number} ").into_bytes().into_iter().cycle().take(bytes).collect(),
        None if arguments.body_time => since_1970().as_nanos().to_string().into_bytes(),
        None => format!(r#"{{"order":{number},"customer":"Zoë","pizzas":["margherita","funghi"]}}"#).into_bytes(),
    }
}

fn properties(number: u64, arguments: &Arguments) -> Result<BasicProperties, Box<dyn Error>> {
    let mut properties = BasicProperties::default();
    properties
        .with_content_type(if arguments.body_bytes.is_some() { "text/plain" } else { "application/json" })
        .with_delivery_mode(2)
        .with_message_id(&format!("message-{number}"))
        .with_timestamp(since_1970().as_secs());
    if arguments.headers > 0 {
        properties.with_headers(headers(number, arguments.headers)?);
    }
    if arguments.all_properties {
        properties
            .with_content_encoding("utf-8")
            .with_priority(u8::try_from(number % 10)?)
            .with_correlation_id(&format!("order-{number}"))
            .with_reply_to("replies")
            .with_expiration("3600000")
            .with_message_type("order.placed")
            .with_app_id("publish");
    }
    Ok(properties)
}

/// How many types of header there are.
const HEADERS: usize = 12;

fn headers(number: u64, count: usize) -> Result<FieldTable, Box<dyn Error>> {
    let mut table = FieldTable::new();
    for place in 0..count {
        let (name, value) = header(place % HEADERS, number)?;
        // The first round has plain names.
        let name = if place < HEADERS { name.to_owned() } else { format!("{name}-{place}") };
        table.insert(name.try_into()?, value);
    }
    Ok(table)
}

fn header(place: usize, number: u64) -> Result<(&'static str, FieldValue), Box<dyn Error>> {
    let small = i32::try_from(number % 1_000)?;
    Ok(match place {
        0 => ("source", text("web shop in Zürich")?),
        1 => ("pizzas", FieldValue::I(small)),
        2 => ("express", FieldValue::t(number.is_multiple_of(2))),
        3 => ("customer-number", FieldValue::l(9_007_199_254_740_993)),
        4 => ("distance", FieldValue::d(2.5)),
        5 => ("placed-at", FieldValue::T(since_1970().as_secs())),
        6 => ("price", FieldValue::D(DecimalValue::new(2, 1_000 + small))),
        7 => ("signature", FieldValue::x(ByteArray::try_from(vec![0, 127, 128, 255])?)),
        8 => ("coupon", FieldValue::V),
        9 => ("address", FieldValue::F(address()?)),
        10 => {
            ("toppings", FieldValue::A(FieldArray::try_from(vec![text("basil")?, FieldValue::t(true), FieldValue::V])?))
        }
        _ => ("floor", FieldValue::b(-1)),
    })
}

fn address() -> Result<FieldTable, Box<dyn Error>> {
    let mut table = FieldTable::new();
    table.insert(ShortStr::try_from("street")?, text("Bahnhofstrasse")?);
    table.insert(ShortStr::try_from("number")?, FieldValue::s(12));
    Ok(table)
}

fn text(text: &str) -> Result<FieldValue, Box<dyn Error>> {
    Ok(FieldValue::S(text.try_into()?))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the broker has said about our messages.
#[derive(Default)]
struct Journal {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    unconfirmed: BTreeSet<u64>,
    refused: usize,
    returned: usize,
}

impl Journal {
    fn sent(&self, tag: u64) {
        self.change(|state| state.unconfirmed.insert(tag));
    }

    /// Waits until fewer messages than this are unconfirmed. Never waits when nothing needs confirmation.
    async fn below(&self, limit: usize) -> Result<(), Box<dyn Error>> {
        loop {
            let changed = self.changed.notified();
            let (unconfirmed, refused) = self.change(|state| (state.unconfirmed.len(), state.refused));
            if refused > 0 {
                return Err(format!("the broker refused {refused} messages").into());
            }
            if unconfirmed < limit {
                return Ok(());
            }
            time::timeout(Duration::from_mins(1), changed).await.map_err(|_| "the broker confirms nothing any more")?;
        }
    }

    fn answered(&self, tag: u64, multiple: bool, refused: bool) {
        self.change(|state| {
            let before = state.unconfirmed.len();
            if multiple {
                state.unconfirmed = state.unconfirmed.split_off(&(tag + 1));
            } else {
                state.unconfirmed.remove(&tag);
            }
            state.refused += if refused { before - state.unconfirmed.len() } else { 0 };
        });
        self.changed.notify_one();
    }

    fn returned(&self) -> usize {
        self.change(|state| state.returned)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Listener(Arc<Journal>);

#[async_trait::async_trait]
impl ChannelCallback for Listener {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), amqprs::error::Error> {
        eprintln!("the broker closed the channel: {close}");
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, _: bool) -> Result<bool, amqprs::error::Error> {
        Ok(true)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.0.answered(ack.delivery_tag(), ack.mutiple(), false);
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.0.answered(nack.delivery_tag(), nack.multiple(), true);
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {
        self.0.change(|state| state.returned += 1);
    }
}
