//! How much is borrowed, by what was seen so far.

use crate::mapping::Mapping;

/// A session borrows no more than this until it has seen what comes, and a sample is complete with as many.
const FIRST: usize = 64;
/// What a record may take whose size is not known yet.
const PRESUMED: usize = 2 * 1024 * 1024;
/// So many times the records that a session has seen may be borrowed.
const STEP: u32 = 4;

/// What is known of the records of a queue: their size lately, and how many this session has seen.
#[derive(Default)]
pub(super) struct Sizes {
    /// The average of samples; 0: not known yet.
    record: usize,
    seen: u32,
    sample: Sample,
}

#[derive(Default)]
struct Sample {
    records: usize,
    bytes: usize,
}

impl Sizes {
    /// What was seen of another session tells the size of records, and not how many of it are to come.
    pub(super) fn begin_session(&mut self) {
        self.seen = 0;
        self.sample = Sample::default();
    }

    pub(super) fn see(&mut self, bytes: usize) {
        self.seen = self.seen.saturating_add(1);
        self.sample.records += 1;
        self.sample.bytes += bytes;
        if self.sample.records == FIRST {
            self.end_sample();
        }
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
}

impl Lending<'_> {
    /// With records as they were so far.
    pub(super) fn prefetch(&self, sizes: &Sizes) -> u32 {
        let first = (self.share / PRESUMED).clamp(1, FIRST);
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let by_what_was_seen = if sizes.record == 0 { first } else { first.max(sizes.seen.saturating_mul(STEP)) };
        let batch = u32::from(self.mapping.batch_size.get());
        let by_probation = if self.is_on_probation { batch } else { u32::MAX };
        self.mapping.prefetch(self.limit, sizes.record, self.share).min(by_what_was_seen).min(by_probation)
    }

    /// Whether another prefetch is worth a change: half of it would do, twice as much be better, or the mapping gets all
    /// that it can use.
    pub(super) fn is_worth_changing(&self, now: u32, better: u32) -> bool {
        let all = self.mapping.prefetch(self.limit, 0, self.share);
        better.saturating_mul(2) < now || better / 2 >= now || (better == all && better > now)
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
