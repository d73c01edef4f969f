//! Which HTTP answer means what: a pure function of status, headers and body.
//!
//! The rules are those of Lambda's Invoke API (its reference lists status and type of every error),
//! joined by those of the emulators people develop with, which never send the same status for
//! another meaning. "RIE" is the Runtime Interface Emulator in its two modes: one invocation at a
//! time, and managed instances.

use std::time::{Duration, SystemTime};

use esm_core::invoker::Outcome;
use hyper::{
    StatusCode,
    header::{HeaderMap, LOCATION, RETRY_AFTER},
};
use url::Url;

use crate::{
    http::Protocol,
    limits::RESULT_LIMIT,
    members::{Members, for_log},
};

/// As much of an error's body as is read.
const ERROR_LIMIT: usize = 64 * 1024;

/// Lambda's 502 types that only a change of the function's configuration heals; `KMS…` belongs to
/// them. Its other ones (`EC2Throttled`, `ENILimitReached`, …) pass by themselves.
const BROKEN_CONFIGURATION: [&str; 5] =
    ["InvalidRuntime", "InvalidZipFile", "EC2AccessDenied", "InvalidSecurityGroupID", "InvalidSubnetID"];

/// An answer as far as it was read.
pub(crate) struct Answer<'a> {
    /// The URL as people may see it.
    pub(crate) endpoint: &'a str,
    pub(crate) protocol: Protocol,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer<'_> {
    /// Whether the body is what a function returned or raised, and decides.
    pub(crate) fn is_result(&self) -> bool {
        self.protocol != Protocol::Webhook && self.status == StatusCode::OK
    }

    /// How much of the body is needed.
    pub(crate) fn body_limit(&self) -> usize {
        if self.is_result() { RESULT_LIMIT } else { ERROR_LIMIT }
    }

    /// What the answer says about the invocation.
    pub(crate) fn outcome(&self, now: SystemTime) -> Outcome {
        match self.protocol {
            Protocol::Lambda | Protocol::Aws => self.of_lambda(now),
            Protocol::Webhook => self.of_a_webhook(now),
        }
    }

    /// By the status alone, which is all that webhooks agree on. Who answers 500 ran and failed; who
    /// answers 400 or 422 looked at the event and will not have it, now or later.
    fn of_a_webhook(&self, now: SystemTime) -> Outcome {
        match self.status.as_u16() {
            200..=299 => Outcome::Success,
            300..=399 => self.redirect(),
            401 | 403 | 407 => self.not_usable("; it must be allowed to call this URL"),
            404 | 405 | 410 | 415 => self.not_usable("; check the URL and what stands behind it"),
            413 => Outcome::TooLarge { reason: self.said("") },
            429 => self.throttled(now),
            // Said by gateways, and by servers that start or are overloaded.
            408 | 425 | 502..=504 => self.unavailable(now),
            status => Outcome::FunctionError { error_type: format!("Webhook.Status{status}"), message: self.said("") },
        }
    }

    fn of_lambda(&self, now: SystemTime) -> Outcome {
        if let Some(kind) = self.header("x-amz-function-error") {
            return self.function_error(kind);
        }
        match (self.status.as_u16(), self.error_type()) {
            (200, _) => self.result(),
            // Invoke API: 202 and 204 answer the invocation types Event and DryRun, which were not
            // asked for. They prove nothing, and a message is only given up for proof.
            (201..=299, _) => {
                self.not_usable(", which is no function's result: the URL must invoke synchronously and answer 200")
            }
            (300..=399, _) => self.redirect(),
            // Invoke API: TooManyRequestsException. RIE (managed instances): every runtime is busy.
            (429, _) | (400, Some("Runtime.Unavailable")) => self.throttled(now),
            // RIE: one invocation at a time; another one is refused without a word.
            (400, None) if self.body.is_empty() => self.throttled(now),
            // RIE (managed instances): starting, or shutting down.
            (400, Some(kind)) if kind.starts_with("Client.") => self.unavailable(now),
            // Invoke API: RequestTooLargeException.
            (413, _) => Outcome::TooLarge { reason: self.said("") },
            // Invoke API: the function's set-up is broken.
            (502, Some(kind)) if kind.starts_with("KMS") || BROKEN_CONFIGURATION.contains(&kind) => {
                self.not_usable("; the function's configuration must be mended")
            }
            // RIE: the runtime died, told in the words of Lambda. A gateway's page is no such thing.
            (502, None) if self.members().error_type.is_some() => self.function_error("Unhandled"),
            // Invoke API: file systems and SnapStart (408, 410), ResourceConflict and SnapStart
            // (409), ServiceException (500), networking of the function (502). 503 and 504 are said
            // by gateways and by RIE.
            (408..=410 | 500..=599, _) => self.unavailable(now),
            (400, Some("InvalidRequestContent")) | (415, _) => {
                self.not_usable("; the event was not taken for JSON: is this an Invoke URL?")
            }
            (401 | 403, _) => self.not_usable("; it must be allowed to call this URL"),
            (404 | 405, _) => self.not_usable("; check the URL and the function's name in it"),
            _ => self.not_usable("; check the URL and what stands behind it"),
        }
    }

    /// Emulators send no error header with a 200, so the body decides: RIE prints what the function
    /// raised, SAM recognises only some of it, and RIE prints its time-out as plain text. An empty
    /// body is what plain HTTP functions return for nothing.
    fn result(&self) -> Outcome {
        let body = self.body.trim_ascii();
        match Members::parse(body) {
            // RIE (managed instances) names the type here and may leave the message out.
            _ if self.header("error-type").is_some() => self.function_error("Function.Unknown"),
            _ if body.is_empty() || self.protocol == Protocol::Aws => Outcome::Success,
            Some(Members { error_type: Some(error_type), error_message: Some(message), .. }) => {
                Outcome::FunctionError { error_type, message }
            }
            Some(_) => Outcome::Success,
            None if body.starts_with(b"Task timed out after ") => {
                Outcome::FunctionError { error_type: "Sandbox.Timedout".into(), message: self.text() }
            }
            None => Outcome::FunctionError {
                error_type: "Function.ResponseNotJson".into(),
                message: format!("the result must be JSON or nothing, and is: {}", self.text()),
            },
        }
    }

    fn function_error(&self, otherwise: &str) -> Outcome {
        let members = self.members();
        let kind = members.error_type.filter(|kind| !kind.is_empty());
        Outcome::FunctionError {
            error_type: kind.unwrap_or_else(|| for_log(self.error_type().unwrap_or(otherwise))),
            message: members.error_message.unwrap_or_else(|| self.text()),
        }
    }

    fn redirect(&self) -> Outcome {
        let here = Url::parse(self.endpoint).ok();
        let there = self.header(LOCATION.as_str());
        match here.zip(there).and_then(|(here, there)| here.join(there).ok()) {
            Some(url) => self.not_usable(&format!(
                " and points to {}; redirects are not followed: configure the final URL",
                for_log(&public(&url))
            )),
            None => self.not_usable("; redirects are not followed: configure the final URL"),
        }
    }

    fn throttled(&self, now: SystemTime) -> Outcome {
        let advice = if self.status == StatusCode::BAD_REQUEST {
            ", as an emulator does while it is busy: give it no more invocations at a time than it takes"
        } else {
            ""
        };
        Outcome::Throttled { reason: self.said(advice), retry_after: self.retry_after(now) }
    }

    fn unavailable(&self, now: SystemTime) -> Outcome {
        Outcome::Unavailable { reason: self.said(""), retry_after: self.retry_after(now) }
    }

    fn not_usable(&self, advice: &str) -> Outcome {
        Outcome::NotUsable { reason: self.said(advice) }
    }

    /// `URL answered 429 Too Many Requests (what it says of itself)` and an advice.
    fn said(&self, advice: &str) -> String {
        let members = self.members();
        let mut told: Vec<String> =
            [members.reason, members.message, members.error_message].into_iter().flatten().collect();
        if told.is_empty() {
            told.push(self.text());
        }
        let kind = self.error_type().map(for_log);
        let words: Vec<String> = kind.into_iter().chain(told).filter(|word| !word.is_empty()).collect();
        let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(": ")) };
        let name = self.status.canonical_reason().unwrap_or_default();
        let status = format!("{} {name}", self.status.as_str());
        format!("{} answered {}{words}{advice}", self.endpoint, status.trim_end())
    }

    /// The type of a service's error: AWS appends `Exception` to most, and some append a URI.
    pub(crate) fn error_type(&self) -> Option<&str> {
        let kind = self.header("x-amzn-errortype").or_else(|| self.header("error-type"))?;
        let kind = kind.split(':').next().unwrap_or(kind).trim();
        Some(kind.strip_suffix("Exception").unwrap_or(kind))
    }

    /// RFC 9110, section 10.2.3: seconds or a date.
    fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let value = self.header(RETRY_AFTER.as_str())?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or("(not text)"))
    }

    fn members(&self) -> Members {
        Members::parse(&self.body).unwrap_or_default()
    }

    fn text(&self) -> String {
        for_log(&String::from_utf8_lossy(&self.body[..self.body.len().min(ERROR_LIMIT)]))
    }
}

/// A URL without what may be secret in it: user, password, query and fragment.
pub(crate) fn public(url: &Url) -> String {
    let mut url = url.clone();
    let without_user = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    without_user.map_or_else(|()| url.scheme().to_owned(), |()| url.to_string())
}

#[cfg(test)]
mod tests {
    use esm_core::invoker::Outcome::{FunctionError, NotUsable, Success, Throttled, TooLarge, Unavailable};
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const NOW: Duration = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        answer(Protocol::Lambda, status, headers, body)
    }

    fn answer(protocol: Protocol, status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        let header = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        Answer {
            endpoint: "http://f/x",
            protocol,
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(header).collect(),
            body: body.into(),
        }
        .outcome(SystemTime::UNIX_EPOCH + NOW)
    }

    /// An answer is of a class, and what is said about it ends like this.
    #[track_caller]
    fn check(status: u16, headers: &[(&str, &str)], body: &str, class: &str, end: &str) {
        check_outcome(&outcome(status, headers, body), class, end);
    }

    #[track_caller]
    fn check_outcome(outcome: &Outcome, class: &str, end: &str) {
        let (found, said) = match outcome {
            Success => ("success", String::new()),
            FunctionError { error_type, message } => ("function error", format!("{error_type}: {message}")),
            Throttled { reason, .. } => ("throttled", reason.clone()),
            Unavailable { reason, .. } => ("unavailable", reason.clone()),
            TooLarge { reason } => ("too large", reason.clone()),
            NotUsable { reason } => ("not usable", reason.clone()),
        };
        assert_eq!(found, class, "{outcome:?}");
        assert!(said.ends_with(end), "{said} does not end with {end}");
        assert!(matches!(found, "success" | "function error") || said.starts_with("http://f/x answered "));
    }

    #[test]
    fn a_webhook_is_judged_by_its_status() {
        let check = |status, class, end| check_outcome(&answer(Protocol::Webhook, status, &[], "oh"), class, end);
        for status in [200, 201, 202, 204] {
            check(status, "success", "");
        }
        check(302, "not usable", "configure the final URL");
        check(401, "not usable", "it must be allowed to call this URL");
        check(404, "not usable", "404 Not Found (oh); check the URL and what stands behind it");
        check(413, "too large", "413 Payload Too Large (oh)");
        check(429, "throttled", "429 Too Many Requests (oh)");
        for status in [408, 425, 502, 503, 504] {
            check(status, "unavailable", "(oh)");
        }
        check(400, "function error", "Webhook.Status400: http://f/x answered 400 Bad Request (oh)");
        check(422, "function error", "(oh)");
        check(500, "function error", "Webhook.Status500: http://f/x answered 500 Internal Server Error (oh)");
        let raised = answer(Protocol::Webhook, 200, &[UNHANDLED], RAISED);
        assert_eq!(raised, Success, "what the body says is the webhook's own affair");
    }

    const UNHANDLED: (&str, &str) = ("x-amz-function-error", "Unhandled");
    const RAISED: &str = r#"{"errorMessage":"no","errorType":"ValueError","requestId":"1","stackTrace":[]}"#;

    #[test]
    fn a_result_is_told_from_an_error() {
        check(200, &[], "null", "success", "");
        check(200, &[], r#"{"statusCode":500,"body":"errorType"}"#, "success", "");
        check(200, &[], " 1e999 ", "success", "");
        check(200, &[], "", "success", "");
        check(200, &[], "\r\n", "success", "");
        check(200, &[], r#"{"errorMessage":"shown","errorType":null}"#, "success", "");
        check(200, &[], r#"[{"errorMessage":"a","errorType":"b"}]"#, "success", "");
        check(200, &[], RAISED, "function error", "ValueError: no");
        check(200, &[UNHANDLED], RAISED, "function error", "ValueError: no");
        check(200, &[UNHANDLED], "null", "function error", "Unhandled: null");
        check(200, &[UNHANDLED], "", "function error", "Unhandled: ");
        check(200, &[("x-amz-function-error", "Handled")], "{}", "function error", "Handled: {}");
        check(200, &[("x-amz-function-error", "ü")], "{}", "function error", "(not text): {}");
        let oversized = r#"{"errorType":"Function.ResponseSizeTooLarge"}"#;
        let header = ("error-type", "Function.ResponseSizeTooLarge");
        check(200, &[header], "", "function error", "Function.ResponseSizeTooLarge: ");
        check(200, &[header], oversized, "function error", oversized);
        let late = "Task timed out after 3.00 seconds";
        check(200, &[], late, "function error", "Sandbox.Timedout: Task timed out after 3.00 seconds");
        check(200, &[], "<html>", "function error", "must be JSON or nothing, and is: <html>");
        check(200, &[], r#"{"a":1"#, "function error", r#"{"a":1"#);
        check(201, &[], "null", "not usable", "answer 200");
        check(202, &[], "", "not usable", "answer 200");
        check(204, &[], "", "not usable", "answer 200");
    }

    #[test]
    fn what_passes_by_itself_is_held() {
        let limit = r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#;
        let words = "429 Too Many Requests (TooManyRequests: ReservedFunctionConcurrentInvocationLimitExceeded: Rate Exceeded.)";
        check(429, &[("x-amzn-errortype", "TooManyRequestsException")], limit, "throttled", words);
        check(429, &[], "", "throttled", "answered 429 Too Many Requests");
        let busy = "give it no more invocations at a time than it takes";
        check(400, &[], "", "throttled", busy);
        let no_runtime = r#"{"errorType":"Runtime.Unavailable"}"#;
        check(400, &[("error-type", "Runtime.Unavailable")], no_runtime, "throttled", busy);
        let starting = [("error-type", "Client.InitIncomplete")];
        check(400, &starting, "{}", "unavailable", "400 Bad Request (Client.InitIncomplete: {})");
        for status in [408, 409, 410, 500, 501, 503, 504, 599] {
            check(status, &[], "", "unavailable", "");
        }
        check(500, &[("x-amzn-errortype", "ServiceException:http://internal/")], "", "unavailable", "(Service)");
        check(502, &[("x-amzn-errortype", "ENILimitReachedException")], "{}", "unavailable", "");
        check(502, &[], "<html>502 Bad Gateway</html>", "unavailable", "");
        check(502, &[], r#"{"message":"upstream"}"#, "unavailable", "502 Bad Gateway (upstream)");
        check(502, &[], "", "unavailable", "");
        check(599, &[], "", "unavailable", "answered 599");
    }

    #[test]
    fn a_crash_in_an_emulator_is_the_functions_error() {
        let exit = r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited"}"#;
        check(502, &[], exit, "function error", "Runtime.ExitError: RequestId: 1 Error: Runtime exited");
    }

    #[test]
    fn too_much_is_told_from_the_rest() {
        let aws = r#"{"Type":"User","message":"12582912 byte payload is too large"}"#;
        check(413, &[("x-amzn-errortype", "RequestTooLargeException")], aws, "too large", "is too large)");
        check(413, &[], "", "too large", "413 Payload Too Large");
    }

    #[test]
    fn what_a_person_must_mend_is_not_usable() {
        let missing = r#"{"Type":"User","Message":"Function not found: arn:aws:lambda:x"}"#;
        let kind = [("x-amzn-errortype", "ResourceNotFoundException")];
        check(404, &kind, missing, "not usable", "x); check the URL and the function's name in it");
        check(404, &[], "", "not usable", "404 Not Found; check the URL and the function's name in it");
        check(403, &[], "{}", "not usable", "it must be allowed to call this URL");
        check(401, &[], "", "not usable", "it must be allowed to call this URL");
        check(405, &[], "", "not usable", "check the URL and the function's name in it");
        check(415, &[], "", "not usable", "is this an Invoke URL?");
        let parse = [("x-amzn-errortype", "InvalidRequestContentException")];
        check(400, &parse, "", "not usable", "is this an Invoke URL?");
        check(400, &[("x-amzn-errortype", "InvalidParameterValueException")], "", "not usable", "");
        check(400, &[], "<html>", "not usable", "400 Bad Request (<html>); check the URL and what stands behind it");
        check(418, &[], "", "not usable", "");
        for kind in BROKEN_CONFIGURATION.iter().copied().chain(["KMSDisabled", "KMSNotFound"]) {
            let full = format!("{kind}Exception");
            check(502, &[("x-amzn-errortype", &full)], "{}", "not usable", "must be mended");
        }
        check(
            302,
            &[("location", "/login?token=1")],
            "",
            "not usable",
            "http://f/login; redirects are not followed: configure the final URL",
        );
        check(
            302,
            &[("location", "https://u:p@g/#a")],
            "",
            "not usable",
            "https://g/; redirects are not followed: configure the final URL",
        );
        check(304, &[], "", "not usable", "304 Not Modified; redirects are not followed: configure the final URL");
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_by_a_date() {
        let asked = |value| match outcome(503, &[("retry-after", value)], "") {
            Unavailable { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked("120"), seconds(120));
        assert_eq!(asked(" 0 "), seconds(0));
        assert_eq!(asked("18446744073709551615"), seconds(u64::MAX));
        assert_eq!(asked("18446744073709551616"), None);
        assert_eq!(asked("-1"), None);
        assert_eq!(asked("ü"), None);
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT"), seconds(60));
        assert_eq!(asked("Sunday, 06-Nov-94 08:49:38 GMT"), seconds(1));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), seconds(0));
    }

    #[test]
    fn a_hostile_answer_is_cut() {
        let Outcome::NotUsable { reason } = outcome(404, &[], &"\u{1b}ü".repeat(100_000)) else { panic!() };
        assert!(reason.len() < 2_000 && !reason.contains('\u{1b}'));
    }
}
