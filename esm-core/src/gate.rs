//! The restraint towards a function that cannot be used, or is away: one gate for all of its mappings.
//!
//! It is closed while there is no use in asking, and then lets one invocation through at a time to find out. So a
//! function that is down is asked as often by a thousand batches as by one. What is held at the gate spends nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep_until},
};

use crate::{
    invoker::Outcome,
    retry::{LONGEST_RETRY_AFTER, PROBE_INTERVAL, backoff},
};

/// How many invocations in a row may find the function away before it is asked by one at a time.
const FOUND_AWAY: u32 = 5;

/// The gate before one function.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    opened: Notify,
}

#[derive(Default)]
struct GateState {
    /// Set while the gate is closed.
    next_probe: Option<Instant>,
    /// When the function last ran, whatever it said.
    ran_at: Option<Instant>,
    /// How many invocations in a row found the function away while the gate was open.
    found_away: u32,
    /// How many probes in a row did, since it is closed.
    failed_probes: u32,
}

/// How an invocation came through the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// As everyone does while it is open.
    Open,
    /// It is to find out whether the function is back.
    Probe,
}

impl Gate {
    /// Waits until it is open, or time for a probe.
    pub(crate) async fn wait(&self) {
        loop {
            let opened = self.opened.notified();
            let Some(probe_at) = self.lock().closed_until(Instant::now()) else { return };
            tokio::select! {
                () = sleep_until(probe_at) => {}
                () = opened => {}
            }
        }
    }

    /// `None`: it is closed, after all.
    pub(crate) fn try_pass(&self) -> Option<Pass> {
        self.lock().pass(Instant::now())
    }

    /// The probe was not made: there was nothing left to invoke.
    pub(crate) fn return_probe(&self) {
        if let Some(next_probe) = &mut self.lock().next_probe {
            *next_probe = Instant::now();
        }
        self.opened.notify_waiters();
    }

    /// Takes note of what became of an invocation.
    pub(crate) fn heed(&self, outcome: &Outcome, pass: Pass) {
        if self.lock().opens(outcome, pass, Instant::now(), fastrand::f64()) {
            self.opened.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.next_probe.filter(|at| *at > now)
    }

    /// `None`: it is closed. Who goes ahead through a closed gate is the probe, and the only one for a
    /// while, even if nothing comes of it.
    fn pass(&mut self, now: Instant) -> Option<Pass> {
        match self.next_probe {
            Some(at) if at > now => None,
            Some(_) => {
                self.next_probe = Some(now + PROBE_INTERVAL);
                Some(Pass::Probe)
            }
            None => Some(Pass::Open),
        }
    }

    /// Takes note of an outcome; whether it opens the gate. `jitter` is a random number from 0 to 1.
    fn opens(&mut self, outcome: &Outcome, pass: Pass, now: Instant, jitter: f64) -> bool {
        if outcome.ran() {
            let before = std::mem::replace(self, Self { ran_at: Some(now), ..Self::default() });
            return before.next_probe.is_some();
        }
        match outcome {
            // A function that ran a moment ago is usable: what it refuses now is this batch, which
            // waits by itself and stops no other.
            Outcome::NotUsable { .. } => {
                let ran_lately = self.ran_at.is_some_and(|at| now < at + PROBE_INTERVAL);
                if pass == Pass::Probe || !ran_lately {
                    self.next_probe = Some(now + PROBE_INTERVAL);
                }
            }
            Outcome::Unavailable { retry_after, .. } | Outcome::Throttled { retry_after, .. }
                if pass == Pass::Probe =>
            {
                self.failed_probes += 1;
                self.next_probe = Some(now + self.pause(*retry_after, jitter));
            }
            Outcome::Unavailable { retry_after, .. } if self.next_probe.is_none() => {
                self.found_away += 1;
                if self.found_away >= FOUND_AWAY {
                    self.failed_probes = 1;
                    self.next_probe = Some(now + self.pause(*retry_after, jitter));
                }
            }
            // Others are on their way out of a gate that is closed by now, or say nothing of the
            // function as a whole.
            _ => {}
        }
        false
    }

    fn pause(&self, retry_after: Option<Duration>, jitter: f64) -> Duration {
        backoff(self.failed_probes, jitter).max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{task::JoinSet, time::sleep};

    use super::*;

    fn not_usable() -> Outcome {
        Outcome::NotUsable { reason: "404".into() }
    }

    fn away() -> Outcome {
        Outcome::Unavailable { reason: "refused".into(), retry_after: None }
    }

    async fn pass(gate: &Gate) -> Pass {
        loop {
            gate.wait().await;
            if let Some(pass) = gate.try_pass() {
                return pass;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_cannot_be_used_is_probed_once_a_minute_and_opens_for_all() {
        let gate = Gate::default();
        gate.heed(&not_usable(), Pass::Open);
        let closed_at = Instant::now();

        let (first, second) = tokio::join!(
            async {
                assert_eq!(pass(&gate).await, Pass::Probe);
                let probed_at = Instant::now();
                sleep(Duration::from_secs(5)).await;
                gate.heed(&Outcome::Success, Pass::Probe);
                probed_at
            },
            async {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(pass(&gate).await, Pass::Open);
                Instant::now()
            }
        );

        assert_eq!(first - closed_at, PROBE_INTERVAL);
        assert_eq!(second - closed_at, PROBE_INTERVAL + Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_the_function_refuses_closes_the_gate_for_no_other_while_the_function_runs() {
        let gate = Gate::default();
        gate.heed(&Outcome::Success, Pass::Open);
        gate.heed(&not_usable(), Pass::Open);
        let started = Instant::now();
        pass(&gate).await;
        assert_eq!(started.elapsed(), Duration::ZERO);

        sleep(PROBE_INTERVAL).await;
        gate.heed(&not_usable(), Pass::Open);
        gate.heed(&away(), Pass::Open);
        pass(&gate).await;
        assert_eq!(started.elapsed(), PROBE_INTERVAL * 2, "nothing has run for a minute");
    }

    /// When a function that answers so was asked by a thousand batches, each of which tries at once whenever it may,
    /// within so many minutes of the first time.
    async fn asked(outcome: Outcome, minutes: u32) -> Vec<Duration> {
        let gate = Arc::new(Gate::default());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let mut batches = JoinSet::new();
        for _ in 0..1_000 {
            let (gate, asked, outcome) = (gate.clone(), asked.clone(), outcome.clone());
            batches.spawn(async move {
                loop {
                    let pass = pass(&gate).await;
                    asked.lock().unwrap().push(started.elapsed());
                    gate.heed(&outcome, pass);
                }
            });
        }
        sleep(Duration::from_secs(60) * minutes).await;
        batches.shutdown().await;
        let asked = asked.lock().unwrap();
        asked.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_is_away_is_asked_by_one_batch_at_a_time_and_then_once_a_minute() {
        let asked = asked(away(), 20).await;
        let (at_once, probes) = asked.split_at(FOUND_AWAY as usize);
        assert!(at_once.iter().all(Duration::is_zero), "{at_once:?}");
        let seconds: Vec<_> = asked[FOUND_AWAY as usize - 1..].iter().map(Duration::as_secs_f64).collect();
        let pauses = seconds.windows(2).map(|pair| pair[1] - pair[0]);
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0].into_iter().chain(std::iter::repeat(60.0));
        for (pause, expected) in pauses.zip(expected) {
            assert!((pause / expected - 1.0).abs() <= 0.11, "{pause} s instead of {expected} s");
        }
        assert!((22..=28).contains(&probes.len()), "{}", probes.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_the_functions_side_asks_for_holds_all_batches() {
        let outcome = Outcome::Unavailable { reason: "503".into(), retry_after: Some(Duration::from_secs(300)) };
        let asked = asked(outcome, 10).await;
        let seconds: Vec<_> = asked[FOUND_AWAY as usize..].iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [300]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_batches_that_find_the_function_away_at_once_are_no_thousand_failed_probes() {
        let gate = Gate::default();
        let passes: Vec<_> = (0..1_000).map(|_| gate.try_pass().unwrap()).collect();
        for pass in passes {
            gate.heed(&away(), pass);
        }
        let started = Instant::now();
        assert_eq!(pass(&gate).await, Pass::Probe);
        assert!(started.elapsed() <= Duration::from_millis(1_100), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_is_back_gets_all_that_waited_at_once() {
        let gate = Arc::new(Gate::default());
        for _ in 0..FOUND_AWAY {
            gate.heed(&away(), Pass::Open);
        }
        let passed = Arc::new(AtomicUsize::new(0));
        let mut batches = JoinSet::new();
        for _ in 0..100 {
            let (gate, passed) = (gate.clone(), passed.clone());
            batches.spawn(async move {
                let pass = pass(&gate).await;
                passed.fetch_add(1, Ordering::Relaxed);
                if pass == Pass::Probe {
                    sleep(Duration::from_secs(3)).await;
                    gate.heed(&Outcome::Success, pass);
                }
            });
        }
        sleep(Duration::from_secs(3)).await;
        assert_eq!(passed.load(Ordering::Relaxed), 1, "the probe");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(passed.load(Ordering::Relaxed), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_now_and_then_close_nothing_while_the_function_runs() {
        let gate = Gate::default();
        for _ in 0..100 {
            gate.heed(&away(), Pass::Open);
            gate.heed(&Outcome::Success, Pass::Open);
            gate.heed(&Outcome::Throttled { reason: "busy".into(), retry_after: None }, Pass::Open);
        }
        assert_eq!(gate.try_pass(), Some(Pass::Open));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_is_followed_by_another_one() {
        let gate = Gate::default();
        gate.heed(&not_usable(), Pass::Open);
        for _ in 0..3 {
            let started = Instant::now();
            assert_eq!(pass(&gate).await, Pass::Probe);
            assert_eq!(started.elapsed(), PROBE_INTERVAL);
        }
    }
}
