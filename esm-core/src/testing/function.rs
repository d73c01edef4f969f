//! A function that answers as a test tells it to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use crate::{
    event::Event,
    function::Function,
    invoker::{Invoke, Outcome},
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

/// Answers with scripted outcomes, then with success; reports each invocation when it begins.
pub struct ScriptedFunction {
    script: Mutex<VecDeque<(Duration, Outcome)>>,
    invocations: mpsc::Sender<Invocation>,
}

impl ScriptedFunction {
    /// A function that answers so, in order, each after its delay, and what it is invoked with.
    pub fn new(script: impl IntoIterator<Item = (Duration, Outcome)>) -> (Arc<Self>, mpsc::Receiver<Invocation>) {
        let (invocations, receiver) = mpsc::channel(1_000);
        (Arc::new(Self { script: Mutex::new(script.into_iter().collect()), invocations }), receiver)
    }

    /// As a function without reserved concurrency and with a minute's timeout.
    pub fn into_function(self: Arc<Self>, metrics: &Metrics) -> Arc<Function> {
        Arc::new(Function::new("function".into(), Duration::from_secs(60), None, self, metrics))
    }
}

#[async_trait]
impl Invoke for ScriptedFunction {
    async fn invoke(&self, event: Event) -> Outcome {
        let event = String::from_utf8(event.to_bytes().to_vec()).expect("events are UTF-8");
        let ids =
            event.split(r#""id":""#).skip(1).filter_map(|rest| rest.split('"').next()).map(String::from).collect();
        let invocation = Invocation { at: Instant::now(), event, ids };
        self.invocations.send(invocation).await.expect("the test listens");
        let next = self.script.lock().expect("not poisoned").pop_front();
        let (delay, outcome) = next.unwrap_or((Duration::ZERO, Outcome::Success));
        sleep(delay).await;
        outcome
    }
}
