//! What a mapping is, as types that can only be built valid.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{event::EVENT_SIZE_LIMIT, filter::FilterCriteria};

/// An event source mapping: one queue of one broker, read in batches for one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// `UUID`.
    pub uuid: Uuid,
    /// The function's name.
    pub function: String,
    /// The broker's name in the configuration.
    pub event_source: String,
    /// The queue that is read.
    pub queue: String,
    /// `BatchSize`.
    pub batch_size: BatchSize,
    /// `MaximumBatchingWindowInSeconds`.
    pub window: BatchingWindow,
    /// `ScalingConfig.MaximumConcurrency`: batches in flight.
    pub maximum_concurrency: MaximumConcurrency,
    /// How often and when a batch is invoked again.
    pub redelivery: RedeliveryPolicy,
    /// Where messages go that can never be processed.
    pub dead_letter: DeadLetter,
    /// `FilterCriteria`: which messages the function gets; absent: all.
    pub filter: Option<Arc<FilterCriteria>>,
}

impl Mapping {
    /// The bytes of deliveries that the mapping makes use of, with such a share of the memory: as many full events as
    /// it has batches in flight and one filling, and at most half the share, since sizes vary.
    pub fn budget(&self, share: usize) -> usize {
        let batches = usize::from(self.maximum_concurrency.get()) + 1;
        (batches * EVENT_SIZE_LIMIT).min(share / 2)
    }

    /// The unsettled deliveries that keep `MaximumConcurrency` batches in flight and one filling,
    /// if records of this size (0: not yet known) fit into the mapping's budget.
    pub fn prefetch(&self, limit: u32, record_size: usize, share: usize) -> u32 {
        let batches = u64::from(self.maximum_concurrency.get()) + 1;
        let wanted = batches * u64::from(self.batch_size.get());
        let fitting = self.budget(share) as u64 / record_size.max(1) as u64;
        u32::try_from(wanted.min(fitting)).unwrap_or(u32::MAX).clamp(1, limit)
    }

    /// The batches that can be in flight with such a prefetch.
    pub fn effective_concurrency(&self, prefetch: u32) -> u32 {
        let fitting = prefetch / u32::from(self.batch_size.get());
        fitting.clamp(1, self.maximum_concurrency.get().into())
    }
}

/// How often and when a message is delivered to the function again after the function failed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedeliveryPolicy {
    /// `MaximumRetryAttempts`: deliveries after the first one. `None`: until success or expiry.
    pub maximum_redeliveries: Option<u32>,
    /// The time before each.
    pub delay: RedeliveryDelay,
    /// `FunctionResponseTypes` has `ReportBatchItemFailures`: the function names the messages that it failed with, and
    /// the others are done.
    pub reports_item_failures: bool,
    /// `BisectBatchOnFunctionError`: a batch of several that fails is halved at once, until what fails stands alone.
    pub bisects: bool,
    /// `MaximumRecordAgeInSeconds`: an older message is given up instead of being invoked. `None`: whatever its age.
    pub maximum_age: Option<Duration>,
}

impl RedeliveryPolicy {
    /// Whether a message that fails is told from its neighbours, so that others need not wait for it.
    pub fn isolates(&self) -> bool {
        self.bisects || self.reports_item_failures
    }
}

/// The time before a redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedeliveryDelay {
    /// 1 s each time, as JMS clients do it by default.
    Fixed,
    /// 1 s, doubling to 60 s, a tenth more or less.
    Exponential,
}

impl RedeliveryPolicy {
    /// What AWS says of ActiveMQ: the JMS client's policy with 5 redeliveries.
    pub const ACTIVEMQ: Self = Self {
        maximum_redeliveries: Some(5),
        delay: RedeliveryDelay::Fixed,
        reports_item_failures: false,
        bisects: false,
        maximum_age: None,
    };
    /// What AWS says of RabbitMQ: until success or expiry.
    pub const RABBITMQ: Self =
        Self { maximum_redeliveries: None, delay: RedeliveryDelay::Exponential, ..Self::ACTIVEMQ };
}

/// Where messages go that can never be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetter {
    /// The queue has a dead-letter target at its broker, or its operator says so.
    Broker,
    /// None is known: such messages are kept unsettled, since a reject could destroy them.
    Park,
    /// `DestinationConfig.OnFailure`: they are published there first, and then acknowledged.
    Destination,
}

/// A number outside the range that AWS documents for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from {least} to {most}, is {value}")]
pub struct OutOfRange {
    value: i64,
    least: i64,
    most: i64,
}

fn within(value: i64, least: i64, most: i64) -> Result<u16, OutOfRange> {
    u16::try_from(value).ok().filter(|_| (least..=most).contains(&value)).ok_or(OutOfRange { value, least, most })
}

/// The most records in a batch: 1 to 10,000, 100 by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize(u16);

impl BatchSize {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<i64> for BatchSize {
    type Error = OutOfRange;

    fn try_from(value: i64) -> Result<Self, OutOfRange> {
        within(value, 1, 10_000).map(Self)
    }
}

/// How long a batch may fill, from its first record on: 0 to 300 seconds. Absent, it is 500 ms,
/// which no number of seconds can say; so "absent" is a value of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchingWindow(Option<u16>);

impl BatchingWindow {
    /// The whole seconds, if it was given at all.
    pub fn seconds(self) -> Option<u16> {
        self.0
    }

    /// As a duration.
    pub fn duration(self) -> Duration {
        self.0.map_or(Duration::from_millis(500), |seconds| Duration::from_secs(seconds.into()))
    }
}

impl TryFrom<i64> for BatchingWindow {
    type Error = OutOfRange;

    fn try_from(value: i64) -> Result<Self, OutOfRange> {
        within(value, 0, 300).map(Some).map(Self)
    }
}

/// Batches in flight: 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaximumConcurrency(u16);

impl MaximumConcurrency {
    /// One batch at a time: order is kept.
    pub const ONE: Self = Self(1);
    /// As many as AWS runs for a queue of ActiveMQ.
    pub const FIVE: Self = Self(5);

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for MaximumConcurrency {
    type Error = OutOfRange;

    fn try_from(value: i64) -> Result<Self, OutOfRange> {
        within(value, 1, 1_000).map(Self)
    }
}

impl From<BatchSize> for i64 {
    fn from(BatchSize(value): BatchSize) -> Self {
        value.into()
    }
}

impl From<MaximumConcurrency> for i64 {
    fn from(MaximumConcurrency(value): MaximumConcurrency) -> Self {
        value.into()
    }
}

/// Deliveries after the first one: 0 to 10,000, or -1: until success or expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaximumRetryAttempts(i16);

impl MaximumRetryAttempts {
    /// The number, if there is an end.
    pub fn limit(self) -> Option<u32> {
        u32::try_from(self.0).ok()
    }
}

impl TryFrom<i64> for MaximumRetryAttempts {
    type Error = OutOfRange;

    fn try_from(value: i64) -> Result<Self, OutOfRange> {
        let (least, most) = (-1, 10_000);
        let within = i16::try_from(value).ok().filter(|_| (least..=most).contains(&value));
        within.map(Self).ok_or(OutOfRange { value, least, most })
    }
}

impl From<MaximumRetryAttempts> for i64 {
    fn from(MaximumRetryAttempts(value): MaximumRetryAttempts) -> Self {
        value.into()
    }
}

/// How old a message may be, in seconds: -1, which is no bound, or 60 to 604,800.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaximumRecordAge(i32);

impl MaximumRecordAge {
    /// As a duration, if there is a bound.
    pub fn limit(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_secs)
    }
}

/// No age that AWS allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be -1, or from 60 to 604800, is {0}")]
pub struct NoRecordAge(i64);

impl TryFrom<i64> for MaximumRecordAge {
    type Error = NoRecordAge;

    fn try_from(value: i64) -> Result<Self, NoRecordAge> {
        let allowed = i32::try_from(value).ok().filter(|value| matches!(value, -1 | 60..=604_800));
        allowed.map(Self).ok_or(NoRecordAge(value))
    }
}

impl From<MaximumRecordAge> for i64 {
    fn from(MaximumRecordAge(value): MaximumRecordAge) -> Self {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn mapping(batch_size: i64, concurrency: i64) -> Mapping {
        Mapping {
            uuid: Uuid::nil(),
            function: "f".into(),
            event_source: "b".into(),
            queue: "q".into(),
            batch_size: batch_size.try_into().unwrap(),
            window: BatchingWindow::default(),
            maximum_concurrency: concurrency.try_into().unwrap(),
            redelivery: RedeliveryPolicy::RABBITMQ,
            dead_letter: DeadLetter::Park,
            filter: None,
        }
    }

    #[test]
    fn prefetch_keeps_every_batch_in_flight_and_one_filling() {
        let check = |batch_size, concurrency, expected| {
            assert_eq!(mapping(batch_size, concurrency).prefetch(65_535, 0, Memory::DEFAULT), expected);
        };
        check(1, 1, 2);
        check(100, 1, 200);
        check(100, 9, 1_000);
        check(10_000, 5, 60_000);
        check(10_000, 1_000, 65_535);
    }

    #[test]
    fn prefetch_stays_within_the_memory_of_full_events() {
        let check = |record_size, expected| {
            assert_eq!(mapping(100, 1).prefetch(65_535, record_size, Memory::DEFAULT), expected);
        };
        check(1_000, 200);
        check(1024 * 1024, 12);
        check(EVENT_SIZE_LIMIT, 2);
        check(usize::MAX, 1);
    }

    #[test]
    fn prefetch_stays_within_half_the_share_of_the_memory() {
        let check = |record_size, share, expected| {
            assert_eq!(mapping(10_000, 1).prefetch(65_535, record_size, share), expected);
        };
        check(1_000, 2_000_000, 1_000);
        check(1_000, 1_000_000_000, 12_582);
        check(1_000_000, 1_000, 1);
    }

    #[test]
    fn effective_concurrency_is_what_the_prefetch_holds() {
        let check = |batch_size, concurrency, expected| {
            let mapping = mapping(batch_size, concurrency);
            assert_eq!(mapping.effective_concurrency(mapping.prefetch(65_535, 0, Memory::DEFAULT)), expected);
        };
        check(100, 5, 5);
        check(1, 1_000, 1_000);
        check(10_000, 1_000, 6);
    }

    #[test]
    fn numbers_outside_the_documented_range_are_refused_with_the_range() {
        assert_eq!(BatchSize::try_from(0).unwrap_err().to_string(), "must be from 1 to 10000, is 0");
        assert!(BatchSize::try_from(10_001).is_err());
        assert!(BatchingWindow::try_from(301).is_err());
        assert!(BatchingWindow::try_from(-1).is_err());
        assert!(MaximumConcurrency::try_from(1_001).is_err());
    }

    #[test]
    fn an_absent_window_is_half_a_second_and_zero_is_none() {
        assert_eq!(BatchingWindow::default().duration(), Duration::from_millis(500));
        assert_eq!(BatchingWindow::try_from(0).unwrap().duration(), Duration::ZERO);
        assert_eq!(BatchingWindow::try_from(300).unwrap().duration(), Duration::from_secs(300));
    }
}
