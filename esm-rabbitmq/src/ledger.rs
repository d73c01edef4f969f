//! What was settled on one channel, so that no delivery tag is settled twice and `multiple` never
//! covers a delivery that it does not mean.
//!
//! A channel's delivery tags count up from 1, so the unsettled ones below a tag are all those below
//! it that were not settled here. What is remembered are runs of tags, of which there are no more
//! than deliveries in hand, however many pass.

use std::collections::BTreeMap;

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
    /// Settled tags above it.
    settled: Runs,
    /// Tags above it that succeeded and are not settled yet.
    succeeded: Runs,
    /// What is below it and not settled was waited for in vain.
    in_vain_below: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { first_unsettled: 1, settled: Runs::default(), succeeded: Runs::default(), in_vain_below: 0 }
    }

    /// Takes note of a success. Returns the one acknowledgement by which as much as possible is
    /// settled: up to the first tag that has not succeeded.
    pub(crate) fn succeed(&mut self, tags: impl IntoIterator<Item = u64>) -> Option<Ack> {
        for (first, last) in runs(self.unsettled(tags)) {
            self.succeeded.insert(first, last);
        }
        self.advance()
    }

    /// Whether one of these succeeded and still waits for lower ones.
    pub(crate) fn is_waiting(&self, tags: impl IntoIterator<Item = u64>) -> bool {
        tags.into_iter().any(|tag| self.succeeded.contains(tag))
    }

    /// Whether what stands in the way of others was waited for in vain: a message that is retried, or parked.
    pub(crate) fn is_waiting_in_vain(&self) -> bool {
        self.first_unsettled < self.in_vain_below
    }

    /// These have waited long enough. Nothing that stands in their way now is worth waiting for again, as long as it is
    /// not settled.
    pub(crate) fn waited_in_vain(&mut self, tags: impl IntoIterator<Item = u64>) {
        self.in_vain_below = tags.into_iter().fold(self.in_vain_below, u64::max);
    }

    /// Settles those that still wait: what to acknowledge singly.
    pub(crate) fn wait_no_longer(&mut self, tags: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let waiting: Vec<_> = tags.into_iter().filter(|tag| self.succeeded.contains(*tag)).collect();
        for tag in &waiting {
            self.succeeded.remove(*tag);
            self.settled.insert(*tag, *tag);
        }
        waiting
    }

    /// Settles tags that did not succeed: those, ascending, that the broker is to be told about one
    /// by one, and then perhaps an acknowledgement for which they stood in the way.
    pub(crate) fn fail(&mut self, tags: impl IntoIterator<Item = u64>) -> (Vec<u64>, Option<Ack>) {
        let tags = self.unsettled(tags);
        for (first, last) in runs(tags.iter().copied()) {
            self.settled.insert(first, last);
        }
        (tags, self.advance())
    }

    /// Those, ascending and each once, that nothing was said about yet.
    fn unsettled(&self, tags: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let is_unsettled =
            |tag: &u64| *tag >= self.first_unsettled && !self.settled.contains(*tag) && !self.succeeded.contains(*tag);
        let mut tags: Vec<_> = tags.into_iter().filter(is_unsettled).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    fn advance(&mut self) -> Option<Ack> {
        let mut ack: Option<Ack> = None;
        loop {
            let first = self.first_unsettled;
            let last = if let Some(last) = self.settled.take(first) {
                last
            } else if let Some(last) = self.succeeded.take(first) {
                ack = Some(Ack { tag: last, multiple: ack.is_some() || last > first });
                last
            } else {
                return ack;
            };
            self.first_unsettled = last + 1;
        }
    }
}

/// Runs of numbers, from the first to the last of each, none of which touch.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, u64>);

impl Runs {
    fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Adds a run of which nothing is contained.
    fn insert(&mut self, mut first: u64, mut last: u64) {
        if let Some((before, end)) = self.0.range(..first).next_back().map(|(first, last)| (*first, *last))
            && end + 1 == first
        {
            self.0.remove(&before);
            first = before;
        }
        if let Some(end) = self.0.remove(&(last + 1)) {
            last = end;
        }
        self.0.insert(first, last);
    }

    /// Removes a number that is contained.
    fn remove(&mut self, number: u64) {
        let Some((first, last)) = self.0.range(..=number).next_back().map(|(first, last)| (*first, *last)) else {
            return;
        };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    /// Takes the run that begins here, and returns its end.
    fn take(&mut self, first: u64) -> Option<u64> {
        self.0.remove(&first)
    }
}

/// Ascending numbers as runs.
fn runs(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        assert_eq!(ledger.succeed(1..=100), Some(multiple(100)));
        assert_eq!(ledger.succeed(101..=101), Some(single(101)));
    }

    #[test]
    fn a_batch_out_of_turn_waits_and_goes_with_the_one_before_it() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.succeed([3, 4]), None);
        assert!(ledger.is_waiting([3, 4]));
        assert_eq!(ledger.succeed([1, 2]), Some(multiple(4)));
        assert!(!ledger.is_waiting([3, 4]));
        assert!(ledger.wait_no_longer([3, 4]).is_empty());
    }

    #[test]
    fn a_batch_that_waits_no_longer_is_acknowledged_singly_and_left_alone_later() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.succeed([3, 4]), None);
        assert_eq!(ledger.wait_no_longer([3, 4]), [3, 4]);
        assert_eq!(ledger.succeed([2]), None);
        assert_eq!(ledger.succeed([1]), Some(multiple(2)));
        assert_eq!(ledger.succeed([5]), Some(single(5)));
    }

    #[test]
    fn what_was_waited_for_in_vain_is_not_waited_for_again_until_all_that_stood_in_the_way_is_settled() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.succeed([2, 4]), None);
        assert!(!ledger.is_waiting_in_vain());
        ledger.waited_in_vain([2, 4]);
        assert_eq!(ledger.wait_no_longer([2, 4]), [2, 4]);
        assert!(ledger.is_waiting_in_vain());
        assert_eq!(ledger.fail([1]), (vec![1], None));
        assert!(ledger.is_waiting_in_vain(), "3 stood in the way as well");
        assert_eq!(ledger.succeed([3]), Some(single(3)));
        assert!(!ledger.is_waiting_in_vain());
        assert_eq!(ledger.succeed([6]), None);
        assert!(!ledger.is_waiting_in_vain(), "nobody has waited for 5");
    }

    #[test]
    fn a_failure_that_stood_in_the_way_lets_the_others_go() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.succeed([2, 3]), None);
        assert_eq!(ledger.fail([1]), (vec![1], Some(multiple(3))));
    }

    #[test]
    fn no_tag_is_settled_twice_and_tag_zero_never() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.succeed([0, 1]), Some(single(1)));
        assert_eq!(ledger.succeed([0, 1]), None);
        assert_eq!(ledger.fail([0, 1, 2, 2]), (vec![2], None));
        assert_eq!(ledger.fail([2]), (vec![], None));
    }

    #[test]
    fn a_delivery_that_is_never_settled_does_not_make_the_ledger_grow() {
        let mut ledger = Ledger::new();
        for tag in 2..100_000 {
            assert_eq!(ledger.succeed([tag]), None);
            ledger.wait_no_longer([tag]);
        }
        assert_eq!(ledger.settled.0.len() + ledger.succeeded.0.len(), 1);
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

    /// What a group of deliveries goes through.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Fails,
        Waits,
        WaitsNoLonger,
    }

    proptest! {
        #[test]
        fn every_frame_settles_just_what_it_means(
            order in Just((1..=40u64).collect::<Vec<_>>()).prop_shuffle(),
            groups in prop::collection::vec(
                (1..8usize, prop_oneof![Just(Fate::Fails), Just(Fate::Waits), Just(Fate::WaitsNoLonger)]),
                1..40,
            ),
        ) {
            let mut broker = Broker((1..=40).collect());
            let mut ledger = Ledger::new();
            let mut rest = order.as_slice();
            let mut succeeded = BTreeSet::new();
            for (size, fate) in groups {
                let (group, others) = rest.split_at(size.min(rest.len()));
                rest = others;
                let mut acks = Vec::new();
                if let Fate::Fails = fate {
                    let (failed, ack) = ledger.fail(group.iter().copied());
                    prop_assert_eq!(failed.iter().copied().collect::<BTreeSet<_>>(), group.iter().copied().collect());
                    for tag in failed {
                        prop_assert_eq!(broker.settle(single(tag)).len(), 1);
                    }
                    acks.extend(ack);
                } else {
                    succeeded.extend(group.iter().copied());
                    acks.extend(ledger.succeed(group.iter().copied()));
                    if let Fate::WaitsNoLonger = fate {
                        acks.extend(ledger.wait_no_longer(group.iter().copied()).into_iter().map(single));
                    }
                }
                for tag in acks.into_iter().flat_map(|ack| broker.settle(ack)) {
                    prop_assert!(succeeded.contains(&tag), "{tag} was acknowledged without success");
                }
            }
            let waiting = ledger.wait_no_longer(succeeded.iter().copied());
            for tag in waiting {
                prop_assert_eq!(broker.settle(single(tag)).len(), 1);
            }
            prop_assert_eq!(broker.0, rest.iter().copied().collect());
        }
    }
}
