//! AWS's own services: who we are there, signed requests, and what is asked of them.
//!
//! Reading order: `credentials` (the chain that all of AWS's tools have, and roles), `signing`,
//! `client` (small calls that answer with JSON), `secrets`, `mq`.

mod client;
mod credentials;
mod environment;
#[cfg(feature = "aws")]
pub mod mq;
#[cfg(feature = "aws")]
pub mod secrets;
mod signing;

pub use self::{
    client::{AwsClient, AwsError},
    credentials::{CredentialChain, Identity},
};
#[cfg(feature = "lambda")]
pub(crate) use self::{
    client::{are_credentials_refused, endpoint},
    signing::{Scope, sign},
};
