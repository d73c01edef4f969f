//! Active and standby: nothing is missing, whoever is killed on the way.

use std::{collections::HashSet, fs, path::PathBuf, time::Duration};

use esm_activemq::testing::{Messages, TestBroker};

use crate::{
    broker::redelivered,
    common::{
        function::{Answer, Function},
        service::{Config, Service, wait_for},
    },
    delivery::{MANY, numbered},
};

/// What is in flight when somebody is killed: five batches of a hundred.
const IN_FLIGHT: usize = 500;

async fn nothing_is_missing(name: &str, configure: impl Fn(&mut Config, &TestBroker, &TestBroker)) {
    let (active, standby) = TestBroker::pair(name).await;
    let queue = "test.pair";
    active.produce(queue, Messages::text("{n}").count(*MANY)).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(100))).await;
    let mut config = Config::new(&active, &function.url).mapping(queue, "");
    configure(&mut config, &active, &standby);
    let mut service = Service::start(&config).await;
    let reaches = async |progress: usize| {
        wait_for("progress", || (function.bodies().len() > *MANY * progress / 10).then_some(())).await;
    };

    reaches(2).await;
    active.kill().await;
    reaches(4).await; // so the standby has taken over, and we have found it
    service.kill();
    let before_the_kill = function.calls().len();
    service.start_again().await;
    reaches(6).await;
    let after_the_kill = function.calls().len();
    active.start().await;
    standby.kill().await;

    wait_for("every message", || {
        let seen: HashSet<_> = function.bodies().into_iter().collect();
        (seen.len() == *MANY).then_some(())
    })
    .await;
    active.wait_until(queue, |statistics| statistics.size == 0).await;
    let bodies = function.bodies();
    assert_eq!(bodies.iter().cloned().collect::<HashSet<_>>(), numbered(*MANY));
    let repeated = bodies.len() - *MANY;
    assert!(repeated <= 3 * IN_FLIGHT, "{repeated} were repeated, more than were in flight");
    assert!(service.metric("esm_reconnects_total", &[]).await >= 1);

    // The broker knows what it lent to a client that went away; a broker that was killed does not.
    let calls = function.calls();
    let known: HashSet<_> = calls[..before_the_kill].iter().flat_map(|call| &call.bodies).collect();
    for call in &calls[before_the_kill..after_the_kill] {
        for (body, again) in call.bodies.iter().zip(redelivered(call)) {
            assert!(again || !known.contains(body), "{body} comes again and does not say so");
        }
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn nothing_is_missing_when_brokers_fail_over_and_back_and_the_service_is_killed() {
    nothing_is_missing("pair", |config, active, standby| {
        config.endpoints = vec![active.url.clone(), standby.url.clone()];
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn nothing_is_missing_when_brokers_fail_over_and_back_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let authorities: PathBuf = folder.path().join("authorities.pem");
    nothing_is_missing("tls-pair", |config, active, standby| {
        // Each node has an authority of its own.
        let both = [&active.ca_file, &standby.ca_file].map(|file| fs::read_to_string(file).expect("reads"));
        fs::write(&authorities, both.concat()).expect("writes");
        config.endpoints = vec![active.tls_url.clone(), standby.tls_url.clone()];
        config.broker = format!("tls = {{ ca_file = {authorities:?} }}");
    })
    .await;
}
