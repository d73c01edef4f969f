//! One function as all of its mappings share it: its reserved concurrency, its numbers, and the gate
//! before it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};
use uuid::Uuid;

use crate::{
    event::Event,
    gate::{Gate, Pass},
    invoker::{Invoke, Outcome, Reply},
    metrics::{FunctionMetrics, MappingMetrics, Metrics},
};

/// A function and what it may be asked for at once.
pub struct Function {
    /// Its name in the configuration.
    pub name: String,
    /// How long one invocation may run.
    pub timeout: Duration,
    invoker: Arc<dyn Invoke>,
    places: Arc<Places>,
    gate: Gate,
    metrics: FunctionMetrics,
}

impl Function {
    /// A function that runs at most `reserved_concurrency` invocations at once, over all mappings.
    pub fn new(
        name: String,
        timeout: Duration,
        reserved_concurrency: Option<u32>,
        invoker: Arc<dyn Invoke>,
        metrics: &Metrics,
    ) -> Self {
        let metrics = metrics.function(&name);
        let places = Arc::new(Places::new(reserved_concurrency));
        Self { name, timeout, invoker, places, gate: Gate::default(), metrics }
    }

    /// Waits until one more invocation may run. Dropping the future gives up the place in the queue.
    pub(crate) async fn admit(&self, mapping: Uuid, metrics: &MappingMetrics) -> Slot<'_> {
        let mut is_counted = false;
        loop {
            self.gate.wait().await;
            let place = match self.places.clone().try_take(mapping) {
                Ok(place) => place,
                Err(turn) => {
                    if !std::mem::replace(&mut is_counted, true) {
                        metrics.throttles.inc();
                    }
                    turn.await
                }
            };
            // It may have been closed while this one waited for its turn.
            if let Some(pass) = self.gate.try_pass() {
                return Slot { gate: &self.gate, pass: Some(pass), _place: place };
            }
        }
    }

    /// Invokes the function once. Dropping the future gives the invocation up.
    pub(crate) async fn invoke(&self, mut slot: Slot<'_>, event: Event, metrics: &MappingMetrics) -> Reply {
        let pass = slot.pass.take();
        let reply = self.run(event).await;
        match &reply.outcome {
            Outcome::Success => metrics.invocations.inc(),
            Outcome::FunctionError { .. } => {
                metrics.invocations.inc();
                metrics.errors.inc();
            }
            Outcome::Throttled { .. } => metrics.throttles.inc(),
            Outcome::Unavailable { .. } | Outcome::TooLarge { .. } | Outcome::NotUsable { .. } => {}
        }
        if let Some(pass) = pass {
            self.gate.heed(&reply.outcome, pass);
        }
        reply
    }

    async fn run(&self, event: Event) -> Reply {
        let _executing = Executing::start(&self.metrics);
        let started = Instant::now();
        let reply = self.invoker.invoke(event).await;
        if reply.outcome.ran() {
            self.metrics.duration.observe(started.elapsed().as_secs_f64());
        }
        reply
    }
}

/// Counts an execution for as long as it lasts, however it ends.
struct Executing<'a>(&'a FunctionMetrics);

impl<'a> Executing<'a> {
    fn start(metrics: &'a FunctionMetrics) -> Self {
        metrics.concurrent_executions.inc();
        Self(metrics)
    }
}

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.concurrent_executions.dec();
    }
}

/// The right to run one invocation. Dropping it gives its place to the next in turn, and a probe that was not made
/// to whoever comes next.
pub(crate) struct Slot<'a> {
    gate: &'a Gate,
    /// `None`: it was made use of.
    pass: Option<Pass>,
    _place: Place,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if self.pass == Some(Pass::Probe) {
            self.gate.return_probe();
        }
    }
}

/// The reserved concurrency: free places, and who waits for one, round robin by mapping.
struct Places(Mutex<Waiting>);

struct Waiting {
    /// `None`: unlimited.
    free: Option<u32>,
    /// One queue per mapping that waits; the front one is served next.
    mappings: VecDeque<(Uuid, VecDeque<oneshot::Sender<Place>>)>,
}

/// A part of the reserved concurrency. Dropping it gives it to the next in turn.
struct Place(Arc<Places>);

impl Places {
    fn new(reserved_concurrency: Option<u32>) -> Self {
        Self(Mutex::new(Waiting { free: reserved_concurrency, mappings: VecDeque::new() }))
    }

    /// A slot, or the place in the queue for one.
    fn try_take(self: Arc<Self>, mapping: Uuid) -> Result<Place, impl Future<Output = Place>> {
        let mut waiting = lock(&self.0);
        match &mut waiting.free {
            Some(0) => {}
            Some(free) => {
                *free -= 1;
                drop(waiting);
                return Ok(Place(self));
            }
            None => {
                drop(waiting);
                return Ok(Place(self));
            }
        }
        let (sender, turn) = oneshot::channel();
        waiting.enqueue(mapping, sender);
        drop(waiting);
        Err(async move {
            // A sender leaves the queue only with a slot in it.
            turn.await.expect("the queue outlives who waits in it")
        })
    }
}

impl Waiting {
    fn enqueue(&mut self, mapping: Uuid, sender: oneshot::Sender<Place>) {
        match self.mappings.iter_mut().find(|(uuid, _)| *uuid == mapping) {
            Some((_, queue)) => queue.push_back(sender),
            None => self.mappings.push_back((mapping, VecDeque::from([sender]))),
        }
    }

    /// The next in turn; its mapping goes to the end of the line.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let (mapping, mut queue) = self.mappings.pop_front()?;
        let sender = queue.pop_front();
        if !queue.is_empty() {
            self.mappings.push_back((mapping, queue));
        }
        sender
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0.0);
        let next = waiting.next();
        if next.is_none()
            && let Some(free) = &mut waiting.free
        {
            *free += 1;
        }
        drop(waiting);
        if let Some(next) = next {
            // Who stopped waiting drops the slot in turn, which passes it on.
            drop(next.send(Place(self.0.clone())));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(turn: &mut (impl Future<Output = Place> + Unpin)) -> Option<Place> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(turn).poll(&mut context) {
            std::task::Poll::Ready(slot) => Some(slot),
            std::task::Poll::Pending => None,
        }
    }

    fn take(slots: &Arc<Places>, mapping: u128) -> impl Future<Output = Place> + Unpin {
        Box::pin(match slots.clone().try_take(Uuid::from_u128(mapping)) {
            Ok(_) => panic!("a slot was free"),
            Err(turn) => turn,
        })
    }

    #[test]
    fn waiting_batches_are_served_round_robin_by_mapping() {
        let slots = Arc::new(Places::new(Some(1)));
        let Ok(running) = slots.clone().try_take(Uuid::nil()) else { panic!("it is free") };
        let mut a1 = take(&slots, 1);
        let mut a2 = take(&slots, 1);
        let mut b1 = take(&slots, 2);

        drop(running);
        let first = poll(&mut a1).expect("it waited longest");
        assert!(poll(&mut a2).is_none() && poll(&mut b1).is_none(), "there is one slot");
        drop(first);
        assert!(poll(&mut a2).is_none(), "its mapping had its turn");
        drop(poll(&mut b1).expect("it is the other mapping's turn"));
        assert!(poll(&mut a2).is_some());
    }

    #[test]
    fn a_slot_given_to_one_who_left_goes_to_the_next() {
        let slots = Arc::new(Places::new(Some(1)));
        let Ok(running) = slots.clone().try_take(Uuid::nil()) else { panic!("it is free") };
        let left = take(&slots, 1);
        let mut stays = take(&slots, 2);

        drop(left);
        drop(running);

        assert!(poll(&mut stays).is_some());
        assert!(slots.clone().try_take(Uuid::nil()).is_ok());
    }

    /// A function whose invocations never end well.
    struct Unsteady;

    #[async_trait::async_trait]
    impl Invoke for Unsteady {
        async fn invoke(&self, event: Event) -> Reply {
            assert!(event.size() > 1, "an internal error");
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_not_made_is_the_next_ones() {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let of_mapping = metrics.mapping(&crate::testing::mapping());
        let timeout = Duration::from_secs(60);
        let function = Function::new("function".into(), timeout, None, Arc::new(Unsteady), &metrics);
        function.gate.heed(&Outcome::NotUsable { reason: "404".into() }, Pass::Open);
        let slot = function.admit(Uuid::nil(), &of_mapping).await;
        assert_eq!(slot.pass, Some(Pass::Probe));
        let dropped_at = Instant::now();

        drop(slot);

        let slot = function.admit(Uuid::nil(), &of_mapping).await;
        assert_eq!((slot.pass, dropped_at.elapsed()), (Some(Pass::Probe), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_that_panics_or_is_given_up_leaves_its_place_and_does_not_count_as_running() {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let of_mapping = metrics.mapping(&crate::testing::mapping());
        let timeout = Duration::from_secs(60);
        let function = Arc::new(Function::new("function".into(), timeout, Some(1), Arc::new(Unsteady), &metrics));
        for (event, panics) in [("{", true), ("{}", false)] {
            let (function, of_mapping) = (function.clone(), of_mapping.clone());
            let running = function.metrics.concurrent_executions.clone();
            let invocation = tokio::spawn(async move {
                let slot = function.admit(Uuid::nil(), &of_mapping).await;
                function.invoke(slot, bytes::Bytes::from(event).into(), &of_mapping).await
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(running.get(), i64::from(!panics));
            invocation.abort();
            assert_eq!(invocation.await.unwrap_err().is_panic(), panics);
            assert_eq!(running.get(), 0);
        }
        assert!(function.places.clone().try_take(Uuid::nil()).is_ok());
        assert_eq!(of_mapping.throttles.get(), 0);
    }
}
