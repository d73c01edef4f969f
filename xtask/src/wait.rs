//! Waiting for something outside this process, with a limit.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to sleep between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `ready` says true, fails, or `limit` has passed. `what` completes "waited 5 s for …".
pub(crate) fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = now();
    while !ready()? {
        if start.elapsed() >= limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "tasks run in real time: there is no runtime whose clock could be paused"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
