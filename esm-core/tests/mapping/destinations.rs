//! Where messages go that are given up, and those that are too old.

use esm_core::{destination::Letter, mapping::RedeliveryPolicy, metrics::DropReason, testing::MemoryDestination};

use super::{
    redelivery::{fails_with, like_activemq, modern_queue, with_redeliveries},
    *,
};

fn to_destination(mapping: Mapping) -> Mapping {
    Mapping { dead_letter: DeadLetter::Destination, ..mapping }
}

fn queue_with_destination() -> (MemoryQueue, Arc<MemoryDestination>) {
    let (queue, destination) = (modern_queue(), Arc::new(MemoryDestination::default()));
    queue.send_failures_to(destination.clone());
    (queue, destination)
}

fn reason(letter: &Letter, name: &str) -> String {
    let reasons = letter.reasons(4_096);
    let (_, text) = reasons.iter().find(|(found, _)| *found == name).expect("has the reason");
    text.clone()
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_published_with_its_reasons_and_then_acknowledged() {
    let (queue, destination) = queue_with_destination();
    let mapping = to_destination(with_redeliveries(1, like_activemq(2)));
    let mut bench = Bench::start_answering(queue, mapping, fails_with("a"));
    bench.queue.publish(["a", "b"]);
    bench.queue.publish_unusable("map", DropReason::MessageType);
    bench.queue.publish_with(["large"], EVENT_SIZE_LIMIT, None);
    sleep(Duration::from_secs(60)).await;

    let mut ids = destination.ids();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "large", "map"]);
    let letters = destination.letters();
    let (_, letter) = letters.iter().find(|(id, _)| id == "a").expect("it was published");
    assert_eq!(reason(letter, "esm_reason"), "attempts");
    assert_eq!(reason(letter, "esm_attempts"), "2");
    assert_eq!(reason(letter, "esm_cause"), "the function failed with it 2 times, at last with E: m");
    assert_eq!(reason(letter, "esm_queue"), "queue");
    assert_eq!(reason(letter, "esm_function"), "function");
    assert_eq!(letter.reasons(12)[7].1, "the function");
    assert!(bench.queue.dead_letters().is_empty(), "the broker's own way is not taken");
    assert_eq!(bench.queue.unsettled(), 0);
    assert_eq!(bench.metric("esm_on_failure_destination_delivered_events_total", None), 3.0);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("attempts")), 1.0);
    assert_eq!(bench.metric("esm_deleted_events_total", None), 1.0, "of b alone");
    while bench.was_invoked() {}
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_published_stays_until_it_can_and_says_so() {
    let (queue, destination) = queue_with_destination();
    destination.refuse(vec![lost(); 3]);
    let mapping = to_destination(with_redeliveries(0, like_activemq(1)));
    let mut bench = Bench::start_answering(queue, mapping, fails_with("a"));
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_millis(100)).await;
    assert!(bench.queue.acked().is_empty());
    assert_eq!(bench.queue.unsettled(), 2);
    let said = bench.status().last_processing_result;
    assert!(said.starts_with("PROBLEM: a message that is given up cannot be published to its destination"), "{said}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(destination.ids(), [] as [String; 0], "1 s, 2 s and 4 s later");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(destination.ids(), ["a"]);
    assert_eq!(bench.queue.acked(), ["a", "b"]);
    assert_eq!(bench.invocations_so_far().len(), 2, "the function is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_target_that_is_out_of_reach_for_a_while_costs_no_session() {
    let queue = modern_queue();
    queue.delay_dead_letters(vec![lost(); 3]);
    let mapping = Mapping { dead_letter: DeadLetter::Broker, ..with_redeliveries(0, like_activemq(1)) };
    let mut bench = Bench::start_answering(queue, mapping, fails_with("a"));
    bench.queue.publish(["a", "b"]);
    sleep(Duration::from_millis(100)).await;
    let said = bench.status().last_processing_result;
    assert!(said.starts_with("PROBLEM: a message that is given up cannot be published"), "{said}");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.queue.dead_letters(), ["a"]);
    assert_eq!(bench.queue.acked(), ["b"]);
    assert_eq!(bench.queue.sessions(), 1);
    assert_eq!(bench.invocations_so_far().len(), 2, "the function is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_back_what_could_not_be_published() {
    let (queue, destination) = queue_with_destination();
    destination.refuse(vec![lost(); 1_000]);
    let mapping = to_destination(with_redeliveries(0, like_activemq(1)));
    let mut bench = Bench::start_answering(queue, mapping, fails_with("a"));
    bench.queue.publish(["a", "b"]);
    bench.next_invocation().await;
    sleep(Duration::from_millis(100)).await;
    bench.supervisor.drain().await;
    assert_eq!(bench.queue.ready(), ["a", "b"]);
    let mut returned = bench.queue.returned();
    returned.sort_unstable();
    assert_eq!(returned, [("a".into(), true), ("b".into(), false)]);
    assert!(destination.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_older_than_the_mapping_wants_it_is_given_up_untried() {
    let redelivery = RedeliveryPolicy { maximum_age: Some(Duration::from_secs(60)), ..RedeliveryPolicy::RABBITMQ };
    let mapping = Mapping { redelivery, dead_letter: DeadLetter::Broker, ..batches_of(3) };
    let mut bench = Bench::start(mapping, []);
    bench.queue.publish_aged("old", Duration::from_secs(61));
    bench.queue.publish_aged("young", Duration::from_secs(59));
    bench.queue.publish(["new"]);
    assert_eq!(bench.next_invocation().await.ids, ["young", "new"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.dead_letters(), ["old"]);
    assert_eq!(bench.queue.acked(), ["young", "new"]);
    assert_eq!(bench.metric("esm_dropped_events_total", Some("age")), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_becomes_too_old_while_it_is_retried_is_given_up_and_its_neighbours_go_on() {
    let redelivery = RedeliveryPolicy { maximum_age: Some(Duration::from_secs(60)), ..RedeliveryPolicy::RABBITMQ };
    let mapping = Mapping { redelivery, dead_letter: DeadLetter::Broker, ..batches_of(2) };
    let mut bench = Bench::start_answering(modern_queue(), mapping, fails_with("old"));
    bench.queue.publish_aged("old", Duration::from_secs(50));
    bench.queue.publish(["new"]);
    sleep(Duration::from_secs(60)).await;
    let invocations = bench.invocations_so_far();
    let last = invocations.last().expect("it was invoked");
    assert_eq!(last.ids, ["new"]);
    assert!(invocations.len() >= 4);
    assert_eq!(bench.queue.dead_letters(), ["old"]);
    assert_eq!(bench.queue.acked(), ["new"]);
    let causes = bench.queue.causes();
    assert!(causes[0].starts_with("it is older than 60 s; the function has failed with it"), "{causes:?}");
}
