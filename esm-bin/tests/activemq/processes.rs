//! Functions that are processes here: what becomes of messages and processes when either is killed.

use esm_activemq::testing::{Messages, TestBroker};

use crate::{
    broker::ONE_BY_ONE,
    common::{
        record::{Record, kill, runs},
        service::{Service, wait_for},
    },
};

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_batch_whose_process_is_killed_is_invoked_again_and_nothing_is_lost() {
    let broker = TestBroker::shared();
    let queue = broker.queue("killed-process");
    broker.produce(&queue, Messages::text("{n}").count(4)).await;
    let record = Record::new();
    record.hold();
    let config = record.config(&broker, 1).mapping(&queue, &format!("batch_size = 2\n{ONE_BY_ONE}"));
    let service = Service::start(&config).await;
    let first = record.started(1).await[0].process;

    kill(first);

    service.metric_becomes("esm_errors_total", &[], 1).await;
    let shown = service.shows(&queue, "Runtime.ExitError").await;
    assert!(shown["LastProcessingResult"].as_str().is_some_and(|said| said.contains("signal: killed")), "{shown}");
    record.release();
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;
    assert_eq!(record.ended(), ["0,1", "2,3"], "each once, in order");
    assert_ne!(record.starts()[1].process, first, "another process took over");
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
    for (name, expected) in [("esm_invocations_total", 3), ("esm_errors_total", 1), ("esm_dropped_events_total", 0)] {
        assert_eq!(service.metric(name, &[]).await, expected, "{name}");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn no_process_of_a_function_survives_a_service_that_is_killed() {
    let broker = TestBroker::shared();
    let queue = broker.queue("killed-service");
    let record = Record::new();
    let concurrent = "batch_size = 1\nscaling_config = { maximum_concurrency = 3 }";
    let config = record.config(&broker, 3).mapping(&queue, concurrent);
    let mut service = Service::start(&config).await;
    // One of three has nothing to do when it happens.
    record.hold();
    broker.produce(&queue, Messages::text("before {n}").count(3)).await;
    record.started(3).await;
    record.release();
    service.metric_becomes("esm_deleted_events_total", &[], 3).await;
    record.hold();
    broker.produce(&queue, Messages::text("after {n}").count(2)).await;
    let starts = record.started(5).await;
    assert!(starts.iter().all(|line| runs(line.process)), "two are at work");

    service.kill();

    for start in &starts {
        wait_for("the function's processes to end", || (!runs(start.process)).then_some(())).await;
    }
    record.release();
    service.start_again().await;
    service.metric_becomes("esm_deleted_events_total", &[], 2).await;
    let mut ended = record.ended();
    ended.sort();
    assert_eq!(ended, ["after 0", "after 1", "before 0", "before 1", "before 2"]);
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
}
