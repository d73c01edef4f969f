//! A function on AWS's runtime client that writes down when it begins and ends, for tests of the whole service:
//! lines in a file that all of its processes share, in the order in which things happened.
//!
//! The bodies of messages may ask it for something: `panic` and `hang` work once each, and once only.

use std::{
    env,
    fs::File,
    future, io,
    io::Write as _,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let folder = PathBuf::from(env::var("RECORD_IN")?);
    lambda_runtime::run(service_fn(|event| handle(&folder, event))).await
}

async fn handle(folder: &Path, event: LambdaEvent<Value>) -> Result<(), Error> {
    let (queue, bodies) = messages(&event.payload)?;
    record(folder, &format!("start {} {queue} {}", process::id(), bodies.join(",")))?;
    while folder.join("hold").exists() {
        sleep(Duration::from_millis(5)).await;
    }
    for body in &bodies {
        match body.as_str() {
            "panic" if is_first_time(folder, body) => panic!("as the message asks for"),
            "hang" if is_first_time(folder, body) => future::pending().await,
            _ => {}
        }
    }
    record(folder, &format!("end {} {queue} {}", process::id(), bodies.join(",")))?;
    Ok(())
}

/// The queue, and the bodies of its messages as text.
fn messages(event: &Value) -> Result<(&str, Vec<String>), Error> {
    let (queue, messages) = match event["rmqMessagesByQueue"].as_object() {
        Some(queues) => queues.iter().next().map(|(queue, messages)| (queue.as_str(), messages)).ok_or("no queue")?,
        None => {
            let queue = event["messages"][0]["destination"]["physicalName"].as_str().ok_or("no event of a broker")?;
            (queue, &event["messages"])
        }
    };
    let queue = queue.split("::").next().unwrap_or(queue);
    let bodies = messages.as_array().ok_or("no list")?.iter().map(|message| {
        let bytes = base64_simd::STANDARD.decode_to_vec(message["data"].as_str().unwrap_or_default())?;
        Ok(String::from_utf8(bytes)?)
    });
    Ok((queue, bodies.collect::<Result<_, Error>>()?))
}

fn is_first_time(folder: &Path, what: &str) -> bool {
    File::create_new(folder.join(what)).is_ok()
}

/// One write to a file that is only appended to: lines of several processes stay whole and in order.
fn record(folder: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(folder.join("record"))?;
    file.write_all(format!("{line}\n").as_bytes())
}
