//! One mapping from queue to function and back, on paused time.

#![allow(clippy::float_cmp, reason = "counts are exact")]

mod adjusting;
mod destinations;
mod filters;
mod groups;
mod isolation;
mod memory;
mod redelivery;
mod returns;
mod schedules;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use esm_core::{
    event::EVENT_SIZE_LIMIT,
    function::Function,
    invoker::{Outcome, Reply},
    mapping::{DeadLetter, Mapping},
    metrics::Metrics,
    source::SourceError,
    status::Status,
    supervisor::{Conditions, Supervisor},
    testing::{Invocation, MemoryQueue, ScriptedFunction, mapping},
};
use prometheus::Registry;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

struct Bench {
    queue: MemoryQueue,
    invocations: mpsc::Receiver<Invocation>,
    supervisor: Supervisor,
    status: watch::Receiver<Status>,
    registry: Registry,
}

impl Bench {
    fn start(
        mapping: Mapping,
        script: impl IntoIterator<Item = (Duration, Outcome), IntoIter: Send + 'static>,
    ) -> Self {
        Self::start_on(MemoryQueue::new(), mapping, script)
    }

    fn start_on(
        queue: MemoryQueue,
        mapping: Mapping,
        script: impl IntoIterator<Item = (Duration, Outcome), IntoIter: Send + 'static>,
    ) -> Self {
        Self::start_with(queue, mapping, ScriptedFunction::new(script))
    }

    /// Its function's answer depends on the ids of the records.
    fn start_answering<R: Into<Reply>>(
        queue: MemoryQueue,
        mapping: Mapping,
        answer: impl FnMut(&[String]) -> (Duration, R) + Send + 'static,
    ) -> Self {
        Self::start_with(queue, mapping, ScriptedFunction::answering(answer))
    }

    fn start_with(
        queue: MemoryQueue,
        mapping: Mapping,
        function: (Arc<ScriptedFunction>, mpsc::Receiver<Invocation>),
    ) -> Self {
        Self::start_under(Conditions::default(), queue, mapping, function)
    }

    fn start_under(
        conditions: Conditions,
        queue: MemoryQueue,
        mapping: Mapping,
        (function, invocations): (Arc<ScriptedFunction>, mpsc::Receiver<Invocation>),
    ) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).expect("registers");
        let function = function.into_function(&metrics);
        let mut supervisor = Supervisor::new(metrics, conditions);
        let status = supervisor.start(mapping, Arc::new(queue.clone()), function);
        Self { queue, invocations, supervisor, status, registry }
    }

    async fn next_invocation(&mut self) -> Invocation {
        timeout(Duration::from_secs(3_600), self.invocations.recv()).await.expect("is invoked").expect("runs")
    }

    /// What was invoked and not looked at yet.
    fn invocations_so_far(&mut self) -> Vec<Invocation> {
        std::iter::from_fn(|| self.invocations.try_recv().ok()).collect()
    }

    fn was_invoked(&mut self) -> bool {
        self.invocations.try_recv().is_ok()
    }

    fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    fn metric(&self, name: &str, label: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        let matches = |metric: &&prometheus::proto::Metric| {
            label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label))
        };
        let metric = family.get_metric().iter().find(matches).expect("the series exists");
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }
}

fn batches_of(count: i64) -> Mapping {
    Mapping { batch_size: count.try_into().expect("in range"), ..mapping() }
}

fn at_once(outcome: Outcome) -> (Duration, Outcome) {
    (Duration::ZERO, outcome)
}

fn function_error() -> Outcome {
    Outcome::FunctionError { error_type: "E".into(), message: "m".into() }
}

fn throttled() -> Outcome {
    Outcome::Throttled { reason: "busy".into(), retry_after: None }
}

fn lost() -> SourceError {
    SourceError::ConnectionLost { broker: "memory".into(), words: "cut".into() }
}

#[tokio::test(start_paused = true)]
async fn the_window_opens_with_the_first_record() {
    let mut bench = Bench::start(mapping(), []);
    sleep(Duration::from_secs(5)).await;
    assert!(!bench.was_invoked(), "an empty queue invokes nothing");
    let opened = Instant::now();
    bench.queue.publish(["a"]);
    sleep(Duration::from_millis(300)).await;
    bench.queue.publish(["b"]);

    let invocation = bench.next_invocation().await;

    assert_eq!(invocation.at - opened, Duration::from_millis(500));
    assert_eq!(invocation.ids, ["a", "b"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a", "b"]);
    assert_eq!(bench.status().last_processing_result, "OK");
}

#[tokio::test(start_paused = true)]
async fn windows_of_0_1_and_300_seconds_are_kept() {
    for seconds in [0, 1, 300] {
        let mut bench = Bench::start(Mapping { window: seconds.try_into().unwrap(), ..mapping() }, []);
        sleep(Duration::from_secs(5)).await;
        let opened = Instant::now();
        bench.queue.publish(["a", "b"]);
        let invocation = bench.next_invocation().await;
        assert_eq!(invocation.at - opened, Duration::from_secs(seconds.try_into().unwrap()));
        assert_eq!(invocation.ids, ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn batches_of_1_100_and_10_000_close_by_count_at_once() {
    for (size, messages) in [(1, 3), (100, 300), (10_000, 10_000)] {
        let mapping = Mapping { window: 300.try_into().unwrap(), ..batches_of(size) };
        let mut bench = Bench::start(mapping, []);
        bench.queue.publish(1..=messages);
        let published = Instant::now();
        for _ in 0..messages / size {
            let invocation = bench.next_invocation().await;
            assert_eq!(invocation.ids.len(), usize::try_from(size).unwrap());
            assert_eq!(invocation.at, published);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_batch_is_retried_alone_after_1_2_and_4_seconds_and_keeps_the_order() {
    let failures = vec![at_once(function_error()); 3];
    let mut bench = Bench::start(batches_of(2), failures);
    bench.queue.publish(["a", "b", "c", "d"]);

    let mut attempts = Vec::new();
    for _ in 0..5 {
        attempts.push(bench.next_invocation().await);
    }

    let ids: Vec<_> = attempts.iter().map(|attempt| attempt.ids.concat()).collect();
    assert_eq!(ids, ["ab", "ab", "ab", "ab", "cd"]);
    for (pair, seconds) in attempts.windows(2).zip([1.0, 2.0, 4.0]) {
        let delay = (pair[1].at - pair[0].at).as_secs_f64();
        assert!((delay / seconds - 1.0).abs() <= 0.11, "{delay} s instead of {seconds} s");
    }
    assert!(attempts[0].event.contains(r#""redelivered":false"#));
    assert!(attempts[1..4].iter().all(|attempt| !attempt.event.contains("false")));
    assert_eq!(attempts[0].event.len(), attempts[1].event.len());
    assert_eq!(bench.metric("esm_errors_total", None), 3.0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_holds_the_batch_without_counting() {
    let mut bench =
        Bench::start(batches_of(1), [at_once(throttled()), at_once(throttled()), at_once(function_error())]);
    bench.queue.publish(["a"]);

    bench.next_invocation().await;
    sleep(Duration::from_millis(100)).await;
    assert!(bench.status().last_processing_result.starts_with("PROBLEM: function `function` is throttled"));
    let mut last = bench.next_invocation().await;
    for seconds in [2.0, 1.0] {
        let next = bench.next_invocation().await;
        let delay = (next.at - last.at).as_secs_f64();
        assert!((delay / seconds - 1.0).abs() <= 0.11, "{delay} s instead of {seconds} s");
        last = next;
    }
    assert!(last.event.contains(r#""redelivered":true "#), "the function error made it a redelivery");
    assert_eq!(bench.metric("esm_throttles_total", None), 2.0);
    assert_eq!(bench.metric("esm_invocations_total", None), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_away_is_not_hammered_by_many_batches_and_costs_them_no_attempt() {
    let concurrent = Mapping { maximum_concurrency: 50.try_into().unwrap(), ..batches_of(1) };
    let back_at = Instant::now() + Duration::from_secs(1_800);
    let mut bench = Bench::start_answering(MemoryQueue::new(), concurrent, move |_| {
        let outcome = Outcome::Unavailable { reason: "refused".into(), retry_after: None };
        at_once(if Instant::now() < back_at { outcome } else { Outcome::Success })
    });
    bench.queue.publish(1..=50);

    sleep(Duration::from_secs(90)).await;
    let begun = bench.invocations_so_far();
    assert!((5..=50 + 7).contains(&begun.len()), "those that were under way, and probes: {}", begun.len());
    assert!(bench.status().last_processing_result.starts_with("PROBLEM: function `function` cannot be reached"));
    sleep(Duration::from_secs(1_500)).await;
    let probes = bench.invocations_so_far();
    assert!((22..=29).contains(&probes.len()), "one a minute: {}", probes.len());
    sleep(Duration::from_secs(600)).await;

    let last = bench.invocations_so_far();
    assert_eq!(bench.queue.acked().len(), 50);
    assert!(last.iter().all(|invocation| invocation.event.contains(r#""redelivered":false"#)));
    assert_eq!(bench.metric("esm_invocations_total", None), 50.0);
    assert_eq!(bench.metric("esm_errors_total", None), 0.0);
}

#[tokio::test(start_paused = true)]
async fn with_concurrency_1_nothing_of_a_new_session_is_invoked_before_the_old_invocation_ends() {
    let slow = (Duration::from_secs(300), Outcome::Success);
    let mut bench = Bench::start(batches_of(2), [slow]);
    bench.queue.publish(["a", "b", "c"]);
    let first = bench.next_invocation().await;

    bench.queue.lose(lost());
    sleep(Duration::from_secs(100)).await;
    assert!(bench.status().connected, "the mapping has connected again");
    assert!(!bench.was_invoked());

    let second = bench.next_invocation().await;
    assert_eq!(second.at - first.at, Duration::from_secs(300));
    assert_eq!(second.ids, ["a", "b"], "the old result settled nothing of the new session");
    assert!(second.event.contains(r#""redelivered":true "#));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.queue.acked(), ["a", "b", "c"]);
    assert_eq!(bench.metric("esm_reconnects_total", None), 1.0);
}

#[tokio::test(start_paused = true)]
async fn drain_hands_back_what_was_never_invoked_and_settles_what_runs() {
    let slow = (Duration::from_secs(10), Outcome::Success);
    let mut bench = Bench::start(batches_of(2), [slow]);
    bench.queue.publish(["a", "b", "c", "d", "e"]);
    bench.next_invocation().await;

    let started = Instant::now();
    bench.supervisor.drain().await;

    assert_eq!(started.elapsed(), Duration::from_secs(10));
    assert_eq!(bench.queue.acked(), ["a", "b"]);
    assert_eq!(bench.queue.ready(), ["c", "d", "e"]);
    assert!(bench.invocations.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn drain_cuts_a_backoff_short() {
    let failing = vec![at_once(function_error()); 6];
    let mut bench = Bench::start(batches_of(1), failing);
    bench.queue.publish(["a"]);
    for _ in 0..6 {
        bench.next_invocation().await;
    }

    let started = Instant::now();
    bench.supervisor.drain().await;

    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(bench.queue.ready(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fits_no_event_is_parked_and_the_queue_goes_on() {
    let mut bench = Bench::start(batches_of(10), []);
    bench.queue.publish_with(["large"], EVENT_SIZE_LIMIT, None);
    bench.queue.publish(["a"]);

    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a"]);
    assert_eq!(bench.queue.unsettled(), 1, "it is kept, not lost");
    assert_eq!(bench.metric("esm_parked_messages", None), 1.0);
    assert!(bench.status().last_processing_result.contains("no dead-letter target"));
}

#[tokio::test(start_paused = true)]
async fn parked_messages_pause_the_mapping_when_they_take_more_than_half_the_prefetch() {
    let mut bench = Bench::start(batches_of(1), []); // a prefetch of two
    bench.queue.publish_with(["large", "larger"], EVENT_SIZE_LIMIT, None);
    sleep(Duration::from_secs(1)).await;
    bench.queue.publish(["a"]);
    sleep(Duration::from_secs(60)).await;
    assert!(!bench.was_invoked());
    assert!(bench.status().last_processing_result.contains("paused"));
    assert!(bench.queue.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn parked_messages_go_to_the_dead_letter_target_as_soon_as_the_mapping_says_that_there_is_one() {
    let bench = Bench::start(batches_of(1), []); // a prefetch of two
    bench.queue.publish_with(["large", "larger"], EVENT_SIZE_LIMIT, None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.metric("esm_parked_messages", None), 2.0);

    bench.supervisor.adjust(Mapping { dead_letter: DeadLetter::Broker, ..batches_of(1) });
    sleep(Duration::from_secs(1)).await;

    assert_eq!(bench.queue.dead_letters(), ["large", "larger"]);
    assert_eq!(bench.metric("esm_parked_messages", None), 0.0);
    assert_eq!(bench.metric("esm_reconnects_total", None), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fits_no_event_goes_to_the_dead_letter_target_if_there_is_one() {
    let mut bench = Bench::start(Mapping { dead_letter: DeadLetter::Broker, ..batches_of(10) }, []);
    bench.queue.publish_with(["large"], EVENT_SIZE_LIMIT, None);
    bench.queue.publish(["a"]);

    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.dead_letters(), ["large"]);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("too_large")), 1.0);
    assert_eq!(bench.metric("esm_parked_messages", None), 0.0);
}

#[tokio::test(start_paused = true)]
async fn large_records_make_the_prefetch_smaller_and_nothing_is_lost() {
    let mut bench = Bench::start(batches_of(100), []);
    bench.queue.publish_with(0..60, 1024 * 1024, None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked(), (0..60).map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(bench.queue.prefetch(), 11, "two events of 6 MiB");
    assert_eq!(bench.queue.sessions(), 1);
    assert_eq!(bench.queue.returned(), []);
    let mut invoked = 0;
    while let Ok(invocation) = bench.invocations.try_recv() {
        invoked += invocation.ids.len();
    }
    assert_eq!(invoked, 60, "each once");
    assert_eq!(bench.metric("esm_reconnects_total", None), 0.0, "no session was lost");
}

#[tokio::test(start_paused = true)]
async fn one_large_record_does_not_keep_the_prefetch_small_for_ever() {
    let mut bench = Bench::start(batches_of(100), []);
    bench.queue.publish_with(["large"], 4 * 1024 * 1024, None);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.queue.prefetch(), 2);
    for round in 0..40 {
        bench.queue.publish((0..10).map(|id| format!("{round}-{id}")));
        sleep(Duration::from_secs(5)).await;
    }
    assert!(bench.queue.prefetch() <= 12, "no more than ten are there at once");
    bench.queue.publish((0..400).map(|id| format!("backlog-{id}")));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.queue.prefetch(), 200);
    assert_eq!(bench.queue.acked().len(), 801);
    while bench.was_invoked() {}
}

#[tokio::test(start_paused = true)]
async fn after_an_unreadable_message_one_at_a_time_is_borrowed_until_the_queue_is_past_it() {
    let unreadable = SourceError::Unreadable { broker: "b".into(), queue: "q".into(), words: "w".into() };
    let bench = Bench::start(batches_of(100), []);
    sleep(Duration::from_secs(1)).await;
    assert!(!bench.queue.is_alone());
    bench.queue.lose(unreadable);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((bench.queue.prefetch(), bench.queue.is_alone()), (1, true));
    bench.queue.publish(0..63);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((bench.queue.prefetch(), bench.queue.is_alone()), (1, true), "64 were lent with it");
    bench.queue.publish([63]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((bench.queue.prefetch(), bench.queue.is_alone()), (64, false));
    assert_eq!(bench.queue.acked().len(), 64);
}

#[tokio::test(start_paused = true)]
async fn while_one_message_at_a_time_is_borrowed_those_that_are_parked_take_nobodys_place() {
    let unreadable = SourceError::Unreadable { broker: "b".into(), queue: "q".into(), words: "w".into() };
    let bench = Bench::start(batches_of(100), []);
    sleep(Duration::from_secs(1)).await;
    bench.queue.lose(unreadable);
    sleep(Duration::from_secs(5)).await;
    bench.queue.publish_with(["large", "larger"], EVENT_SIZE_LIMIT, None);
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((bench.queue.acked(), bench.queue.is_alone()), (vec!["a".to_owned(), "b".to_owned()], true));
    assert_eq!(bench.queue.unsettled(), 2, "they are kept");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_a_function_that_cannot_be_used_is_handed_back_in_time() {
    let queue = MemoryQueue::new();
    queue.limit_hold(Duration::from_secs(200)); // the function's timeout takes 60 of them
    let missing = at_once(Outcome::NotUsable { reason: "404".into() });
    let mut bench = Bench::start_on(queue, batches_of(1), vec![missing; 4]);
    bench.queue.publish(["a"]);
    let first = bench.next_invocation().await;
    for _ in 0..4 {
        bench.next_invocation().await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a"]);
    assert!(first.at.elapsed() > Duration::from_secs(200));
    assert_eq!(bench.queue.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_function_finds_too_large_is_halved() {
    let too_large = at_once(Outcome::TooLarge { reason: "413".into() });
    let mut bench = Bench::start(batches_of(4), [too_large]);
    bench.queue.publish(["a", "b", "c", "d"]);
    let started = bench.next_invocation().await;
    for expected in [["a", "b"], ["c", "d"]] {
        let half = bench.next_invocation().await;
        assert_eq!(half.ids, expected);
        assert_eq!(half.at, started.at, "halving waits for nothing");
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_closes_when_the_broker_can_send_no_more() {
    // A prefetch of 200, half of which is parked: a batch of 100 is all that can come.
    let mapping = Mapping { window: 300.try_into().unwrap(), ..batches_of(100) };
    let mut bench = Bench::start(mapping, []);
    let published = Instant::now();
    bench.queue.publish_with(0..99, EVENT_SIZE_LIMIT, None);
    bench.queue.publish((0..50).map(|id| format!("a{id}")));
    sleep(Duration::from_secs(1)).await;
    assert!(!bench.was_invoked(), "more could come");
    bench.queue.publish((50..101).map(|id| format!("a{id}")));
    assert_eq!(bench.next_invocation().await.ids.len(), 100);
    assert!(published.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn messages_that_expire_while_they_are_retried_go_back_to_the_broker() {
    let mut bench = Bench::start(batches_of(2), vec![at_once(function_error()); 2]);
    bench.queue.publish_with(["short"], 0, Some(Duration::from_secs(2)));
    bench.queue.publish(["long"]);
    assert_eq!(bench.next_invocation().await.ids, ["short", "long"]);
    assert_eq!(bench.next_invocation().await.ids, ["short", "long"]);
    assert_eq!(bench.next_invocation().await.ids, ["long"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_held_for_long_is_handed_back_before_the_broker_takes_offence() {
    let queue = MemoryQueue::new();
    queue.limit_hold(Duration::from_secs(90)); // the function's timeout takes 60 of them
    let mut bench = Bench::start_on(queue, batches_of(1), vec![at_once(function_error()); 6]);
    bench.queue.publish(["a"]);
    let first = bench.next_invocation().await;
    for _ in 0..6 {
        let attempt = bench.next_invocation().await;
        assert!(attempt.at - first.at < Duration::from_secs(90));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a"]);
    assert_eq!(bench.queue.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_window_as_long_as_the_broker_allows_still_invokes() {
    let queue = MemoryQueue::new();
    queue.limit_hold(Duration::from_secs(243));
    let mapping = Mapping { window: 300.try_into().unwrap(), ..mapping() };
    let mut bench = Bench::start_on(queue, mapping, []);
    bench.queue.publish(["a"]);
    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.acked(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_shown_with_its_code_and_heals_by_itself() {
    let queue = MemoryQueue::new();
    let refused = SourceError::Authentication { broker: "pizza".into(), words: "ACCESS_REFUSED".into() };
    queue.refuse(vec![refused; 5]);
    queue.publish(["a"]);
    let mut bench = Bench::start_on(queue, mapping(), []);
    sleep(Duration::from_secs(1)).await;
    let status = bench.status();
    assert!(!status.connected);
    assert_eq!(
        status.state_transition_reason,
        "EVENT_SOURCE_AUTHN_ERROR: broker `pizza` refused the login: ACCESS_REFUSED"
    );
    assert!(status.last_processing_result.starts_with("PROBLEM: "));
    assert_eq!(bench.metric("esm_source_connected", None), 0.0);

    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    assert_eq!(bench.status().state_transition_reason, "USER_INITIATED");
    assert_eq!(bench.metric("esm_source_connected", None), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_login_has_changed_ends_in_good_order_and_another_takes_its_place() {
    let running = (Duration::from_secs(10), Outcome::Success);
    let mut bench = Bench::start(batches_of(2), [running]);
    bench.queue.publish(["a", "b", "c"]);
    assert_eq!(bench.next_invocation().await.ids, ["a", "b"]);
    bench.queue.outdate();

    let next = bench.next_invocation().await;
    assert_eq!(next.ids, ["c"]);
    assert_eq!(bench.queue.acked()[..2], ["a", "b"], "the one that ran was settled first, in its session");
    assert_eq!(bench.queue.returned(), [("c".into(), false)]);
    assert_eq!(bench.status().state_transition_reason, "USER_INITIATED");
    assert_eq!(bench.metric("esm_reconnects_total", None), 0.0, "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_a_function_that_cannot_be_used_does_not_hold_up_the_end_of_its_session() {
    let not_usable = Outcome::NotUsable { reason: "404".into() };
    let mut bench = Bench::start(batches_of(1), [at_once(not_usable)]);
    bench.queue.publish(["a"]);
    assert_eq!(bench.next_invocation().await.ids, ["a"]);
    bench.queue.outdate();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.sessions(), 2);

    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(1)).await;
    bench.queue.outdate();
    sleep(Duration::from_secs(1)).await;

    assert!(!bench.was_invoked(), "the next probe is due after a minute");
    assert_eq!(bench.queue.sessions(), 3, "what waits for the probe went back");
    assert_eq!([bench.next_invocation().await.ids, bench.next_invocation().await.ids], [["a"], ["b"]]);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_is_no_loss_is_shown_while_it_lasts() {
    let bench = Bench::start(mapping(), []);
    sleep(Duration::from_secs(1)).await;
    let blocked = SourceError::ConnectionBlocked { broker: "pizza".into(), words: "low on memory".into() };
    bench.queue.trouble(Some(blocked));
    sleep(Duration::from_secs(1)).await;
    assert!(bench.status().last_processing_result.contains("low on memory"));
    assert!(bench.status().connected);
    bench.queue.trouble(None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.status().last_processing_result, "OK");
}

#[tokio::test(start_paused = true)]
async fn mappings_share_a_functions_reserved_concurrency_in_turn() {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).expect("registers");
    let script = vec![(Duration::from_secs(1), Outcome::Success); 6];
    let (function, mut invocations) = ScriptedFunction::new(script);
    let function = Arc::new(Function::new("f".into(), Duration::from_secs(60), Some(1), function, &metrics));
    let mut supervisor = Supervisor::new(metrics, Conditions::default());
    let queues = [MemoryQueue::new(), MemoryQueue::new()];
    for (index, queue) in queues.iter().enumerate() {
        let uuid = uuid::Uuid::from_u128(index as u128);
        queue.publish((0..3).map(|id| format!("{index}{id}")));
        let mapping = Mapping { uuid, maximum_concurrency: 3.try_into().unwrap(), ..batches_of(1) };
        supervisor.start(mapping, Arc::new(queue.clone()), function.clone());
    }
    let mut order = Vec::new();
    let mut started: Vec<Instant> = Vec::new();
    for _ in 0..6 {
        let invocation = invocations.recv().await.unwrap();
        order.push(invocation.ids[0].chars().next().unwrap());
        started.push(invocation.at);
    }
    assert!(started.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "one at a time");
    let order: String = order.into_iter().collect();
    assert_eq!(order, "001011", "the first runs while the others queue; then it is each mapping's turn");
}
