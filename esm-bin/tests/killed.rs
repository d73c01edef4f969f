//! `esm serve`, killed at any moment of a history of changes and started again: every answered change is
//! there, an unanswered one is there or not, and what runs is what should.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

/// Nothing listens at port 1: a mapping that runs keeps trying.
const CONFIGURATION: &str = r#"
[brokers.pizza]
engine = "rabbitmq"
endpoints = ["amqp://127.0.0.1:1"]
arn = "arn:aws:mq:us-east-1:111122223333:broker:pizza:b-1"
[secrets.login]
username = "guest"
password = { env = "PASSWORD" }
[functions.f]
process = { command = ["absent"] }
"#;
const BROKER_ARN: &str = "arn:aws:mq:us-east-1:111122223333:broker:pizza:b-1";
const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
const SEED: &str = "ESM_TEST_SEED";
const PATIENCE: Duration = Duration::from_secs(60);
/// Histories that go on at once: each one mostly waits.
const AT_ONCE: usize = 4;

/// One change that somebody asks for.
#[derive(Clone, Debug)]
enum Act {
    Create { queue: u64, enabled: bool, batch_size: u64 },
    Resize { uuid: Uuid, batch_size: u64 },
    Switch { uuid: Uuid, enabled: bool },
    Tag { uuid: Uuid, key: String, value: String },
    Untag { uuid: Uuid, key: String },
    Delete { uuid: Uuid },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    queue: String,
    enabled: bool,
    batch_size: u64,
    tags: BTreeMap<String, String>,
}

/// What was answered so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<Uuid, Kept>);

impl Model {
    fn pick_act(&self, random: &mut fastrand::Rng) -> Act {
        let create = |random: &mut fastrand::Rng| Act::Create {
            queue: random.u64(0..6),
            enabled: random.bool(),
            batch_size: random.u64(1..=10_000),
        };
        if self.0.is_empty() {
            return create(random);
        }
        let uuid = *self.0.keys().nth(random.usize(0..self.0.len())).unwrap();
        let key = format!("tag {}", random.u8(0..3));
        match random.u8(0..12) {
            0..=3 => create(random),
            4 | 5 => Act::Resize { uuid, batch_size: random.u64(1..=10_000) },
            6 | 7 => Act::Switch { uuid, enabled: random.bool() },
            8 => Act::Tag { uuid, key, value: random.u64(..).to_string() },
            9 => Act::Untag { uuid, key },
            _ => Act::Delete { uuid },
        }
    }

    /// Takes over what was done. `created` is the UUID of what was made, if something was.
    fn note(&mut self, act: &Act, created: Option<Uuid>) {
        let mut change = |uuid: &Uuid, change: &dyn Fn(&mut Kept)| change(self.0.get_mut(uuid).unwrap());
        match act {
            Act::Create { queue, enabled, batch_size } => {
                let (queue, tags) = (queue.to_string(), BTreeMap::from([("made".into(), queue.to_string())]));
                let kept = Kept { queue, enabled: *enabled, batch_size: *batch_size, tags };
                self.0.insert(created.unwrap(), kept);
            }
            Act::Resize { uuid, batch_size } => change(uuid, &|kept| kept.batch_size = *batch_size),
            Act::Switch { uuid, enabled } => change(uuid, &|kept| kept.enabled = *enabled),
            Act::Tag { uuid, key, value } => change(uuid, &|kept| drop(kept.tags.insert(key.clone(), value.clone()))),
            Act::Untag { uuid, key } => change(uuid, &|kept| drop(kept.tags.remove(key))),
            Act::Delete { uuid } => drop(self.0.remove(uuid)),
        }
    }
}

impl Act {
    /// Method, path and body.
    fn request(&self) -> (&'static str, String, Value) {
        let mapping = |uuid: &Uuid| format!("{MAPPINGS}/{uuid}");
        match self {
            Self::Create { queue, enabled, batch_size } => {
                let body = json!({
                    "FunctionName": "f", "EventSourceArn": BROKER_ARN, "Queues": [queue.to_string()],
                    "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": "login" }],
                    "Enabled": enabled, "BatchSize": batch_size, "Tags": { "made": queue.to_string() },
                });
                ("POST", MAPPINGS.into(), body)
            }
            Self::Resize { uuid, batch_size } => ("PUT", mapping(uuid), json!({ "BatchSize": batch_size })),
            Self::Switch { uuid, enabled } => ("PUT", mapping(uuid), json!({ "Enabled": enabled })),
            Self::Tag { uuid, key, value } => ("POST", tags_path(*uuid), json!({ "Tags": { key.as_str(): value } })),
            Self::Untag { uuid, key } => {
                ("DELETE", format!("{}?tagKeys={}", tags_path(*uuid), key.replace(' ', "%20")), Value::Null)
            }
            Self::Delete { uuid } => ("DELETE", mapping(uuid), Value::Null),
        }
    }

    /// Whether an answer says that it was done. If not, it must be for a reason that this act can have.
    fn was_done(&self, (status, body): &(u16, String)) -> bool {
        let is_conflict = *status == 409 && matches!(self, Self::Create { .. });
        let is_in_use = *status == 400 && body.contains("because it is in use");
        assert!(matches!(status, 202 | 204) || is_conflict || is_in_use, "{self:?}: {status} {body}");
        matches!(status, 202 | 204)
    }
}

fn tags_path(uuid: Uuid) -> String {
    format!("/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Aevent-source-mapping%3A{uuid}")
}

fn uuid_in(body: &str) -> Option<Uuid> {
    serde_json::from_str::<Value>(body).ok()?["UUID"].as_str()?.parse().ok()
}

/// `esm serve`, killed when dropped.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    fn start(folder: &Path, port: u16) -> Self {
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_esm"))
            .args(["serve", "--config"])
            .arg(folder.join("esm.toml"))
            .env("PASSWORD", "hunter2")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port }
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
            assert!(Instant::now() < deadline, "it does not answer");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&self, (method, path, body): &(&str, String, Value)) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        stream
    }

    fn ask(&self, request: &(&str, String, Value)) -> (u16, String) {
        answer(self.send(request)).expect("it answers")
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&("GET", path.into(), Value::Null))
    }

    /// What is kept and what runs, once nothing is on its way any more.
    fn settled(&self) -> Model {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, listed) = self.get(MAPPINGS);
            assert_eq!(status, 200, "{listed}");
            let listed: Value = serde_json::from_str(&listed).unwrap();
            let listed = listed["EventSourceMappings"].as_array().unwrap();
            let enabled = of_state(listed, "Enabled");
            let are_settled = enabled.len() + of_state(listed, "Disabled").len() == listed.len();
            let running = self.running();
            if are_settled && running == enabled && self.get("/readyz").0 == 200 {
                return Model(listed.iter().map(|mapping| self.kept(mapping)).collect());
            }
            assert!(Instant::now() < deadline, "{running:?} run of {listed:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A mapping has metrics for as long as something of it runs.
    fn running(&self) -> BTreeSet<Uuid> {
        let (_, metrics) = self.get("/metrics");
        let series = metrics.lines().filter_map(|line| line.strip_prefix("esm_source_connected{mapping=\""));
        series.map(|line| line[..36].parse().unwrap()).collect()
    }

    fn kept(&self, mapping: &Value) -> (Uuid, Kept) {
        let uuid = mapping["UUID"].as_str().unwrap().parse().unwrap();
        let (status, tags) = self.get(&tags_path(uuid));
        assert_eq!(status, 200, "{tags}");
        let tags: Value = serde_json::from_str(&tags).unwrap();
        let kept = Kept {
            queue: mapping["Queues"][0].as_str().unwrap().into(),
            enabled: mapping["State"] == "Enabled",
            batch_size: mapping["BatchSize"].as_u64().unwrap(),
            tags: serde_json::from_value(tags["Tags"].clone()).unwrap(),
        };
        (uuid, kept)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }
}

fn of_state(listed: &[Value], state: &str) -> BTreeSet<Uuid> {
    let of_state = listed.iter().filter(|mapping| mapping["State"] == state);
    of_state.map(|mapping| mapping["UUID"].as_str().unwrap().parse().unwrap()).collect()
}

/// Status and body; none if the connection ended before.
fn answer(mut stream: TcpStream) -> Option<(u16, String)> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // a connection that is reset has said what it has said
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let is_whole = body.len() == length.unwrap_or(0);
    is_whole.then(|| (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

/// What happened, for the sum at the end.
#[derive(Default)]
struct Counters {
    answered: AtomicU64,
    kills: AtomicU64,
    unanswered_and_done: AtomicU64,
    unanswered_and_not_done: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One history: changes, of which each life of the process answers some and dies over the last.
fn history(seed: u64, counters: &Counters) {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("[server]\nlisten = \"127.0.0.1:{port}\"\n");
    fs::write(folder.path().join("esm.toml"), server + CONFIGURATION).unwrap();
    let mut model = Model::default();
    let mut process = Process::start(folder.path(), port);
    for _ in 0..random.u8(1..=4) {
        if random.u8(0..4) == 0 {
            // At its start it reads the store, and takes on what was on its way.
            thread::sleep(Duration::from_micros(random.u64(0..60_000)));
            count(&counters.kills);
            drop(process);
            process = Process::start(folder.path(), port);
        }
        process.wait_until_it_answers();
        for _ in 0..random.u8(0..6) {
            let act = model.pick_act(&mut random);
            let answer = process.ask(&act.request());
            if act.was_done(&answer) {
                model.note(&act, uuid_in(&answer.1));
            }
            count(&counters.answered);
        }
        let act = model.pick_act(&mut random);
        let stream = process.send(&act.request());
        // From before it is read to after it is answered, on whatever machine.
        let longest = 1 << random.u8(6..=15);
        thread::sleep(Duration::from_micros(random.u64(0..longest)));
        count(&counters.kills);
        drop(process);
        // Who asked may be gone as well, and never know.
        let answer = answer(stream).filter(|_| random.bool());
        process = Process::start(folder.path(), port);
        process.wait_until_it_answers();

        let found = process.settled();
        let mut done = model.clone();
        match answer {
            Some(answer) => {
                if act.was_done(&answer) {
                    model.note(&act, uuid_in(&answer.1));
                }
            }
            None if found == model => count(&counters.unanswered_and_not_done),
            None => {
                let created = found.0.keys().find(|uuid| !model.0.contains_key(uuid)).copied();
                assert!(
                    created.is_some() || !matches!(act, Act::Create { .. }),
                    "{act:?}: {found:?} and not {model:?}"
                );
                done.note(&act, created);
                model = done;
                count(&counters.unanswered_and_done);
            }
        }
        assert_eq!(found, model, "after {act:?}");
    }
}

/// In memory where there is such a place: the death of a process takes nothing from there.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn whenever_it_is_killed_every_answered_change_is_kept_and_what_runs_is_what_should() {
    let histories = if env::var_os("ESM_TEST_ALL").is_some() { 500 } else { 20 };
    let given = env::var(SEED).ok().map(|seed| seed.parse().expect("a number"));
    let (first, histories) = given.map_or_else(|| (fastrand::u64(..) >> 32, histories), |seed: u64| (seed, 1));
    let (counters, next, begun) = (Counters::default(), AtomicU64::new(first), Instant::now());
    println!("{histories} histories, of the seeds from {first} on");
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + histories {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| history(seed, &counters));
                    assert!(outcome.is_ok(), "a history failed; {SEED}={seed} has the same changes again");
                }
            });
        }
    });
    let shown = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} changes were answered, {} processes killed; of the changes without an answer {} were done and {} were not; \
         {:?}",
        shown(&counters.answered),
        shown(&counters.kills),
        shown(&counters.unanswered_and_done),
        shown(&counters.unanswered_and_not_done),
        begun.elapsed()
    );
}
