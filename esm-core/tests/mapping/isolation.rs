//! A message that fails is told from its neighbours, which are done with.

use std::collections::{BTreeMap, BTreeSet};

use esm_core::mapping::RedeliveryPolicy;
use proptest::prelude::*;

use super::{
    redelivery::{fails_with, like_activemq, modern_queue, numbers, on_paused_time, with_redeliveries},
    *,
};

fn reporting(mapping: Mapping) -> Mapping {
    Mapping { redelivery: RedeliveryPolicy { reports_item_failures: true, ..mapping.redelivery }, ..mapping }
}

fn bisecting(mapping: Mapping) -> Mapping {
    Mapping { redelivery: RedeliveryPolicy { bisects: true, ..mapping.redelivery }, ..mapping }
}

fn concurrent(batches: i64, mapping: Mapping) -> Mapping {
    Mapping { maximum_concurrency: batches.try_into().expect("in range"), ..mapping }
}

fn returned(body: impl Into<String>) -> Reply {
    Reply { outcome: Outcome::Success, body: body.into().into() }
}

/// Names these.
fn named<'a>(ids: impl IntoIterator<Item = &'a String>) -> Reply {
    let items: Vec<_> = ids.into_iter().map(|id| format!(r#"{{"itemIdentifier":"{id}"}}"#)).collect();
    returned(format!(r#"{{"batchItemFailures":[{}]}}"#, items.join(",")))
}

/// Names those of these messages that are in the event.
fn names(poison: &[&str]) -> impl FnMut(&[String]) -> (Duration, Reply) + Send + 'static + use<> {
    let poison: BTreeSet<String> = poison.iter().map(|id| (*id).to_owned()).collect();
    move |ids| (Duration::ZERO, named(ids.iter().filter(|id| poison.contains(*id))))
}

fn ids(invocations: &[Invocation]) -> Vec<String> {
    invocations.iter().map(|invocation| invocation.ids.join(" ")).collect()
}

#[tokio::test(start_paused = true)]
async fn the_messages_that_the_function_names_are_retried_and_the_others_are_done() {
    let mut times = 0;
    let answer = move |ids: &[String]| {
        times += 1;
        (
            Duration::ZERO,
            if times <= 2 {
                named(ids.iter().filter(|id| ["1", "3"].contains(&id.as_str())))
            } else {
                returned("null")
            },
        )
    };
    let mut bench = Bench::start_answering(modern_queue(), reporting(batches_of(5)), answer);
    bench.queue.publish(0..10);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.queue.acked(), ["0", "2", "4"]);
    assert!(bench.status().last_processing_result.contains("named them"), "{}", bench.status().last_processing_result);
    sleep(Duration::from_secs(60)).await;

    let invocations = bench.invocations_so_far();
    assert_eq!(ids(&invocations), ["0 1 2 3 4", "1 3", "1 3", "5 6 7 8 9"]);
    assert!(invocations[1..3].iter().all(|retry| !retry.event.contains("false")), "they are redelivered");
    assert_eq!(bench.queue.acked(), ["0", "2", "4", "1", "3", "5", "6", "7", "8", "9"]);
    assert_eq!(bench.metric("esm_failed_invoke_events_total", None), 4.0);
    assert_eq!(bench.metric("esm_invoked_events_total", None), 14.0);
    assert_eq!(bench.metric("esm_deleted_events_total", None), 10.0);
    assert_eq!(bench.metric("esm_errors_total", None), 0.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_named_as_often_as_it_may_fail_is_given_up_beside_what_is_not() {
    let mut times = BTreeMap::<String, u32>::new();
    // 1 fails always, 2 fails once, and 3 fails from the second time on that it is seen with the others.
    let answer = move |ids: &[String]| {
        let failed = ids.iter().filter(|id| {
            let seen = times.entry((*id).clone()).or_default();
            *seen += 1;
            match id.as_str() {
                "1" => true,
                "2" => *seen == 1,
                _ => false,
            }
        });
        (Duration::ZERO, named(failed))
    };
    let mapping = reporting(with_redeliveries(2, like_activemq(4)));
    let mut bench = Bench::start_answering(modern_queue(), mapping, answer);
    bench.queue.publish(0..4);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(&bench.invocations_so_far()), ["0 1 2 3", "1 2", "1"]);
    assert_eq!(bench.queue.acked(), ["0", "3", "2"]);
    assert_eq!(bench.queue.dead_letters(), ["1"]);
    assert_eq!(bench.queue.causes(), ["the function failed with it 3 times, at last by naming it"]);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("attempts")), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_names_nobody_of_the_batch_fails_the_whole_batch() {
    for body in
        [r#"{"batchItemFailures":[{"itemIdentifier":"nobody"}]}"#, "oh", r#""ok""#, r#"{"batchItemFailures":7}"#]
    {
        let mut times = 0;
        let answer = move |_: &[String]| {
            times += 1;
            (Duration::ZERO, returned(if times == 1 { body } else { "{}" }))
        };
        let mut bench = Bench::start_answering(modern_queue(), reporting(batches_of(2)), answer);
        bench.queue.publish(["a", "b"]);
        sleep(Duration::from_millis(10)).await;
        assert!(bench.queue.acked().is_empty(), "{body}");
        let said = bench.status().last_processing_result;
        assert!(said.contains("BatchItemFailuresNotValid"), "{said}");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(ids(&bench.invocations_so_far()), ["a b", "a b"]);
        assert_eq!(bench.queue.acked(), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_function_returns_says_nothing_unless_it_was_asked() {
    let mut bench = Bench::start_answering(modern_queue(), batches_of(2), names(&["a"]));
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.queue.acked(), ["a", "b"]);
    assert_eq!(bench.invocations_so_far().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_lost_between_naming_and_retry_gives_a_message_no_further_attempts() {
    let mapping = reporting(with_redeliveries(3, like_activemq(2)));
    let mut bench = Bench::start_answering(modern_queue(), mapping, names(&["a"]));
    bench.queue.publish(["a", "b"]);
    for _ in 0..2 {
        bench.next_invocation().await;
    }
    sleep(Duration::from_millis(500)).await;
    bench.queue.lose(lost());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(&bench.invocations_so_far()), ["a", "a"]);
    assert_eq!(bench.queue.acked(), ["b"]);
    assert_eq!(bench.queue.dead_letters(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn one_poison_message_in_a_hundred_costs_14_invocations_beside_its_own_retries() {
    for poison in ["0", "49", "99"] {
        let mapping = bisecting(with_redeliveries(2, like_activemq(100)));
        let mut bench = Bench::start_answering(modern_queue(), mapping, fails_with(poison));
        bench.queue.publish(0..100);
        sleep(Duration::from_millis(1)).await;
        let at_once = bench.invocations_so_far();
        sleep(Duration::from_secs(60)).await;
        let later = bench.invocations_so_far();

        assert!(at_once.iter().all(|invocation| invocation.at == at_once[0].at), "halving waits for nothing");
        assert!(at_once[1..].iter().all(|part| !part.event.contains(r#""redelivered":false"#)));
        let all: Vec<_> = at_once.iter().chain(&later).collect();
        assert!(all.len() <= 1 + 14 + 2, "{}", all.len());
        let alone = all.iter().filter(|invocation| invocation.ids == [poison]).count();
        assert_eq!(alone, 3, "once and two retries");
        let expected: Vec<_> = numbers(0..100).into_iter().filter(|id| id != poison).collect();
        assert_eq!(bench.queue.acked(), expected, "each once, in order");
        assert_eq!(bench.queue.dead_letters(), [poison]);
        assert_eq!(bench.queue.causes(), ["the function failed with it 3 times, at last with E: m"]);
    }
}

#[tokio::test(start_paused = true)]
async fn good_halves_are_done_before_the_poison_is_retried_and_the_next_batch_waits_for_it() {
    let mut bench = Bench::start_answering(modern_queue(), bisecting(batches_of(4)), fails_with("0"));
    bench.queue.publish(0..8);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(ids(&bench.invocations_so_far()), ["0 1 2 3", "0 1", "0", "1", "2 3"]);
    assert_eq!(bench.queue.acked(), ["1", "2", "3"]);
    sleep(Duration::from_secs(600)).await;
    let later = ids(&bench.invocations_so_far());
    assert!(later.len() > 10 && later.iter().all(|ids| ids == "0"), "{later:?}");
    assert_eq!(bench.queue.acked(), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn with_one_batch_at_a_time_the_next_waits_until_the_remainder_is_settled() {
    let mapping = bisecting(with_redeliveries(2, like_activemq(3)));
    let answer = |ids: &[String]| {
        let fails = ids.contains(&"0".to_owned()) || ids.contains(&"2".to_owned());
        at_once(if fails { function_error() } else { Outcome::Success })
    };
    let mut bench = Bench::start_answering(modern_queue(), mapping, answer);
    bench.queue.publish(0..6);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(&bench.invocations_so_far()), ["0 1 2", "0 1", "0", "1", "2", "0", "2", "0", "2", "3 4 5"]);
    assert_eq!(bench.queue.acked(), ["1", "3", "4", "5"]);
    assert_eq!(bench.queue.dead_letters(), ["0", "2"]);
}

#[tokio::test(start_paused = true)]
async fn with_several_batches_in_flight_a_remainder_holds_no_place_while_it_waits() {
    for mapping in [bisecting(batches_of(1)), reporting(batches_of(1))] {
        let answer =
            |ids: &[String]| at_once(if ids[0].starts_with('p') { function_error() } else { Outcome::Success });
        let mut bench = Bench::start_answering(modern_queue(), concurrent(4, mapping), answer);
        bench.queue.publish(["p1", "p2", "a", "b", "c", "d", "e", "f", "g", "h"]);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(bench.queue.acked(), ["a", "b", "c", "d", "e", "f", "g", "h"]);
        assert_eq!(bench.queue.unsettled(), 2);
        while bench.was_invoked() {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_remainder_that_is_due_goes_before_batches_that_have_not_begun() {
    let mut poison_fails = true;
    let answer = move |ids: &[String]| {
        let fails = ids == ["p"] && std::mem::take(&mut poison_fails);
        let takes = if ids == ["p"] { Duration::ZERO } else { Duration::from_secs(10) };
        (takes, if fails { function_error() } else { Outcome::Success })
    };
    let mut bench = Bench::start_answering(modern_queue(), concurrent(2, bisecting(batches_of(1))), answer);
    bench.queue.publish(["p", "a", "b", "c", "d", "e"]);
    sleep(Duration::from_secs(60)).await;
    let invocations = bench.invocations_so_far();
    assert_eq!(ids(&invocations), ["p", "a", "b", "p", "c", "d", "e"]);
    assert_eq!(invocations[3].at - invocations[1].at, Duration::from_secs(10), "as soon as there was a place");
    let mut running = 0;
    let mut events: Vec<_> = invocations
        .iter()
        .filter(|invocation| invocation.ids != ["p"])
        .flat_map(|invocation| [(invocation.at, 1), (invocation.at + Duration::from_secs(10), -1)])
        .collect();
    events.sort_by_key(|(at, change)| (*at, *change));
    for (_, change) in events {
        running += change;
        assert!(running <= 2, "no more than may be in flight");
    }
}

#[tokio::test(start_paused = true)]
async fn remainders_that_take_more_than_half_of_what_is_lent_pause_the_mapping_until_the_function_heals() {
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_healed = healed.clone();
    let answer = move |_: &[String]| {
        let is_healed = is_healed.load(std::sync::atomic::Ordering::Relaxed);
        at_once(if is_healed { Outcome::Success } else { function_error() })
    };
    let mut bench = Bench::start_answering(modern_queue(), concurrent(3, bisecting(batches_of(1))), answer);
    assert_eq!(bench.queue.prefetch(), 0, "not yet open");
    bench.queue.publish(0..20);
    sleep(Duration::from_millis(10)).await;
    let said = bench.status().last_processing_result;
    assert!(said.contains("the mapping is paused: 3 messages wait to be retried"), "{said}");
    let first_round = ids(&bench.invocations_so_far());
    assert_eq!(first_round, ["0", "1", "2"], "of a prefetch of 4, more than half");
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.queue.prefetch(), 4, "what is retried for ever would take all there is");
    let retried: BTreeSet<_> = ids(&bench.invocations_so_far()).into_iter().collect();
    assert_eq!(retried.into_iter().collect::<Vec<_>>(), ["0", "1", "2"]);
    healed.store(true, std::sync::atomic::Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.queue.acked().len(), 20);
    assert_eq!(bench.status().last_processing_result, "OK");
    while bench.was_invoked() {}
}

/// Fails with every tenth message.
fn one_in_ten_fails(takes: Duration) -> impl FnMut(&[String]) -> (Duration, Outcome) + Send + 'static {
    move |ids| (takes, if ids.iter().any(|id| id.ends_with('0')) { function_error() } else { Outcome::Success })
}

/// Publishes messages of which one in ten fails for ever, waits until all are done or given up, and returns the
/// prefetches on the way: those that differ from the one before.
async fn work_off_one_in_ten(bench: &mut Bench, messages: u32, padding: usize) -> Vec<usize> {
    let mut prefetches = vec![bench.queue.prefetch()];
    bench.queue.publish_with(0..messages, padding, None);
    while bench.metric("esm_deleted_events_total", None) < f64::from(messages - messages / 10)
        || bench.queue.unsettled() > 0
    {
        sleep(Duration::from_millis(10)).await;
        bench.invocations_so_far();
        let prefetch = bench.queue.prefetch();
        if prefetches.last() != Some(&prefetch) {
            prefetches.push(prefetch);
        }
        let said = bench.status().last_processing_result;
        assert!(padding > 0 || !said.contains("paused"), "{said}");
    }
    prefetches
}

#[tokio::test(start_paused = true)]
async fn beside_what_rests_for_a_while_more_is_borrowed_and_the_mapping_does_not_pause() {
    let mapping = concurrent(5, bisecting(with_redeliveries(3, like_activemq(10))));
    let function = one_in_ten_fails(Duration::from_millis(5));
    let mut bench = Bench::start_answering(modern_queue(), mapping, function);
    let started = Instant::now();
    let prefetches = work_off_one_in_ten(&mut bench, 6_000, 0).await;
    // 600 messages rest for three seconds each: half of the 60 that the batches take would need a minute.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(bench.queue.dead_letters().len(), 600);
    let most = (0..prefetches.len()).max_by_key(|place| prefetches[*place]).expect("there are some");
    let (wider, narrower) = prefetches.split_at(most + 1);
    assert!(wider.is_sorted() && narrower.is_sorted_by(|one, next| one > next), "no more than once: {prefetches:?}");
    assert!((600..2_000).contains(&prefetches[most]), "twice what rests, and not much more: {prefetches:?}");
    assert!(prefetches.len() <= 12 && prefetches.last() < Some(&120), "{prefetches:?}");
    assert_eq!((bench.queue.sessions(), bench.queue.returned()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn beside_what_rests_no_more_is_borrowed_than_there_is_memory_for() {
    let mapping = concurrent(5, bisecting(with_redeliveries(3, like_activemq(10))));
    let function = ScriptedFunction::answering(one_in_ten_fails(Duration::from_millis(5)));
    let conditions = Conditions { memory_limit: 400_000, ..Conditions::default() };
    let mut bench = Bench::start_under(conditions, modern_queue(), mapping, function);
    let prefetches = work_off_one_in_ten(&mut bench, 3_000, 1_000).await;
    assert_eq!(prefetches.iter().max(), Some(&120), "of less than 200 that are half the memory");
    assert!(bench.queue.most_bytes() <= 200_000, "{}", bench.queue.most_bytes());
    assert_eq!(bench.queue.dead_letters().len(), 300);
    assert_eq!((bench.queue.sessions(), bench.queue.returned()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_back_what_waits_to_be_retried_without_a_place() {
    let mapping = concurrent(2, bisecting(batches_of(2)));
    let mut bench = Bench::start_answering(modern_queue(), mapping, fails_with("0"));
    bench.queue.publish(0..4);
    bench.next_invocation().await;
    sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    bench.supervisor.drain().await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    let mut left = bench.queue.acked();
    left.extend(bench.queue.ready());
    left.sort_unstable();
    assert_eq!(left, ["0", "1", "2", "3"]);
    assert!(bench.queue.ready().contains(&"0".to_owned()));
    assert!(bench.queue.returned().iter().all(|(_, tried)| *tried), "{:?}", bench.queue.returned());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn just_what_fails_is_given_up_however_it_is_told(
        poison in prop::collection::vec(prop::bool::weighted(0.2), 1..60),
        batch_size in 1..=20i64,
        concurrency in 1..=4i64,
        redeliveries in 0..=3u32,
        (reports, bisects) in (any::<bool>(), any::<bool>()),
    ) {
        let messages = (0..).zip(&poison);
        let of = |is_poison: bool| -> BTreeSet<String> {
            let messages = messages.clone().filter(|(_, poison)| **poison == is_poison);
            messages.map(|(id, _): (u32, _)| id.to_string()).collect()
        };
        on_paused_time(async {
            let poison = of(true);
            let answer = move |ids: &[String]| {
                let failed: Vec<_> = ids.iter().filter(|id| poison.contains(*id)).collect();
                let reply = if reports { named(failed) } else if failed.is_empty() { returned("") } else { function_error().into() };
                (Duration::ZERO, reply)
            };
            let mut mapping = concurrent(concurrency, with_redeliveries(redeliveries, like_activemq(batch_size)));
            mapping.redelivery.reports_item_failures = reports;
            mapping.redelivery.bisects = bisects;
            let mut bench = Bench::start_answering(modern_queue(), mapping, answer);
            bench.queue.publish(messages.clone().map(|(id, _)| id));
            sleep(Duration::from_secs(3_600)).await;
            assert_eq!(bench.queue.acked().into_iter().collect::<BTreeSet<_>>(), of(false));
            assert_eq!(bench.queue.acked().len(), of(false).len(), "each once");
            assert_eq!(bench.queue.dead_letters().into_iter().collect::<BTreeSet<_>>(), of(true));
            let mut alone = BTreeMap::<String, u32>::new();
            for invocation in bench.invocations_so_far() {
                if let [id] = &*invocation.ids {
                    *alone.entry(id.clone()).or_default() += 1;
                }
            }
            assert!(alone.values().all(|times| *times <= redeliveries + 1), "{alone:?}");
        });
    }
}
