//! The binary under test, its configuration, and what it shows.

use std::{
    fmt::Write,
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Long enough for brokers that start and backoffs that grow, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A broker of the kind that a test program is for.
pub(crate) trait Broker {
    /// As `esm`'s configuration names the kind.
    const ENGINE: &'static str;
    /// May do everything; the password is the same word.
    const ADMINISTRATOR: &'static str;

    /// Where it listens.
    fn endpoint(&self) -> String;
}

/// A configuration, by what differs from test to test.
#[derive(Clone)]
pub(crate) struct Config {
    engine: &'static str,
    administrator: &'static str,
    pub(crate) endpoints: Vec<String>,
    /// Further lines of `[brokers.test]`.
    pub(crate) broker: String,
    /// Further lines of `[server]`.
    pub(crate) server: String,
    /// Who the secret `visitor` is; the password is the same word.
    pub(crate) visitor: String,
    /// What the secret `visitor` is read from instead.
    pub(crate) visitor_file: Option<PathBuf>,
    /// How the function is reached: a line of `[functions.function]`.
    backend: String,
    /// Further lines of `[functions.function]`.
    pub(crate) function: String,
    /// Further tables.
    pub(crate) tables: String,
    /// By how much the clock of the process is wrong, as `faketime` has it.
    pub(crate) clock: Option<&'static str>,
    /// Further variables of the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) mappings: Vec<MappingConfig>,
}

#[derive(Clone)]
pub(crate) struct MappingConfig {
    queue: String,
    secret: &'static str,
    /// Further lines.
    more: String,
}

impl Config {
    pub(crate) fn new<B: Broker>(broker: &B, function_url: &str) -> Self {
        Self::with_backend(broker, format!("http = {{ url = {function_url:?} }}"))
    }

    pub(crate) fn with_backend<B: Broker>(broker: &B, backend: String) -> Self {
        Self {
            engine: B::ENGINE,
            administrator: B::ADMINISTRATOR,
            endpoints: vec![broker.endpoint()],
            broker: String::new(),
            server: String::new(),
            visitor: "visitor".into(),
            visitor_file: None,
            backend,
            function: String::new(),
            tables: String::new(),
            clock: None,
            // Whoever runs the tests is nobody in AWS.
            environment: [
                ("AWS_EC2_METADATA_DISABLED", "true"),
                ("AWS_CONFIG_FILE", "/dev/null"),
                ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ]
            .map(|(name, value)| (name, value.into()))
            .into(),
            mappings: Vec::new(),
        }
    }

    pub(crate) fn mapping(mut self, queue: &str, more: &str) -> Self {
        self.mappings.push(MappingConfig { queue: queue.into(), secret: "administrator", more: more.into() });
        self
    }

    /// The last mapping logs in as the user `visitor`, unless told otherwise.
    pub(crate) fn by_visitor(mut self) -> Self {
        self.mappings.last_mut().expect("has a mapping").secret = "visitor";
        self
    }

    fn to_toml(&self, port: u16) -> String {
        let visitor = match &self.visitor_file {
            Some(file) => format!("file = '{}'", file.display()),
            None => format!("username = {:?}\npassword = {{ env = \"VISITOR_PASSWORD\" }}", self.visitor),
        };
        let mut text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\ndrain_timeout_in_seconds = 60\n{}\n\
             [brokers.test]\nengine = {:?}\nendpoints = {:?}\n{}\n\
             [secrets.administrator]\nusername = {:?}\npassword = {{ env = \"ADMINISTRATOR_PASSWORD\" }}\n\
             [secrets.visitor]\n{visitor}\n\
             [functions.function]\n{}\n{}\n{}\n",
            self.server,
            self.engine,
            self.endpoints,
            self.broker,
            self.administrator,
            self.backend,
            self.function,
            self.tables
        );
        for mapping in &self.mappings {
            write!(
                text,
                "[[event_source_mappings]]\nfunction_name = \"function\"\nevent_source = \"test\"\n\
                 queues = [{:?}]\nsecret = {:?}\n{}\n",
                mapping.queue, mapping.secret, mapping.more
            )
            .expect("writes to a string");
        }
        text
    }
}

/// A running `esm serve`. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    environment: Vec<(&'static str, String)>,
    clock: Option<&'static str>,
    base: String,
    dir: TempDir,
    http: reqwest::Client,
}

impl Service {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(config: &Config) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        std::fs::write(dir.path().join("esm.toml"), config.to_toml(port)).expect("writes");
        let passwords =
            [("ADMINISTRATOR_PASSWORD", config.administrator.into()), ("VISITOR_PASSWORD", config.visitor.clone())];
        let environment = [&passwords[..], &config.environment].concat();
        let child = spawn(&dir, &environment, config.clock);
        let base = format!("http://127.0.0.1:{port}");
        let mut service = Self { child, environment, clock: config.clock, base, dir, http: reqwest::Client::new() };
        service.answers().await;
        service
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }

    /// Starts it again after a kill.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.dir, &self.environment, self.clock);
        self.answers().await;
    }

    /// Asks for the end, as systemd does.
    pub(crate) fn terminate(&self) {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(kill.expect("runs").success());
    }

    /// The most memory that it has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system says it");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        wait_for("the process to end", || self.child.try_wait().expect("waits")).await
    }

    async fn answers(&mut self) {
        let health = format!("{}/healthz", self.base);
        let answers = async {
            while self.http.get(&health).send().await.is_err() {
                let ended = self.child.try_wait().expect("waits");
                assert!(ended.is_none(), "esm ended: {}", self.log());
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, answers).await.expect("esm answers");
    }

    /// Where a path is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Everything it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The sum of a metric's series that carry all of these label values.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.get("/metrics").await.text().await.expect("is text");
        let series = text.lines().filter(|line| {
            let (series, _) = line.split_once(['{', ' ']).unwrap_or((line, ""));
            series == name && labels.iter().all(|label| line.contains(&format!("\"{label}\"")))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn metric_becomes(&self, name: &str, labels: &[&str], expected: u64) {
        self.metric_until(name, labels, &expected.to_string(), |value| value == expected).await;
    }

    /// Waits until a metric has at least a value.
    pub(crate) async fn metric_reaches(&self, name: &str, labels: &[&str], least: u64) {
        self.metric_until(name, labels, &format!("{least} or more"), |value| value >= least).await;
    }

    async fn metric_until(&self, name: &str, labels: &[&str], expected: &str, is_so: impl Fn(u64) -> bool) {
        let becomes = async {
            while !is_so(self.metric(name, labels).await) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let became = timeout(PATIENCE, becomes).await.is_ok();
        assert!(became, "{name} is {} and not {expected}: {}", self.metric(name, labels).await, self.log());
    }

    pub(crate) async fn readyz(&self) -> (u16, Value) {
        let response = self.get("/readyz").await;
        (response.status().as_u16(), response.json().await.expect("is JSON"))
    }

    /// What `/readyz` says of the mapping of a queue.
    pub(crate) async fn mapping(&self, queue: &str) -> Value {
        let (_, ready) = self.readyz().await;
        let mappings = find_mappings(&ready);
        mappings.into_iter().find(|mapping| mapping["Queue"] == queue).expect("the mapping is listed")
    }

    /// Waits until the mapping of a queue shows this in its reason or its result.
    pub(crate) async fn shows(&self, queue: &str, words: &str) -> Value {
        let shown = async {
            loop {
                let mapping = self.mapping(queue).await;
                let said = format!("{} {}", mapping["StateTransitionReason"], mapping["LastProcessingResult"]);
                if said.contains(words) {
                    return mapping;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        if let Ok(mapping) = timeout(PATIENCE, shown).await {
            return mapping;
        }
        panic!("{queue} does not show `{words}` but {}: {}", self.mapping(queue).await, self.log());
    }

    /// Waits until the mapping of a queue reads it.
    pub(crate) async fn connected(&self, queue: &str) {
        let uuid = self.uuid(queue).await;
        self.metric_becomes("esm_source_connected", &[&uuid], 1).await;
    }

    pub(crate) async fn uuid(&self, queue: &str) -> String {
        self.mapping(queue).await["UUID"].as_str().expect("has a UUID").to_owned()
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.expect("esm answers")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the service's log\n{}", self.log());
        }
    }
}

fn find_mappings(ready: &Value) -> Vec<Value> {
    let list = ready.as_array().or_else(|| ready.as_object()?.values().find_map(Value::as_array));
    list.expect("a list of mappings").clone()
}

fn spawn(dir: &TempDir, environment: &[(&str, String)], clock: Option<&str>) -> Child {
    let log = File::options().create(true).append(true).open(dir.path().join("log")).expect("opens");
    let mut command = Command::new(env!("CARGO_BIN_EXE_esm"));
    if let Some(clock) = clock {
        // What measures durations goes on as it does when somebody sets the clock.
        command.env("LD_PRELOAD", library_of_faketime());
        command.env("FAKETIME", clock).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    command
        .args(["serve", "--config"])
        .arg(dir.path().join("esm.toml"))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("clones"))
        .stderr(log)
        .spawn()
        .expect("starts")
}

/// `faketime` itself would stand between us and the process, which could not be killed then.
fn library_of_faketime() -> String {
    let printed = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    String::from_utf8(printed.expect("there is a faketime").stdout).expect("a path").trim().to_owned()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// As long as a function is away: ten minutes when everything is to be tested.
pub(crate) async fn while_away() {
    sleep(Duration::from_secs(if std::env::var_os("ESM_TEST_ALL").is_some() { 600 } else { 5 })).await;
}

/// Waits until there is an answer.
pub(crate) async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(answer) = condition() {
                return answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
