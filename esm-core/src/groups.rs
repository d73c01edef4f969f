//! Message groups: with several batches in flight, a message never enters a batch while an earlier
//! one of its group is in another. It is held here instead, in order, and comes out when that batch
//! has ended.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::task::Id;

use crate::{
    batch::Batch,
    source::{Delivery, Group},
};

#[derive(Default)]
pub(crate) struct Groups {
    /// Groups with a message in a batch in flight.
    busy: HashSet<Group>,
    /// The groups of each batch in flight, by its task.
    batches: HashMap<Id, Vec<Group>>,
    /// What waits for a busy group.
    held: HashMap<Group, VecDeque<Delivery>>,
    /// What waited long enough, and comes before anything else.
    released: VecDeque<Delivery>,
}

impl Groups {
    /// Hands the delivery back if it may enter a batch now, and keeps it otherwise.
    pub(crate) fn admit(&mut self, delivery: Delivery) -> Option<Delivery> {
        match &delivery.group {
            Some(group) if self.busy.contains(group) => {
                self.held.entry(group.clone()).or_default().push_back(delivery);
                None
            }
            _ => Some(delivery),
        }
    }

    /// The groups of a batch that is about to begin.
    pub(crate) fn of(batch: &Batch) -> Vec<Group> {
        let groups: HashSet<_> = batch.deliveries().iter().filter_map(|delivery| delivery.group.as_ref()).collect();
        groups.into_iter().cloned().collect()
    }

    /// A batch with these groups has begun.
    pub(crate) fn begin(&mut self, batch: Id, groups: Vec<Group>) {
        if !groups.is_empty() {
            self.busy.extend(groups.iter().cloned());
            self.batches.insert(batch, groups);
        }
    }

    /// A batch has ended, in whatever way.
    pub(crate) fn end(&mut self, batch: Id) {
        for group in self.batches.remove(&batch).into_iter().flatten() {
            self.released.extend(self.held.remove(&group).into_iter().flatten());
            self.busy.remove(&group);
        }
    }

    /// Whether something waited long enough.
    pub(crate) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// The next delivery that need not wait any more.
    pub(crate) fn next_released(&mut self) -> Option<Delivery> {
        self.released.pop_front()
    }

    /// Gives up everything that waits.
    pub(crate) fn take_waiting(&mut self) -> Vec<Delivery> {
        let held = self.held.drain().flat_map(|(_, held)| held);
        self.released.drain(..).chain(held).collect()
    }
}
