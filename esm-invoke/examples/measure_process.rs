//! Measures what the Runtime API costs: invocations in a row of the function in `bootstrap.rs`,
//! through the pool of processes, and from a server that does nothing but hand out one event.
//!
//! Build both in release mode first:
//! `cargo build --release -p esm-invoke --features process --examples`.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use esm_core::invoker::{Invoke as _, Outcome};
use esm_invoke::process::{ProcessInvoker, ProcessSettings};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::Instant};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

/// What the invocations of one round came to.
struct Measured {
    per_second: f64,
    /// Of this process, for one invocation.
    cpu: Duration,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    for size in [100, 140_000] {
        let event = Bytes::from(format!(r#"{{"do":"measure","value":"{}"}}"#, "x".repeat(size)));
        let (mut pool, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(from_a_bare_server(&event).await?);
            pool.push(through_the_pool(&event).await?);
        }
        let (pool, bare) = (median(pool), median(bare));
        println!(
            "{size} bytes: pool {:.0}/s with {:?} of CPU each, bare server {:.0}/s with {:?}: {:.1} %",
            pool.per_second,
            pool.cpu,
            bare.per_second,
            bare.cpu,
            100.0 * pool.per_second / bare.per_second
        );
    }
    Ok(())
}

fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    measured.swap_remove(ROUNDS / 2)
}

async fn through_the_pool(event: &Bytes) -> Result<Measured, Box<dyn Error>> {
    let invoker = ProcessInvoker::new(ProcessSettings {
        name: "measured".into(),
        arn: "arn:aws:lambda:us-east-1:000000000000:function:measured".into(),
        command: vec![example("bootstrap")?],
        folder: "/".into(),
        environment: [].into(),
        instances: 1.try_into()?,
        timeout: Duration::from_secs(60),
        start_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        memory_in_mebibytes: None,
        open_files: None,
        launcher: vec![example("launch")?],
    });
    let mut invocations = 0;
    assert_eq!(invoker.invoke(event.clone().into()).await.outcome, Outcome::Success);
    let (started, cpu) = (Instant::now(), cpu()?);
    while started.elapsed() < ROUND {
        assert_eq!(invoker.invoke(event.clone().into()).await.outcome, Outcome::Success);
        invocations += 1;
    }
    measured(invocations, started, cpu)
}

async fn from_a_bare_server(event: &Bytes) -> Result<Measured, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut function = Command::new(example("bootstrap")?);
    function.env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string());
    function.env("AWS_LAMBDA_FUNCTION_NAME", "measured").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    function.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128").stdin(Stdio::null());
    let mut function = function.spawn()?;
    let answered = Arc::new(AtomicU64::new(0));
    let serving = {
        let (event, answered) = (event.clone(), answered.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (event, answered) = (event.clone(), answered.clone());
                let answer = service_fn(move |request| answer(request, event.clone(), answered.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        })
    };
    while answered.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (started, cpu, before) = (Instant::now(), cpu()?, answered.load(Ordering::Relaxed));
    tokio::time::sleep(ROUND).await;
    let measured = measured(answered.load(Ordering::Relaxed) - before, started, cpu);
    serving.abort();
    function.kill()?;
    function.wait()?;
    measured
}

async fn answer(
    request: Request<Incoming>,
    event: Bytes,
    answered: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.method() == Method::POST {
        request.into_body().collect().await?;
        answered.fetch_add(1, Ordering::Relaxed);
        let mut accepted = Response::new(Full::new(Bytes::from_static(br#"{"status":"OK"}"#)));
        *accepted.status_mut() = hyper::StatusCode::ACCEPTED;
        return Ok(accepted);
    }
    let mut response = Response::new(Full::new(event));
    let headers = response.headers_mut();
    let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() + 60_000;
    headers.insert("lambda-runtime-deadline-ms", u64::try_from(deadline).unwrap_or(u64::MAX).into());
    for (name, value) in [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:measured"),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn measured(invocations: u64, started: Instant, before: Duration) -> Result<Measured, Box<dyn Error>> {
    let used = cpu()?.saturating_sub(before);
    let invocations = u32::try_from(invocations)?;
    let per_second = f64::from(invocations) / started.elapsed().as_secs_f64();
    Ok(Measured { per_second, cpu: used / invocations.max(1) })
}

/// The CPU time of this process so far, without that of its children.
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        // The first number is the time that a thread has run, in nanoseconds.
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanoseconds = text.split(' ').next().ok_or("no number")?.parse()?;
        sum += Duration::from_nanos(nanoseconds);
    }
    Ok(sum)
}

/// Another program beside this one.
fn example(name: &str) -> Result<OsString, Box<dyn Error>> {
    let program: PathBuf = env::current_exe()?.with_file_name(name);
    if program.exists() { Ok(program.into()) } else { Err(format!("{} is not built", program.display()).into()) }
}
