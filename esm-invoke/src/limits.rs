//! Lambda's limits that are the same for every backend, and what running into one is called.

use std::time::Duration;

use esm_core::invoker::Outcome;

/// The largest result of a synchronous invocation, by Lambda's quotas.
pub(crate) const RESULT_LIMIT: usize = 6_291_556;

/// The function returned more than [`RESULT_LIMIT`].
pub(crate) fn result_too_large() -> Outcome {
    Outcome::FunctionError {
        error_type: "Function.ResponseSizeTooLarge".into(),
        message: format!("Response payload size exceeded maximum allowed payload size ({RESULT_LIMIT} bytes)."),
    }
}

/// What a time-out is told as.
pub(crate) fn task_timed_out(timeout: Duration) -> String {
    format!("Task timed out after {:.2} seconds", timeout.as_secs_f64())
}
