//! What an outcome means for the batch: a plain function of the outcome and of what came before.

use std::time::Duration;

use crate::{
    invoker::Outcome,
    mapping::{RedeliveryDelay, RedeliveryPolicy},
    metrics::DropReason,
};

/// How often a function that cannot be used is tried.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// The first delay, and the one that doubles from attempt to attempt.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// No delay is longer, unless the function's side asks for it.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// What a `Retry-After` may ask for at the most.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(900);

/// What happens to a batch next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Acknowledge it.
    Ack,
    /// Invoke its halves, each by itself: it is too large together, or must not be invoked again together.
    Halve,
    /// It is one record, and must not be invoked again.
    GiveUp(DropReason),
    /// Invoke it again after this delay.
    Retry(Duration),
}

/// A batch, or a part of one, as decisions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many records it has.
    pub records: usize,
    /// How often the function had failed with the record that it had failed with most.
    pub failed: u32,
}

/// Refusals in a row that say nothing about the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    held: u32,
}

impl Attempts {
    /// Decides what happens to a part after this outcome. `jitter` is a random number from 0 to 1.
    pub fn decide(&mut self, outcome: &Outcome, part: Part, policy: &RedeliveryPolicy, jitter: f64) -> Step {
        match outcome {
            Outcome::Success => Step::Ack,
            Outcome::FunctionError { .. } => {
                self.held = 0;
                // No message is given up because of its neighbours: the last delivery is halved until it stands alone.
                match policy.maximum_redeliveries {
                    _ if policy.bisects && part.records > 1 => Step::Halve,
                    Some(most) if part.failed >= most && part.records > 1 => Step::Halve,
                    Some(most) if part.failed >= most => Step::GiveUp(DropReason::Attempts),
                    _ => Step::Retry(redelivery_delay(policy.delay, part.failed + 1, jitter)),
                }
            }
            Outcome::Throttled { retry_after, .. } | Outcome::Unavailable { retry_after, .. } => {
                self.held += 1;
                let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                Step::Retry(backoff(self.held, jitter).max(asked))
            }
            Outcome::NotUsable { .. } => Step::Retry(PROBE_INTERVAL),
            Outcome::TooLarge { .. } if part.records > 1 => Step::Halve,
            Outcome::TooLarge { .. } => Step::GiveUp(DropReason::TooLarge),
        }
    }
}

/// Whether a message that the function has failed with so often before, and has now named, must not be invoked again:
/// it was told from its neighbours, so it need not stand alone for that.
pub(crate) fn is_spent(failed: u32, policy: &RedeliveryPolicy) -> bool {
    policy.maximum_redeliveries.is_some_and(|most| failed >= most)
}

pub(crate) fn redelivery_delay(delay: RedeliveryDelay, redelivery: u32, jitter: f64) -> Duration {
    match delay {
        RedeliveryDelay::Fixed => FIRST_DELAY,
        RedeliveryDelay::Exponential => backoff(redelivery, jitter),
    }
}

/// 1 s, doubling to 60 s, a tenth more or less left to chance, so that what failed together does
/// not come back together.
pub(crate) fn backoff(attempt: u32, jitter: f64) -> Duration {
    exponential(FIRST_DELAY, LONGEST_DELAY, attempt, jitter)
}

pub(crate) fn exponential(first: Duration, longest: Duration, attempt: u32, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let delay = first.saturating_mul(1 << doublings).min(longest);
    delay.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_error() -> Outcome {
        Outcome::FunctionError { error_type: "E".into(), message: "m".into() }
    }

    fn throttled(retry_after: Option<Duration>) -> Outcome {
        Outcome::Throttled { reason: "busy".into(), retry_after }
    }

    /// The steps of two records that go through these outcomes together.
    fn steps_by(policy: RedeliveryPolicy, outcomes: &[Outcome]) -> Vec<Step> {
        let mut attempts = Attempts::default();
        let mut part = Part { records: 2, failed: 0 };
        let decide = |outcome: &Outcome| {
            let step = attempts.decide(outcome, part, &policy, 0.5);
            part.failed += u32::from(outcome.ran());
            step
        };
        outcomes.iter().map(decide).collect()
    }

    fn steps(outcomes: &[Outcome]) -> Vec<Step> {
        steps_by(RedeliveryPolicy::RABBITMQ, outcomes)
    }

    fn retry(seconds: u64) -> Step {
        Step::Retry(Duration::from_secs(seconds))
    }

    #[test]
    fn function_errors_are_retried_after_1_2_4_up_to_60_seconds() {
        let expected = [1, 2, 4, 8, 16, 32, 60, 60].map(retry);
        assert_eq!(steps(&vec![function_error(); 8]), expected);
    }

    #[test]
    fn a_jms_client_redelivers_five_times_a_second_apart_and_the_last_delivery_is_halved() {
        let expected = [1, 1, 1, 1, 1].map(retry);
        let steps = steps_by(RedeliveryPolicy::ACTIVEMQ, &vec![function_error(); 6]);
        assert_eq!(steps[..5], expected);
        assert_eq!(steps[5], Step::Halve);
    }

    #[test]
    fn a_record_that_stands_alone_is_given_up_after_its_last_delivery() {
        let check = |maximum_redeliveries, failed, expected: Step| {
            let policy = RedeliveryPolicy { maximum_redeliveries, ..RedeliveryPolicy::ACTIVEMQ };
            let step = Attempts::default().decide(&function_error(), Part { records: 1, failed }, &policy, 0.5);
            assert_eq!(step, expected, "{maximum_redeliveries:?} {failed}");
        };
        check(Some(0), 0, Step::GiveUp(DropReason::Attempts));
        check(Some(5), 4, retry(1));
        check(Some(5), 5, Step::GiveUp(DropReason::Attempts));
        check(Some(5), 9, Step::GiveUp(DropReason::Attempts));
        check(None, 1_000, retry(1));
    }

    #[test]
    fn bisection_halves_at_once_and_counts_only_what_a_record_fails_alone() {
        let policy = RedeliveryPolicy { bisects: true, maximum_redeliveries: Some(2), ..RedeliveryPolicy::RABBITMQ };
        let step =
            |records, failed| Attempts::default().decide(&function_error(), Part { records, failed }, &policy, 0.5);
        assert_eq!(step(100, 0), Step::Halve);
        assert_eq!(step(2, 9), Step::Halve);
        assert_eq!([step(1, 0), step(1, 1), step(1, 2)], [retry(1), retry(2), Step::GiveUp(DropReason::Attempts)]);
    }

    #[test]
    fn a_throttle_spends_no_attempt() {
        let outcomes = [function_error(), throttled(None), throttled(None), function_error()];
        assert_eq!(steps(&outcomes), [1, 1, 2, 2].map(retry));
    }

    #[test]
    fn a_longer_retry_after_is_honoured_within_reason() {
        let ask = |seconds| steps(&[throttled(Some(Duration::from_secs(seconds)))]);
        assert_eq!(ask(30), [retry(30)]);
        assert_eq!(ask(0), [retry(1)]);
        assert_eq!(ask(u64::MAX), [retry(900)]);
    }

    #[test]
    fn an_event_too_large_is_halved_until_it_is_one_record() {
        let too_large = Outcome::TooLarge { reason: "413".into() };
        let decide = |records| {
            Attempts::default().decide(&too_large, Part { records, failed: 0 }, &RedeliveryPolicy::RABBITMQ, 0.5)
        };
        assert_eq!(decide(2), Step::Halve);
        assert_eq!(decide(1), Step::GiveUp(DropReason::TooLarge));
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        assert_eq!(backoff(1, 0.0), Duration::from_millis(900));
        assert_eq!(backoff(1, 1.0), Duration::from_millis(1_100));
        assert!(backoff(u32::MAX, 1.0) <= Duration::from_secs(66));
    }
}
