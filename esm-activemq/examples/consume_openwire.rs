//! Reads messages and acknowledges them, and nothing else: what the client alone costs.
//!
//! Says "done" when it has them, and waits for the end of its input.

use std::{io::Read as _, sync::Arc, time::Duration};

use clap::Parser;
use esm_activemq::{
    client::{
        AckKind, Acknowledgement, Address, ClientError, Connection, Consumer, ConsumerEvents, ConsumerOptions, Flaw,
        NONE_DELIVERED, Transport,
    },
    openwire::{Destination, DispatchHead, MessageDispatch, MessageId},
};
use esm_core::credentials::Login;
use tokio::sync::mpsc;

/// Reads messages and acknowledges them, and nothing else.
#[derive(Parser)]
struct Arguments {
    /// tcp://host:port
    #[arg(long)]
    url: Address,
    #[arg(long)]
    username: String,
    #[arg(long)]
    password: String,
    #[arg(long)]
    queue: String,
    /// How many messages
    #[arg(long)]
    count: usize,
    #[arg(long)]
    prefetch: i32,
    /// How many are acknowledged at once
    #[arg(long, default_value_t = 100)]
    batch: usize,
}

/// A queue with a backlog finds 200 messages at a time, and looks for more when something is acknowledged. So a
/// batch that is still filling says now and then how far it is.
const NUDGE_EVERY: usize = 100;

/// What there is to tell the broker.
enum Word {
    /// A batch is complete: its first message, the last but one, and the last.
    Batch(Box<[MessageId; 3]>),
    /// This one has come, and more are wanted before the batch is complete.
    Nudge(MessageId),
}

/// Hands on what the broker must be told.
struct Count {
    batch: usize,
    in_batch: usize,
    first: Option<MessageId>,
    before_last: Option<MessageId>,
    words: mpsc::Sender<Word>,
    received: usize,
    wanted: usize,
}

impl Count {
    fn say(&self, word: Word) {
        self.words.try_send(word).expect("there is room");
    }
}

impl ConsumerEvents for Count {
    fn message(&mut self, dispatch: Box<MessageDispatch>) {
        let Some(id) = dispatch.message.and_then(|message| message.message_id) else { return };
        self.in_batch += 1;
        self.received += 1;
        if self.in_batch == 1 {
            self.first = Some(id.clone());
        }
        if self.in_batch == self.batch || self.received == self.wanted {
            let first = self.first.take().unwrap_or_else(|| id.clone());
            let before_last = self.before_last.take().unwrap_or_else(|| id.clone());
            self.in_batch = 0;
            self.say(Word::Batch(Box::new([first, before_last, id])));
            return;
        }
        if self.in_batch.is_multiple_of(NUDGE_EVERY) {
            self.say(Word::Nudge(id.clone()));
        }
        self.before_last = Some(id);
    }

    fn unreadable(&mut self, head: DispatchHead, flaw: Flaw) {
        panic!("{:?}: {flaw:?}", head.message_id);
    }

    fn prefetch_set(&mut self, _: i32) {}

    fn end(&mut self, cause: ClientError) {
        eprintln!("{cause}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Arguments { url, username, password, queue, count, prefetch, batch } = Arguments::parse();
    let endpoint = url.endpoints.first().expect("an address has an endpoint");
    let transport = Arc::new(Transport::dial(endpoint, &native_tls::TlsConnector::builder()).await.expect("connects"));
    let login = Login { username, password: password.into() };
    let connection = Connection::open(transport, &login, "consume-openwire").await.expect("logs in");
    let (words, mut said) = mpsc::channel(count / batch + count / NUDGE_EVERY + 1);
    let events = Count { batch, in_batch: 0, first: None, before_last: None, words, received: 0, wanted: count };
    let options = ConsumerOptions {
        destination: Destination::Queue(queue.as_str().into()),
        prefetch,
        selector: None,
        exclusive: false,
        priority: 0,
    };
    let consumer = connection.consume(options, Box::new(events)).await.expect("consumes");
    let mut left = count;
    while left > 0 {
        match said.recv().await.expect("the consumer is open") {
            Word::Batch(ids) => left -= acknowledge(&consumer, *ids, left.min(batch)).await,
            Word::Nudge(id) => {
                consumer.acknowledge(Acknowledgement {
                    kind: AckKind::Delivered,
                    first: id.clone(),
                    last: id,
                    count: 0,
                });
            }
        }
    }
    println!("done");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.expect("waits").expect("reads");
    consumer.close(NONE_DELIVERED, Duration::from_secs(5)).await.expect("says goodbye");
}

/// A range for all but the last message, and the last one with an answer, as the adapter does.
async fn acknowledge(consumer: &Consumer, [first, before_last, last]: [MessageId; 3], count: usize) -> usize {
    let standard = |first, last, count| Acknowledgement { kind: AckKind::Standard, first, last, count };
    let before = i32::try_from(count - 1).expect("a batch is small");
    let range = (before > 0).then(|| standard(first, before_last, before));
    consumer.acknowledge_all(range, standard(last.clone(), last, 1)).wait().await.expect("is acknowledged");
    count
}
