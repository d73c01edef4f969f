//! Settles what one channel lent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esm_core::source::{Consumer, DeadLettered, Disposition, Receipt, SourceError};
use futures_util::{TryStreamExt, stream::FuturesOrdered};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicRejectOptions},
    types::ShortString,
};
use tokio::{
    sync::{Mutex, Notify},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::{
    connections::{Connections, SharedConnection},
    errors::Place,
    ledger::{Ack, Ledger},
};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a success waits for those before it. An acknowledgement for each message costs several
/// times the work of one for many; a slower function loses nothing that counts.
const PATIENCE: Duration = Duration::from_millis(10);

pub(crate) struct RabbitConsumer {
    pub(crate) channel: Channel,
    pub(crate) tag: ShortString,
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
    /// The delivery tag that acknowledgements last waited for without success.
    pub(crate) waited_in_vain_for: AtomicU64,
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
        // Who has kept others waiting in vain, a retried batch or a parked message, is not waited for.
        let in_vain = self.waited_in_vain_for.load(Ordering::Relaxed) == ledger.first_unsettled();
        let patience = sleep(if in_vain { Duration::ZERO } else { PATIENCE });
        tokio::pin!(patience);
        while ledger.is_waiting(tags()) {
            let advanced = self.advanced.notified();
            drop(ledger);
            let out_of_patience = tokio::select! {
                () = advanced => false,
                () = &mut patience => true,
            };
            ledger = self.ledger.lock().await;
            if out_of_patience {
                self.waited_in_vain_for.store(ledger.first_unsettled(), Ordering::Relaxed);
                let singly = ledger.wait_no_longer(tags());
                return self.send_each(singly, |tag| self.send_ack(Ack { tag, multiple: false })).await;
            }
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

    /// The client queues a frame when its future is first polled, which is in this order here;
    /// waiting for each in turn would cost a thread switch per message.
    async fn send_each<F>(&self, tags: Vec<u64>, send: impl FnMut(u64) -> F) -> lapin::Result<()>
    where
        F: Future<Output = lapin::Result<()>>,
    {
        tags.into_iter().map(send).collect::<FuturesOrdered<_>>().try_collect().await
    }
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

    async fn cancel(&self) -> Result<(), SourceError> {
        self.cancelled.store(true, Ordering::Release);
        let cancelled = self.channel.basic_cancel(self.tag.clone(), BasicCancelOptions { nowait: false });
        // A connection that the broker blocks sends nothing, not even this.
        let cancelled = timeout(GOODBYE, cancelled).await.map_err(|_| SourceError::Protocol {
            broker: self.place.broker.clone(),
            words: format!("it did not end the consumer within {} s", GOODBYE.as_secs()),
        })?;
        cancelled.map_err(|error| self.place.explain(&error))
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
