//! What every backend can do beside invoking: show what was answered, and end in good order.

use async_trait::async_trait;
use esm_core::invoker::Invoke;

/// A way to a function.
#[async_trait]
pub trait Backend: Invoke {
    /// How the function is reached, in words for people and without secrets.
    fn describe(&self) -> String;

    /// Ends in good order whatever runs for the function, such as its processes. What is invoked
    /// afterwards may start it again.
    async fn close(&self) {}
}
