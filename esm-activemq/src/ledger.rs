//! What one consumer was lent and has not settled, in the order of dispatch, and how to settle it
//! with few commands.
//!
//! A range acknowledgement names its ends and the number of messages between them that are still
//! lent. The broker takes it literally: so a range covers a run of messages that all belong to the
//! success, with nothing else left between them.

use std::collections::VecDeque;

use esm_core::source::Receipt;

use crate::openwire::{Message, MessageId, ProducerId};

/// Receipts are numbers that count up with each message, starting at 1.
#[derive(Default)]
pub(crate) struct Ledger {
    /// From `first` on; none at the front is settled.
    entries: VecDeque<Entry>,
    /// The receipt of the entry at the front.
    first: u64,
    unsettled: usize,
    /// The ids of a producer's messages share its id.
    producer: Option<ProducerId>,
    newest_tried: Option<u64>,
}

struct Entry {
    message_id: MessageId,
    is_settled: bool,
    fate: Fate,
}

/// What the broker would do with a message that gets a poison acknowledgement.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// Put it into its dead-letter queue.
    Kept,
    /// Drop it; so it has to be published there by us.
    Dropped(Box<Message>),
    /// Drop it, and there is nothing that we can do about that, for this reason.
    Doomed(&'static str),
}

/// Messages that are next to each other among those that are lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: MessageId,
    pub(crate) last: MessageId,
    pub(crate) count: i32,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { first: 1, ..Self::default() }
    }

    /// Enters a message.
    pub(crate) fn lend(&mut self, message_id: &MessageId, fate: Fate) -> Receipt {
        let message_id = self.own(message_id);
        self.entries.push_back(Entry { message_id, is_settled: false, fate });
        self.unsettled += 1;
        Receipt(self.first + self.entries.len() as u64 - 1)
    }

    /// How many are lent.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// The newest one that is lent.
    pub(crate) fn newest(&self) -> Option<&MessageId> {
        self.entries.iter().rev().find(|entry| !entry.is_settled).map(|entry| &entry.message_id)
    }

    /// Takes out what succeeded, as the runs that acknowledge it. The last run is a single message: waiting for
    /// the broker's answer to that one covers them all, and costs one disk synchronisation.
    pub(crate) fn succeed(&mut self, receipts: &[Receipt]) -> Vec<Run> {
        let mut runs = Vec::with_capacity(2);
        let mut indices: Vec<usize> = receipts.iter().filter_map(|receipt| self.index(*receipt)).collect();
        if !indices.is_sorted() {
            indices.sort_unstable();
        }
        let mut run_start = 0;
        for end in 1..=indices.len() {
            let is_last = end == indices.len();
            if !is_last && self.are_neighbours(indices[end - 1], indices[end]) {
                continue;
            }
            let run = &indices[run_start..end];
            if is_last && run.len() > 1 {
                runs.push(self.run(&run[..run.len() - 1]));
                runs.push(self.run(&run[run.len() - 1..]));
            } else {
                runs.push(self.run(run));
            }
            run_start = end;
        }
        for index in indices {
            self.entries[index].is_settled = true;
            self.unsettled -= 1;
        }
        self.forget_settled();
        runs
    }

    /// Takes out one message. `None`: it is settled already.
    pub(crate) fn give_up(&mut self, receipt: Receipt) -> Option<MessageId> {
        let index = self.index(receipt)?;
        let message_id = self.entries[index].message_id.clone();
        self.entries[index].is_settled = true;
        self.unsettled -= 1;
        self.forget_settled();
        Some(message_id)
    }

    /// What a poison acknowledgement would do to it. `None`: it is settled already.
    pub(crate) fn fate(&self, receipt: Receipt) -> Option<&Fate> {
        Some(&self.entries[self.index(receipt)?].fate)
    }

    /// Notes that these were worked on and stay lent.
    pub(crate) fn note_tried(&mut self, receipts: &[Receipt]) {
        let newest = receipts.iter().map(|receipt| receipt.0).max();
        self.newest_tried = self.newest_tried.max(newest);
    }

    /// The broker's sequence number of the newest message that was worked on and is still lent.
    pub(crate) fn newest_tried(&self) -> Option<i64> {
        let index = self.index(Receipt(self.newest_tried?))?;
        Some(self.entries[index].message_id.broker_sequence_id)
    }

    /// Where an unsettled message stands.
    fn index(&self, receipt: Receipt) -> Option<usize> {
        let index = usize::try_from(receipt.0.checked_sub(self.first)?).ok()?;
        self.entries.get(index).filter(|entry| !entry.is_settled).map(|_| index)
    }

    /// Whether nothing is lent between the two.
    fn are_neighbours(&self, one: usize, other: usize) -> bool {
        self.entries.range(one + 1..other).all(|entry| entry.is_settled)
    }

    fn run(&self, indices: &[usize]) -> Run {
        let id = |index: usize| self.entries[index].message_id.clone();
        Run {
            first: id(indices[0]),
            last: id(indices[indices.len() - 1]),
            count: i32::try_from(indices.len()).unwrap_or(i32::MAX),
        }
    }

    fn forget_settled(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.is_settled) {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// A copy that does not keep the bytes alive which the message came with.
    fn own(&mut self, message_id: &MessageId) -> MessageId {
        if message_id.text_view.is_some() || message_id.producer_id != self.producer {
            let own = message_id.detached();
            self.producer.clone_from(&own.producer_id);
            return own;
        }
        MessageId { text_view: None, producer_id: self.producer.clone(), ..message_id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: i64) -> MessageId {
        let producer = ProducerId::new("ID:p", 1, 1);
        MessageId {
            text_view: None,
            producer_id: Some(producer),
            producer_sequence_id: number,
            broker_sequence_id: 1_000 + number,
        }
    }

    fn ledger(lent: i64) -> Ledger {
        let mut ledger = Ledger::new();
        for number in 1..=lent {
            assert_eq!(ledger.lend(&id(number), Fate::Kept), Receipt(number.unsigned_abs()));
        }
        ledger
    }

    /// The runs as `(first, last, count)`.
    fn succeed(ledger: &mut Ledger, receipts: &[u64]) -> Vec<(i64, i64, i32)> {
        let receipts: Vec<_> = receipts.iter().copied().map(Receipt).collect();
        let run = |run: Run| (run.first.producer_sequence_id, run.last.producer_sequence_id, run.count);
        ledger.succeed(&receipts).into_iter().map(run).collect()
    }

    #[test]
    fn a_batch_is_one_range_and_its_last_message() {
        assert_eq!(succeed(&mut ledger(5), &[1, 2, 3, 4]), [(1, 3, 3), (4, 4, 1)]);
        assert_eq!(succeed(&mut ledger(5), &[2]), [(2, 2, 1)]);
        assert_eq!(succeed(&mut ledger(5), &[]), []);
    }

    #[test]
    fn a_range_never_covers_a_message_that_is_still_lent() {
        let mut ledger = ledger(9);
        assert_eq!(succeed(&mut ledger, &[1, 2, 4, 5, 7]), [(1, 2, 2), (4, 5, 2), (7, 7, 1)]);
        assert_eq!(succeed(&mut ledger, &[3, 6, 8]), [(3, 6, 2), (8, 8, 1)], "what was between them is settled");
        assert_eq!(ledger.unsettled(), 1);
    }

    #[test]
    fn receipts_may_come_out_of_order_and_twice_settled_is_settled_once() {
        let mut ledger = ledger(4);
        assert_eq!(succeed(&mut ledger, &[3, 1, 2]), [(1, 2, 2), (3, 3, 1)]);
        assert_eq!(succeed(&mut ledger, &[3, 4]), [(4, 4, 1)]);
        assert_eq!(ledger.give_up(Receipt(4)), None);
    }

    #[test]
    fn the_newest_tried_message_counts_only_while_it_is_lent() {
        let mut ledger = ledger(3);
        assert_eq!(ledger.newest_tried(), None);
        ledger.note_tried(&[Receipt(1), Receipt(2)]);
        assert_eq!(ledger.newest_tried(), Some(1_002));
        ledger.give_up(Receipt(3));
        assert_eq!(ledger.newest_tried(), Some(1_002));
    }

    /// The broker's list: takes ranges as ActiveMQ does.
    struct Dispatched(Vec<i64>);

    impl Dispatched {
        fn acknowledge(&mut self, run: &Run) -> Vec<i64> {
            let at = |id: &MessageId| self.0.iter().position(|number| *number == id.producer_sequence_id);
            let (first, last) = (at(&run.first).expect("is lent"), at(&run.last).expect("is lent"));
            assert_eq!(last - first + 1, run.count as usize, "Unmatched acknowledge");
            self.0.drain(first..=last).collect()
        }
    }

    proptest! {
        #[test]
        fn whatever_succeeds_in_whatever_order_the_broker_removes_exactly_that(
            batches in proptest::collection::vec(proptest::collection::vec(0_usize..40, 1..20), 1..20),
        ) {
            let mut ledger = ledger(40);
            let mut dispatched = Dispatched((1..=40).collect());
            for batch in batches {
                let mut wanted: Vec<i64> = batch.iter().map(|index| *index as i64 + 1).collect();
                wanted.sort_unstable();
                wanted.dedup();
                wanted.retain(|number| dispatched.0.contains(number));
                let receipts: Vec<_> = wanted.iter().map(|number| Receipt(number.unsigned_abs())).collect();
                let runs = ledger.succeed(&receipts);
                prop_assert!(runs.last().is_none_or(|run| run.count == 1));
                let removed: Vec<i64> = runs.iter().flat_map(|run| dispatched.acknowledge(run)).collect();
                prop_assert_eq!(removed, wanted);
                prop_assert_eq!(ledger.unsettled(), dispatched.0.len());
            }
        }
    }
}
