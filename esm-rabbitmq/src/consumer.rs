//! Settles what one channel lent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esm_core::source::{Consumer, Disposition, Receipt, SourceError};
use futures_util::{TryStreamExt, stream::FuturesOrdered};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicRejectOptions},
    types::ShortString,
};
use tokio::{sync::Mutex, time::timeout};
use tracing::debug;

use crate::{
    connections::{Connections, SharedConnection},
    errors::Place,
    ledger::Ledger,
};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);

pub(crate) struct RabbitConsumer {
    pub(crate) channel: Channel,
    pub(crate) tag: ShortString,
    pub(crate) place: Place,
    pub(crate) connections: Arc<Connections>,
    pub(crate) connection: Arc<SharedConnection>,
    /// Set before we end the consumer ourselves, so that its end is no loss.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// Held until the frames are on their way: they must leave in the order of the entries.
    pub(crate) ledger: Mutex<Ledger>,
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn settle(&self, receipts: &[Receipt], how: Disposition) -> Result<(), SourceError> {
        let tags = receipts.iter().map(|receipt| receipt.0);
        let mut ledger = self.ledger.lock().await;
        // The client queues a frame when its future is first polled, which is in this order here;
        // waiting for each in turn would cost a thread switch per message.
        let sent = match how {
            Disposition::Ack => {
                let acks = ledger.ack(tags).into_iter();
                let send = |ack: crate::ledger::Ack| {
                    self.channel.basic_ack(ack.tag, BasicAckOptions { multiple: ack.multiple })
                };
                acks.map(send).collect::<FuturesOrdered<_>>().try_collect::<()>().await
            }
            Disposition::Return => {
                let send = |tag| self.channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false });
                let tags = ledger.settle_singly(tags).into_iter();
                tags.map(send).collect::<FuturesOrdered<_>>().try_collect::<()>().await
            }
            Disposition::DeadLetter => {
                let send = |tag| self.channel.basic_reject(tag, BasicRejectOptions { requeue: false });
                let tags = ledger.settle_singly(tags).into_iter();
                tags.map(send).collect::<FuturesOrdered<_>>().try_collect::<()>().await
            }
        };
        sent.map_err(|error| self.place.explain(&error))
    }

    async fn cancel(&self) -> Result<(), SourceError> {
        self.cancelled.store(true, Ordering::Release);
        let cancelled = self.channel.basic_cancel(self.tag.clone(), BasicCancelOptions { nowait: false });
        cancelled.await.map_err(|error| self.place.explain(&error))
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
