//! What one consumer was lent and has not settled, in the order of dispatch, and how to settle it
//! with few commands.
//!
//! A range acknowledgement names its ends and the number of messages between them that are still
//! lent. The broker takes it literally: so a range covers a run of messages that all belong to the
//! success, with nothing else left between them.

use std::collections::VecDeque;

use esm_core::source::Receipt;

use crate::openwire::{Message, MessageId, ProducerId};

/// Holds what is lent, and nothing of what is settled: a single message may stay lent for very long.
#[derive(Default)]
pub(crate) struct Ledger {
    /// In the order of their receipts, which are numbers that count up with each message.
    lent: VecDeque<Entry>,
    last_receipt: u64,
    /// The ids of a producer's messages share its id.
    producer: Option<ProducerId>,
    newest_tried: Option<u64>,
}

struct Entry {
    receipt: u64,
    message_id: MessageId,
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
    /// Enters a message.
    pub(crate) fn lend(&mut self, message_id: &MessageId, fate: Fate) -> Receipt {
        let message_id = self.own(message_id);
        self.last_receipt += 1;
        self.lent.push_back(Entry { receipt: self.last_receipt, message_id, fate });
        Receipt(self.last_receipt)
    }

    /// How many are lent.
    pub(crate) fn unsettled(&self) -> usize {
        self.lent.len()
    }

    /// The newest one that is lent.
    pub(crate) fn newest(&self) -> Option<&MessageId> {
        self.lent.back().map(|entry| &entry.message_id)
    }

    /// Takes out what succeeded, as the runs that acknowledge it. The last run is a single message: waiting for
    /// the broker's answer to that one covers them all, and costs one disk synchronisation.
    pub(crate) fn succeed(&mut self, receipts: &[Receipt]) -> Vec<Run> {
        let mut receipts: Vec<u64> = receipts.iter().map(|receipt| receipt.0).collect();
        if !receipts.is_sorted() {
            receipts.sort_unstable();
        }
        receipts.dedup();
        let places = self.places(&receipts);
        let mut runs: Vec<&[usize]> = places.chunk_by(|one, other| *other == one + 1).collect();
        if let Some(run) = runs.pop() {
            let (before, last) = run.split_at(run.len() - 1);
            runs.extend([before, last].into_iter().filter(|run| !run.is_empty()));
        }
        let runs = runs.into_iter().filter_map(|run| self.run(run)).collect();
        self.take_out(&places);
        runs
    }

    /// Takes out one message. `None`: it is settled already.
    pub(crate) fn give_up(&mut self, receipt: Receipt) -> Option<MessageId> {
        self.lent.remove(self.place(receipt.0)?).map(|entry| entry.message_id)
    }

    /// What a poison acknowledgement would do to it. `None`: it is settled already.
    pub(crate) fn fate(&self, receipt: Receipt) -> Option<&Fate> {
        Some(&self.lent.get(self.place(receipt.0)?)?.fate)
    }

    /// Notes that these were worked on and stay lent.
    pub(crate) fn note_tried(&mut self, receipts: &[Receipt]) {
        let newest = receipts.iter().map(|receipt| receipt.0).max();
        self.newest_tried = self.newest_tried.max(newest);
    }

    /// The broker's sequence number of the newest message that was worked on and is still lent.
    pub(crate) fn newest_tried(&self) -> Option<i64> {
        Some(self.lent.get(self.place(self.newest_tried?)?)?.message_id.broker_sequence_id)
    }

    /// Where a message stands among those that are lent.
    fn place(&self, receipt: u64) -> Option<usize> {
        self.lent.binary_search_by_key(&receipt, |entry| entry.receipt).ok()
    }

    /// Likewise of several in order, but for those that are settled. Most stand one behind the other.
    fn places(&self, receipts: &[u64]) -> Vec<usize> {
        let mut places = Vec::with_capacity(receipts.len());
        let mut next = 0;
        for receipt in receipts {
            let is_next = self.lent.get(next).is_some_and(|entry| entry.receipt == *receipt);
            let place = if is_next { Some(next) } else { self.place(*receipt) };
            if let Some(place) = place {
                places.push(place);
                next = place + 1;
            }
        }
        places
    }

    fn run(&self, places: &[usize]) -> Option<Run> {
        let id = |place: Option<&usize>| Some(self.lent.get(*place?)?.message_id.clone());
        let (first, last) = (id(places.first())?, id(places.last())?);
        Some(Run { first, last, count: i32::try_from(places.len()).unwrap_or(i32::MAX) })
    }

    fn take_out(&mut self, places: &[usize]) {
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return };
        if last - first + 1 == places.len() {
            self.lent.drain(first..=last);
            return;
        }
        let mut taken = places.iter().copied().peekable();
        let mut place = 0;
        self.lent.retain(|_| {
            let is_kept = taken.next_if_eq(&place).is_none();
            place += 1;
            is_kept
        });
    }

    /// A copy that does not keep the bytes alive which the message came with.
    fn own(&mut self, message_id: &MessageId) -> MessageId {
        if message_id.text_view.is_some() || message_id.producer_id != self.producer {
            let own = message_id.detached();
            self.producer.clone_from(&own.producer_id);
            return own;
        }
        let MessageId { producer_sequence_id, broker_sequence_id, .. } = *message_id;
        MessageId { text_view: None, producer_id: self.producer.clone(), producer_sequence_id, broker_sequence_id }
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
        let mut ledger = Ledger::default();
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
        assert_eq!(succeed(&mut ledger, &[3, 4, 4]), [(4, 4, 1)]);
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
            assert_eq!(i32::try_from(last - first + 1).ok(), Some(run.count), "Unmatched acknowledge");
            self.0.drain(first..=last).collect()
        }
    }

    proptest! {
        #[test]
        fn whatever_succeeds_in_whatever_order_the_broker_removes_exactly_that(
            batches in proptest::collection::vec(proptest::collection::vec(1_i64..=40, 1..20), 1..20),
        ) {
            let mut ledger = ledger(40);
            let mut dispatched = Dispatched((1..=40).collect());
            for batch in batches {
                let mut wanted = batch;
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
