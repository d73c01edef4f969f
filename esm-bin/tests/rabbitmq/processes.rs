//! Functions that are processes here: what becomes of messages and processes when either is killed, and how many
//! invocations run at once.

use std::collections::{HashMap, HashSet};

use esm_rabbitmq::testing::{Publisher, TestBroker};

use crate::common::{
    record::{Record, kill, runs},
    service::{Service, wait_for},
};

async fn queue(broker: &TestBroker, virtual_host: &str) -> Publisher {
    let publisher = broker.publisher(virtual_host).await;
    publisher.declare("queue", "quorum").await;
    publisher
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_batch_whose_process_is_killed_is_invoked_again_and_nothing_is_lost() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("killed process").await;
    let mut publisher = queue(&broker, &virtual_host).await;
    let record = Record::new();
    let config = record.config(&broker, 1).mapping_in(&virtual_host, "queue", "batch_size = 2");
    let service = Service::start(&config).await;
    record.hold();
    publisher.publish("queue", ["a", "b", "c", "d"]).await;
    let first = record.started(1).await[0].clone();
    service.metric_becomes("esm_concurrent_executions", &["function"], 1).await;

    kill(first.process);

    service.metric_becomes("esm_errors_total", &[], 1).await;
    let shown = service.shows("queue", "Runtime.ExitError").await;
    assert!(shown["LastProcessingResult"].as_str().is_some_and(|said| said.contains("signal: killed")), "{shown}");
    record.release();
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;
    assert_eq!(record.ended(), ["a,b", "c,d"], "each once, in order");
    let processes: Vec<u32> = record.starts().into_iter().map(|line| line.process).collect();
    assert_ne!(processes[0], processes[1], "another process took over");
    assert!(publisher.take("queue").await.is_none(), "the queue is empty");
    for (name, expected) in [
        ("esm_invocations_total", 3),
        ("esm_errors_total", 1),
        ("esm_throttles_total", 0),
        ("esm_duration_seconds_count", 3),
        ("esm_concurrent_executions", 0),
    ] {
        assert_eq!(service.metric(name, &[]).await, expected, "{name}");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn no_process_of_a_function_survives_a_service_that_is_killed() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("killed service").await;
    let mut publisher = queue(&broker, &virtual_host).await;
    let record = Record::new();
    let concurrent = "batch_size = 1\nscaling_config = { maximum_concurrency = 3 }";
    let config = record.config(&broker, 3).mapping_in(&virtual_host, "queue", concurrent);
    let mut service = Service::start(&config).await;
    // One of three has nothing to do when it happens.
    publisher.publish("queue", ["a", "b", "c"]).await;
    service.metric_becomes("esm_deleted_events_total", &[], 3).await;
    record.hold();
    publisher.publish("queue", ["d", "e"]).await;
    let starts = record.started(5).await;
    assert!(starts[3..].iter().all(|line| runs(line.process)), "two are at work");

    service.kill();

    for start in &starts {
        wait_for("the function's processes to end", || (!runs(start.process)).then_some(())).await;
    }
    record.release();
    service.start_again().await;
    service.metric_becomes("esm_deleted_events_total", &[], 2).await;
    let mut ended = record.ended();
    ended.sort();
    assert_eq!(ended, ["a", "b", "c", "d", "e"]);
    assert!(publisher.take("queue").await.is_none(), "the queue is empty");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn on_sigterm_a_process_may_finish_its_invocation_and_then_ends() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("drained process").await;
    let mut publisher = queue(&broker, &virtual_host).await;
    let record = Record::new();
    let config = record.config(&broker, 1).mapping_in(&virtual_host, "queue", "batch_size = 2");
    let mut service = Service::start(&config).await;
    record.hold();
    publisher.publish("queue", ["a", "b", "c"]).await;
    let process = record.started(1).await[0].process;

    service.terminate();
    wait_for("the signal to be heeded", || service.log().contains("drain").then_some(())).await;
    assert!(runs(process), "it is not hurried");
    record.release();

    let status = service.ended().await;
    assert_eq!(status.code(), Some(0), "{}", service.log());
    assert_eq!(record.ended(), ["a,b"], "nothing more was invoked");
    assert!(!runs(process));
    let left = publisher.take("queue").await.map(|(_, body)| body);
    assert_eq!(left.as_deref(), Some(&b"c"[..]), "the running batch was acknowledged, the rest is there");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_is_counted_is_right_after_panics_and_timeouts() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("counted").await;
    let mut publisher = queue(&broker, &virtual_host).await;
    let record = Record::new();
    let mut config = record.config(&broker, 1).mapping_in(&virtual_host, "queue", "batch_size = 1");
    config.function = "timeout_in_seconds = 2".into();
    let service = Service::start(&config).await;

    publisher.publish("queue", ["panic", "hang", "last"]).await;

    service.shows("queue", "as the message asks for").await;
    record.started(3).await;
    service.metric_becomes("esm_concurrent_executions", &["function"], 1).await;
    service.shows("queue", "Task timed out after 2.00 seconds").await;
    service.metric_becomes("esm_deleted_events_total", &[], 3).await;
    assert_eq!(record.ended(), ["panic", "hang", "last"]);
    for (name, expected) in [
        ("esm_invocations_total", 5),
        ("esm_errors_total", 2),
        ("esm_throttles_total", 0),
        ("esm_duration_seconds_count", 5),
        ("esm_concurrent_executions", 0),
        ("esm_invoked_events_total", 5),
        ("esm_failed_invoke_events_total", 2),
    ] {
        assert_eq!(service.metric(name, &[]).await, expected, "{name}");
    }
    let process = record.starts()[0].process;
    assert_eq!(record.starts()[2].process, process, "a panic that the client reports ends nothing");
    assert_ne!(record.starts()[3].process, process, "a time-out ends the process");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn with_reserved_concurrency_1_one_invocation_runs_at_any_moment_and_ten_mappings_get_the_same() {
    const MAPPINGS: usize = 10;
    const INVOCATIONS: usize = 1_000;
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("one at a time").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    let record = Record::new();
    // More processes than may work, so that only the reservation is in their way.
    let mut config = record.config(&broker, 4);
    config.function = "reserved_concurrency = 1".into();
    for mapping in 0..MAPPINGS {
        let queue = format!("queue{mapping}");
        publisher.declare(&queue, "classic").await;
        publisher.publish(&queue, (0..INVOCATIONS / 5).map(|number| number.to_string())).await;
        config = config.mapping_in(&virtual_host, &queue, "batch_size = 1");
    }

    let service = Service::start(&config).await;
    wait_for("every mapping to have its turn", || {
        let queues: HashSet<_> = record.starts().into_iter().map(|line| line.queue).collect();
        (queues.len() == MAPPINGS).then_some(())
    })
    .await;
    let before = record.starts().len();
    let starts = record.started(before + INVOCATIONS).await;

    let mut shares = HashMap::<&str, usize>::new();
    for start in &starts[before..before + INVOCATIONS] {
        *shares.entry(&start.queue).or_default() += 1;
    }
    for (queue, share) in &shares {
        let percent = 100.0 * *share as f64 / INVOCATIONS as f64;
        assert!((7.0..=13.0).contains(&percent), "{queue} got {percent} %: {shares:?}");
    }
    assert_eq!(shares.len(), MAPPINGS);
    for pair in record.lines().chunks_exact(2) {
        let [start, end] = pair else { unreachable!("pairs") };
        assert!(start.is_start && !end.is_start, "two at once: {pair:?}");
        assert_eq!((&start.queue, &start.bodies), (&end.queue, &end.bodies));
    }
    assert!(service.metric("esm_throttles_total", &[]).await > 0, "they had to wait");
    let processes: HashSet<_> = starts.iter().map(|line| line.process).collect();
    assert_eq!(processes.len(), 1, "no more processes than are needed");
}
