//! What the tests of the whole service need, whatever the broker.

pub(crate) mod function;
#[allow(dead_code, reason = "not every program needs all of it")]
pub(crate) mod proxy;
#[allow(dead_code, reason = "not every program needs it")]
pub(crate) mod record;
pub(crate) mod service;
