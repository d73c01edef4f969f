//! How much is in hand: few deliveries first, more when it is known how large they are, and never more than there is
//! memory for.

use esm_core::filter::FilterCriteria;

use super::*;

const MEBIBYTE: usize = 1024 * 1024;

fn under(memory_limit: usize) -> Conditions {
    Conditions { memory_limit, ..Conditions::default() }
}

fn ids(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_small_messages_has_its_whole_prefetch_before_the_first_batch() {
    let slow = (Duration::from_secs(10), Outcome::Success);
    let mapping = Mapping { window: 300.try_into().unwrap(), ..batches_of(100) };
    let mut bench = Bench::start(mapping, [slow]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.prefetch(), 64, "nothing is known yet");

    bench.queue.publish_with(0..1_000, 1_000, None);
    assert_eq!(bench.next_invocation().await.ids.len(), 100, "the first batch is a full one");
    assert_eq!(bench.queue.prefetch(), 200);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked(), ids(0..1_000));
    assert_eq!((bench.queue.sessions(), bench.queue.returned()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_of_thousands_is_reached_step_by_step_within_the_first_batch() {
    let mapping = Mapping { window: 300.try_into().unwrap(), ..batches_of(10_000) };
    let mut bench = Bench::start(mapping, [(Duration::from_secs(10), Outcome::Success)]);
    bench.queue.publish(0..30_000);
    assert_eq!(bench.next_invocation().await.ids.len(), 10_000);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.queue.prefetch(), 20_000);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked(), ids(0..30_000));
    assert_eq!((bench.queue.sessions(), bench.queue.returned()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn large_messages_never_take_more_than_the_first_prefetch_and_all_come_once() {
    let slow = vec![(Duration::from_millis(100), Outcome::Success); 100];
    let mut bench = Bench::start(batches_of(10_000), slow);
    bench.queue.publish_with(0..200, MEBIBYTE, None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked(), ids(0..200));
    assert!(bench.queue.most_bytes() <= 64 * MEBIBYTE, "{}", bench.queue.most_bytes());
    assert_eq!((bench.queue.sessions(), bench.queue.returned()), (1, vec![]));
    let invoked: Vec<_> = bench.invocations_so_far().into_iter().flat_map(|invocation| invocation.ids).collect();
    assert_eq!(invoked, ids(0..200), "each once, in order");
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_suddenly_large_stay_within_the_memory_and_what_had_no_room_comes_again() {
    let (function, invocations) = ScriptedFunction::new([]);
    let (queue, large) = (MemoryQueue::new(), 3_000);
    queue.publish(0..20_000);
    queue.publish_with(20_000..20_000 + large, MEBIBYTE / 10, None);
    let bench = Bench::start_under(under(64 * MEBIBYTE), queue, batches_of(10_000), (function, invocations));
    let all = 20_000 + large as usize;
    timeout(Duration::from_secs(3_600), async {
        while bench.queue.acked().len() < all {
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("everything is processed");
    assert_eq!(bench.queue.acked(), ids(0..20_000 + large), "in order");
    assert!(bench.metric("esm_surplus_events_total", None) > 0.0);
    assert!(bench.queue.prefetch() < 200, "two events of 6 MiB: {}", bench.queue.prefetch());
    assert!(bench.queue.sessions() < 10, "{}", bench.queue.sessions());
    assert_eq!(bench.metric("esm_reconnects_total", None), 0.0, "no session was lost");
}

#[tokio::test(start_paused = true)]
async fn messages_of_which_two_are_more_than_the_memory_are_taken_one_at_a_time() {
    let (function, invocations) = ScriptedFunction::new([]);
    let queue = MemoryQueue::new();
    queue.publish_with(0..20, 4 * MEBIBYTE, None);
    let bench = Bench::start_under(under(5 * MEBIBYTE), queue, batches_of(10), (function, invocations));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked(), ids(0..20));
    assert_eq!(bench.queue.prefetch(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_that_no_filter_accepts_tell_their_size_as_well() {
    let filter = FilterCriteria::parse(&[r#"{"id":["wanted"]}"#.into()]).expect("is valid");
    let mapping = Mapping { filter: Some(Arc::new(filter)), ..batches_of(10_000) };
    let bench = Bench::start(mapping, []);
    bench.queue.publish_with(0..200, MEBIBYTE, None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.queue.acked().len(), 200);
    assert_eq!(bench.queue.prefetch(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_comes_gets_its_share_of_the_memory_from_the_others() {
    let (function, invocations) = ScriptedFunction::new([]);
    let mapping = batches_of(10_000);
    let mut bench =
        Bench::start_under(under(4 * MEBIBYTE), MemoryQueue::new(), mapping.clone(), (function.clone(), invocations));
    bench.queue.publish_with(0..10_000, 1_000, None);
    sleep(Duration::from_secs(60)).await;
    let alone = bench.queue.prefetch();
    assert!((1_000..2_100).contains(&alone), "2 MiB: {alone}");

    let other = Mapping { uuid: uuid::Uuid::from_u128(2), ..mapping };
    let metrics = Metrics::register(&Registry::new()).expect("registers");
    for number in 2..4 {
        let other = Mapping { uuid: uuid::Uuid::from_u128(number), ..other.clone() };
        let function = function.clone().into_function(&metrics);
        bench.supervisor.start(other, Arc::new(MemoryQueue::new()), function);
    }
    sleep(Duration::from_secs(1)).await;
    assert!(bench.queue.prefetch() * 2 < alone, "a third of it: {}", bench.queue.prefetch());
    assert_eq!((bench.queue.sessions(), bench.queue.returned()), (1, vec![]));
    assert_eq!(bench.queue.acked().len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn after_an_unclean_end_no_more_than_a_batch_is_borrowed_until_one_has_succeeded() {
    let after_unclean_end = Conditions { after_unclean_end: true, ..Conditions::default() };
    let failing_once = || ScriptedFunction::new([at_once(function_error())]);
    let queue = MemoryQueue::new();
    queue.count_losses();
    queue.publish(0..30);
    let mut bench = Bench::start_under(after_unclean_end, queue, batches_of(10), failing_once());
    assert_eq!(bench.next_invocation().await.ids.len(), 10);
    sleep(Duration::from_millis(100)).await;
    assert_eq!((bench.queue.prefetch(), bench.queue.unsettled()), (10, 10), "it has failed");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.queue.prefetch(), 20);
    assert_eq!((bench.queue.acked(), bench.queue.sessions()), (ids(0..30), 1));

    let uncounted = Bench::start_under(after_unclean_end, MemoryQueue::new(), batches_of(10), failing_once());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(uncounted.queue.prefetch(), 20, "its broker counts no losses");
}
