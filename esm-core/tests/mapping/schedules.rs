//! Random schedules of failure, held against a model: every message is acknowledged after a success, or given up after
//! its bound; never both and never neither. A schedule follows from its seed, which is printed when it fails.

use std::collections::{BTreeMap, BTreeSet};

use esm_core::{
    invoker::Reply,
    mapping::{RedeliveryDelay, RedeliveryPolicy},
    testing::MemoryDestination,
};
use fastrand::Rng;

use super::{redelivery::on_paused_time, *};

/// How long a schedule may take on paused time.
const A_DAY: Duration = Duration::from_secs(86_400);

/// What the function saw.
#[derive(Default)]
struct Seen {
    succeeded: BTreeSet<String>,
    failures: BTreeMap<String, u32>,
    invocations: usize,
    last_at: Option<Instant>,
    /// Invocations in a row without time passing between them.
    at_once: usize,
}

/// How a function and its surroundings behave.
struct Schedule {
    mapping: Mapping,
    messages: usize,
    /// How often the function fails with each message before it succeeds.
    failures: BTreeMap<String, u32>,
    is_modern: bool,
    losses: Vec<Duration>,
    unheard: usize,
    refusals: usize,
    /// How many publications fail, if what is given up is published.
    unpublished: Option<usize>,
}

const FOR_EVER: u32 = u32::MAX;

impl Schedule {
    fn new(rng: &mut Rng) -> Self {
        let messages = rng.usize(1..24);
        let is_bounded = rng.u8(..4) > 0;
        let failures = (0..messages)
            .map(|id| {
                let times = match rng.u8(..10) {
                    0 if is_bounded => FOR_EVER,
                    0..3 => rng.u32(1..5),
                    _ => 0,
                };
                (id.to_string(), times)
            })
            .collect();
        let redelivery = RedeliveryPolicy {
            maximum_redeliveries: is_bounded.then(|| rng.u32(..4)),
            delay: if rng.bool() { RedeliveryDelay::Fixed } else { RedeliveryDelay::Exponential },
            reports_item_failures: rng.bool(),
            bisects: rng.bool(),
            maximum_age: None,
        };
        let unpublished = rng.bool().then(|| rng.usize(..4));
        Self {
            mapping: Mapping {
                maximum_concurrency: rng.i64(1..5).try_into().expect("in range"),
                redelivery,
                dead_letter: if unpublished.is_some() { DeadLetter::Destination } else { DeadLetter::Broker },
                ..batches_of(rng.i64(1..9))
            },
            messages,
            failures,
            is_modern: rng.bool(),
            losses: (0..rng.usize(..4)).map(|_| Duration::from_millis(rng.u64(..20_000))).collect(),
            unheard: rng.usize(..3),
            refusals: rng.usize(..3),
            unpublished,
        }
    }

    fn function(&self, mut rng: Rng, seen: Arc<Mutex<Seen>>) -> impl FnMut(&[String]) -> (Duration, Reply) + use<> {
        let mut failures = self.failures.clone();
        let reports = self.mapping.redelivery.reports_item_failures;
        move |ids| {
            let mut seen = seen.lock().expect("not poisoned");
            seen.invocations += 1;
            let now = Instant::now();
            seen.at_once = if seen.last_at == Some(now) { seen.at_once + 1 } else { 0 };
            seen.last_at = Some(now);
            let takes = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(..3_000) });
            let held = match rng.u8(..20) {
                0 => Some(throttled()),
                1 => Some(Outcome::Unavailable { reason: "away".into(), retry_after: None }),
                2 => Some(Outcome::NotUsable { reason: "404".into() }),
                3 if ids.len() > 1 => Some(Outcome::TooLarge { reason: "413".into() }),
                _ => None,
            };
            if let Some(held) = held {
                return (takes, held.into());
            }
            let failed: Vec<_> = ids.iter().filter(|id| failures[*id] > 0).cloned().collect();
            for id in &failed {
                let left = failures.get_mut(id).expect("is known");
                *left = if *left == FOR_EVER { FOR_EVER } else { *left - 1 };
            }
            // A function that does not name what failed fails as a whole, and so it does now and then if it could.
            let names = reports && rng.u8(..8) > 0;
            let blamed = if names || failed.is_empty() { &failed } else { ids };
            for id in blamed {
                *seen.failures.entry(id.clone()).or_default() += 1;
            }
            seen.succeeded.extend(ids.iter().filter(|id| !blamed.contains(id)).cloned());
            let reply = if !names && !failed.is_empty() {
                function_error().into()
            } else {
                let items: Vec<_> = failed.iter().map(|id| format!(r#"{{"itemIdentifier":"{id}"}}"#)).collect();
                let body = format!(r#"{{"batchItemFailures":[{}]}}"#, items.join(","));
                Reply { outcome: Outcome::Success, body: body.into() }
            };
            (takes, reply)
        }
    }

    async fn run(&self, rng: &mut Rng) {
        let queue = MemoryQueue::new();
        if self.is_modern {
            queue.be_modern();
        }
        let destination = Arc::new(MemoryDestination::default());
        if let Some(times) = self.unpublished {
            destination.refuse(vec![lost(); times]);
            queue.send_failures_to(destination.clone());
        }
        queue.refuse(vec![lost(); self.refusals]);
        queue.refuse_to_settle(vec![lost(); self.unheard]);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let function = self.function(rng.fork(), seen.clone());
        let mut bench = Bench::start_answering(queue.clone(), self.mapping.clone(), function);
        queue.publish(0..self.messages);
        let started = Instant::now();
        let mut losses = self.losses.iter();
        while (0..self.messages).any(|id| queue.holds(&id.to_string())) {
            assert!(started.elapsed() < A_DAY, "{:?} and {} are left", queue.ready(), queue.unsettled());
            match losses.next() {
                Some(after) => {
                    sleep(*after).await;
                    queue.lose(lost());
                }
                None => sleep(Duration::from_secs(30)).await,
            }
            bench.invocations_so_far();
        }
        self.check(&seen.lock().expect("not poisoned"), &queue, &destination);
    }

    fn check(&self, seen: &Seen, queue: &MemoryQueue, destination: &MemoryDestination) {
        let published: BTreeSet<_> = destination.ids().into_iter().collect();
        let given_up: BTreeSet<_> = queue.dead_letters().into_iter().chain(published.clone()).collect();
        let acked = queue.acked();
        let settled: BTreeSet<_> = acked.iter().cloned().chain(queue.dead_letters()).collect();
        assert_eq!(settled.len(), acked.len() + queue.dead_letters().len(), "each once");
        assert_eq!(settled.len(), self.messages, "and none of them not at all");
        for id in &acked {
            assert!(seen.succeeded.contains(id) || published.contains(id), "{id} was acknowledged for no reason");
        }
        let bound = self.mapping.redelivery.maximum_redeliveries.unwrap_or(FOR_EVER);
        for id in &given_up {
            let failures = seen.failures.get(id).copied().unwrap_or(0);
            assert!(failures > bound, "{id} was given up after {failures} failures");
            // What could not be settled after all was said comes again, and may succeed then.
            assert!(self.unheard > 0 || !seen.succeeded.contains(id), "{id} had succeeded");
        }
        assert!(seen.at_once < 60 * self.messages, "a hot loop: {} invocations at once", seen.at_once);
        assert!(seen.invocations < 2_000, "{} invocations", seen.invocations);
    }
}

#[test]
fn whatever_fails_every_message_is_done_or_given_up_and_never_both_and_never_neither() {
    let seed = std::env::var("ESM_TEST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let count = if std::env::var_os("ESM_TEST_ALL").is_some() { 10_000 } else { 1_000 };
    let seeds = seed.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut rng = Rng::with_seed(seed);
            let schedule = Schedule::new(&mut rng);
            on_paused_time(schedule.run(&mut rng));
        });
        assert!(run.is_ok(), "ESM_TEST_SEED={seed} fails");
    }
}
