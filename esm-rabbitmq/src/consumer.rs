//! Settles what one channel lent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esm_core::{
    memory::Hand,
    source::{Consumer, DeadLettered, Disposition, Receipt, SourceError},
};
use futures_util::{TryStreamExt, stream::FuturesOrdered};
use lapin::{
    Channel,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
        BasicRejectOptions, QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::{
    connections::{Connections, SharedConnection},
    errors::Place,
    ledger::{Ack, Ledger},
    source::OPEN,
};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long the end of a consumer may take when more is on its way than there is memory for: it comes behind that.
const FLOOD: Duration = Duration::from_secs(60);
/// How long a success waits for those before it. An acknowledgement for each message costs several
/// times the work of one for many; a slower function loses nothing that counts.
const PATIENCE: Duration = Duration::from_millis(10);

pub(crate) struct RabbitConsumer {
    pub(crate) channel: Channel,
    pub(crate) consuming: Mutex<Consuming>,
    pub(crate) hand: Hand,
    /// Takes consumers to the reader.
    pub(crate) successors: mpsc::Sender<lapin::Consumer>,
    /// What is given up is published elsewhere; nobody said that the queue has a dead-letter exchange.
    pub(crate) has_destination: bool,
    pub(crate) place: Place,
    pub(crate) connections: Arc<Connections>,
    pub(crate) connection: Arc<SharedConnection>,
    /// Set before we end the consumer ourselves, so that its end is no loss.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// Held until the frames are on their way: they must leave in the order of the entries.
    pub(crate) ledger: Mutex<Ledger>,
    /// Told whenever acknowledgements have caught up with what waited for them.
    pub(crate) advanced: Notify,
    pub(crate) _reading: AbortOnDropHandle<()>,
}

impl RabbitConsumer {
    /// Acknowledges by as few frames as possible: what succeeded out of turn waits a moment for
    /// what came before it, so that one `multiple` does for both.
    async fn ack(&self, receipts: &[Receipt]) -> lapin::Result<()> {
        let tags = || receipts.iter().map(|receipt| receipt.0);
        let mut ledger = self.ledger.lock().await;
        if let Some(ack) = ledger.succeed(tags()) {
            self.send_ack(ack).await?;
            self.advanced.notify_waiters();
        }
        let patience = sleep(PATIENCE);
        tokio::pin!(patience);
        while ledger.is_waiting(tags()) {
            if !ledger.is_waiting_in_vain() {
                let advanced = self.advanced.notified();
                drop(ledger);
                let out_of_patience = tokio::select! {
                    () = advanced => false,
                    () = &mut patience => true,
                };
                ledger = self.ledger.lock().await;
                if !out_of_patience {
                    continue;
                }
                ledger.waited_in_vain(tags());
            }
            let singly = ledger.wait_no_longer(tags());
            return self.send_each(singly, |tag| self.send_ack(Ack { tag, multiple: false })).await;
        }
        Ok(())
    }

    /// Settles by a verb that the broker is told for each delivery by itself.
    async fn settle_singly<F>(&self, receipts: &[Receipt], send: impl FnMut(u64) -> F) -> lapin::Result<()>
    where
        F: Future<Output = lapin::Result<()>>,
    {
        let mut ledger = self.ledger.lock().await;
        let (singly, ack) = ledger.fail(receipts.iter().map(|receipt| receipt.0));
        self.send_each(singly, send).await?;
        if let Some(ack) = ack {
            self.send_ack(ack).await?;
            self.advanced.notify_waiters();
        }
        Ok(())
    }

    fn send_ack(&self, ack: Ack) -> impl Future<Output = lapin::Result<()>> {
        self.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple })
    }

    /// Opens a consumer with another prefetch and ends the one before it, whose deliveries stay lent on this channel.
    /// In this order, since a queue may delete itself, or go to somebody else, once nobody reads it.
    async fn succeed(&self, prefetch: u16) -> Result<(), SourceError> {
        let mut consuming = self.consuming.lock().await;
        let next = self.open_after(&consuming, prefetch).await?;
        let before = std::mem::replace(&mut *consuming, next);
        before.end(&self.channel, &self.place, GOODBYE).await?;
        // A classic queue with a single active consumer makes the next one active, and sends it nothing until something
        // else happens there. A further consumer is enough.
        let visitor = self.open_after(&consuming, 1).await?;
        visitor.end(&self.channel, &self.place, GOODBYE).await?;
        consuming.number = visitor.number;
        Ok(())
    }

    async fn open_after(&self, before: &Consuming, prefetch: u16) -> Result<Consuming, SourceError> {
        let (next, messages) = before.succeed(&self.channel, prefetch, &self.place).await?;
        // A reader that has ended says why by itself.
        let _ = self.successors.send(messages).await;
        Ok(next)
    }

    /// The client queues a frame when its future is first polled, which is in this order here;
    /// waiting for each in turn would cost a thread switch per message.
    async fn send_each<F>(&self, tags: Vec<u64>, send: impl FnMut(u64) -> F) -> lapin::Result<()>
    where
        F: Future<Output = lapin::Result<()>>,
    {
        tags.into_iter().map(send).collect::<FuturesOrdered<_>>().try_collect().await
    }
}

/// The consumer that is open on a channel.
pub(crate) struct Consuming {
    /// What the first one was called.
    name: String,
    tag: ShortString,
    /// The number of the last one that was opened.
    number: u32,
}

impl Consuming {
    /// Opens the first one of a channel.
    pub(crate) async fn begin(
        channel: &Channel,
        name: &str,
        prefetch: u16,
        place: &Place,
    ) -> Result<(Self, lapin::Consumer), SourceError> {
        Self::open(channel, name, 0, prefetch, place).await
    }

    /// Opens the next one.
    async fn succeed(
        &self,
        channel: &Channel,
        prefetch: u16,
        place: &Place,
    ) -> Result<(Self, lapin::Consumer), SourceError> {
        Self::open(channel, &self.name, self.number + 1, prefetch, place).await
    }

    async fn open(
        channel: &Channel,
        name: &str,
        number: u32,
        prefetch: u16,
        place: &Place,
    ) -> Result<(Self, lapin::Consumer), SourceError> {
        let explain = |error: lapin::Error| place.explain(&error);
        let tag = if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
        let tag = short("consumer tag", &tag, place)?;
        let queue = short("queue", &place.queue, place)?;
        // It holds for the consumers that are opened after it.
        channel.basic_qos(prefetch, BasicQosOptions { global: false }).await.map_err(explain)?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue, tag.clone(), options, FieldTable::default());
        let consumer = consumer.await.map_err(explain)?;
        Ok((Self { name: name.to_owned(), tag, number }, consumer))
    }

    async fn end(&self, channel: &Channel, place: &Place, patience: Duration) -> Result<(), SourceError> {
        let cancelled = channel.basic_cancel(self.tag.clone(), BasicCancelOptions { nowait: false });
        // A connection that the broker blocks sends nothing, not even this.
        let cancelled = timeout(patience, cancelled).await.map_err(|_| SourceError::Protocol {
            broker: place.broker.clone(),
            words: format!("it did not end the consumer within {} s", patience.as_secs()),
        })?;
        cancelled.map_err(|error| place.explain(&error))
    }
}

/// The prefetch as the broker is to read it: 0 would mean no limit.
pub(crate) fn wire_prefetch(prefetch: u32) -> u16 {
    u16::try_from(prefetch).unwrap_or(u16::MAX).max(1)
}

/// Asks whether the queue is there, and changes nothing.
pub(crate) async fn look_for_queue(channel: &Channel, place: &Place) -> Result<(), SourceError> {
    let queue = short("queue", &place.queue, place)?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue, passive, FieldTable::default()).await;
    declared.map(drop).map_err(|error| place.explain(&error))
}

fn short(what: &str, text: &str, place: &Place) -> Result<ShortString, SourceError> {
    ShortString::try_new(text).map_err(|_| SourceError::QueueUnsuitable {
        broker: place.broker.clone(),
        queue: place.queue.clone(),
        words: format!("the {what} has more than 255 bytes"),
    })
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn settle(&self, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        let settled = match how {
            Disposition::Ack => self.ack(receipts).await,
            // An expired message goes back to its queue as well: the broker then applies its own TTL.
            Disposition::Return { .. } | Disposition::Expire => {
                let requeue = BasicNackOptions { requeue: true, multiple: false };
                self.settle_singly(receipts, |tag| self.channel.basic_nack(tag, requeue)).await
            }
        };
        settled.map_err(|error| self.place.explain(&error))
    }

    /// The broker keeps no cause but `rejected`.
    async fn dead_letter(&self, receipt: Receipt, _: &str) -> Result<DeadLettered, SourceError> {
        if self.has_destination {
            let why = "it belongs to the failure destination, and a reject might destroy it".into();
            return Ok(DeadLettered::NoTarget { why });
        }
        let reject = BasicRejectOptions { requeue: false };
        let rejected = self.settle_singly(&[receipt], |tag| self.channel.basic_reject(tag, reject)).await;
        rejected.map(|()| DeadLettered::Taken).map_err(|error| self.place.explain(&error))
    }

    async fn set_prefetch(&self, prefetch: u32) -> Result<(), SourceError> {
        // While two consumers are open only the new one may get credit. A quorum queue that lends to both at once sends
        // what is for the one before what is for the other, whatever their order.
        let _nothing_is_settled = self.ledger.lock().await;
        let succeeded = timeout(OPEN, self.succeed(wire_prefetch(prefetch))).await;
        succeeded.map_err(|_| SourceError::Protocol {
            broker: self.place.broker.clone(),
            words: format!("it did not change the prefetch within {} s", OPEN.as_secs()),
        })?
    }

    async fn cancel(&self) -> Result<(), SourceError> {
        self.cancelled.store(true, Ordering::Release);
        let patience = if self.hand.is_over() { FLOOD } else { GOODBYE };
        self.consuming.lock().await.end(&self.channel, &self.place, patience).await
    }

    async fn close(&self) {
        self.cancelled.store(true, Ordering::Release);
        if self.channel.status().connected() {
            match timeout(GOODBYE, self.channel.close(200, "OK".into())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "the channel was not closed in good order"),
                Err(_) => debug!("the broker did not confirm the end of the channel in time"),
            }
        }
        self.connections.release(&self.connection, GOODBYE).await;
    }
}
