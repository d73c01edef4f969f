//! Message groups keep their order with several batches in flight.

use std::collections::{BTreeMap, HashMap};

use esm_core::mapping::RedeliveryPolicy;
use fastrand::Rng;
use proptest::prelude::*;

use super::{redelivery::on_paused_time, *};

/// Five batches in flight, on a queue whose sessions know messages again.
fn start(batch_size: i64, answer: impl FnMut(&[String]) -> (Duration, Outcome) + Send + 'static) -> Bench {
    let queue = MemoryQueue::new();
    queue.be_modern();
    let mapping = Mapping { maximum_concurrency: 5.try_into().expect("in range"), ..batches_of(batch_size) };
    Bench::start_answering(queue, mapping, answer)
}

/// Takes a minute with these messages, and no time with others.
fn slow_with(slow: &'static [&str]) -> impl FnMut(&[String]) -> (Duration, Outcome) + Send + 'static {
    move |ids| {
        let is_slow = ids.iter().any(|id| slow.contains(&id.as_str()));
        (Duration::from_secs(if is_slow { 60 } else { 0 }), Outcome::Success)
    }
}

fn ids(invocations: Vec<Invocation>) -> Vec<String> {
    invocations.into_iter().map(|invocation| invocation.ids.join(" ")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_waits_while_an_earlier_one_of_its_group_is_in_another_batch() {
    let mut bench = start(1, slow_with(&["a1"]));
    bench.queue.publish_group("a", ["a1", "a2", "a3"], 0);
    bench.queue.publish_group("b", ["b1", "b2"], 0);
    bench.queue.publish(["c"]);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a1", "b1", "c", "b2"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a2", "a3"]);
    assert_eq!(bench.queue.acked(), ["b1", "c", "b2", "a1", "a2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_group_may_share_a_batch() {
    let mut bench = start(3, slow_with(&[]));
    bench.queue.publish_group("a", ["a1", "a2"], 0);
    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a1 a2 b"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_message_is_retried_waits_and_the_others_go_on() {
    let mut failures = 3;
    let mut bench = start(1, move |ids| {
        let fails = ids == ["a1"] && failures > 0;
        failures -= i32::from(fails);
        at_once(if fails { function_error() } else { Outcome::Success })
    });
    bench.queue.publish_group("a", ["a1", "a2"], 0);
    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a1", "b", "a1", "a1", "a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_for_which_a_batch_closed_on_bytes_waits_for_that_batch() {
    let mut bench = start(10, slow_with(&["a1"]));
    bench.queue.publish_group("a", ["a1", "a2"], EVENT_SIZE_LIMIT / 2);
    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a1", "b"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a2"]);
    assert_eq!(bench.queue.acked(), ["b", "a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_waits_for_an_invocation_that_outlived_its_session_and_the_others_do_not() {
    let mut bench = start(1, slow_with(&["a1"]));
    bench.queue.publish_group("a", ["a1", "a2"], 0);
    assert_eq!(bench.next_invocation().await.ids, ["a1"]);
    bench.queue.lose(lost());
    bench.queue.publish(["b"]);
    sleep(Duration::from_secs(50)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["b"]);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a1", "a2"]);
    assert_eq!(bench.queue.acked(), ["b", "a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_uses_up_the_prefetch_is_worked_off() {
    let mapping =
        Mapping { window: 300.try_into().unwrap(), maximum_concurrency: 5.try_into().unwrap(), ..batches_of(4) };
    let mut bench = Bench::start_answering(MemoryQueue::new(), mapping, |_| (Duration::from_secs(1), Outcome::Success));
    let messages: Vec<_> = (0..100).map(|id| id.to_string()).collect();
    bench.queue.publish_group("a", &messages, 0);
    let started = Instant::now();
    for _ in 0..25 {
        assert_eq!(bench.next_invocation().await.ids.len(), 4);
    }
    sleep(Duration::from_secs(2)).await;
    assert!(started.elapsed() < Duration::from_secs(60), "no window was waited for");
    assert_eq!(bench.queue.acked(), messages);
}

#[tokio::test(start_paused = true)]
async fn messages_that_waited_start_no_more_batches_than_may_be_in_flight() {
    let queue = MemoryQueue::new();
    queue.be_modern();
    let mapping = Mapping { maximum_concurrency: 2.try_into().unwrap(), ..batches_of(3) };
    let takes = |ids: &[String]| Duration::from_secs(if ids == ["a1", "b1", "c1"] { 10 } else { 60 });
    let mut bench = Bench::start_answering(queue, mapping, move |ids| (takes(ids), Outcome::Success));
    for (number, padding) in [(1, 0), (2, EVENT_SIZE_LIMIT / 2)] {
        for group in ["a", "b", "c"] {
            bench.queue.publish_group(group, [format!("{group}{number}")], padding);
        }
    }
    bench.queue.publish(["d"]);
    sleep(Duration::from_secs(9)).await;
    assert_eq!(ids(bench.invocations_so_far()), ["a1 b1 c1", "d"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.invocations_so_far().len(), 1, "each of the others makes a batch of its own");
    assert_eq!(bench.metric("esm_in_flight_batches", None), 2.0);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.queue.acked().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_back_what_waits_for_its_group() {
    let mut bench = start(1, slow_with(&["a1"]));
    bench.queue.publish_group("a", ["a1", "a2", "a3"], 0);
    bench.next_invocation().await;
    sleep(Duration::from_secs(1)).await;
    bench.supervisor.drain().await;
    assert_eq!(bench.queue.acked(), ["a1"]);
    assert_eq!(bench.queue.returned(), [("a2".into(), false), ("a3".into(), false)]);
    assert_eq!(bench.queue.ready(), ["a2", "a3"]);
}

/// What a random function does, in percent of its invocations.
#[derive(Clone, Copy, Debug)]
struct Odds {
    fails: u32,
    finds_too_large: u32,
    is_throttled: u32,
    loses_its_session: u32,
}

/// The groups of a queue as a function sees them, which says at once when it sees something wrong.
struct Observer {
    queue: MemoryQueue,
    random: Rng,
    odds: Odds,
    concurrency: usize,
    /// When each invocation that runs ends.
    running: Vec<Instant>,
    /// When the last invocation with the group ends.
    busy_until: HashMap<String, Instant>,
}

impl Observer {
    fn answer(&mut self, ids: &[String]) -> (Duration, Outcome) {
        let takes = Duration::from_millis(self.random.u64(0..3_000));
        let mut seen: HashMap<&str, u32> = HashMap::new();
        for id in ids {
            let Some((group, number)) = id.split_once('-') else { continue };
            let number: u32 = number.parse().expect("is a number");
            let is_next = match seen.insert(group, number) {
                Some(before) => before + 1 == number,
                None => number == 0 || !self.queue.holds(&format!("{group}-{}", number - 1)),
            };
            assert!(is_next, "{id} is invoked before its turn, with {ids:?}");
        }
        for group in seen.into_keys() {
            let until = self.busy_until.insert(group.into(), Instant::now() + takes);
            let is_free = until.is_none_or(|until| until <= Instant::now());
            assert!(is_free, "two invocations have a message of group {group} at the same time");
        }
        self.running.retain(|until| *until > Instant::now());
        self.running.push(Instant::now() + takes);
        assert!(self.running.len() <= self.concurrency, "more batches are in flight than may be");
        if self.random.u32(..100) < self.odds.loses_its_session {
            self.queue.lose(lost());
        }
        (takes, self.outcome(ids))
    }

    fn outcome(&mut self, ids: &[String]) -> Outcome {
        let Odds { fails, finds_too_large, is_throttled, .. } = self.odds;
        match self.random.u32(..100) {
            _ if ids.iter().any(|id| id.ends_with("13")) => function_error(),
            chance if chance < fails => function_error(),
            chance if chance < fails + finds_too_large && ids.len() > 1 => Outcome::TooLarge { reason: "413".into() },
            chance if chance < fails + finds_too_large + is_throttled => throttled(),
            _ => Outcome::Success,
        }
    }
}

fn odds(with_losses: bool) -> impl Strategy<Value = Odds> {
    (0..20u32, 0..10u32, 0..10u32, 1..10u32).prop_map(move |(fails, finds_too_large, is_throttled, loses)| Odds {
        fails,
        finds_too_large,
        is_throttled,
        loses_its_session: if with_losses { loses } else { 0 },
    })
}

/// Works off thousands of messages, most of them in 50 groups; returns how often the function succeeded with each.
fn work_off(seed: u64, batch_size: i64, concurrency: u16, odds: Odds) -> BTreeMap<String, u32> {
    // Also the jitter of delays, which is drawn on this thread.
    fastrand::seed(seed);
    on_paused_time(async {
        let queue = MemoryQueue::new();
        queue.be_modern();
        let mut random = Rng::with_seed(seed);
        let mut next = [0; 50];
        for ungrouped in 0..2_000 {
            let group = random.usize(..60);
            match next.get_mut(group) {
                Some(number) => {
                    queue.publish_group(&group.to_string(), [format!("{group}-{number}")], 0);
                    *number += 1;
                }
                None => queue.publish([ungrouped]),
            }
        }
        let published = queue.ready();
        let mut observer = Observer {
            queue: queue.clone(),
            random,
            odds,
            concurrency: concurrency.into(),
            running: Vec::new(),
            busy_until: HashMap::new(),
        };
        let succeeded = Arc::new(Mutex::new(BTreeMap::new()));
        let mapping = Mapping {
            maximum_concurrency: i64::from(concurrency).try_into().expect("in range"),
            redelivery: RedeliveryPolicy { maximum_redeliveries: Some(3), ..RedeliveryPolicy::RABBITMQ },
            dead_letter: DeadLetter::Broker,
            ..batches_of(batch_size)
        };
        let counted = succeeded.clone();
        let mut bench = Bench::start_answering(queue, mapping, move |ids| {
            let (takes, outcome) = observer.answer(ids);
            if outcome == Outcome::Success {
                let mut counted = counted.lock().expect("nothing has failed before");
                for id in ids {
                    *counted.entry(id.clone()).or_default() += 1;
                }
            }
            (takes, outcome)
        });
        let settled = |bench: &Bench| [bench.queue.acked(), bench.queue.dead_letters()].concat();
        let give_up_at = Instant::now() + Duration::from_secs(24 * 3_600);
        while settled(&bench).len() < published.len() {
            assert!(Instant::now() < give_up_at, "{} of {} are settled", settled(&bench).len(), published.len());
            while bench.was_invoked() {}
            sleep(Duration::from_secs(10)).await;
        }
        sleep(Duration::from_secs(60)).await;
        let mut settled = settled(&bench);
        settled.sort_unstable();
        let mut expected = published.clone();
        expected.sort_unstable();
        assert_eq!(settled, expected, "each once");
        assert!(bench.queue.dead_letters().iter().any(|id| id.ends_with("13")));
        assert_eq!(bench.metric("esm_in_flight_batches", None), 0.0);
        let succeeded = succeeded.lock().expect("nothing has failed");
        succeeded.clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn groups_keep_their_order_whatever_fails(
        seed: u64,
        batch_size in 1..=20i64,
        concurrency in 2..=8u16,
        odds in odds(false),
    ) {
        let succeeded = work_off(seed, batch_size, concurrency, odds);
        assert!(succeeded.values().all(|times| *times == 1), "nothing is processed twice without need");
    }

    #[test]
    fn groups_keep_their_order_whatever_fails_and_however_many_sessions_are_lost(
        seed: u64,
        batch_size in 1..=20i64,
        concurrency in 2..=8u16,
        odds in odds(true),
    ) {
        work_off(seed, batch_size, concurrency, odds);
    }
}
