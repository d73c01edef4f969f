//! When a batch closes: a plain accumulator that knows numbers and lengths, and no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    event::{EVENT_SIZE_LIMIT, Envelope, Event},
    mapping::Mapping,
    source::{Delivery, Receipt},
};

/// What closed a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// `BatchSize` was reached.
    Count,
    /// The next record would have made the event too large.
    Bytes,
    /// The batching window ended.
    Window,
    /// The broker can send no more until something is settled.
    Credit,
}

impl ClosedBy {
    /// In the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Count, Self::Bytes, Self::Window, Self::Credit];

    /// As the label `closed_by` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Window => "window",
            Self::Credit => "credit",
        }
    }
}

/// Deliveries that go to the function together.
#[derive(Debug)]
pub struct Batch {
    deliveries: Vec<Delivery>,
    /// What closed it.
    pub closed_by: ClosedBy,
}

impl Batch {
    /// One delivery by itself.
    pub(crate) fn alone(delivery: Delivery) -> Self {
        Self { deliveries: vec![delivery], closed_by: ClosedBy::Count }
    }

    /// The number of records: at least one, until what expired is taken out.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether everything in it has expired and was taken out.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// The deliveries in the broker's order.
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// The deliveries, taken out.
    pub(crate) fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// What it takes is about to be free.
    pub(crate) fn release_memory(&mut self) {
        for delivery in &mut self.deliveries {
            delivery.held = None;
        }
    }

    /// The bytes of its records, each with its comma.
    pub fn bytes(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.record.size()).sum()
    }

    /// What settles the batch.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.deliveries.iter().map(|delivery| delivery.receipt).collect()
    }

    /// When its oldest delivery arrived.
    pub fn received_at(&self) -> Option<Instant> {
        self.deliveries.iter().map(|delivery| delivery.received_at).min()
    }

    /// What the function gets.
    pub fn event(&self, envelope: &Envelope) -> Event {
        envelope.event(self.deliveries.iter().map(|delivery| &delivery.record))
    }

    /// How often the broker has taken back the one that it has taken back most.
    pub(crate) fn most_returned(&self) -> u32 {
        self.deliveries.iter().map(|delivery| delivery.returns).max().unwrap_or(0)
    }

    /// How often the function has failed with the record that it failed with most.
    pub(crate) fn most_failed(&self) -> u32 {
        self.deliveries.iter().map(|delivery| delivery.failed).max().unwrap_or(0)
    }

    /// The function has failed with it.
    pub(crate) fn note_failure(&mut self) {
        for delivery in &mut self.deliveries {
            delivery.failed += 1;
        }
        self.mark_redelivered();
    }

    /// It is being invoked again, though nothing failed that it is to blame for.
    pub(crate) fn mark_redelivered(&mut self) {
        for delivery in &mut self.deliveries {
            if !delivery.record.is_redelivered() {
                delivery.record.mark_redelivered();
            }
        }
    }

    /// Takes out those for which `is_failed` is true, in order.
    pub(crate) fn take_failed(&mut self, is_failed: &[bool]) -> Self {
        let mut is_failed = is_failed.iter();
        let failed = self.deliveries.extract_if(.., |_| is_failed.next().is_some_and(|failed| *failed)).collect();
        Self { deliveries: failed, closed_by: self.closed_by }
    }

    /// Takes out those that the function must not be invoked with again, since it has failed with them so often.
    pub(crate) fn take_spent(&mut self, is_spent: impl Fn(u32) -> bool) -> Vec<Delivery> {
        self.deliveries.extract_if(.., |delivery| is_spent(delivery.failed)).collect()
    }

    /// Takes out what is older than this by `now`.
    pub(crate) fn take_older(&mut self, age: Duration, now: Instant) -> Vec<Delivery> {
        let is_older = |delivery: &mut Delivery| delivery.age + now.duration_since(delivery.received_at) > age;
        self.deliveries.extract_if(.., is_older).collect()
    }

    /// Takes out what has expired by `now`.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<Delivery> {
        let expired = |delivery: &mut Delivery| delivery.expires_at.is_some_and(|at| at <= now);
        self.deliveries.extract_if(.., expired).collect()
    }

    /// The two halves of a batch of several, the first one first.
    pub(crate) fn halve(mut self) -> (Self, Self) {
        let second = self.deliveries.split_off(self.deliveries.len().div_ceil(2));
        let closed_by = self.closed_by;
        (self, Self { deliveries: second, closed_by })
    }
}

/// Whether a record has room in the open batch.
#[derive(Debug)]
pub enum Room {
    /// It has.
    There,
    /// It has now: the batch that was open is complete by its bytes.
    Made(Batch),
    /// It fits into no event.
    Nowhere,
}

/// Collects deliveries until a batch is complete.
#[derive(Debug)]
pub struct Batcher {
    count: usize,
    window: Duration,
    envelope: Envelope,
    open: Vec<Delivery>,
    records: usize,
}

impl Batcher {
    /// An empty batcher for one session of a mapping.
    pub fn new(mapping: &Mapping, envelope: &Envelope) -> Self {
        Self {
            count: mapping.batch_size.get().into(),
            window: mapping.window.duration(),
            envelope: envelope.clone(),
            open: Vec::new(),
            records: 0,
        }
    }

    /// Makes room for a record of so many bytes.
    pub fn make_room(&mut self, size: usize) -> Room {
        if !self.fits(size) {
            return Room::Nowhere;
        }
        if self.fits(self.records + size) {
            return Room::There;
        }
        self.close(ClosedBy::Bytes).map_or(Room::There, Room::Made)
    }

    /// Adds a delivery for whose record there is room; returns the batch if that completes it.
    pub fn push(&mut self, delivery: Delivery) -> Option<Batch> {
        if self.open.is_empty() {
            self.open.reserve(self.count.min(128));
        }
        self.records += delivery.record.size();
        self.open.push(delivery);
        if self.open.len() >= self.count { self.close(ClosedBy::Count) } else { None }
    }

    /// When the open batch has to close: its window after its first record arrived.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.open.first()?.received_at + self.window)
    }

    /// Closes the open batch, if there is one.
    pub fn close(&mut self, closed_by: ClosedBy) -> Option<Batch> {
        self.records = 0;
        let deliveries = std::mem::take(&mut self.open);
        (!deliveries.is_empty()).then_some(Batch { deliveries, closed_by })
    }

    /// Gives back what was collected, never to be invoked.
    pub fn abandon(&mut self) -> Vec<Delivery> {
        self.records = 0;
        std::mem::take(&mut self.open)
    }

    /// Whether an event with records of so many bytes, commas included, stays below the limit.
    fn fits(&self, records: usize) -> bool {
        self.envelope.event_size(records) < EVENT_SIZE_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{delivery, mapping};

    const SMALL: usize = 100;

    fn batcher(count: i64) -> Batcher {
        let mapping = Mapping { batch_size: count.try_into().unwrap(), ..mapping() };
        Batcher::new(&mapping, &Envelope::new("[", "]"))
    }

    /// Adds a delivery as a session does; returns the batch that closes.
    fn add(batcher: &mut Batcher, delivery: Delivery) -> Option<Batch> {
        match batcher.make_room(delivery.record.size()) {
            Room::There => batcher.push(delivery),
            Room::Made(batch) => {
                assert!(batcher.push(delivery).is_none(), "one batch at a time");
                Some(batch)
            }
            Room::Nowhere => None,
        }
    }

    /// Pushes records of these sizes and returns the receipts (1, 2, …) of every batch that closed.
    fn check(count: i64, sizes: &[usize], expected: &[&[u64]]) {
        let mut batcher = batcher(count);
        let closed: Vec<Vec<u64>> = (1..)
            .zip(sizes)
            .filter_map(|(receipt, size)| add(&mut batcher, delivery(receipt, *size)))
            .map(|batch| batch.receipts().iter().map(|receipt| receipt.0).collect())
            .collect();
        assert_eq!(closed, expected);
    }

    #[test]
    fn a_batch_closes_at_its_count() {
        check(1, &[SMALL; 2], &[&[1], &[2]]);
        check(2, &[SMALL; 5], &[&[1, 2], &[3, 4]]);
        check(10_000, &vec![SMALL; 9_999], &[]);
    }

    #[test]
    fn a_batch_closes_on_bytes_to_the_byte() {
        // "[" and "]" around the records, the first of which loses its comma.
        let most = EVENT_SIZE_LIMIT - 1 - 1;
        check(10, &[most / 2, most - most / 2, SMALL], &[&[1, 2]]);
        check(10, &[most / 2, most - most / 2 + 1], &[&[1]]);
        check(10, &[most, SMALL], &[&[1]]);
    }

    #[test]
    fn an_event_that_bytes_closed_is_below_the_limit() {
        let mut batcher = batcher(10);
        let most = EVENT_SIZE_LIMIT - 2;
        assert!(add(&mut batcher, delivery(1, most)).is_none());
        let batch = batcher.close(ClosedBy::Window).unwrap();
        assert_eq!(batch.event(&Envelope::new("[", "]")).size(), EVENT_SIZE_LIMIT - 1);
    }

    #[test]
    fn a_record_that_fits_into_no_event_hurts_no_other() {
        let mut batcher = batcher(10);
        assert!(add(&mut batcher, delivery(1, SMALL)).is_none());
        assert!(matches!(batcher.make_room(EVENT_SIZE_LIMIT - 1), Room::Nowhere));
        assert_eq!(batcher.close(ClosedBy::Window).unwrap().receipts(), [Receipt(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_opens_with_the_first_record() {
        let mut batcher = batcher(10);
        assert_eq!(batcher.deadline(), None);
        let first = Instant::now();
        batcher.push(delivery(1, SMALL));
        tokio::time::sleep(Duration::from_millis(300)).await;
        batcher.push(delivery(2, SMALL));
        assert_eq!(batcher.deadline(), Some(first + Duration::from_millis(500)));
    }

    #[test]
    fn halves_keep_the_order_and_the_first_takes_the_odd_one() {
        let mut batcher = batcher(3);
        batcher.push(delivery(1, SMALL));
        batcher.push(delivery(2, SMALL));
        let batch = batcher.push(delivery(3, SMALL)).expect("three close it");
        let (first, second) = batch.halve();
        assert_eq!(first.receipts(), [Receipt(1), Receipt(2)]);
        assert_eq!(second.receipts(), [Receipt(3)]);
    }
}
