//! Queues that count how often a message comes back, and drop it beyond a limit.

use std::collections::BTreeSet;

use esm_core::{
    memory::Memory,
    source::{Connect, Terms},
};

use super::*;

const LIMIT: u32 = 20;

fn counting() -> MemoryQueue {
    let queue = MemoryQueue::new();
    queue.limit_deliveries(LIMIT);
    queue
}

/// Lends and takes back what the queue holds, as crashes do.
async fn crash(queue: &MemoryQueue, times: u32) {
    for _ in 0..times {
        let session =
            queue.connect(Terms { prefetch: 1_000, alone: false, memory: Memory::DEFAULT }).await.expect("connects");
        queue.lose(lost());
        drop(session);
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_five_ends_in_good_order_drop_nothing_that_waits_for_its_batch() {
    let queue = counting();
    let mapping = Mapping { window: 60.try_into().unwrap(), ..mapping() };
    let mut published = BTreeSet::new();
    for round in 0..25 {
        let ids: Vec<_> = (0..10).map(|number| format!("{round}-{number}")).collect();
        published.extend(ids.clone());
        let bench = Bench::start_on(queue.clone(), mapping.clone(), []);
        queue.publish(ids);
        sleep(Duration::from_secs(1)).await;
        assert!(queue.unsettled() >= 10, "they wait for their batch");
        bench.supervisor.drain().await;
    }
    let _bench = Bench::start_on(queue.clone(), mapping, []);
    sleep(Duration::from_secs(120)).await;

    assert_eq!(queue.dropped(), Vec::<String>::new());
    assert_eq!(queue.acked().into_iter().collect::<BTreeSet<_>>(), published);
}

#[tokio::test(start_paused = true)]
async fn what_never_came_back_is_handed_back_at_the_end() {
    let queue = counting();
    let mut bench = Bench::start_on(queue.clone(), Mapping { window: 60.try_into().unwrap(), ..mapping() }, []);
    queue.publish(["a", "b"]);
    sleep(Duration::from_secs(1)).await;

    let asked = Instant::now();
    let Bench { supervisor, invocations, .. } = &mut bench;
    std::mem::replace(supervisor, Supervisor::new(metrics(), Conditions::default())).drain().await;

    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert!(invocations.try_recv().is_err());
    assert_eq!(queue.ready(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_came_back_is_worked_off_at_the_end_while_the_deadline_allows() {
    let queue = counting();
    queue.publish(1..=10);
    crash(&queue, 1).await;
    // With a minute's timeout of the function the end may begin invocations for five seconds.
    let slow = vec![(Duration::from_secs(2), Outcome::Success); 10];
    let mut bench = Bench::start_on(queue.clone(), batches_of(2), slow);
    bench.next_invocation().await;

    let supervisor = std::mem::replace(&mut bench.supervisor, Supervisor::new(metrics(), Conditions::default()));
    supervisor.drain().await;

    assert_eq!(queue.acked(), ["1", "2", "3", "4"], "all that was lent");
    assert_eq!(queue.returned(), []);

    let bench = Bench::start_on(queue.clone(), batches_of(2), vec![(Duration::from_secs(6), Outcome::Success); 10]);
    sleep(Duration::from_secs(1)).await;
    bench.supervisor.drain().await;
    assert_eq!(queue.acked(), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(queue.returned(), [("7".into(), false), ("8".into(), false)], "it would have begun too late");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_would_soon_drop_is_invoked_next_and_alone() {
    let queue = counting();
    queue.publish(["often"]);
    crash(&queue, LIMIT - 3).await;
    queue.publish(["a", "b", "c"]);
    let mut bench = Bench::start_on(queue, batches_of(3), []);

    assert_eq!(bench.next_invocation().await.ids, ["often"]);
    assert_eq!(bench.next_invocation().await.ids, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_would_soon_drop_is_tried_again_until_the_end_has_no_more_time() {
    let queue = counting();
    queue.publish(["often"]);
    crash(&queue, LIMIT - 3).await;
    let mut bench = Bench::start_on(queue.clone(), mapping(), vec![at_once(function_error()); 2]);
    bench.next_invocation().await;

    let supervisor = std::mem::replace(&mut bench.supervisor, Supervisor::new(metrics(), Conditions::default()));
    supervisor.drain().await;

    assert_eq!(queue.acked(), ["often"]);
    assert_eq!(bench.invocations_so_far().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_would_soon_drop_is_not_given_back_for_being_held_long() {
    let queue = counting();
    queue.limit_hold(Duration::from_secs(90));
    queue.publish(["often"]);
    crash(&queue, LIMIT - 3).await;
    let mut bench = Bench::start_on(queue.clone(), mapping(), vec![at_once(function_error()); 12]);
    for _ in 0..13 {
        bench.next_invocation().await;
    }
    sleep(Duration::from_secs(1)).await;

    assert_eq!(queue.returned(), []);
    assert_eq!(queue.acked(), ["often"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_batch_that_is_held_for_long_goes_back_and_comes_again_when_it_is_done() {
    let queue = MemoryQueue::new();
    queue.limit_hold(Duration::from_secs(1_740));
    let mut script = vec![at_once(function_error()); 22]; // well over a quarter of an hour, whatever is left to chance
    script.extend([at_once(Outcome::Success), (Duration::from_secs(10), Outcome::Success)]);
    let mut bench = Bench::start_on(queue.clone(), batches_of(2), script);
    queue.publish(1..=6);
    let first = bench.next_invocation().await;
    assert_eq!(queue.unsettled(), 4);

    sleep(Duration::from_secs(860)).await;
    assert_eq!(queue.returned(), []);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(queue.returned(), [("3".into(), false), ("4".into(), false)]);
    assert_eq!((queue.unsettled(), queue.sessions()), (2, 1), "the batch stays where it is");

    let again = loop {
        let invocation = bench.next_invocation().await;
        if invocation.ids != first.ids {
            break invocation;
        }
    };
    assert_eq!((again.ids.concat(), queue.acked()[..2].concat(), queue.prefetch()), ("34".into(), "12".into(), 2));
    assert_eq!(queue.returned().len(), 2, "what was tried stayed");

    sleep(Duration::from_secs(60)).await;
    queue.publish([7]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((queue.acked().concat(), queue.prefetch()), ("1234567".into(), 4), "it was an exception");
}

fn metrics() -> Metrics {
    Metrics::register(&Registry::new()).expect("registers")
}
