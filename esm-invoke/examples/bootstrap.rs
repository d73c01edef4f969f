//! A function on AWS's own runtime client for Rust that does what each event asks for: what
//! `tests/process/function.py` does, too.

use std::{
    env, fs,
    io::{self, Write as _},
    process,
    time::{Duration, SystemTime},
};

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use tokio::{signal::unix, time::sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if let Ok(milliseconds) = env::var("SLOW_START") {
        sleep(Duration::from_millis(milliseconds.parse()?)).await;
    }
    if env::var_os("FAIL_INIT").is_some() {
        return Err("no database".into());
    }
    let mut terminated = unix::signal(unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        terminated.recv().await;
        if let Ok(file) = env::var("SAY_GOODBYE_IN") {
            // The test that waits for the file says so if it is not there.
            let _ = fs::write(file, "goodbye");
        }
        process::exit(0);
    });
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let LambdaEvent { payload, context } = event;
    match payload["do"].as_str().unwrap_or_default() {
        "echo" => Ok(payload["value"].clone()),
        "fail" => Err(error("ValueError", "no pizza")),
        "kill" => {
            // Nothing can be in the way of it.
            let _ = process::Command::new("kill").args(["-9", &process::id().to_string()]).status();
            Ok(Value::Null)
        }
        "exit" => process::exit(payload["status"].as_i64().and_then(|status| status.try_into().ok()).unwrap_or(0)),
        "sleep" => {
            sleep(Duration::from_millis(payload["milliseconds"].as_u64().unwrap_or(0))).await;
            Ok(json!(process::id()))
        }
        "measure" => Ok(json!(payload["value"].as_str().map(str::len))),
        "grow" => {
            let size = payload["size"].as_u64().and_then(|size| size.try_into().ok()).unwrap_or(0);
            Ok("x".repeat(size).into())
        }
        "print" => {
            let written = io::stdout().write_all(b"caf\xe9 in the log\n").and_then(|()| io::stdout().flush());
            written.map(|()| Value::Null).map_err(|failed| error("IoError", &failed.to_string()))
        }
        "tell" => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let remaining = context.deadline.saturating_sub(now.as_millis().try_into().unwrap_or(u64::MAX));
            Ok(json!({
                "process": process::id(),
                "request_id": context.request_id,
                "arn": context.invoked_function_arn,
                "trace_id": env::var("_X_AMZN_TRACE_ID").ok(),
                "remaining": remaining,
                "name": context.env_config.function_name,
                "memory": context.env_config.memory,
                "environment": env::vars().collect::<std::collections::BTreeMap<_, _>>(),
            }))
        }
        other => Err(error("UnknownCommand", other)),
    }
}

fn error(error_type: &str, message: &str) -> Diagnostic {
    Diagnostic { error_type: error_type.into(), error_message: message.into() }
}
