//! How often the function has failed with messages whose session has ended: they come again, and
//! what they have been through counts.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{batch::Batch, source::Delivery};

/// The most messages that are remembered for a mapping; the oldest are forgotten first.
const MOST: usize = 10_000;

/// Kept in memory for one mapping, by message id.
#[derive(Default)]
pub(crate) struct Failures {
    memory: Mutex<Memory>,
    /// Whether there is something to look up at all.
    any: AtomicBool,
}

#[derive(Default)]
struct Memory {
    by_message: HashMap<Box<str>, u32>,
    /// The ids in the order in which they were first remembered; some may be gone.
    order: VecDeque<Box<str>>,
}

impl Failures {
    /// Remembers what the batch has been through.
    pub(crate) fn remember(&self, batch: &Batch) {
        for delivery in batch.deliveries().iter().filter(|delivery| delivery.failed > 0) {
            let Some(id) = delivery.record.message_id() else { continue };
            self.lock().keep(id, delivery.failed);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Gives a message that has come again what it has been through.
    pub(crate) fn recall(&self, delivery: &mut Delivery) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut memory = self.lock();
        let failed = delivery.record.message_id().and_then(|id| memory.by_message.remove(id));
        if memory.by_message.is_empty() {
            memory.order.clear();
            self.any.store(false, Ordering::Release);
        }
        drop(memory);
        if let Some(failed) = failed {
            delivery.failed = failed;
            delivery.record.mark_redelivered();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn keep(&mut self, id: &str, failed: u32) {
        if self.by_message.insert(id.into(), failed).is_none() {
            self.order.push_back(id.into());
        }
        while self.order.len() > MOST {
            if let Some(oldest) = self.order.pop_front() {
                self.by_message.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{batch::Batcher, event::Envelope, testing};

    fn failed(id: u64, failed: u32) -> Batch {
        let mut batcher = Batcher::new(&testing::mapping(), &Envelope::new("[", "]"));
        batcher.push(Delivery { failed, ..testing::delivery(id, 100) });
        batcher.close(crate::batch::ClosedBy::Window).unwrap()
    }

    fn recalled(failures: &Failures, id: u64) -> u32 {
        let mut delivery = testing::delivery(id, 100);
        failures.recall(&mut delivery);
        assert_eq!(delivery.record.is_redelivered(), delivery.failed > 0);
        delivery.failed
    }

    #[test]
    fn what_a_message_has_been_through_is_given_back_once() {
        let failures = Failures::default();
        failures.remember(&failed(1, 3));
        failures.remember(&failed(1, 4));
        failures.remember(&failed(2, 0));
        assert_eq!([1, 1, 2].map(|id| recalled(&failures, id)), [4, 0, 0]);
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let failures = Failures::default();
        for id in 0..=MOST as u64 {
            failures.remember(&failed(id, 1));
        }
        assert_eq!([0, 1, MOST as u64].map(|id| recalled(&failures, id)), [0, 1, 1]);
    }
}
