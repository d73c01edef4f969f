//! Many invocations leave nothing behind: no process, no descriptor, no memory. By itself in a program, since it
//! counts what the whole program has.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::{env, fs, time::Duration};

use esm_core::invoker::{Invoke as _, Outcome};
use esm_invoke::{
    backend::Backend as _,
    process::{ProcessInvoker, ProcessSettings},
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use self::common::{LONG, example, settings};

const AT_ONCE: u16 = 4;
/// What the allocator may keep for itself, in KiB.
const NOISE: u64 = 4 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_invocations_leave_no_process_no_descriptor_and_no_memory_behind() {
    let count = if env::var_os("ESM_TEST_ALL").is_some() { 100_000 } else { 5_000 };
    // What is made once and kept for good exists afterwards.
    invoke(2_000).await;
    let before = Kept::now();

    invoke(count).await;

    let limit = Instant::now() + LONG;
    loop {
        let after = Kept::now();
        // One is kept for good: it ends what functions have started, should this process be killed.
        if after.processes == 1 && after.descriptors <= before.descriptors && after.kib <= before.kib + NOISE {
            println!("{before:?} became {after:?} by {count} invocations");
            break;
        }
        assert!(Instant::now() < limit, "{before:?} became {after:?} by {count} invocations");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Invokes functions that succeed, fail, crash, leave, and are given up, in processes that come and go.
async fn invoke(count: usize) {
    let function = ProcessInvoker::new(ProcessSettings {
        instances: AT_ONCE.try_into().unwrap(),
        // Some end for lack of work on the way.
        idle_timeout: Duration::from_millis(50),
        ..settings(vec![example("bootstrap")])
    });
    let invocations = (0..AT_ONCE).map(|place| {
        let numbers = (usize::from(place)..count).step_by(AT_ONCE.into());
        let function = &function;
        async move {
            for number in numbers {
                let outcome = timeout(LONG, invoke_once(function, number)).await.unwrap();
                let expected = !matches!(number % 200, 0..=2);
                assert_eq!(outcome.is_none_or(|outcome| outcome == Outcome::Success), expected, "{number}");
            }
        }
    });
    join_all(invocations).await;
    function.close().await;
}

/// `None`: the invocation was given up.
async fn invoke_once(function: &ProcessInvoker, number: usize) -> Option<Outcome> {
    let event = match number % 200 {
        0 => r#"{"do":"kill"}"#,
        1 => r#"{"do":"exit","status":1}"#,
        2 => r#"{"do":"fail"}"#,
        3 => r#"{"do":"sleep","milliseconds":600000}"#,
        _ => r#"{"do":"echo","value":"a result"}"#,
    };
    let patience = if number % 200 == 3 { Duration::from_millis(20) } else { LONG };
    timeout(patience, function.invoke(bytes::Bytes::from(event).into())).await.ok().map(|reply| reply.outcome)
}

/// What this program has.
#[derive(Debug)]
struct Kept {
    /// Children, among them those that ended and that nobody waited for.
    processes: usize,
    descriptors: usize,
    kib: u64,
}

impl Kept {
    fn now() -> Self {
        let own = std::process::id().to_string();
        let numbered = fs::read_dir("/proc").unwrap().flatten();
        let files = numbered.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let parents = files.filter_map(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(1).map(str::to_owned));
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        Self {
            processes: parents.filter(|parent| *parent == own).count(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            kib: memory.unwrap().parse().unwrap(),
        }
    }
}
