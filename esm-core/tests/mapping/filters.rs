//! What no filter accepts never reaches a batch.

use esm_core::filter::FilterCriteria;

use super::*;

/// Accepts the ids that begin with `a`.
fn filtering(mapping: Mapping) -> Mapping {
    let filter = FilterCriteria::parse(&[r#"{"id":[{"prefix":"a"}]}"#.into()]).expect("a pattern");
    Mapping { filter: Some(Arc::new(filter)), ..mapping }
}

#[tokio::test(start_paused = true)]
async fn what_no_filter_accepts_is_acknowledged_and_counted_and_takes_no_room_in_a_batch() {
    let mapping = Mapping { window: 300.try_into().unwrap(), ..batches_of(2) };
    let mut bench = Bench::start(filtering(mapping), []);
    let published = Instant::now();
    bench.queue.publish(["b1", "a1", "b2", "b3", "a2", "b4"]);

    let invocation = bench.next_invocation().await;

    assert_eq!((invocation.ids, invocation.at), (vec!["a1".to_owned(), "a2".to_owned()], published));
    sleep(Duration::from_secs(1)).await;
    let mut acked = bench.queue.acked();
    acked.sort();
    assert_eq!(acked, ["a1", "a2", "b1", "b2", "b3", "b4"]);
    assert_eq!(bench.metric("esm_filtered_out_events_total", None), 4.0);
    assert_eq!(bench.metric("esm_polled_events_total", None), 6.0);
    assert_eq!(bench.metric("esm_deleted_events_total", None), 2.0);
}

#[tokio::test(start_paused = true)]
async fn what_no_filter_accepts_starts_no_window() {
    let mut bench = Bench::start(filtering(mapping()), []);
    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.queue.acked(), ["b"]);
    let opened = Instant::now();
    bench.queue.publish(["a"]);
    assert_eq!(bench.next_invocation().await.at - opened, Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn what_no_filter_accepts_closes_no_batch_for_want_of_credit() {
    let mapping = Mapping { window: 300.try_into().unwrap(), ..batches_of(2) };
    let mut bench = Bench::start(filtering(mapping), []);
    bench.queue.publish(["a1"]);
    bench.queue.publish((0..1_000).map(|id| format!("b{id}")));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked().len(), 1_000);
    assert!(!bench.was_invoked(), "the batch still has room");
    bench.queue.publish(["a2"]);
    assert_eq!(bench.next_invocation().await.ids, ["a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_acknowledgement_of_what_no_filter_accepts() {
    let bench = Bench::start(filtering(mapping()), []);
    bench.queue.publish(["b1", "a1", "b2"]);
    sleep(Duration::from_millis(100)).await;
    bench.supervisor.drain().await;
    assert_eq!(bench.queue.acked(), ["b1", "b2"]);
    assert_eq!(bench.queue.ready(), ["a1"]);
}
