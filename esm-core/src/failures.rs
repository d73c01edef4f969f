//! How often the function has failed with messages whose session has ended: they come again, and
//! what they have been through counts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::source::Delivery;

/// The most messages that are remembered for a mapping; the oldest are forgotten first.
const MOST: usize = 10_000;

/// Kept in memory for one mapping, by message id, until the message is settled.
#[derive(Default)]
pub(crate) struct Failures {
    memory: Mutex<Memory>,
    /// Whether there is something to look up at all.
    any: AtomicBool,
}

#[derive(Default)]
struct Memory {
    by_message: HashMap<Arc<str>, Remembered>,
    /// The messages in the order in which they were first remembered.
    in_order: BTreeMap<u64, Arc<str>>,
    last_number: u64,
}

struct Remembered {
    failed: u32,
    number: u64,
}

impl Failures {
    /// Remembers what these have been through.
    pub(crate) fn remember(&self, deliveries: &[Delivery]) {
        for delivery in deliveries.iter().filter(|delivery| delivery.failed > 0) {
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
        let Some(id) = delivery.record.message_id() else { return };
        let failed = self.lock().by_message.get(id).map_or(0, |remembered| remembered.failed);
        if failed > delivery.failed {
            delivery.failed = failed;
            delivery.record.mark_redelivered();
        }
    }

    /// Forgets messages that do not come again.
    pub(crate) fn forget(&self, deliveries: &[Delivery]) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut memory = self.lock();
        for id in deliveries.iter().filter_map(|delivery| delivery.record.message_id()) {
            memory.forget(id);
        }
        if memory.by_message.is_empty() {
            self.any.store(false, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn keep(&mut self, id: &str, failed: u32) {
        if let Some(remembered) = self.by_message.get_mut(id) {
            // An invocation that outlived its session may know less than the one of the next.
            remembered.failed = remembered.failed.max(failed);
            return;
        }
        self.last_number += 1;
        let (id, number) = (Arc::<str>::from(id), self.last_number);
        self.by_message.insert(id.clone(), Remembered { failed, number });
        self.in_order.insert(number, id);
        if self.by_message.len() > MOST
            && let Some((_, oldest)) = self.in_order.pop_first()
        {
            self.by_message.remove(&oldest);
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(Remembered { number, .. }) = self.by_message.remove(id) {
            self.in_order.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn failed(id: u64, failed: u32) -> [Delivery; 1] {
        [Delivery { failed, ..testing::delivery(id, 100) }]
    }

    fn recalled(failures: &Failures, id: u64) -> u32 {
        let mut delivery = testing::delivery(id, 100);
        failures.recall(&mut delivery);
        assert_eq!(delivery.record.is_redelivered(), delivery.failed > 0);
        delivery.failed
    }

    #[test]
    fn what_a_message_has_been_through_is_given_back_until_it_is_settled() {
        let failures = Failures::default();
        failures.remember(&failed(1, 4));
        failures.remember(&failed(1, 3));
        failures.remember(&failed(2, 0));
        assert_eq!([1, 1, 2].map(|id| recalled(&failures, id)), [4, 4, 0]);
        failures.forget(&failed(1, 4));
        assert_eq!(recalled(&failures, 1), 0);
        failures.remember(&failed(1, 1));
        assert_eq!(recalled(&failures, 1), 1);
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let failures = Failures::default();
        for id in 0..=MOST as u64 {
            failures.remember(&failed(id, 1));
        }
        assert_eq!([0, 1, MOST as u64].map(|id| recalled(&failures, id)), [0, 1, 1]);
    }

    #[test]
    fn messages_that_were_settled_take_no_room() {
        let failures = Failures::default();
        failures.remember(&failed(0, 1));
        for id in 1..=2 * MOST as u64 {
            failures.remember(&failed(id, 1));
            failures.forget(&failed(id, 1));
        }
        assert_eq!(recalled(&failures, 0), 1, "the oldest, and the only one");
        let memory = failures.lock();
        assert_eq!((memory.by_message.len(), memory.in_order.len()), (1, 1));
    }
}
