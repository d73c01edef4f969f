//! ActiveMQ's own client, in one Java process for the whole test program.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::oneshot, time::timeout};

/// Longer than anything that the tool does by itself.
const PATIENCE: Duration = Duration::from_secs(180);

/// Messages that are alike, to be sent to one queue. In a body, a group and a correlation id, `{n}` becomes the
/// message's number, from 0 on.
#[must_use]
pub struct Messages {
    pub(super) words: Vec<(String, String)>,
}

impl Messages {
    /// Text messages.
    pub fn text(body: &str) -> Self {
        Self::of_type("text").with("body", body)
    }

    /// Bytes messages.
    pub fn bytes(body: &str) -> Self {
        Self::of_type("bytes").with("body", body)
    }

    /// Messages of another type: `map`, `stream`, `object`, `plain`, or `null`, a text message without a text.
    pub fn of_type(kind: &str) -> Self {
        Self { words: Vec::new() }.with("type", kind)
    }

    /// How many; one if nothing is said.
    pub fn count(self, count: usize) -> Self {
        self.with("count", &count)
    }

    /// Fills every body up to so many bytes.
    pub fn size(self, bytes: usize) -> Self {
        self.with("size", &bytes)
    }

    /// Messages that the broker keeps in memory only.
    pub fn not_persistent(self) -> Self {
        self.with("persistent", &false)
    }

    /// From 0 to 9, and 4 if nothing is said.
    pub fn priority(self, priority: u8) -> Self {
        self.with("priority", &priority)
    }

    /// After that time nobody wants them any more.
    pub fn time_to_live(self, time: Duration) -> Self {
        self.with("ttl", &time.as_millis())
    }

    /// Their `JMSXGroupID`.
    pub fn group(self, group: &str) -> Self {
        self.with("group", group)
    }

    /// Numbers of groups begin anew after so many.
    pub fn groups(self, count: usize) -> Self {
        self.with("groups", &count)
    }

    /// Their `JMSCorrelationID`.
    pub fn correlation_id(self, id: &str) -> Self {
        self.with("correlation", id)
    }

    /// Their `JMSType`.
    pub fn jms_type(self, jms_type: &str) -> Self {
        self.with("jms_type", jms_type)
    }

    /// The queue to answer to.
    pub fn reply_to(self, queue: &str) -> Self {
        self.with("reply_to", queue)
    }

    /// A property of a Java type: `boolean`, `byte`, `short`, `int`, `long`, `float`, `double`, `string` or `null`.
    pub fn property(self, name: &str, java_type: &str, value: &str) -> Self {
        self.with(&format!("property.{name}"), &format!("{java_type}:{value}"))
    }

    /// Bodies go compressed.
    pub fn compressed(self) -> Self {
        self.with("compress", &true)
    }

    fn with(mut self, key: &str, value: &(impl ToString + ?Sized)) -> Self {
        self.words.push((key.to_owned(), value.to_string()));
        self
    }
}

/// A message as Java's getters show it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of JMS, or of the broker")]
pub struct JavaMessage {
    pub message_id: String,
    /// `jms/text-message` and the like.
    pub message_type: String,
    pub timestamp: i64,
    pub correlation_id: Option<String>,
    /// As `queue://…` or `topic://…`.
    pub reply_to: Option<String>,
    /// As `queue://…`.
    pub destination: String,
    pub delivery_mode: i32,
    pub redelivered: bool,
    #[serde(rename = "type")]
    pub jms_type: Option<String>,
    pub expiration: i64,
    pub priority: i32,
    pub broker_in_time: i64,
    pub broker_out_time: i64,
    pub redelivery_counter: i32,
    pub compressed: bool,
    /// In base64: a text in UTF-8, or bytes; `None` for no text at all, and for other types of message.
    pub body: Option<String>,
    /// As strings, those included that ActiveMQ adds by itself.
    pub properties: BTreeMap<String, Option<String>>,
}

impl JavaMessage {
    /// The body as text.
    pub fn text(&self) -> String {
        let body = self.body.as_deref().unwrap_or_default();
        let bytes = base64_simd::STANDARD.decode_to_vec(body).expect("base64");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A property, if it has one of this name that is not null.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)?.as_deref()
    }
}

/// What a broker counts for a queue.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Statistics {
    /// Messages in the queue, those included that were dispatched and not acknowledged.
    pub size: u64,
    /// Messages that came in.
    pub enqueue_count: u64,
    /// Messages that left.
    pub dequeue_count: u64,
    /// How often a message was handed to a consumer.
    pub dispatch_count: u64,
    /// Messages that consumers have and have not acknowledged.
    pub inflight_count: u64,
    /// Messages whose time to live ended.
    pub expired_count: u64,
    /// Consumers at this moment.
    pub consumer_count: u64,
}

/// The process. It ends when its input does, so at the latest with this one.
pub(super) struct Java {
    input: Mutex<ChildStdin>,
    waiting: &'static Waiting,
    next: AtomicU64,
}

/// Who waits for which answer.
type Waiting = Mutex<HashMap<String, oneshot::Sender<Result<Value, String>>>>;

impl Java {
    /// Starts it for whoever asks first. It belongs to no runtime: each test has one of its own.
    pub(super) fn shared(classpath: &str) -> &'static Self {
        static SHARED: OnceLock<Java> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(classpath))
    }

    fn start(classpath: &str) -> Self {
        static WAITING: OnceLock<Waiting> = OnceLock::new();
        let waiting = WAITING.get_or_init(Waiting::default);
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-XX:-UsePerfData"]);
        command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classpath, "Tool"]);
        let Child { stdin, stdout, .. } =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("java starts");
        let output = stdout.expect("has an output");
        thread::spawn(move || deliver(output, waiting));
        Self { input: Mutex::new(stdin.expect("has an input")), waiting, next: AtomicU64::new(1) }
    }

    /// One command, as the tool takes it; its answer, or why there is none.
    pub(super) async fn ask(&self, words: impl IntoIterator<Item = (String, String)>) -> Result<Value, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mut line = format!("id={id}");
        for (key, value) in words {
            line.extend([" ", &key, "="]);
            line.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        writeln!(self.input.lock().unwrap_or_else(PoisonError::into_inner), "{line}").expect("java reads");
        timeout(PATIENCE, answer).await.expect("java answers in time").expect("java lives")
    }
}

/// Hands every answer to whoever waits for it.
fn deliver(output: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut answer: Value = serde_json::from_str(&line).expect("an answer in JSON");
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        let result = match answer["error"].take() {
            Value::String(problem) => Err(problem),
            _ => Ok(answer["answer"].take()),
        };
        if let Some(sender) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            drop(sender.send(result)); // a test that has ended waits no more
        }
    }
    // Java has ended: nobody waits in vain.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
