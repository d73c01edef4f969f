//! The order of message groups.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use esm_activemq::testing::{Messages, TestBroker};
use tokio::time::Instant;

use crate::{
    broker::records,
    common::{
        function::{Answer, Call, Function},
        service::{Config, Service},
    },
};

const GROUPS: usize = 50;
const MESSAGES: usize = 3_000;

/// What a function knows of one group.
#[derive(Default)]
struct Group {
    /// The numbers that have succeeded.
    succeeded: Vec<usize>,
    /// When the last invocation with one of its messages ends.
    busy_until: Option<Instant>,
}

/// Follows every group through the invocations, and writes down what is out of order.
#[derive(Default)]
struct Follower {
    groups: HashMap<String, Group>,
    complaints: Vec<String>,
}

impl Follower {
    fn invoked(&mut self, call: &Call, answer: Answer) {
        let mut numbers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (record, body) in records(call).iter().zip(&call.bodies) {
            let name = record["properties"]["JMSXGroupID"].as_str().expect("is in a group");
            numbers.entry(name).or_default().push(body.parse().expect("a number"));
        }
        for (name, numbers) in numbers {
            let group = self.groups.entry(name.to_owned()).or_default();
            let next = group.succeeded.last().map_or(numbers[0] % GROUPS, |last| last + GROUPS);
            let expected: Vec<_> = (0..numbers.len()).map(|place| next + place * GROUPS).collect();
            if numbers != expected {
                self.complaints.push(format!("{name} has {numbers:?} instead of {expected:?}"));
            }
            if group.busy_until.is_some_and(|end| call.at < end) {
                self.complaints.push(format!("{name} has {numbers:?} in two invocations at once"));
            }
            match answer {
                Answer::After(delay) => {
                    group.busy_until = Some(call.at + delay);
                    group.succeeded.extend(numbers);
                }
                _ => group.busy_until = None,
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn every_group_keeps_its_order_whatever_fails_with_five_batches_in_flight() {
    let broker = TestBroker::shared();
    let queue = broker.queue("groups");
    broker.produce(&queue, Messages::text("{n}").count(MESSAGES).group("group {n}").groups(GROUPS)).await;
    let follower = Arc::new(Mutex::new(Follower::default()));
    let follows = follower.clone();
    // Every ninth invocation fails; how invocations of five batches mix is chance.
    let mut invocations = 0;
    let function = Function::start_with(move |call| {
        invocations += 1;
        let number: u64 = call.bodies[0].parse().expect("a number");
        let fails = invocations % 9 == 0;
        let answer = if fails { Answer::FunctionError } else { Answer::After(Duration::from_millis(number % 13)) };
        follows.lock().expect("not poisoned").invoked(call, answer);
        answer
    })
    .await;
    let small = "batch_size = 20\nscaling_config = { maximum_concurrency = 5 }\nmaximum_retry_attempts = -1";
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, small)).await;

    service.metric_becomes("esm_deleted_events_total", &[], MESSAGES as u64).await;

    assert!(service.metric("esm_errors_total", &[]).await > 5, "something did fail");
    let follower = follower.lock().expect("not poisoned");
    assert_eq!(follower.complaints, Vec::<String>::new());
    assert_eq!(follower.groups.len(), GROUPS);
    assert!(follower.groups.values().all(|group| group.succeeded.len() == MESSAGES / GROUPS), "none is missing");
}
