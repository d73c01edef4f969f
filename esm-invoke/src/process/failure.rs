//! How failures of a function are told, in Lambda's own words.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use bytes::Bytes;
use esm_core::invoker::{Outcome, Reply};
use serde_json::json;

use crate::{
    limits::{result_too_large, task_timed_out},
    members::{Members, for_log},
};

/// An error that a function's process posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PostedError {
    /// What the header said about its type.
    pub(super) kind: Option<String>,
    /// What was posted, as JSON with `errorType` and `errorMessage` if the client is a good one.
    pub(super) body: Bytes,
}

impl PostedError {
    /// Type and message, fit for a log.
    pub(super) fn words(&self) -> (String, String) {
        let members = Members::parse(&self.body).unwrap_or_default();
        let kind = members.error_type.filter(|kind| !kind.is_empty());
        let kind = kind.or_else(|| self.kind.as_deref().map(for_log)).unwrap_or_else(|| "Function.Unknown".into());
        let message = members.error_message.unwrap_or_else(|| for_log(&String::from_utf8_lossy(&self.body)));
        (kind, message)
    }
}

/// The function raised an error.
pub(super) fn raised(error: PostedError) -> Reply {
    let (error_type, message) = error.words();
    Reply { outcome: Outcome::FunctionError { error_type, message }, body: error.body }
}

/// The function took longer than it may.
pub(super) fn timed_out(request_id: &str, timeout: Duration) -> Reply {
    told("Sandbox.Timedout", format!("RequestId: {request_id} Error: {}", task_timed_out(timeout)))
}

/// The process ended without an answer. `None` when nobody knows how.
pub(super) fn exited(request_id: &str, status: Option<ExitStatus>) -> Reply {
    told("Runtime.ExitError", format!("RequestId: {request_id} Error: {}", runtime_exited(status)))
}

/// The function returned more than it may.
pub(super) fn too_large() -> Reply {
    with_body(result_too_large())
}

fn told(error_type: &str, message: String) -> Reply {
    with_body(Outcome::FunctionError { error_type: error_type.into(), message })
}

fn with_body(outcome: Outcome) -> Reply {
    let body = match &outcome {
        Outcome::FunctionError { error_type, message } => {
            json!({ "errorType": error_type, "errorMessage": message }).to_string()
        }
        _ => String::new(),
    };
    Reply { outcome, body: body.into() }
}

fn runtime_exited(status: Option<ExitStatus>) -> String {
    let signal = status.and_then(|status| status.signal());
    match (status.and_then(|status| status.code()), signal) {
        (Some(0) | None, None) => "Runtime exited without providing a reason".into(),
        (Some(code), _) => format!("Runtime exited with error: exit status {code}"),
        (None, Some(signal)) => format!("Runtime exited with error: signal: {}", signal_name(signal)),
    }
}

/// As Go prints signals, in which Lambda's own messages are written.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {signal}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[track_caller]
    fn check(reply: &Reply, body: &str) {
        assert_eq!(reply.body, body);
        let Outcome::FunctionError { error_type, message } = &reply.outcome else { panic!("{reply:?}") };
        let members = Members::parse(&reply.body).unwrap();
        assert_eq!((members.error_type.as_ref(), members.error_message.as_ref()), (Some(error_type), Some(message)));
    }

    #[test]
    fn failures_have_lambdas_own_bodies() {
        check(
            &timed_out("r-1", TIMEOUT),
            r#"{"errorMessage":"RequestId: r-1 Error: Task timed out after 1.00 seconds","errorType":"Sandbox.Timedout"}"#,
        );
        let exit = |raw| exited("r-1", Some(ExitStatus::from_raw(raw)));
        let body =
            |reason| format!(r#"{{"errorMessage":"RequestId: r-1 Error: {reason}","errorType":"Runtime.ExitError"}}"#);
        check(&exit(127 << 8), &body("Runtime exited with error: exit status 127"));
        check(&exit(0), &body("Runtime exited without providing a reason"));
        check(&exit(9), &body("Runtime exited with error: signal: killed"));
        check(&exit(40), &body("Runtime exited with error: signal: signal 40"));
        check(&exited("r-1", None), &body("Runtime exited without providing a reason"));
        check(
            &too_large(),
            r#"{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).","errorType":"Function.ResponseSizeTooLarge"}"#,
        );
    }

    #[test]
    fn a_posted_error_is_known_by_its_body_and_else_by_its_header() {
        let check = |kind: Option<&str>, body: &'static str, expected: (&str, &str)| {
            let error = PostedError { kind: kind.map(str::to_owned), body: body.into() };
            let (error_type, message) = error.words();
            assert_eq!((error_type.as_str(), message.as_str()), expected);
        };
        let json = r#"{"errorMessage":"no","errorType":"ValueError","requestId":"1","stackTrace":[]}"#;
        check(Some("unhandled"), json, ("ValueError", "no"));
        check(Some("Runtime.X"), r#"{"errorMessage":"no"}"#, ("Runtime.X", "no"));
        check(Some("Runtime.X"), "oh\u{1b}", ("Runtime.X", "oh "));
        check(None, "", ("Function.Unknown", ""));
    }
}
