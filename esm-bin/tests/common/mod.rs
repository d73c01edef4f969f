//! What the tests of the whole service need, whatever the broker.

pub(crate) mod function;
pub(crate) mod proxy;
pub(crate) mod service;
