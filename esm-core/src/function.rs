//! One function as all of its mappings share it: its reserved concurrency, its numbers, and the
//! restraint towards a function that cannot be used.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    event::Event,
    invoker::{Invoke, Outcome, Reply},
    metrics::{FunctionMetrics, MappingMetrics, Metrics},
    retry::PROBE_INTERVAL,
};

/// A function and what it may be asked for at once.
pub struct Function {
    /// Its name in the configuration.
    pub name: String,
    /// How long one invocation may run.
    pub timeout: Duration,
    invoker: Arc<dyn Invoke>,
    slots: Arc<Slots>,
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
        let slots = Arc::new(Slots::new(reserved_concurrency));
        Self { name, timeout, invoker, slots, gate: Gate::default(), metrics }
    }

    /// Waits until one more invocation may run. Dropping the future gives up the place in the queue.
    pub(crate) async fn admit(&self, mapping: Uuid, metrics: &MappingMetrics) -> Slot {
        self.gate.pass().await;
        match self.slots.clone().try_take(mapping) {
            Ok(slot) => slot,
            Err(turn) => {
                metrics.throttles.inc();
                turn.await
            }
        }
    }

    /// Invokes the function once. Dropping the future gives the invocation up.
    pub(crate) async fn invoke(&self, _slot: Slot, event: Event, metrics: &MappingMetrics) -> Reply {
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
        self.gate.heed(&reply.outcome);
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

/// Closed while the function cannot be used; lets one invocation through at a time to find out.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    opened: Notify,
}

#[derive(Default)]
struct GateState {
    /// Set while the gate is closed.
    next_probe: Option<Instant>,
    /// When the function last ran, whatever it said.
    ran_at: Option<Instant>,
}

impl Gate {
    async fn pass(&self) {
        loop {
            let opened = self.opened.notified();
            let Some(probe_at) = lock(&self.state).wait_until(Instant::now()) else { return };
            tokio::select! {
                () = sleep_until(probe_at) => {}
                () = opened => {}
            }
        }
    }

    fn heed(&self, outcome: &Outcome) {
        if lock(&self.state).opens(outcome, Instant::now()) {
            self.opened.notify_waiters();
        }
    }
}

impl GateState {
    /// `None`: go ahead. Who goes ahead through a closed gate is the probe, and the only one.
    fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        match self.next_probe {
            Some(at) if at > now => Some(at),
            Some(_) => {
                self.next_probe = Some(now + PROBE_INTERVAL);
                None
            }
            None => None,
        }
    }

    /// Takes note of an outcome; whether it opens the gate. A function that ran a moment ago is
    /// usable: what it refuses now is this batch, which waits by itself and stops no other.
    fn opens(&mut self, outcome: &Outcome, now: Instant) -> bool {
        if outcome.ran() {
            self.ran_at = Some(now);
            return self.next_probe.take().is_some();
        }
        let ran_lately = self.ran_at.is_some_and(|at| now < at + PROBE_INTERVAL);
        if matches!(outcome, Outcome::NotUsable { .. }) && !ran_lately {
            self.next_probe = Some(now + PROBE_INTERVAL);
        }
        false
    }
}

/// The reserved concurrency: free slots, and who waits for one, round robin by mapping.
struct Slots(Mutex<Waiting>);

struct Waiting {
    /// `None`: unlimited.
    free: Option<u32>,
    /// One queue per mapping that waits; the front one is served next.
    mappings: VecDeque<(Uuid, VecDeque<oneshot::Sender<Slot>>)>,
}

/// The right to run one invocation. Dropping it gives it to the next in turn.
pub(crate) struct Slot(Arc<Slots>);

impl Slots {
    fn new(reserved_concurrency: Option<u32>) -> Self {
        Self(Mutex::new(Waiting { free: reserved_concurrency, mappings: VecDeque::new() }))
    }

    /// A slot, or the place in the queue for one.
    fn try_take(self: Arc<Self>, mapping: Uuid) -> Result<Slot, impl Future<Output = Slot>> {
        let mut waiting = lock(&self.0);
        match &mut waiting.free {
            Some(0) => {}
            Some(free) => {
                *free -= 1;
                drop(waiting);
                return Ok(Slot(self));
            }
            None => {
                drop(waiting);
                return Ok(Slot(self));
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
    fn enqueue(&mut self, mapping: Uuid, sender: oneshot::Sender<Slot>) {
        match self.mappings.iter_mut().find(|(uuid, _)| *uuid == mapping) {
            Some((_, queue)) => queue.push_back(sender),
            None => self.mappings.push_back((mapping, VecDeque::from([sender]))),
        }
    }

    /// The next in turn; its mapping goes to the end of the line.
    fn next(&mut self) -> Option<oneshot::Sender<Slot>> {
        let (mapping, mut queue) = self.mappings.pop_front()?;
        let sender = queue.pop_front();
        if !queue.is_empty() {
            self.mappings.push_back((mapping, queue));
        }
        sender
    }
}

impl Drop for Slot {
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
            drop(next.send(Slot(self.0.clone())));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(turn: &mut (impl Future<Output = Slot> + Unpin)) -> Option<Slot> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(turn).poll(&mut context) {
            std::task::Poll::Ready(slot) => Some(slot),
            std::task::Poll::Pending => None,
        }
    }

    fn take(slots: &Arc<Slots>, mapping: u128) -> impl Future<Output = Slot> + Unpin {
        Box::pin(match slots.clone().try_take(Uuid::from_u128(mapping)) {
            Ok(_) => panic!("a slot was free"),
            Err(turn) => turn,
        })
    }

    #[test]
    fn waiting_batches_are_served_round_robin_by_mapping() {
        let slots = Arc::new(Slots::new(Some(1)));
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
        let slots = Arc::new(Slots::new(Some(1)));
        let Ok(running) = slots.clone().try_take(Uuid::nil()) else { panic!("it is free") };
        let left = take(&slots, 1);
        let mut stays = take(&slots, 2);

        drop(left);
        drop(running);

        assert!(poll(&mut stays).is_some());
        assert!(slots.clone().try_take(Uuid::nil()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_cannot_be_used_is_probed_once_a_minute_and_opens_for_all() {
        let gate = Gate::default();
        gate.heed(&Outcome::NotUsable { reason: "404".into() });
        let closed_at = Instant::now();

        let (first, second) = tokio::join!(
            async {
                gate.pass().await;
                let probed_at = Instant::now();
                tokio::time::sleep(Duration::from_secs(5)).await;
                gate.heed(&Outcome::Success);
                probed_at
            },
            async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                gate.pass().await;
                Instant::now()
            }
        );

        assert_eq!(first - closed_at, PROBE_INTERVAL);
        assert_eq!(second - closed_at, PROBE_INTERVAL + Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_the_function_refuses_closes_the_gate_for_no_other_while_the_function_runs() {
        let gate = Gate::default();
        gate.heed(&Outcome::Success);
        gate.heed(&Outcome::NotUsable { reason: "422".into() });
        let started = Instant::now();
        gate.pass().await;
        assert_eq!(started.elapsed(), Duration::ZERO);

        tokio::time::sleep(PROBE_INTERVAL).await;
        gate.heed(&Outcome::NotUsable { reason: "404".into() });
        gate.heed(&Outcome::Unavailable { reason: "502".into(), retry_after: None });
        gate.pass().await;
        assert_eq!(started.elapsed(), PROBE_INTERVAL * 2, "nothing has run for a minute");
    }
}
