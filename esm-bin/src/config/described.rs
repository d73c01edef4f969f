//! Brokers that have no table in `[brokers]`: Amazon MQ is asked what its ARN names, by `DescribeBroker`.
//!
//! Who wants a mapping of such a broker to run asks when it is time ([`Lookup::due`]); what is known is
//! used meanwhile, and stays in use while Amazon MQ cannot be asked.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use config::{Map, Value};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{info, warn};

use super::{
    Environment,
    broker::{self, Broker, Engine},
    entry::{Context, Entry},
    names::BrokerArn,
    server::Identity,
};
use crate::adapters::{self, Aws, Describe, Description, Undescribed};

/// How often Amazon MQ is asked again about a broker that is read.
const PERIOD: Duration = Duration::from_secs(300);
/// How often while one of its mappings is not connected, or when the answer was certain and no help.
const TROUBLED_PERIOD: Duration = Duration::from_secs(60);
/// After the first failure; doubled after each further one.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// What Amazon MQ was asked about, by ARN.
pub(super) struct Described {
    aws: Aws,
    lookups: Mutex<BTreeMap<String, Arc<Lookup>>>,
}

/// One broker that Amazon MQ is asked about.
pub(crate) struct Lookup {
    arn: BrokerArn,
    /// Where Amazon MQ is, unless it is AWS's own.
    endpoint_url: Option<String>,
    describe: Describe,
    answer: Mutex<Answer>,
    /// Held by who asks, so that mappings which share the broker ask once.
    asking: AsyncMutex<()>,
}

#[derive(Default)]
struct Answer {
    broker: Option<Arc<Broker>>,
    /// Why no broker is known.
    failure: Option<Unknown>,
    failures: u32,
    asked_at: Option<Instant>,
    /// Counts what was news.
    number: u64,
}

/// Why a broker is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// What is to be done about it.
    pub cause: Cause,
    /// In words.
    pub words: String,
}

/// What keeps a broker from being known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody has had an answer yet.
    NotAsked,
    /// It may pass by itself.
    Unreachable,
    /// There is no such broker, or none that can be read.
    Unsuitable,
    /// We may not ask.
    Denied,
    /// AWS does not know who we are.
    Caller,
}

impl Cause {
    /// Whether somebody has to do something about it.
    pub fn is_certain(self) -> bool {
        match self {
            Self::NotAsked | Self::Unreachable => false,
            Self::Unsuitable | Self::Denied | Self::Caller => true,
        }
    }

    /// The documented code that `StateTransitionReason` begins with, where one applies.
    pub fn code(self) -> Option<&'static str> {
        match self {
            Self::NotAsked | Self::Unreachable => None,
            Self::Unsuitable => Some("ESM_CONFIG_NOT_VALID"),
            Self::Denied => Some("EVENT_SOURCE_AUTHZ_ERROR"),
            Self::Caller => Some("EVENT_SOURCE_AUTHN_ERROR"),
        }
    }
}

impl Described {
    pub(super) fn new(aws: Aws) -> Self {
        Self { aws, lookups: Mutex::default() }
    }

    /// The same one for the same ARN; none if that is no broker's of Amazon MQ. Words if Amazon MQ cannot be asked.
    pub(super) fn lookup(&self, arn: &str) -> Option<Result<Arc<Lookup>, String>> {
        let parsed = BrokerArn::parse(arn)?;
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = lookups.get(arn) {
            return Some(Ok(lookup.clone()));
        }
        lookups.retain(|_, lookup| Arc::strong_count(lookup) > 1);
        let describe = match adapters::describe_broker(&parsed.id, &parsed.region, &self.aws) {
            Ok(describe) => describe,
            Err(words) => return Some(Err(words)),
        };
        let lookup = Arc::new(Lookup {
            arn: parsed,
            endpoint_url: self.aws.endpoint_url.clone(),
            describe,
            answer: Mutex::default(),
            asking: AsyncMutex::default(),
        });
        lookups.insert(arn.into(), lookup.clone());
        Some(Ok(lookup))
    }

    /// Takes over what an older reading knows, if that asked the same AWS.
    pub(super) fn keep(&self, old: &Self) {
        if self.aws.endpoint_url == old.aws.endpoint_url {
            let lookups = old.lookups.lock().unwrap_or_else(PoisonError::into_inner).clone();
            *self.lookups.lock().unwrap_or_else(PoisonError::into_inner) = lookups;
        }
    }
}

impl Lookup {
    /// The ARN that is asked about.
    pub(crate) fn arn(&self) -> &str {
        &self.arn.text
    }

    /// What is asked, and where, for people.
    pub(crate) fn question(&self) -> String {
        let BrokerArn { id, region, .. } = &self.arn;
        let place = self.endpoint_url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
        format!("DescribeBroker of {id} in {region}{place}")
    }

    /// The broker, once it is known.
    pub(crate) fn broker(&self) -> Result<Arc<Broker>, Unknown> {
        let answer = self.answer();
        let not_asked = || Unknown { cause: Cause::NotAsked, words: "Amazon MQ has not been asked yet".into() };
        answer.broker.clone().ok_or_else(|| answer.failure.clone().unwrap_or_else(not_asked))
    }

    /// Tells one answer from the next.
    pub(crate) fn number(&self) -> u64 {
        self.answer().number
    }

    /// In how long it is time to ask again; `None` while somebody does. It is in order if all who read the
    /// broker are connected.
    pub(crate) fn due(&self, is_in_order: bool) -> Option<Duration> {
        let _nobody_else = self.asking.try_lock().ok()?;
        let answer = self.answer();
        let Some(asked_at) = answer.asked_at else { return Some(Duration::ZERO) };
        let is_certain = answer.failure.as_ref().is_some_and(|failure| failure.cause.is_certain());
        let delay = match &answer.broker {
            Some(_) if is_in_order => PERIOD,
            None if !is_certain => {
                FIRST_DELAY.saturating_mul(1 << answer.failures.saturating_sub(1).min(6)).min(TROUBLED_PERIOD)
            }
            Some(_) | None => TROUBLED_PERIOD,
        };
        Some(delay.saturating_sub(asked_at.elapsed()))
    }

    /// Asks, or waits for who asks already. May be dropped half-way; then nothing was learnt.
    pub(crate) async fn ask(&self) {
        let begun = Instant::now();
        let _asking = self.asking.lock().await;
        if self.answer().asked_at.is_some_and(|asked_at| asked_at > begun) {
            return;
        }
        let told = (self.describe)().await.map_err(|why| match why {
            Undescribed::Missing(words) => Unknown { cause: Cause::Unsuitable, words },
            Undescribed::Denied(words) => Unknown { cause: Cause::Denied, words },
            Undescribed::Caller(words) => Unknown { cause: Cause::Caller, words },
            Undescribed::Unreachable(words) => Unknown { cause: Cause::Unreachable, words },
        });
        self.note(told.and_then(|description| self.read(description)));
    }

    fn note(&self, read: Result<Broker, Unknown>) {
        let arn = self.arn();
        let mut answer = self.answer();
        answer.asked_at = Some(Instant::now());
        match (read, &answer.broker) {
            (Ok(broker), Some(known)) if known.definition == broker.definition => answer.failures = 0,
            (Ok(broker), _) => {
                info!(arn, endpoints = ?broker.endpoints, "Amazon MQ has described a broker");
                let number = answer.number + 1;
                *answer =
                    Answer { broker: Some(Arc::new(broker)), asked_at: answer.asked_at, number, ..Answer::default() };
            }
            (Err(Unknown { words, .. }), Some(_)) => {
                warn!(arn, problem = words, "cannot look a broker up again; what is known of it is used");
            }
            (Err(unknown), None) => {
                answer.failures += 1;
                if answer.failure.as_ref() != Some(&unknown) {
                    warn!(arn, problem = unknown.words, "cannot look a broker up");
                    answer.number += 1;
                    answer.failure = Some(unknown);
                }
            }
        }
    }

    /// A description is read as a table of `[brokers]` is.
    fn read(&self, description: Description) -> Result<Broker, Unknown> {
        let Description { engine, state, mut endpoints } = description;
        let unknown = |cause, words| Err(Unknown { cause, words });
        let Ok(kind) = engine.to_ascii_lowercase().parse::<Engine>() else {
            return unknown(Cause::Unsuitable, format!("its engine is {engine:?}, and must be ActiveMQ or RabbitMQ"));
        };
        let (engine, schemes) = match kind {
            Engine::Activemq => ("activemq", ["ssl://", "tcp://"]),
            Engine::Rabbitmq => ("rabbitmq", ["amqps://", "amqp://"]),
        };
        endpoints.retain(|endpoint| schemes.iter().any(|scheme| endpoint.starts_with(scheme)));
        // In whichever order they are told, it is the same broker.
        endpoints.sort_unstable();
        endpoints.dedup();
        if endpoints.is_empty() {
            let words = format!("Amazon MQ names no endpoint of it that begins with {} (it is {state})", schemes[0]);
            return unknown(Cause::Unreachable, words);
        }
        let entries = Map::from([
            ("engine".to_owned(), Value::from(engine)),
            ("endpoints".to_owned(), Value::from(endpoints)),
            ("arn".to_owned(), Value::from(self.arn())),
        ]);
        let environment = Environment::new();
        let context = Context::new(Path::new(""), &environment);
        let entry = Entry::new(String::new(), entries.into(), &context);
        let read = entry.table(|table| broker::read(&self.arn.name, table, &Identity::default()));
        let problems = context.problems.into_vec();
        match read {
            Ok(broker) if problems.is_empty() => Ok(broker),
            _ => {
                let words: Vec<_> = problems.iter().map(ToString::to_string).collect();
                unknown(Cause::Unsuitable, format!("what Amazon MQ says of it cannot be used: {}", words.join("; ")))
            }
        }
    }

    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::sleep;

    use super::*;

    const ARN: &str = "arn:aws:mq:eu-west-1:123456789012:broker:pizza:b-1234";

    type Told = Result<Description, Undescribed>;

    /// A lookup that is told this, one after the other.
    fn lookup(answers: impl IntoIterator<Item = Told>) -> Lookup {
        let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
        let describe: Describe = Arc::new(move || {
            let answer = answers.lock().unwrap().pop_front().expect("is asked no more often");
            Box::pin(async move { answer })
        });
        let (arn, answer, asking) = (BrokerArn::parse(ARN).unwrap(), Mutex::default(), AsyncMutex::default());
        Lookup { arn, endpoint_url: None, describe, answer, asking }
    }

    fn owned(endpoints: &[&str]) -> Vec<String> {
        endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect()
    }

    fn running(engine: &str, endpoints: &[&str]) -> Description {
        Description { engine: engine.into(), state: "RUNNING".into(), endpoints: owned(endpoints) }
    }

    #[tokio::test]
    async fn a_description_becomes_a_broker_or_says_why_not() {
        let check = async |answer: Told, expected: Result<(Engine, &[&str]), (Cause, &str)>| {
            let lookup = lookup([answer]);
            assert_eq!(lookup.broker().err().unwrap().cause, Cause::NotAsked);
            lookup.ask().await;
            match (lookup.broker(), expected) {
                (Ok(broker), Ok((engine, endpoints))) => {
                    assert_eq!((broker.engine, &*broker.endpoints), (engine, &*owned(endpoints)));
                    assert_eq!((&*broker.name, &*broker.arn), ("pizza", ARN));
                }
                (Err(unknown), Err((cause, words))) => {
                    assert_eq!(unknown.cause, cause, "{unknown:?}");
                    assert!(unknown.words.contains(words), "{unknown:?}");
                }
                (found, expected) => panic!("{:?} and not {expected:?}", found.map(|broker| broker.arn.clone())),
            }
        };
        let pair = [
            "ssl://b-1234-2.mq.eu-west-1.amazonaws.com:61617",
            "amqp+ssl://b-1234-2.mq.eu-west-1.amazonaws.com:5671",
            "wss://b-1234-2.mq.eu-west-1.amazonaws.com:61619",
            "ssl://b-1234-1.mq.eu-west-1.amazonaws.com:61617",
        ];
        check(Ok(running("ACTIVEMQ", &pair)), Ok((Engine::Activemq, &[pair[3], pair[0]]))).await;
        let secure = "amqps://b-1234.mq.eu-west-1.on.aws:5671";
        check(Ok(running("RABBITMQ", &[secure, "https://console"])), Ok((Engine::Rabbitmq, &[secure]))).await;
        check(Ok(running("RabbitMQ", &["amqp://127.0.0.1:5672"])), Ok((Engine::Rabbitmq, &["amqp://127.0.0.1:5672"])))
            .await;
        check(Ok(running("ROCKETMQ", &[secure])), Err((Cause::Unsuitable, "its engine is \"ROCKETMQ\""))).await;
        check(
            Ok(running("RABBITMQ", &[])),
            Err((Cause::Unreachable, "no endpoint of it that begins with amqps:// (it is R")),
        )
        .await;
        check(Ok(running("RABBITMQ", &["amqps://[not-a-host"])), Err((Cause::Unsuitable, "endpoints[0]"))).await;
        let refusals = [
            (Undescribed::Missing("words".into()), Cause::Unsuitable),
            (Undescribed::Denied("words".into()), Cause::Denied),
            (Undescribed::Caller("words".into()), Cause::Caller),
            (Undescribed::Unreachable("words".into()), Cause::Unreachable),
        ];
        for (why, cause) in refusals {
            check(Err(why), Err((cause, "words"))).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_used_until_something_else_is() {
        let unreachable = || Err(Undescribed::Unreachable("no route".into()));
        let (one, other) = ("amqp://127.0.0.1:1", "amqp://127.0.0.1:2");
        let lookup = lookup([
            unreachable(),
            unreachable(),
            Ok(running("RABBITMQ", &[one])),
            Ok(running("RABBITMQ", &[one])),
            unreachable(),
            Ok(running("RABBITMQ", &[other])),
        ]);
        let due = |is_in_order| lookup.due(is_in_order).unwrap();
        assert_eq!(due(true), Duration::ZERO);
        lookup.ask().await;
        assert_eq!((lookup.number(), due(true)), (1, Duration::from_secs(1)));
        lookup.ask().await;
        assert_eq!((lookup.number(), due(true)), (1, Duration::from_secs(2)), "the same again is no news");

        lookup.ask().await;
        let known = lookup.broker().unwrap();
        assert_eq!((lookup.number(), due(true), due(false)), (2, PERIOD, TROUBLED_PERIOD));
        lookup.ask().await;
        assert!(Arc::ptr_eq(&lookup.broker().unwrap(), &known), "nothing has changed");
        sleep(PERIOD).await;
        lookup.ask().await;
        assert!(Arc::ptr_eq(&lookup.broker().unwrap(), &known), "what is known is used meanwhile");
        assert_eq!((lookup.number(), due(false)), (2, TROUBLED_PERIOD));
        lookup.ask().await;
        assert_eq!((&*lookup.broker().unwrap().endpoints, lookup.number()), (&[other.to_owned()][..], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_together_asks_once() {
        let describe: Describe = Arc::new(|| {
            Box::pin(async {
                sleep(Duration::from_secs(1)).await;
                Err(Undescribed::Unreachable("no route".into()))
            })
        });
        let lookup = Lookup { describe, ..lookup([]) };
        let begun = Instant::now();
        let due = async {
            sleep(Duration::from_millis(500)).await;
            lookup.due(true)
        };
        let ((), (), due) = tokio::join!(lookup.ask(), lookup.ask(), due);
        assert_eq!((begun.elapsed(), due), (Duration::from_secs(1), None));
    }
}
