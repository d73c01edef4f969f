//! Who a source logs in as, which may change while it runs.

use std::fmt;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};

/// A user and its password.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for Login {}

/// Where a login comes from. Asked for each connection, so that a login which changes needs no restart.
#[async_trait]
pub trait Credentials: fmt::Debug + Send + Sync {
    /// The login as it is now; words for people if there is none. May be dropped half-way.
    async fn login(&self) -> Result<Login, String>;

    /// The broker refused this login, so the next one must not be an old one.
    fn refused(&self, login: &Login);

    /// Returns when another login has taken the place of this one. May be dropped half-way.
    async fn superseded(&self, login: &Login);
}

/// A login that never changes.
#[async_trait]
impl Credentials for Login {
    async fn login(&self) -> Result<Login, String> {
        Ok(self.clone())
    }

    fn refused(&self, _: &Login) {}

    async fn superseded(&self, _: &Login) {
        std::future::pending::<()>().await;
    }
}
