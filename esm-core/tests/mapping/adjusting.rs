//! A running mapping is handed other settings, and ends while others run on.

use esm_core::{filter::FilterCriteria, mapping::RedeliveryPolicy, status::State};

use super::*;

/// A window that does not end by itself.
fn patient(mapping: Mapping) -> Mapping {
    Mapping { window: 300.try_into().expect("in range"), ..mapping }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_no_batch_yet_goes_by_the_new_settings_on_the_same_session() {
    let queue = MemoryQueue::new();
    queue.be_modern();
    let mut bench = Bench::start_on(queue, patient(batches_of(100)), [(Duration::from_secs(5), Outcome::Success)]);
    bench.queue.publish(["a", "b", "c"]);
    sleep(Duration::from_secs(1)).await;
    assert!(!bench.was_invoked(), "the batch has room and time");

    let adjusted_at = Instant::now();
    bench.supervisor.adjust(Mapping { window: 1.try_into().unwrap(), ..batches_of(2) });

    let first = bench.next_invocation().await;
    assert_eq!((first.ids, first.at), (vec!["a".to_owned(), "b".to_owned()], adjusted_at));
    let second = bench.next_invocation().await;
    assert_eq!((second.ids, second.at - adjusted_at), (vec!["c".to_owned()], Duration::from_secs(5)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a", "b", "c"]);
    assert_eq!(bench.queue.prefetch(), 4);
    assert_eq!(bench.queue.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn more_batches_may_be_in_flight_at_once_and_groups_stay_in_order() {
    let slow = vec![(Duration::from_secs(10), Outcome::Success); 4];
    let queue = MemoryQueue::new();
    queue.be_modern();
    let mut bench = Bench::start_on(queue, batches_of(1), slow);
    bench.queue.publish_group("g", ["g1", "g2"], 0);
    bench.queue.publish(["a"]);
    let began = bench.next_invocation().await;
    assert_eq!(began.ids, ["g1"]);

    bench.supervisor.adjust(Mapping { maximum_concurrency: 3.try_into().unwrap(), ..batches_of(1) });

    let beside = bench.next_invocation().await;
    assert_eq!((beside.ids, beside.at), (vec!["a".to_owned()], began.at), "g2 waits for its group");
    let after = bench.next_invocation().await;
    assert_eq!((after.ids, after.at - began.at), (vec!["g2".to_owned()], Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn fewer_batches_are_in_flight_once_those_that_are_too_many_have_ended() {
    let slow = vec![(Duration::from_secs(10), Outcome::Success); 5];
    let queue = MemoryQueue::new();
    queue.be_modern();
    let three = Mapping { maximum_concurrency: 3.try_into().unwrap(), ..batches_of(1) };
    let mut bench = Bench::start_on(queue, three.clone(), slow);
    bench.queue.publish(["a", "b", "c", "d", "e"]);
    let began = bench.next_invocation().await.at;
    for _ in 0..2 {
        assert_eq!(bench.next_invocation().await.at, began);
    }

    bench.supervisor.adjust(batches_of(1));

    for seconds in [10, 20] {
        assert_eq!(bench.next_invocation().await.at - began, Duration::from_secs(seconds));
    }
    sleep(Duration::from_secs(10)).await;
    bench.supervisor.adjust(three);
    sleep(Duration::from_secs(1)).await;
    let widened = Instant::now();
    bench.queue.publish(["f", "g", "h"]);
    for _ in 0..3 {
        assert_eq!(bench.next_invocation().await.at, widened);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_flight_ends_by_the_settings_that_it_began_with() {
    let failing = vec![(Duration::from_secs(1), function_error()); 3];
    let old = Mapping { dead_letter: DeadLetter::Broker, ..batches_of(1) };
    let mut bench = Bench::start(old.clone(), failing);
    bench.queue.publish(["a", "b"]);
    assert_eq!(bench.next_invocation().await.ids, ["a"]);

    let redelivery = RedeliveryPolicy { maximum_redeliveries: Some(0), ..old.redelivery };
    bench.supervisor.adjust(Mapping { redelivery, ..old });

    assert_eq!(bench.next_invocation().await.ids, ["a"], "it is retried as it was to be");
    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked(), ["a", "b"]);
    bench.queue.publish(["c"]);
    sleep(Duration::from_secs(60)).await;
    assert!(bench.queue.dead_letters().is_empty(), "the function is well again");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_begins_after_a_change_ends_by_the_new_settings() {
    let old = Mapping { dead_letter: DeadLetter::Broker, ..batches_of(1) };
    let mut bench = Bench::start(old.clone(), [at_once(function_error())]);
    let redelivery = RedeliveryPolicy { maximum_redeliveries: Some(0), ..old.redelivery };
    bench.supervisor.adjust(Mapping { redelivery, ..old });
    sleep(Duration::from_secs(1)).await;
    bench.queue.publish(["a"]);
    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_filter_judges_what_waits_for_a_batch() {
    let mut bench = Bench::start(patient(batches_of(2)), []);
    bench.queue.publish(["b1"]);
    sleep(Duration::from_secs(1)).await;
    let filter = FilterCriteria::parse(&[r#"{"id":[{"prefix":"a"}]}"#.into()]).expect("a pattern");

    bench.supervisor.adjust(Mapping { filter: Some(Arc::new(filter)), ..patient(batches_of(2)) });

    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["b1"]);
    bench.queue.publish(["a1", "b2", "a2"]);
    assert_eq!(bench.next_invocation().await.ids, ["a1", "a2"]);
    bench.supervisor.adjust(patient(batches_of(1)));
    sleep(Duration::from_secs(1)).await;
    bench.queue.publish(["b3"]);
    assert_eq!(bench.next_invocation().await.ids, ["b3"], "without a filter everything passes");
}

#[tokio::test(start_paused = true)]
async fn one_mapping_ends_in_good_order_while_others_run_on() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).expect("registers");
    let (function, mut invocations) = ScriptedFunction::new([(Duration::from_secs(5), Outcome::Success)]);
    let function = function.into_function(&metrics);
    let mut supervisor = Supervisor::new(metrics, Conditions::default());
    let queues = [MemoryQueue::new(), MemoryQueue::new()];
    let mapping = |index: u128| Mapping { uuid: uuid::Uuid::from_u128(index), ..batches_of(1) };
    let mut statuses = Vec::new();
    for (index, queue) in (0..).zip(&queues) {
        statuses.push(supervisor.start(mapping(index), Arc::new(queue.clone()), function.clone()));
    }
    queues[0].publish(["a", "b"]);
    invocations.recv().await.unwrap();
    let stopped_at = Instant::now();

    supervisor.stop(mapping(0).uuid);

    assert_eq!(supervisor.ended().await, mapping(0).uuid);
    assert_eq!(stopped_at.elapsed(), Duration::from_secs(5), "what ran was waited for");
    assert_eq!((queues[0].acked(), queues[0].ready()), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(statuses[0].borrow().state, State::Disabled);
    let series = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(!series.contains(&mapping(0).uuid.to_string()) && series.contains(&mapping(1).uuid.to_string()));
    queues[1].publish(["c"]);
    assert_eq!(invocations.recv().await.unwrap().ids, ["c"]);

    supervisor.start(mapping(0), Arc::new(queues[0].clone()), function);
    assert_eq!(invocations.recv().await.unwrap().ids, ["b"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(queues[0].acked(), ["a", "b"]);
}
