//! What ten thousand mappings cost. Prints figures; only what they are figures of is asserted.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails the test")]

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use esm::{
    config,
    control::{
        plane::{LONGEST_PAGE, ListFilter},
        spec::MappingSpec,
        store::SqliteStore,
    },
    serve::Service,
};
use esm_core::{
    status::State,
    store::{Store as _, StoredMapping},
    testing::stored_mapping,
};
use tokio::time::Instant;

const ALL: u128 = 10_000;
const ENABLED: u128 = 100;
const CREATED: usize = 200;

/// Nothing listens at port 1: a mapping that is up keeps trying.
const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
[brokers.pizza]
engine = "activemq"
endpoints = ["tcp://127.0.0.1:1"]
arn = "arn:aws:mq:us-east-1:111122223333:broker:pizza:b-1"
[secrets.login]
username = "guest"
password = { env = "PASSWORD" }
[functions.f]
process = { command = ["absent"] }
"#;

fn spec(queue: String) -> MappingSpec {
    MappingSpec::new("f".parse().unwrap(), "pizza".into(), queue, "login".into())
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and prints figures"]
async fn ten_thousand_mappings_of_which_a_hundred_run() {
    let folder = tempfile::tempdir().unwrap();
    let environment = HashMap::from([("PASSWORD".into(), "hunter2".into())]);
    let config = config::read(CONFIGURATION, folder.path(), &environment).expect("has no problems");
    let store = SqliteStore::open(&config.server.data_dir).await.unwrap();
    for number in 1..=ALL {
        let enabled = number <= ENABLED;
        let mut mapping = stored_mapping(number);
        mapping.spec = serde_json::to_string(&MappingSpec { enabled, ..spec(mapping.route.queue.clone()) }).unwrap();
        mapping.state = if enabled { State::Enabled } else { State::Disabled };
        store.add(&StoredMapping { ..mapping }).await.unwrap();
    }
    store.close().await;
    drop(store);

    let started_at = Instant::now();
    let service = Service::start(config).await.unwrap();
    let plane = service.plane();
    let readiness = loop {
        let readiness = plane.readiness().await.unwrap();
        if readiness.is_ready {
            break readiness;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let ready = started_at.elapsed();
    assert_eq!(readiness.mappings.len(), usize::try_from(ALL).unwrap());
    assert_eq!(readiness.mappings.iter().filter(|mapping| mapping.state == State::Enabled).count(), 100);

    let asked_at = Instant::now();
    plane.readiness().await.unwrap();
    let readyz = asked_at.elapsed();

    let (mut pages, mut marker, mut listed) = (Vec::new(), None, 0);
    loop {
        let asked_at = Instant::now();
        let (page, next) = plane.list(&ListFilter::default(), marker.as_deref(), LONGEST_PAGE).await.unwrap();
        pages.push(asked_at.elapsed());
        listed += page.len();
        marker = next;
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(listed, usize::try_from(ALL).unwrap());

    let mut creates = Vec::new();
    for number in 0..CREATED {
        let spec = MappingSpec { enabled: false, ..spec(format!("created {number}")) };
        let asked_at = Instant::now();
        plane.create(spec, BTreeMap::new()).await.unwrap();
        creates.push(asked_at.elapsed());
    }
    println!("start to ready: {ready:?}");
    println!("readiness of all: {readyz:?}");
    println!("a page of {LONGEST_PAGE}: {:?} (median of {})", median(pages.clone()), pages.len());
    println!("Create: {:?} (median of {CREATED})", median(creates));
}
