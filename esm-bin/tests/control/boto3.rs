//! AWS's SDK for Python and AWS's command line, in the virtual environment that `ESM_TEST_PYTHON` names.

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    common::service::Service,
    service::{ACCESS_KEY_ID, SECRET_ACCESS_KEY},
};

/// A client in a process of its own. Killed when dropped.
pub(crate) struct Boto3 {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// An exception as the SDK's caller sees it.
#[derive(Debug)]
pub(crate) struct Exception {
    /// The exception's class, which is the model's if the SDK knows it.
    pub(crate) class: String,
    pub(crate) message: String,
    /// What the SDK parsed.
    pub(crate) response: Value,
}

impl Boto3 {
    pub(crate) fn start(service: &Service) -> Self {
        let mut child = Command::new(python())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control/boto3_calls.py"))
            .args([&service.url(""), ACCESS_KEY_ID, SECRET_ACCESS_KEY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let input = child.stdin.take().expect("is a pipe");
        let output = BufReader::new(child.stdout.take().expect("is a pipe"));
        Self { child, input, output }
    }

    /// What an operation answers, without what belongs to HTTP.
    pub(crate) fn call(&mut self, operation: &str, parameters: Value) -> Result<Value, Exception> {
        let line = Value::Array(vec![operation.into(), parameters]);
        writeln!(self.input, "{line}").expect("writes");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("reads");
        let mut said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{operation}: {line}"));
        let error = said["error"].take();
        if error.is_null() {
            let mut answer = said["answer"].take();
            let metadata = answer.as_object_mut().and_then(|members| members.remove("ResponseMetadata"));
            assert!(metadata.is_none_or(|metadata| metadata["RequestId"].as_str().is_some_and(|id| id.len() == 36)));
            return Ok(answer);
        }
        let message = error["response"]["Error"]["Message"].as_str().unwrap_or_default().to_owned();
        let class = error["class"].as_str().expect("has a class").to_owned();
        Err(Exception { class, message, response: error["response"].clone() })
    }
}

impl Drop for Boto3 {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `aws lambda …` against the service.
pub(crate) fn aws(service: &Service, arguments: &[&str]) -> Output {
    Command::new(python())
        .args(["-m", "awscli", "lambda"])
        .args(arguments)
        .args(["--endpoint-url", &service.url("")])
        .envs([("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)])
        .envs([("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_CONFIG_FILE", "/dev/null"), ("AWS_MAX_ATTEMPTS", "1")])
        .output()
        .expect("runs")
}

/// What `aws lambda …` prints, which has to succeed.
pub(crate) fn aws_prints(service: &Service, arguments: &[&str]) -> Value {
    let output = aws(service, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    if output.stdout.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?} prints no JSON: {errors}"))
}

pub(crate) fn python() -> OsString {
    env::var_os("ESM_TEST_PYTHON").expect("ESM_TEST_PYTHON names an interpreter that has awscli and boto3")
}
