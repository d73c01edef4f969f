//! The disk under the store is full: the control API says so, messages flow, and it heals when there is room.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    bench::{Bench, Ledger, numbered},
    common::{
        function::{Answer, Function},
        service::Service,
    },
};

on_both_brokers! {
    a_disk_that_is_full,
}

const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
const BROKER_ARN: &str = "arn:aws:mq:us-east-1:000000000000:broker:test:b-1";

/// A file system of a megabyte.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).output();
        let mounted = mounted.expect("mount runs");
        let words = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test mounts a file system, which needs root: {words}");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.filler()).expect("opens");
        for size in [4096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("removes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it until then.
        drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
    }
}

/// The control API without a client of AWS's.
struct Api {
    service: Service,
    client: Client,
}

impl Api {
    async fn call(&self, method: Method, path: &str, body: &Value) -> (StatusCode, String, Value) {
        let url = self.service.url(&format!("{MAPPINGS}{path}"));
        let answer = self.client.request(method, url).json(body).send().await.expect("is answered");
        let kind = answer.headers().get("x-amzn-errortype").map(|kind| kind.to_str().expect("a text").to_owned());
        (answer.status(), kind.unwrap_or_default(), answer.json().await.expect("is JSON"))
    }

    async fn create(&self, queue: &str) -> (StatusCode, String, Value) {
        let request = json!({
            "EventSourceArn": BROKER_ARN, "FunctionName": "function", "Queues": [queue], "Enabled": false,
            "SourceAccessConfigurations":
                [{ "Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:us-east-1:000000000000:secret:administrator" }],
            // So that few of them fill a page of the store.
            "Tags": { "esm-test": "x".repeat(200) },
        });
        self.call(Method::POST, "", &request).await
    }

    async fn queues(&self) -> Vec<Value> {
        let (status, _, list) = self.call(Method::GET, "", &Value::Null).await;
        assert_eq!(status, StatusCode::OK);
        let mappings = list["EventSourceMappings"].as_array().expect("a list").iter();
        mappings.filter(|mapping| mapping["State"] == "Disabled").map(|mapping| mapping["Queues"][0].clone()).collect()
    }
}

async fn a_disk_that_is_full<B: Bench>() {
    const MANY: usize = 2_000;
    let bench = B::shared("full-disk").await;
    let disk = SmallDisk::mount();
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(5))).await;
    let mut config = bench.config(&function, "batch_size = 10\nmaximum_batching_window_in_seconds = 0");
    config.server = format!("data_dir = '{}'", disk.path().display());
    config.broker = format!("arn = {BROKER_ARN:?}");
    config.tables = format!(
        "[secrets.\"arn:aws:secretsmanager:us-east-1:000000000000:secret:administrator\"]\nusername = {:?}\n\
         password = {{ env = \"ADMINISTRATOR_PASSWORD\" }}\n",
        B::ADMINISTRATOR
    );
    let mut api = Api { service: Service::start(&config).await, client: Client::new() };
    let (status, _, before) = api.create("before").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{before}");

    disk.fill();
    bench.publish_numbered(MANY).await;
    let mut refused = 0;
    for number in 0..20 {
        let (status, kind, said) = api.create(&format!("full-{number}")).await;
        if status == StatusCode::ACCEPTED {
            continue; // there was room in a page that the store already had
        }
        assert_eq!((status.as_u16(), kind.as_str()), (500, "ServiceException"), "{said}");
        assert!(said.to_string().contains("full"), "{said}");
        refused += 1;
    }
    assert!(refused > 0, "the disk is full");
    let uuid = before["UUID"].as_str().expect("a text").to_owned();
    let (status, _, read) = api.call(Method::GET, &format!("/{uuid}"), &Value::Null).await;
    assert_eq!((status, &read["Queues"][0]), (StatusCode::OK, &json!("before")), "it can still be read");
    let (kept, (ready, _)) = (api.queues().await, api.service.readyz().await);
    assert_eq!(ready, 200, "it does what it is for");
    api.service.metric_becomes("esm_deleted_events_total", &[], MANY as u64).await;
    let ledger = Ledger::complete(&function, &numbered(MANY)).await;
    assert_eq!(ledger.repeated(), 0, "each message came once");

    api.service.kill();
    disk.make_room();
    api.service.start_again().await;
    assert_eq!(api.queues().await, kept, "what was answered is there, and what was refused is not");
    let (status, _, said) = api.create("after").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{said}");
    disk.fill();
    while api.create(&format!("again-{}", api.queues().await.len())).await.0 == StatusCode::ACCEPTED {}
    disk.make_room();
    let (status, _, said) = api.create("healed").await;
    assert_eq!(status, StatusCode::ACCEPTED, "it heals without a restart: {said}");
}
