//! How often a message is delivered, and what happens to one that cannot be processed.

use std::collections::BTreeSet;

use esm_core::{mapping::RedeliveryPolicy, metrics::DropReason};
use proptest::prelude::*;

use super::*;

/// As a mapping on ActiveMQ has it by default, with one batch at a time.
pub(crate) fn like_activemq(batch_size: i64) -> Mapping {
    Mapping { redelivery: RedeliveryPolicy::ACTIVEMQ, dead_letter: DeadLetter::Broker, ..batches_of(batch_size) }
}

pub(crate) fn with_redeliveries(maximum: u32, mapping: Mapping) -> Mapping {
    let redelivery = RedeliveryPolicy { maximum_redeliveries: Some(maximum), ..RedeliveryPolicy::ACTIVEMQ };
    Mapping { redelivery, ..mapping }
}

/// Its sessions know messages again, and can change their prefetch.
pub(crate) fn modern_queue() -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.be_modern();
    queue
}

/// Fails whenever this message is in the event.
pub(crate) fn fails_with(poison: &str) -> impl FnMut(&[String]) -> (Duration, Outcome) + Send + 'static {
    let poison = poison.to_owned();
    move |ids| at_once(if ids.contains(&poison) { function_error() } else { Outcome::Success })
}

fn always_fails(takes: Duration) -> impl FnMut(&[String]) -> (Duration, Outcome) + Send + 'static {
    move |_| (takes, function_error())
}

pub(crate) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Runs a future on paused time, for tests that proptest calls.
pub(crate) fn on_paused_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("builds").block_on(future)
}

#[tokio::test(start_paused = true)]
async fn one_poison_message_in_a_hundred_is_given_up_alone() {
    for poison in ["0", "49", "99"] {
        let mut bench = Bench::start_answering(modern_queue(), like_activemq(100), fails_with(poison));
        bench.queue.publish(0..100);
        sleep(Duration::from_secs(60)).await;

        let invocations = bench.invocations_so_far();
        let (whole, parts) = invocations.split_at(6);
        for (seconds, invocation) in (0..).zip(whole) {
            assert_eq!(invocation.ids.len(), 100);
            assert_eq!(invocation.at - whole[0].at, Duration::from_secs(seconds));
            assert_eq!(invocation.event.contains(r#""redelivered":false"#), seconds == 0);
        }
        assert!(parts.iter().all(|part| part.at == whole[5].at), "halving waits for nothing");
        let with_poison = parts.iter().filter(|part| part.ids.iter().any(|id| id == poison));
        assert_eq!(with_poison.map(|part| part.ids.len()).min(), Some(1), "it fails alone at last");
        let healthy = parts.iter().filter(|part| !part.ids.iter().any(|id| id == poison));
        let processed: Vec<_> = healthy.flat_map(|part| part.ids.clone()).collect();
        let expected: Vec<_> = numbers(0..100).into_iter().filter(|id| id != poison).collect();
        assert_eq!(processed, expected, "each once, in order");
        assert_eq!(bench.queue.acked(), expected);
        assert_eq!(bench.queue.dead_letters(), [poison]);
        assert_eq!(bench.queue.causes(), ["the function failed with it 6 times, at last with E: m"]);
        assert_eq!(bench.metric("esm_dropped_events_total", Some("attempts")), 1.0);
        assert_eq!(bench.metric("esm_deleted_events_total", None), 99.0);
        assert_eq!(bench.queue.sessions(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn just_what_is_poison_is_given_up_and_the_order_is_kept(
        poison in prop::collection::vec(prop::bool::weighted(0.2), 1..60),
        batch_size in 1..=20i64,
        redeliveries in 0..=3u32,
    ) {
        let messages = (0..).zip(&poison);
        let of = |is_poison: bool| -> Vec<String> {
            let messages = messages.clone().filter(|(_, poison)| **poison == is_poison);
            messages.map(|(id, _): (u32, _)| id.to_string()).collect()
        };
        on_paused_time(async {
            let poison: BTreeSet<_> = of(true).into_iter().collect();
            let answer = move |ids: &[String]| {
                at_once(if ids.iter().any(|id| poison.contains(id)) { function_error() } else { Outcome::Success })
            };
            let mapping = with_redeliveries(redeliveries, like_activemq(batch_size));
            let bench = Bench::start_answering(modern_queue(), mapping, answer);
            bench.queue.publish(messages.clone().map(|(id, _)| id));
            sleep(Duration::from_secs(3_600)).await;
            assert_eq!(bench.queue.acked(), of(false));
            assert_eq!(bench.queue.dead_letters(), of(true));
        });
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_that_are_lost_between_attempts_give_a_message_no_further_ones() {
    for lost_after in 1..=5 {
        let mut bench = Bench::start_answering(modern_queue(), like_activemq(1), always_fails(Duration::ZERO));
        bench.queue.publish(["a"]);
        for _ in 0..lost_after {
            bench.next_invocation().await;
        }
        sleep(Duration::from_millis(500)).await;
        bench.queue.lose(lost());
        sleep(Duration::from_secs(60)).await;

        let rest = bench.invocations_so_far();
        assert_eq!(lost_after + rest.len(), 6);
        assert!(rest.iter().all(|invocation| invocation.event.contains(r#""redelivered":true "#)));
        assert_eq!(bench.queue.causes(), ["the function failed with it 6 times, at last with E: m"]);
        assert_eq!(bench.queue.sessions(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_session_is_lost_before_every_attempt_is_given_up_all_the_same() {
    let mut bench = Bench::start_answering(modern_queue(), like_activemq(1), always_fails(Duration::ZERO));
    bench.queue.publish(["a"]);
    for _ in 0..5 {
        bench.next_invocation().await;
        sleep(Duration::from_millis(500)).await;
        bench.queue.lose(lost());
    }
    bench.next_invocation().await;
    sleep(Duration::from_secs(60)).await;
    assert!(!bench.was_invoked());
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_outlives_its_session_counts() {
    for lost_during in 1..=5 {
        let mut bench = Bench::start_answering(modern_queue(), like_activemq(1), always_fails(Duration::from_secs(20)));
        bench.queue.publish(["a"]);
        for _ in 0..lost_during {
            bench.next_invocation().await;
        }
        bench.queue.lose(lost());
        sleep(Duration::from_secs(600)).await;
        assert_eq!(lost_during + bench.invocations_so_far().len(), 6);
        assert_eq!(bench.queue.dead_letters(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn with_several_batches_in_flight_an_attempt_that_outlives_its_session_is_made_once_more_at_most() {
    let mapping = Mapping { maximum_concurrency: 5.try_into().unwrap(), ..like_activemq(1) };
    let mut bench = Bench::start_answering(modern_queue(), mapping, always_fails(Duration::from_secs(20)));
    bench.queue.publish(["a"]);
    for _ in 0..4 {
        bench.next_invocation().await;
    }
    bench.queue.lose(lost());
    sleep(Duration::from_secs(600)).await;
    assert_eq!(4 + bench.invocations_so_far().len(), 7, "the fourth was not over when its session was");
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_lost_while_a_batch_is_halved_gives_no_part_further_attempts() {
    let answer = |ids: &[String]| {
        let outcome = if ids.contains(&"3".to_owned()) { function_error() } else { Outcome::Success };
        (Duration::from_secs(1), outcome)
    };
    let mut bench = Bench::start_answering(modern_queue(), like_activemq(4), answer);
    bench.queue.publish(0..4);
    for _ in 0..6 {
        assert_eq!(bench.next_invocation().await.ids, ["0", "1", "2", "3"]);
    }
    assert_eq!(bench.next_invocation().await.ids, ["0", "1"]);
    bench.queue.lose(lost());
    sleep(Duration::from_secs(60)).await;

    let rest: Vec<_> = bench.invocations_so_far().into_iter().map(|invocation| invocation.ids.concat()).collect();
    assert_eq!(rest, ["0123", "01", "23", "2", "3"]);
    assert_eq!(bench.queue.acked(), ["0", "1", "2"]);
    assert_eq!(bench.queue.dead_letters(), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_could_not_be_dead_lettered_comes_before_those_behind_it_and_is_tried_once_more() {
    let queue = modern_queue();
    let (broker, mut alone) = (queue.clone(), 0);
    let answer = move |ids: &[String]| {
        if ids == ["a"] {
            alone += 1;
            if alone == 1 {
                broker.lose(lost());
            }
        }
        at_once(if ids.contains(&"a".to_owned()) { function_error() } else { Outcome::Success })
    };
    let mut bench = Bench::start_answering(queue, like_activemq(2), answer);
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_secs(60)).await;

    let invocations = bench.invocations_so_far();
    let ids: Vec<_> = invocations.iter().map(|invocation| invocation.ids.concat()).collect();
    assert_eq!(ids, ["ab", "ab", "ab", "ab", "ab", "ab", "a", "ab", "a", "b"]);
    assert_eq!(bench.queue.acked(), ["b"]);
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_known_again_begins_anew_in_a_new_session() {
    let mapping = with_redeliveries(2, like_activemq(1));
    let mut bench = Bench::start_answering(MemoryQueue::new(), mapping, always_fails(Duration::ZERO));
    bench.queue.publish(["a"]);
    for _ in 0..2 {
        bench.next_invocation().await;
    }
    bench.queue.lose(lost());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.invocations_so_far().len(), 3);
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_last_session_lends_its_attempts_to_no_other() {
    let mut bench = Bench::start_answering(modern_queue(), like_activemq(1), fails_with("a"));
    bench.queue.publish(["a"]);
    for _ in 0..5 {
        bench.next_invocation().await;
    }
    bench.queue.lose(lost());
    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(60)).await;
    let last = bench.invocations_so_far().pop().expect("b was invoked");
    assert_eq!(last.ids, ["b"]);
    assert!(last.event.contains(r#""redelivered":false"#));
    assert_eq!(bench.queue.acked(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_message_beside_one_at_its_last_delivery_has_all_of_its_own() {
    let mut invoked = 0;
    // Fails with all but the last.
    let answer = move |_: &[String]| {
        invoked += 1;
        at_once(if invoked <= 8 { function_error() } else { Outcome::Success })
    };
    let mut bench = Bench::start_answering(modern_queue(), like_activemq(2), answer);
    bench.queue.publish(["old"]);
    for _ in 0..5 {
        bench.next_invocation().await;
    }
    bench.queue.lose(lost());
    bench.queue.publish(["new"]);
    sleep(Duration::from_secs(60)).await;

    let rest: Vec<_> = bench.invocations_so_far().into_iter().map(|invocation| invocation.ids.join(" ")).collect();
    assert_eq!(rest, ["old new", "old", "new", "new"]);
    assert_eq!(bench.queue.dead_letters(), ["old"]);
    assert_eq!(bench.queue.acked(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn without_redeliveries_the_first_failure_is_the_last() {
    let mapping = with_redeliveries(0, like_activemq(1));
    let mut bench = Bench::start_answering(modern_queue(), mapping, fails_with("a"));
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.invocations_so_far().len(), 2);
    assert_eq!(bench.queue.dead_letters(), ["a"]);
    assert_eq!(bench.queue.causes(), ["the function failed with it 1 times, at last with E: m"]);
    assert_eq!(bench.queue.acked(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_about_the_message_spends_no_delivery() {
    let unavailable = Outcome::Unavailable { reason: "refused".into(), retry_after: None };
    let not_usable = Outcome::NotUsable { reason: "404".into() };
    let held = [throttled(), unavailable, not_usable].into_iter().cycle();
    let script: Vec<_> = held.zip(vec![function_error(); 5]).flat_map(|(held, failed)| [held, failed]).collect();
    let queue = modern_queue();
    let mut bench = Bench::start_on(queue, like_activemq(1), script.into_iter().map(at_once));
    bench.queue.publish(["a"]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.invocations_so_far().len(), 11);
    assert_eq!(bench.queue.acked(), ["a"]);
    assert!(bench.queue.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_would_destroy_is_parked_with_its_reason_and_the_queue_goes_on() {
    let queue = modern_queue();
    queue.destroy_dead_letters();
    let mut bench = Bench::start_answering(queue, like_activemq(2), fails_with("a"));
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_secs(30)).await;
    bench.queue.publish(["c"]);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.queue.acked(), ["b", "c"]);
    assert_eq!(bench.queue.unsettled(), 1, "it is kept, not lost");
    assert_eq!(bench.metric("esm_parked_messages", None), 1.0);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("attempts")), 0.0);
    while bench.was_invoked() {}
}

#[tokio::test(start_paused = true)]
async fn a_message_of_which_no_record_can_be_made_is_dead_lettered_with_its_reason() {
    let mut bench = Bench::start_on(modern_queue(), like_activemq(3), []);
    bench.queue.publish(["a"]);
    bench.queue.publish_unusable("map", DropReason::MessageType);
    bench.queue.publish(["b", "c"]);
    assert_eq!(bench.next_invocation().await.ids, ["a", "b", "c"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a", "b", "c"]);
    assert_eq!(bench.queue.dead_letters(), ["map"]);
    assert_eq!(bench.queue.causes(), ["no record can be made of it"]);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("message_type")), 1.0);
    assert_eq!(bench.metric("esm_polled_events_total", None), 4.0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_nothing_but_unusable_messages_is_worked_off() {
    let mut bench = Bench::start_on(modern_queue(), like_activemq(10), []);
    for number in 0..500 {
        bench.queue.publish_unusable(&number.to_string(), DropReason::MessageType);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.dead_letters().len(), 500);
    assert!(!bench.was_invoked());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_expires_before_it_is_invoked_never_is() {
    let slow = (Duration::from_secs(10), Outcome::Success);
    let mut bench = Bench::start_on(modern_queue(), like_activemq(2), [slow]);
    bench.queue.publish(["a", "b"]);
    bench.next_invocation().await;
    bench.queue.publish_with(["short"], 0, Some(Duration::from_secs(2)));
    bench.queue.publish(["long"]);
    assert_eq!(bench.next_invocation().await.ids, ["long"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.expired(), ["short"]);
    assert_eq!(bench.queue.acked(), ["a", "b", "long"]);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("expired")), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_expires_as_a_whole_invokes_nothing() {
    let slow = (Duration::from_secs(10), Outcome::Success);
    let mut bench = Bench::start_on(modern_queue(), like_activemq(1), [slow]);
    bench.queue.publish(["a"]);
    bench.queue.publish_with(["short"], 0, Some(Duration::from_secs(2)));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.invocations_so_far().len(), 1);
    assert_eq!(bench.queue.expired(), ["short"]);
    assert_eq!(bench.queue.unsettled(), 0);
    assert_eq!(bench.metric("esm_in_flight_batches", None), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_can_changes_its_prefetch_and_hands_nothing_back() {
    let bench = Bench::start_on(modern_queue(), batches_of(100), []);
    bench.queue.publish_with(0..60, 1024 * 1024, None);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.queue.acked(), numbers(0..60));
    assert_eq!(bench.queue.prefetch(), 11, "two events of 6 MiB");

    for round in 0..10 {
        bench.queue.publish((0..100).map(|id| format!("{round}-{id}")));
        sleep(Duration::from_secs(1)).await;
    }
    assert!(bench.queue.prefetch() > 100, "more than half of what small records are given");
    assert_eq!(bench.queue.acked().len(), 1_060);
    assert_eq!(bench.queue.returned(), []);
    assert_eq!(bench.queue.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_what_was_tried() {
    for (outcome, tried) in [(function_error(), true), (throttled(), false)] {
        let mut bench = Bench::start_on(modern_queue(), like_activemq(2), [at_once(outcome)]);
        bench.queue.publish(["a", "b", "c"]);
        bench.next_invocation().await;
        sleep(Duration::from_millis(100)).await;
        bench.supervisor.drain().await;
        let mut returned = bench.queue.returned();
        returned.sort_unstable();
        assert_eq!(returned, [("a".into(), tried), ("b".into(), tried), ("c".into(), false)]);
        assert_eq!(bench.queue.ready(), ["a", "b", "c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_part_that_went_back_goes_back_too() {
    let script = [at_once(Outcome::TooLarge { reason: "413".into() }), at_once(function_error())];
    let mut bench = Bench::start(batches_of(100), script);
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_secs(1)).await; // the window, and half of the delay after the failure
    bench.queue.outdate();
    sleep(Duration::from_secs(60)).await;
    let ids: Vec<_> = bench.invocations_so_far().into_iter().map(|invocation| invocation.ids.concat()).collect();
    assert_eq!(ids, ["ab", "a", "ab"]);
    assert_eq!(bench.queue.acked(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_hear_what_became_of_its_messages_gives_way_to_one_that_does() {
    let refused = SourceError::AckRefused { broker: "b".into(), queue: "q".into(), words: "w".into() };
    for message in ["healthy", "poison"] {
        let queue = modern_queue();
        queue.refuse_to_settle([refused.clone()]);
        let mut bench = Bench::start_answering(queue, with_redeliveries(0, like_activemq(1)), fails_with("poison"));
        bench.queue.publish([message]);
        for _ in 0..2 {
            assert_eq!(bench.next_invocation().await.ids, [message]);
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!([bench.queue.acked(), bench.queue.dead_letters()].concat(), [message]);
        assert_eq!(bench.queue.sessions(), 2);
        assert!(!bench.was_invoked());
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_not_forgotten_when_a_session_is_lost_before_the_message_is_invoked_in_it() {
    let mapping = Mapping { window: 10.try_into().unwrap(), ..like_activemq(2) };
    let mut bench = Bench::start_answering(modern_queue(), mapping, always_fails(Duration::ZERO));
    bench.queue.publish(["a"]);
    for _ in 0..4 {
        bench.next_invocation().await;
    }
    for _ in 0..3 {
        bench.queue.lose(lost());
        sleep(Duration::from_secs(5)).await;
        assert!(!bench.was_invoked(), "it waits in an open batch");
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.invocations_so_far().len(), 2);
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}
