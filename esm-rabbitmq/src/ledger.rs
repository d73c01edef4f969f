//! What was settled on one channel, so that no delivery tag is settled twice and `multiple` never
//! covers a delivery that it does not mean.
//!
//! A channel's delivery tags count up from 1 (AMQP 0-9-1, 1.8.3.8 "basic.deliver"), so the
//! unsettled ones below a tag are all those below it that were not settled here.

use std::collections::BTreeSet;

/// An acknowledgement to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) tag: u64,
    pub(crate) multiple: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    /// Every tag below it is settled.
    first_unsettled: u64,
    /// The settled tags above it.
    settled: BTreeSet<u64>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { first_unsettled: 1, settled: BTreeSet::new() }
    }

    /// Settles tags that the broker is told about one by one: those, ascending, that were not
    /// settled before.
    pub(crate) fn settle_singly(&mut self, tags: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut tags: Vec<_> = tags.into_iter().filter(|tag| self.is_unsettled(*tag)).collect();
        tags.sort_unstable();
        tags.dedup();
        self.record(&tags);
        tags
    }

    /// Settles tags by the fewest acknowledgements: one `multiple` for as far as every lower
    /// unsettled tag is among them, then singly.
    pub(crate) fn ack(&mut self, tags: impl IntoIterator<Item = u64>) -> Vec<Ack> {
        let before = self.first_unsettled;
        let tags = self.settle_singly(tags);
        let covered = tags.partition_point(|tag| *tag < self.first_unsettled);
        let mut acks = Vec::with_capacity(1 + tags.len() - covered);
        if let Some(last) = tags[..covered].last() {
            debug_assert!(before <= *last);
            acks.push(Ack { tag: *last, multiple: covered > 1 });
        }
        acks.extend(tags[covered..].iter().map(|tag| Ack { tag: *tag, multiple: false }));
        acks
    }

    fn is_unsettled(&self, tag: u64) -> bool {
        tag >= self.first_unsettled && !self.settled.contains(&tag)
    }

    fn record(&mut self, tags: &[u64]) {
        for tag in tags {
            if *tag == self.first_unsettled {
                self.first_unsettled += 1;
            } else {
                self.settled.insert(*tag);
            }
            while self.settled.remove(&self.first_unsettled) {
                self.first_unsettled += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single(tag: u64) -> Ack {
        Ack { tag, multiple: false }
    }

    fn multiple(tag: u64) -> Ack {
        Ack { tag, multiple: true }
    }

    #[test]
    fn a_batch_in_turn_takes_one_acknowledgement() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.ack(1..=100), [multiple(100)]);
        assert_eq!(ledger.ack(101..=200), [multiple(200)]);
    }

    #[test]
    fn a_batch_out_of_turn_is_acknowledged_singly() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.ack([3, 4]), [single(3), single(4)]);
        assert_eq!(ledger.ack([1, 2]), [multiple(2)]);
        assert_eq!(ledger.ack([5, 6]), [multiple(6)]);
    }

    #[test]
    fn no_tag_is_settled_twice_and_tag_zero_never() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.ack([0, 1]), [single(1)]);
        assert_eq!(ledger.ack([0, 1]), []);
        assert_eq!(ledger.settle_singly([0, 1, 2, 2]), [2]);
    }

    /// The broker's side: which tags it still waits for.
    struct Broker(BTreeSet<u64>);

    impl Broker {
        /// What RabbitMQ does with an acknowledgement: an unknown tag closes the channel (406).
        fn settle(&mut self, ack: Ack) -> BTreeSet<u64> {
            assert!(self.0.contains(&ack.tag), "unknown delivery tag {}", ack.tag);
            let covered = |tag: &u64| *tag == ack.tag || (ack.multiple && *tag < ack.tag);
            let settled = self.0.iter().copied().filter(covered).collect();
            self.0.retain(|tag| !covered(tag));
            settled
        }
    }

    proptest! {
        #[test]
        fn every_frame_settles_just_what_it_means(
            order in Just((1..=40u64).collect::<Vec<_>>()).prop_shuffle(),
            cuts in prop::collection::vec((1..8usize, any::<bool>()), 1..40),
        ) {
            let mut broker = Broker((1..=40).collect());
            let mut ledger = Ledger::new();
            let mut rest = order.as_slice();
            for (size, succeeded) in cuts {
                let (group, others) = rest.split_at(size.min(rest.len()));
                rest = others;
                let acks = if succeeded {
                    ledger.ack(group.iter().copied())
                } else {
                    ledger.settle_singly(group.iter().copied()).into_iter().map(single).collect()
                };
                let settled: BTreeSet<u64> = acks.into_iter().flat_map(|ack| broker.settle(ack)).collect();
                prop_assert_eq!(settled, group.iter().copied().collect());
            }
            prop_assert_eq!(broker.0, rest.iter().copied().collect());
        }
    }
}
