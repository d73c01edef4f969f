//! A service whose process is killed in the middle of changes: every answered one is there afterwards, and
//! what runs is what should.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use esm::{
    config,
    control::{
        plane::{Changes, ControlError, ListFilter},
        spec::MappingSpec,
    },
    serve::Service,
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

/// Nothing listens at port 1: a mapping that is up keeps trying.
const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
[brokers.pizza]
engine = "activemq"
endpoints = ["tcp://127.0.0.1:1"]
[secrets.login]
username = "guest"
password = { env = "PASSWORD" }
[functions.f]
process = { command = ["absent"] }
"#;

const FOLDER: &str = "ESM_TEST_FOLDER";
/// Before each answer, since the test program writes lines of its own.
const ANSWER: &str = "answer: ";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    Create { queue: u8, enabled: bool },
    Update { uuid: Uuid, enabled: bool, batch_size: i64 },
    Delete { uuid: Uuid },
    Report,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    queue: String,
    enabled: bool,
    batch_size: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done { uuid: Uuid },
    Refused,
    Report { mappings: BTreeMap<Uuid, Kept>, running: BTreeSet<Uuid>, is_settled: bool },
}

#[test]
#[ignore = "the process that the other test starts and kills; by itself it has nothing to do"]
fn a_service_takes_orders_until_it_is_killed() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let environment = HashMap::from([("PASSWORD".into(), "hunter2".into())]);
        let config = config::read(CONFIGURATION, Path::new(&folder), &environment).expect("has no problems");
        let service = Service::start(config).await.unwrap();
        let (sender, mut orders) = tokio::sync::mpsc::channel(1);
        thread::spawn(move || {
            for line in std::io::stdin().lines() {
                sender.blocking_send(line.unwrap()).unwrap();
            }
        });
        while let Some(line) = orders.recv().await {
            let answer = obey(&service, serde_json::from_str(&line).unwrap()).await;
            println!("\n{ANSWER}{}", serde_json::to_string(&answer).unwrap());
        }
    });
}

async fn obey(service: &Service, order: Order) -> Answer {
    let plane = service.plane();
    let result = match order {
        Order::Create { queue, enabled } => {
            let (function, queue) = ("f".parse().unwrap(), queue.to_string());
            let spec = MappingSpec::new(function, "pizza".into(), queue, "login".into());
            plane.create(MappingSpec { enabled, ..spec }, BTreeMap::new()).await
        }
        Order::Update { uuid, enabled, batch_size } => {
            let batch_size = Some(batch_size.try_into().unwrap());
            plane.update(uuid, Changes { enabled: Some(enabled), batch_size, ..Changes::default() }).await
        }
        Order::Delete { uuid } => plane.delete(uuid).await,
        Order::Report => return report(service).await,
    };
    match result {
        Ok(view) => Answer::Done { uuid: view.uuid },
        Err(ControlError::Service(words)) => panic!("{words}"),
        Err(_) => Answer::Refused,
    }
}

async fn report(service: &Service) -> Answer {
    let (views, _) = service.plane().list(&ListFilter::default(), None, 100).await.unwrap();
    let is_settled = views.iter().all(|view| view.state.is_settled());
    let metrics = reqwest::get(format!("http://{}/metrics", service.address())).await.unwrap().text().await.unwrap();
    let series = metrics.lines().filter_map(|line| line.strip_prefix("esm_source_connected{mapping=\""));
    let running = series.map(|line| line[..36].parse().unwrap()).collect();
    let kept = views.into_iter().map(|view| {
        let batch_size = view.spec.batch_size.map(Into::into);
        (view.uuid, Kept { queue: view.spec.queue, enabled: view.spec.enabled, batch_size })
    });
    Answer::Report { mappings: kept.collect(), running, is_settled }
}

/// The process, killed when dropped.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<Answer>,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_service_takes_orders_until_it_is_killed", "--include-ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, answers) = mpsc::sync_channel(1);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix(ANSWER) {
                    sender.send(serde_json::from_str(answer).unwrap()).unwrap();
                }
            }
        });
        Self { orders: child.stdin.take().unwrap(), child, answers }
    }

    fn order(&mut self, order: &Order) {
        writeln!(self.orders, "{}", serde_json::to_string(order).unwrap()).unwrap();
    }

    fn ask(&mut self, order: &Order) -> Answer {
        self.order(order);
        self.answers.recv_timeout(PATIENCE).expect("it answers")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[derive(Clone, Debug)]
struct Round {
    answered: Vec<(u8, u8, bool, i64)>,
    /// Sent, and the process killed so many microseconds later.
    unanswered: (u8, u8, bool, i64),
    killed_after: u64,
}

fn round() -> impl Strategy<Value = Round> {
    let order = || (0..3_u8, 0..5_u8, any::<bool>(), 1..=10_000_i64);
    (prop::collection::vec(order(), 0..5), order(), 0..20_000_u64)
        .prop_map(|(answered, unanswered, killed_after)| Round { answered, unanswered, killed_after })
}

#[derive(Default)]
struct Model(BTreeMap<Uuid, Kept>);

impl Model {
    fn order(&self, (kind, which, enabled, batch_size): (u8, u8, bool, i64)) -> Order {
        let picked = self.0.keys().nth(usize::from(which)).copied();
        match (kind, picked) {
            (1, Some(uuid)) => Order::Update { uuid, enabled, batch_size },
            (2, Some(uuid)) => Order::Delete { uuid },
            _ => Order::Create { queue: which, enabled },
        }
    }

    fn note(&mut self, order: &Order, uuid: Uuid) {
        match order {
            Order::Create { queue, enabled } => {
                self.0.insert(uuid, Kept { queue: queue.to_string(), enabled: *enabled, batch_size: None });
            }
            Order::Update { enabled, batch_size, .. } => {
                let kept = self.0.get_mut(&uuid).unwrap();
                (kept.enabled, kept.batch_size) = (*enabled, Some(*batch_size));
            }
            Order::Delete { .. } => drop(self.0.remove(&uuid)),
            Order::Report => {}
        }
    }

    /// Compares after a start, and takes over what an unanswered order may have done.
    fn compare(&mut self, process: &mut Process, unanswered: Option<&Order>) {
        let deadline = Instant::now() + PATIENCE;
        let (mappings, running) = loop {
            let Answer::Report { mappings, running, is_settled } = process.ask(&Order::Report) else { panic!() };
            let should: BTreeSet<_> = mappings.iter().filter(|(_, kept)| kept.enabled).map(|(uuid, _)| *uuid).collect();
            if is_settled && running == should {
                break (mappings, running);
            }
            assert!(Instant::now() < deadline, "{running:?} run, and {should:?} should: {mappings:?}");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(running.len() <= mappings.len());
        if mappings == self.0 {
            return;
        }
        let order = unanswered.expect("every change was answered, and something differs");
        let uuid = match order {
            Order::Create { .. } => *mappings.keys().find(|uuid| !self.0.contains_key(uuid)).expect("it was made"),
            Order::Update { uuid, .. } | Order::Delete { uuid } => *uuid,
            Order::Report => panic!("a report changed something"),
        };
        self.note(order, uuid);
        assert_eq!(mappings, self.0, "after {order:?}");
    }
}

#[test]
fn every_answered_change_survives_the_death_of_the_process_and_what_runs_is_what_should() {
    let cases = if env::var_os("ESM_TEST_ALL").is_some() { 100 } else { 5 };
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&prop::collection::vec(round(), 1..4), |rounds| {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut process = Process::start(folder.path());
        for Round { answered, unanswered, killed_after } in rounds {
            for order in answered {
                let order = model.order(order);
                if let Answer::Done { uuid } = process.ask(&order) {
                    model.note(&order, uuid);
                }
            }
            let order = model.order(unanswered);
            process.order(&order);
            thread::sleep(Duration::from_micros(killed_after)); // the moment is what differs
            drop(process);
            process = Process::start(folder.path());
            model.compare(&mut process, Some(&order));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
