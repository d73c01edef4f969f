//! Measures what invocations cost, through our Runtime API and over HTTP, and prints it as JSON. `cargo xtask bench
//! invoke` builds it and says what it means.
//!
//! The function in `bootstrap.rs` asks our Runtime API for events, and, in turn with that, a server that does nothing
//! but hand out one event: the difference is ours. For HTTP this program is also the function, when its argument is
//! `serve`.

use std::{
    convert::Infallible,
    env,
    error::Error,
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use esm_core::invoker::{Invoke, Outcome};
use esm_invoke::{
    http::{HttpInvoker, HttpSettings},
    process::{ProcessInvoker, ProcessSettings},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};

type Failure = Box<dyn Error + Send + Sync>;

/// Many short ones: what else the machine does then meets both sides alike.
const ROUNDS: usize = 30;
const ROUND: Duration = Duration::from_millis(250);
/// Between an answer and the next event, when it is a latency that is measured.
const PAUSE: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    // In a task, as invocations are in the service: what runs in `main` is woken over and over from other threads.
    let measured = if env::args().any(|argument| argument == "serve") {
        tokio::spawn(be_a_function()).await??
    } else {
        tokio::spawn(measure()).await??
    };
    println!("{measured}");
    Ok(())
}

async fn measure() -> Result<Value, Failure> {
    let (small, large) = (event(100), event(140_000));
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        rounds.push(json!({
            "small": {
                "bare": from_a_bare_server(&small, None).await?,
                "process": through_the_pool(&small, None).await?,
                "http": over_http(&small, None).await?,
            },
            "large": {
                "bare": from_a_bare_server(&large, None).await?,
                "process": through_the_pool(&large, None).await?,
                "http": over_http(&large, None).await?,
            },
            "paced": {
                "bare": from_a_bare_server(&small, Some(PAUSE)).await?,
                "process": through_the_pool(&small, Some(PAUSE)).await?,
                "http": over_http(&small, Some(PAUSE)).await?,
            },
        }));
    }
    Ok(rounds.into())
}

fn event(size: usize) -> Bytes {
    format!(r#"{{"do":"measure","value":"{}"}}"#, "x".repeat(size)).into()
}

async fn through_the_pool(event: &Bytes, pause: Option<Duration>) -> Result<Value, Failure> {
    let invoker = ProcessInvoker::new(ProcessSettings {
        name: "measured".into(),
        arn: "arn:aws:lambda:us-east-1:000000000000:function:measured".into(),
        command: vec![example("bootstrap")?],
        folder: "/".into(),
        environment: [].into(),
        instances: 1.try_into()?,
        timeout: MINUTE,
        start_timeout: MINUTE,
        stop_timeout: MINUTE,
        idle_timeout: MINUTE,
        memory_in_mebibytes: None,
        open_files: None,
        file_access: None,
        launcher: vec![example("launch")?],
    });
    invoke_for_a_round(&invoker, event, pause).await
}

async fn over_http(event: &Bytes, pause: Option<Duration>) -> Result<Value, Failure> {
    let mut function = Command::new(env::current_exe()?);
    let mut function = Ended(function.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut url = String::new();
    BufReader::new(function.0.stdout.take().ok_or("it has no output")?).read_line(&mut url)?;
    let invoker = HttpInvoker::new(HttpSettings::new(url.trim(), MINUTE))?;
    invoke_for_a_round(&invoker, event, pause).await
}

async fn invoke_for_a_round(invoker: &dyn Invoke, event: &Bytes, pause: Option<Duration>) -> Result<Value, Failure> {
    assert_eq!(invoker.invoke(event.clone().into()).await.outcome, Outcome::Success);
    let mut latencies = Vec::new();
    let (started, before) = (Instant::now(), cpu()?);
    while started.elapsed() < ROUND {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let begun = Instant::now();
        assert_eq!(invoker.invoke(event.clone().into()).await.outcome, Outcome::Success);
        latencies.push(begun.elapsed());
    }
    result(latencies, started, before)
}

/// What the function is served by in place of us.
#[derive(Default)]
struct Bare {
    event: Bytes,
    pause: Option<Duration>,
    handed_out: Option<Instant>,
    latencies: Vec<Duration>,
}

async fn from_a_bare_server(event: &Bytes, pause: Option<Duration>) -> Result<Value, Failure> {
    let bare = Arc::new(Mutex::new(Bare { event: event.clone(), pause, ..Bare::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    // In a session of its own, as ours are: the kernel may share processors out by sessions.
    let mut function = Command::new("setsid");
    function.arg(example("bootstrap")?);
    function.env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string());
    function.env("AWS_LAMBDA_FUNCTION_NAME", "measured").env("AWS_LAMBDA_FUNCTION_VERSION", "1");
    function.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128").stdin(Stdio::null());
    let _function = Ended(function.spawn()?);
    let serving = tokio::spawn({
        let bare = bare.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let bare = bare.clone();
                let answer = service_fn(move |request| answer(request, bare.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        }
    });
    while lock(&bare).latencies.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lock(&bare).latencies.clear();
    let (started, before) = (Instant::now(), cpu()?);
    tokio::time::sleep(ROUND).await;
    let latencies = std::mem::take(&mut lock(&bare).latencies);
    serving.abort();
    result(latencies, started, before)
}

async fn answer(request: Request<Incoming>, bare: Arc<Mutex<Bare>>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.method() == Method::POST {
        request.into_body().collect().await?;
        let mut bare = lock(&bare);
        let latency = bare.handed_out.take().map(|at| at.elapsed());
        bare.latencies.extend(latency);
        let mut accepted = Response::new(Full::new(Bytes::from_static(br#"{"status":"OK"}"#)));
        *accepted.status_mut() = StatusCode::ACCEPTED;
        return Ok(accepted);
    }
    let pause = lock(&bare).pause;
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
    let event = {
        let mut bare = lock(&bare);
        bare.handed_out = Some(Instant::now());
        bare.event.clone()
    };
    let mut response = Response::new(Full::new(event));
    let headers = response.headers_mut();
    let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + MINUTE;
    headers.insert("lambda-runtime-deadline-ms", u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).into());
    for (name, value) in [
        ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:measured"),
        ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    Ok(response)
}

/// A function behind a URL that takes events and returns nothing. Ends with whoever holds its standard input.
async fn be_a_function() -> Result<Value, Failure> {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = service_fn(async |request: Request<Incoming>| {
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"null"))))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// What a round came to: invocations per second, the CPU time of this process for one, and how long they took.
fn result(mut latencies: Vec<Duration>, started: Instant, before: Duration) -> Result<Value, Failure> {
    let (elapsed, used) = (started.elapsed(), cpu()?.saturating_sub(before));
    latencies.sort_unstable();
    let count = latencies.len().max(1);
    let quantile = |thousandth: usize| latencies.get(count * thousandth / 1_000).map(Duration::as_secs_f64);
    Ok(json!({
        "per_second": count as f64 / elapsed.as_secs_f64(),
        "cpu_us": used.as_secs_f64() * 1e6 / count as f64,
        "p50_ms": quantile(500).map(|seconds| seconds * 1e3),
        "p99_ms": quantile(990).map(|seconds| seconds * 1e3),
    }))
}

/// The CPU time of this process so far, without that of its children.
fn cpu() -> Result<Duration, Failure> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        // The first number is the time that a thread has run, in nanoseconds. One may end meanwhile.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split(' ').next().ok_or("no number")?.parse()?;
        sum += Duration::from_nanos(nanoseconds);
    }
    Ok(sum)
}

/// A process that is ended when it goes out of sight.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lock(bare: &Mutex<Bare>) -> MutexGuard<'_, Bare> {
    bare.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Another program beside this one.
fn example(name: &str) -> Result<OsString, Failure> {
    let program: PathBuf = env::current_exe()?.with_file_name(name);
    if program.exists() { Ok(program.into()) } else { Err(format!("{} is not built", program.display()).into()) }
}
