//! What tests of this and other crates share: an in-memory source, a scripted function, and the
//! contract suites that every source and every store passes.

mod function;
mod memory;
mod source_suite;
mod store_suite;

use bytes::{BufMut, BytesMut};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

pub use function::{Invocation, ScriptedFunction};
pub use memory::{MemoryDestination, MemoryQueue};
pub use source_suite::{
    QueueUnderTest, another_prefetch_hands_nothing_back_and_keeps_the_order, dead_lettered_deliveries_never_come_again,
    deliveries_keep_the_queues_order, drained_deliveries_come_again, no_more_than_the_prefetch_is_lent,
    settled_deliveries_never_come_again, unsettled_deliveries_come_again_after_a_loss,
};
pub use store_suite::{
    StoreUnderTest, a_change_that_came_too_late_does_nothing, active_are_all_but_the_disabled_mappings,
    every_answered_change_is_there_after_reopening, no_two_mappings_have_the_same_route,
    pages_are_in_order_and_filtered, stored_mapping, the_last_results_take_the_place_of_those_before,
};

use crate::{
    event::{Envelope, Event, Record},
    mapping::{BatchSize, BatchingWindow, DeadLetter, Mapping, MaximumConcurrency, RedeliveryPolicy},
    source::{Delivery, Receipt},
};

/// A mapping with every default.
pub fn mapping() -> Mapping {
    Mapping {
        uuid: Uuid::from_u128(1),
        function: "function".into(),
        event_source: "broker".into(),
        queue: "queue".into(),
        batch_size: BatchSize::default(),
        window: BatchingWindow::default(),
        maximum_concurrency: MaximumConcurrency::ONE,
        redelivery: RedeliveryPolicy::RABBITMQ,
        dead_letter: DeadLetter::Park,
        filter: None,
    }
}

/// A record `{"id":…,"redelivered":…,"padding":…}` after its comma.
pub fn record(id: &str, redelivered: bool, padding: usize) -> Record {
    let mut json = BytesMut::new();
    json.put_slice(br#",{"id":""#);
    let id_at = json.len();
    json.put_slice(id.as_bytes());
    json.put_slice(br#"","redelivered":"#);
    let flag_at = json.len();
    json.put_slice(crate::event::REDELIVERED[usize::from(redelivered)]);
    json.put_slice(br#","padding":""#);
    json.put_bytes(b'.', padding);
    json.put_slice(br#""}"#);
    Record::new(json.freeze(), flag_at, id_at..id_at + id.len(), 0..0)
}

/// The event of these records.
pub fn event(envelope: &Envelope, records: &[Record]) -> Event {
    envelope.event(records.iter())
}

/// A delivery, received now, whose record has exactly `size` bytes.
pub fn delivery(receipt: u64, size: usize) -> Delivery {
    let id = receipt.to_string();
    let padding = size - record(&id, false, 0).size();
    Delivery {
        record: record(&id, false, padding),
        receipt: Receipt(receipt),
        received_at: Instant::now(),
        expires_at: None,
        sent_at: None,
        age: Duration::ZERO,
        group: None,
        failed: 0,
        returns: 0,
        original: None,
        held: None,
    }
}
