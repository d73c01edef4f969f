//! A function that answers as a test tells it to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use crate::{
    event::Event,
    function::Function,
    invoker::{Invoke, Outcome, Reply},
    metrics::Metrics,
};

/// One call of a [`ScriptedFunction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// When it began.
    pub at: Instant,
    /// The event's text.
    pub event: String,
    /// The ids of its records.
    pub ids: Vec<String>,
}

/// What a function says to records with these ids, and how long that takes it.
type Answer = dyn FnMut(&[String]) -> (Duration, Reply) + Send;

/// Answers as a test tells it to; reports each invocation when it begins.
pub struct ScriptedFunction {
    answer: Mutex<Box<Answer>>,
    invocations: mpsc::Sender<Invocation>,
}

impl ScriptedFunction {
    /// A function that answers so, in order, each after its delay, then with success; and what it is invoked with.
    pub fn new(
        script: impl IntoIterator<Item = (Duration, Outcome), IntoIter: Send + 'static>,
    ) -> (Arc<Self>, mpsc::Receiver<Invocation>) {
        let mut script = script.into_iter();
        Self::answering(move |_| script.next().unwrap_or((Duration::ZERO, Outcome::Success)))
    }

    /// A function whose answer depends on the ids of the records, and what it is invoked with.
    pub fn answering<R: Into<Reply>>(
        mut answer: impl FnMut(&[String]) -> (Duration, R) + Send + 'static,
    ) -> (Arc<Self>, mpsc::Receiver<Invocation>) {
        let answer = move |ids: &[String]| {
            let (delay, reply) = answer(ids);
            (delay, reply.into())
        };
        let (invocations, receiver) = mpsc::channel(10_000);
        (Arc::new(Self { answer: Mutex::new(Box::new(answer)), invocations }), receiver)
    }

    /// As a function without reserved concurrency and with a minute's timeout.
    pub fn into_function(self: Arc<Self>, metrics: &Metrics) -> Arc<Function> {
        Arc::new(Function::new("function".into(), Duration::from_secs(60), None, self, metrics))
    }
}

#[async_trait]
impl Invoke for ScriptedFunction {
    async fn invoke(&self, event: Event) -> Reply {
        let event = String::from_utf8(event.to_bytes().to_vec()).expect("events are UTF-8");
        let ids: Vec<_> =
            event.split(r#""id":""#).skip(1).filter_map(|rest| rest.split('"').next()).map(String::from).collect();
        let invocation = Invocation { at: Instant::now(), event, ids: ids.clone() };
        self.invocations.send(invocation).await.expect("the test listens");
        let (delay, reply) = (self.answer.lock().expect("not poisoned"))(&ids);
        sleep(delay).await;
        reply
    }
}
