//! How much is borrowed, by what was seen so far.

use crate::mapping::Mapping;

/// A session borrows no more than this until it has seen what comes, and a sample is complete with as many.
const FIRST: usize = 64;
/// What a record may take whose size is not known yet.
const PRESUMED: usize = 2 * 1024 * 1024;
/// So many times the records that a session has seen may be borrowed.
const STEP: u32 = 4;
/// So many times what waits to be retried is borrowed beside what the batches take. With less it would take half of all
/// that is borrowed before twice as much is worth a change.
const ROOM_TO_REST: u32 = 4;

/// What is known of the records of a queue: their size lately, and how many this session has seen.
#[derive(Default)]
pub(super) struct Sizes {
    /// The average of samples; 0: not known yet.
    record: usize,
    seen: u32,
    sample: Sample,
    /// Those of this session that fit into no event, and leave the memory at once.
    unfit: Sample,
}

#[derive(Default)]
struct Sample {
    records: usize,
    bytes: usize,
}

impl Sizes {
    /// What a session has seen tells the next one the size of records, and not how many like these are to come.
    pub(super) fn end_session(&mut self) {
        self.seen = 0;
        self.sample = Sample::default();
        self.unfit = Sample::default();
    }

    pub(super) fn see(&mut self, bytes: usize) {
        self.seen = self.seen.saturating_add(1);
        self.sample.records += 1;
        self.sample.bytes += bytes;
        if self.sample.records == FIRST {
            self.end_sample();
        }
    }

    pub(super) fn see_unfit(&mut self, bytes: usize) {
        self.unfit.records += 1;
        self.unfit.bytes += bytes;
    }

    /// There was no memory for what came, of which these were a part.
    pub(super) fn count_unfit(&mut self) {
        let Sample { records, bytes } = std::mem::take(&mut self.unfit);
        self.sample.records += records;
        self.sample.bytes += bytes;
        self.end_sample();
    }

    /// Takes what was seen lately into the average, which follows larger records at once and smaller ones by and by, so
    /// that a single large message does not count for ever.
    pub(super) fn end_sample(&mut self) {
        let Sample { records, bytes } = std::mem::take(&mut self.sample);
        let Some(average) = bytes.checked_div(records) else { return };
        self.record = if average > self.record { average } else { self.record - (self.record - average) / 4 };
    }

    pub(super) fn record(&self) -> usize {
        self.record
    }
}

/// How much a mapping borrows.
pub(super) struct Lending<'a> {
    pub(super) mapping: &'a Mapping,
    /// What the protocol can express.
    pub(super) limit: u32,
    /// The bytes that may be in hand.
    pub(super) share: usize,
    /// What went wrong may go wrong again, and would count against all that was lent: no more than one batch.
    pub(super) is_on_probation: bool,
    /// The messages that wait to be retried and hold no place among the batches in flight.
    pub(super) resting: u32,
}

impl Lending<'_> {
    /// The bytes that are borrowed at the most: what was lent before a change comes on top of what is lent after it.
    pub(super) fn bytes(&self) -> usize {
        self.share / 2
    }

    /// With records as they were so far.
    pub(super) fn prefetch(&self, sizes: &Sizes) -> u32 {
        let first = (self.share / PRESUMED).clamp(1, FIRST);
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let unfit = u32::try_from(sizes.unfit.records).unwrap_or(u32::MAX);
        let seen = if sizes.record == 0 { unfit } else { sizes.seen.saturating_add(unfit) };
        let by_what_was_seen = first.max(seen.saturating_mul(STEP));
        let batch = u32::from(self.mapping.batch_size.get());
        let by_probation = if self.is_on_probation { batch } else { u32::MAX };
        self.beside_what_rests(sizes.record).min(by_what_was_seen).min(by_probation)
    }

    /// What the batches take, beside what rests if that is sure to end. Messages that are retried for ever would take
    /// all there is.
    fn beside_what_rests(&self, record_size: usize) -> u32 {
        let batches = self.mapping.prefetch(self.limit, record_size, self.share);
        if self.mapping.redelivery.maximum_redeliveries.is_none() {
            return batches;
        }
        let fitting = u32::try_from(self.bytes() / record_size.max(1)).unwrap_or(u32::MAX);
        let wanted = batches.saturating_add(self.resting.saturating_mul(ROOM_TO_REST));
        wanted.min(fitting).min(self.limit).max(batches)
    }

    /// Whether another prefetch is worth a change: half of it would do, twice as much be better, or the mapping gets all
    /// that its batches can use, or all that there is.
    pub(super) fn is_worth_changing(&self, now: u32, better: u32) -> bool {
        let all = self.mapping.prefetch(self.limit, 0, self.share);
        let reaches = |enough| now < enough && better >= enough;
        better.saturating_mul(2) < now || better / 2 >= now || reaches(all) || reaches(self.limit)
    }
}

/// After a message that ended its connection unread: one message at a time is borrowed, on a
/// connection that nobody shares, until the queue is past what was lent together with it. We and
/// the message may meet again further back, and each time counts as a delivery of all that
/// was lent: so caution lasts twice as long each time.
#[derive(Default)]
pub(super) struct Caution {
    batches_to_go: u32,
    length: u32,
}

impl Caution {
    pub(super) fn begin(&mut self, lent: u32) {
        if !self.is_on() {
            self.length = lent.max(self.length.saturating_mul(2));
        }
        self.batches_to_go = self.length;
    }

    pub(super) fn is_on(&self) -> bool {
        self.batches_to_go > 0
    }

    pub(super) fn reassure(&mut self) {
        self.batches_to_go = self.batches_to_go.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{mapping::RedeliveryPolicy, memory::Memory, testing};

    const KILOBYTE: usize = 1_000;
    const MEGABYTE: usize = 1_000_000;

    fn mapping(batch_size: i64) -> Mapping {
        Mapping { batch_size: batch_size.try_into().unwrap(), ..testing::mapping() }
    }

    fn lending(mapping: &Mapping) -> Lending<'_> {
        Lending { mapping, limit: 65_535, share: Memory::DEFAULT, is_on_probation: false, resting: 0 }
    }

    fn retrying(maximum_redeliveries: Option<u32>, mapping: Mapping) -> Mapping {
        Mapping { redelivery: RedeliveryPolicy { maximum_redeliveries, ..mapping.redelivery }, ..mapping }
    }

    fn seen(records: usize, bytes: usize) -> Sizes {
        let mut sizes = Sizes::default();
        (0..records).for_each(|_| sizes.see(bytes));
        sizes.end_sample();
        sizes
    }

    #[test]
    fn a_session_borrows_few_until_it_has_seen_what_comes() {
        let check = |batch_size, sizes: Sizes, expected| {
            assert_eq!(lending(&mapping(batch_size)).prefetch(&sizes), expected, "batches of {batch_size}");
        };
        check(1, Sizes::default(), 2);
        check(100, Sizes::default(), 64);
        check(10_000, Sizes::default(), 64);
        check(100, seen(64, KILOBYTE), 200);
        check(10_000, seen(64, KILOBYTE), 256);
        check(10_000, seen(256, KILOBYTE), 1_024);
        check(10_000, seen(10_000, KILOBYTE), 12_582);
        check(10_000, seen(64, MEGABYTE), 12);
        check(10_000, seen(1, 20 * MEGABYTE), 1);
    }

    #[test]
    fn what_fits_into_no_event_makes_room_for_what_does() {
        let mut sizes = Sizes::default();
        (0..30).for_each(|_| sizes.see_unfit(20 * MEGABYTE));
        (0..20).for_each(|_| sizes.see(KILOBYTE));
        assert_eq!(lending(&mapping(100)).prefetch(&sizes), 120, "the size of the others is not known yet");
        sizes.count_unfit();
        assert_eq!(sizes.record(), 12 * MEGABYTE + 400);
    }

    #[test]
    fn a_small_share_makes_the_first_prefetch_smaller() {
        let mapping = mapping(100);
        let check = |share, expected| {
            assert_eq!(Lending { share, ..lending(&mapping) }.prefetch(&Sizes::default()), expected);
        };
        check(64 * PRESUMED, 64);
        check(10 * PRESUMED, 10);
        check(1, 1);
    }

    #[test]
    fn on_probation_no_more_than_a_batch_is_borrowed() {
        let check = |batch_size, expected| {
            let mapping = mapping(batch_size);
            let lending = Lending { is_on_probation: true, ..lending(&mapping) };
            assert_eq!(lending.prefetch(&seen(1_000, 1)), expected);
        };
        check(1, 1);
        check(10, 10);
        check(1_000, 1_000);
    }

    #[test]
    fn what_rests_is_borrowed_besides_if_that_is_sure_to_end_and_within_every_bound() {
        let forever = mapping(100);
        let bounded = retrying(Some(3), forever.clone());
        let lent = |lending: Lending<'_>, record| lending.prefetch(&seen(60_000, record));
        let resting = |mapping, resting| Lending { resting, ..lending(mapping) };
        assert_eq!([0, 50, 1_400].map(|rest| lent(resting(&bounded, rest), KILOBYTE)), [200, 400, 5_800]);
        assert_eq!([0, 50, 1_400].map(|rest| lent(resting(&forever, rest), KILOBYTE)), [200, 200, 200]);

        assert_eq!(lent(resting(&bounded, u32::MAX), KILOBYTE), 65_535, "what the protocol can express");
        assert_eq!(lent(resting(&bounded, 1_400), MEGABYTE), 268, "half the share");
        assert_eq!(lent(Lending { is_on_probation: true, ..resting(&bounded, 1_400) }, KILOBYTE), 100, "one batch");
        assert_eq!(resting(&bounded, 1_400).prefetch(&seen(100, KILOBYTE)), 400, "four times what was seen");
    }

    #[test]
    fn a_change_is_worth_it_by_half_or_twice_as_much_or_all() {
        let mapping = mapping(50); // all is 100
        let check = |now, better, expected| {
            assert_eq!(lending(&mapping).is_worth_changing(now, better), expected, "from {now} to {better}");
        };
        check(64, 199, true);
        check(100, 199, false);
        check(40_000, 65_534, false);
        check(40_000, 65_535, true);
        check(65_535, 65_535, false);
        check(64, 64, false);
        check(64, 99, false);
        check(64, 100, true);
        check(100, 100, false);
        check(100, 50, false);
        check(100, 49, true);
        check(20, 40, true);
        check(20, 39, false);
    }

    #[test]
    fn what_another_session_has_seen_tells_the_size_and_not_what_is_to_come() {
        let mut sizes = seen(10_000, KILOBYTE);
        sizes.end_session();
        assert_eq!(sizes.record(), KILOBYTE);
        assert_eq!(lending(&mapping(10_000)).prefetch(&sizes), 64);
    }

    #[test]
    fn a_large_sample_counts_at_once_and_small_ones_by_and_by() {
        let mut sizes = seen(64, KILOBYTE);
        sizes.see(MEGABYTE);
        sizes.end_sample();
        assert_eq!(sizes.record(), MEGABYTE);
        for _ in 0..64 {
            sizes.see(0);
        }
        assert_eq!(sizes.record(), MEGABYTE - MEGABYTE / 4);
    }

    proptest! {
        #[test]
        fn what_is_borrowed_fits_into_the_share_if_records_stay_as_large_as_the_largest_sample(
            records in prop::collection::vec((1..20_000_000usize, any::<bool>()), 1..500),
            batch_size in 1..=10_000i64,
            concurrency in 1..=1_000i64,
            share in 1..1_000_000_000usize,
            resting in any::<u32>(),
        ) {
            let maximum_concurrency = concurrency.try_into().unwrap();
            let mapping = retrying(Some(3), Mapping { maximum_concurrency, ..mapping(batch_size) });
            let lending = Lending { share, resting, ..lending(&mapping) };
            let mut sizes = Sizes::default();
            for (record, is_last_of_sample) in records {
                sizes.see(record);
                if is_last_of_sample {
                    sizes.end_sample();
                }
                let prefetch = lending.prefetch(&sizes);
                prop_assert!(prefetch >= 1);
                prop_assert!(prefetch == 1 || prefetch as usize * sizes.record() <= share / 2);
                prop_assert!(prefetch <= 64 || prefetch <= sizes.seen * STEP);
                prop_assert!(prefetch <= lending.limit);
            }
        }

        #[test]
        fn what_rests_never_takes_half_before_more_is_worth_a_change_and_changes_nothing_while_it_halves_and_doubles(
            batch_size in 1..=1_000i64,
            concurrency in 2..=10i64,
            rests in prop::collection::vec(500..=1_000u32, 1..100),
        ) {
            let maximum_concurrency = concurrency.try_into().unwrap();
            let mapping = retrying(Some(3), Mapping { maximum_concurrency, ..mapping(batch_size) });
            let sizes = seen(60_000, KILOBYTE);
            let mut now = lending(&mapping).prefetch(&sizes);
            let mut changes = 0;
            for resting in rests {
                let lending = Lending { resting, ..lending(&mapping) };
                let better = lending.prefetch(&sizes);
                if lending.is_worth_changing(now, better) {
                    now = better;
                    changes += 1;
                }
                prop_assert!(resting * 2 <= now, "{resting} of {now}");
            }
            prop_assert!(changes <= 1, "{changes}");
        }
    }
}
