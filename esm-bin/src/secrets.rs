//! Logins while they are in use: read again from time to time, and when a broker refuses one, so that
//! a password that is changed needs no restart.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use esm_core::credentials::{Credentials, Login};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::{
    sync::Mutex as AsyncMutex,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tracing::warn;

use crate::adapters::Fetch;

/// No file with a login is larger.
const LARGEST_FILE: u64 = 64 * 1024;

/// A login and where it comes from: a table of `[secrets]`.
#[derive(Debug)]
pub struct Secret {
    name: String,
    origin: Origin,
    maximum_age: Duration,
    known: Mutex<Option<Known>>,
    /// Held by who reads it, so that mappings which share it read it once.
    reading: AsyncMutex<()>,
}

/// Where a login is read.
#[derive(Clone)]
pub(crate) enum Origin {
    /// A service that keeps secrets, in Secrets Manager's form.
    Managed(Fetch),
    /// A variable of the environment, which never changes.
    Fixed(Login),
    /// A file in Secrets Manager's form.
    Document(PathBuf),
    /// A file that holds the password.
    PasswordFile {
        /// Whose password it is.
        username: String,
        /// The file.
        path: PathBuf,
    },
}

#[derive(Debug)]
struct Known {
    login: Login,
    read_at: Instant,
    is_refused: bool,
}

impl Secret {
    /// A secret that nobody has read yet, and that is read again when it is so old.
    pub(crate) fn new(name: String, origin: Origin, maximum_age: Duration) -> Self {
        Self { name, origin, maximum_age, known: Mutex::default(), reading: AsyncMutex::default() }
    }

    /// Whether both are read at the same place.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let is_same_place = match (&self.origin, &other.origin) {
            (Origin::Managed(one), Origin::Managed(other)) => Arc::ptr_eq(one, other),
            (Origin::Fixed(one), Origin::Fixed(other)) => one == other,
            (Origin::Document(one), Origin::Document(other)) => one == other,
            (
                Origin::PasswordFile { username: one, path: at },
                Origin::PasswordFile { username: other, path: there },
            ) => one == other && at == there,
            _ => false,
        };
        is_same_place && self.name == other.name && self.maximum_age == other.maximum_age
    }

    /// What the environment or a file holds now, for who cannot wait or change it later.
    pub(crate) fn read_now(&self) -> Result<Login, String> {
        self.origin.read_here()
    }

    /// A login that is new enough, and that no broker refused.
    fn fresh(&self) -> Option<Login> {
        let known = self.known();
        let known = known.as_ref().filter(|known| !known.is_refused && known.read_at.elapsed() < self.maximum_age)?;
        Some(known.login.clone())
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Credentials for Secret {
    async fn login(&self) -> Result<Login, String> {
        let _reading = self.reading.lock().await;
        if let Some(login) = self.fresh() {
            return Ok(login);
        }
        let read = self.origin.read().await;
        let read_at = Instant::now();
        let mut known = self.known();
        match (read, known.as_mut().filter(|known| !known.is_refused)) {
            (Ok(login), _) => {
                *known = Some(Known { login: login.clone(), read_at, is_refused: false });
                Ok(login)
            }
            (Err(words), Some(known)) => {
                warn!(
                    secret = self.name,
                    problem = words,
                    "cannot read a secret again; the login that is known is used"
                );
                known.read_at = read_at;
                Ok(known.login.clone())
            }
            (Err(words), None) => {
                // Whoever waits for another login waits from here.
                if let Some(refused) = known.as_mut() {
                    refused.read_at = read_at;
                }
                Err(format!("the secret `{}` cannot be used: {words}", self.name))
            }
        }
    }

    fn refused(&self, login: &Login) {
        if let Some(known) = self.known().as_mut().filter(|known| known.login == *login) {
            known.is_refused = true;
        }
    }

    async fn superseded(&self, login: &Login) {
        loop {
            let read_at = self.known().as_ref().map_or_else(Instant::now, |known| known.read_at);
            sleep_until(read_at + self.maximum_age).await;
            if self.login().await.is_ok_and(|current| current != *login) {
                return;
            }
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed(_) => formatter.write_str("Managed"),
            Self::Fixed(login) => formatter.debug_tuple("Fixed").field(login).finish(),
            Self::Document(path) | Self::PasswordFile { path, .. } => {
                formatter.debug_tuple("File").field(path).finish()
            }
        }
    }
}

impl Origin {
    async fn read(&self) -> Result<Login, String> {
        if let Self::Managed(fetch) = self {
            return document(&fetch().await?, "the secret");
        }
        let here = self.clone();
        spawn_blocking(move || here.read_here()).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn read_here(&self) -> Result<Login, String> {
        match self {
            Self::Managed(_) => Err("it is kept elsewhere".into()),
            Self::Fixed(login) => Ok(login.clone()),
            Self::Document(path) => document(&file(path)?, "the file"),
            Self::PasswordFile { username, path } => {
                Ok(Login { username: username.clone(), password: password(&file(path)?)? })
            }
        }
    }
}

fn file(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
        let is_small = text.len() as u64 <= LARGEST_FILE;
        is_small.then_some(text).ok_or_else(|| io::Error::other("it is larger than a secret can be"))
    };
    read().map_err(|error| format!("cannot read `{}`: {error}", path.display()))
}

#[derive(Deserialize)]
struct Document {
    username: String,
    password: SecretString,
}

/// Secrets Manager's form. What the parser says is not repeated: it may quote a value.
fn document(text: &str, place: &str) -> Result<Login, String> {
    match serde_json::from_str(text) {
        Ok(Document { username, password }) => Ok(Login { username, password }),
        Err(error) => Err(format!(
            "{place} must hold {{\"username\": \"…\", \"password\": \"…\"}}, and does not at line {}, column {}",
            error.line(),
            error.column()
        )),
    }
}

/// The text of a file without a line's end after it, as editors and `echo` leave one.
pub(crate) fn password(text: &str) -> Result<SecretString, String> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let secret = line.strip_suffix('\r').unwrap_or(line);
    if secret.is_empty() { Err("the file is empty".into()) } else { Ok(secret.into()) }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    use super::*;

    const AGE: Duration = Duration::from_secs(300);

    fn secret(password: &str) -> (TempDir, Secret) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, password).unwrap();
        (folder, Secret::new("pizza".into(), Origin::PasswordFile { username: "guest".into(), path }, AGE))
    }

    fn write(folder: &TempDir, password: &str) {
        fs::write(folder.path().join("password"), password).unwrap();
    }

    fn login(password: &str) -> Login {
        Login { username: "guest".into(), password: password.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_is_read_again_when_it_is_old_or_was_refused() {
        let (folder, secret) = secret("one\n");
        assert_eq!(secret.login().await, Ok(login("one")));
        write(&folder, "two");
        sleep(AGE / 2).await;
        assert_eq!(secret.login().await, Ok(login("one")), "it is new enough");
        secret.refused(&login("another"));
        assert_eq!(secret.login().await, Ok(login("one")), "that was not this one");
        secret.refused(&login("one"));
        assert_eq!(secret.login().await, Ok(login("two")));
        write(&folder, "three");
        sleep(AGE).await;
        assert_eq!(secret.login().await, Ok(login("three")));
    }

    #[tokio::test(start_paused = true)]
    async fn who_uses_a_login_hears_that_it_has_changed() {
        let (folder, secret) = secret("one");
        let used = secret.login().await.unwrap();
        assert!(timeout(10 * AGE, secret.superseded(&used)).await.is_err(), "it has not changed");
        write(&folder, "two");
        timeout(2 * AGE, secret.superseded(&used)).await.unwrap();
        assert_eq!(secret.login().await, Ok(login("two")));
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_secret_cannot_be_read_the_login_that_works_is_kept() {
        let (folder, secret) = secret("one");
        let used = secret.login().await.unwrap();
        write(&folder, "");
        assert!(timeout(10 * AGE, secret.superseded(&used)).await.is_err(), "nothing took its place");
        assert_eq!(secret.login().await, Ok(used.clone()));
        secret.refused(&used);
        assert_eq!(secret.login().await, Err("the secret `pizza` cannot be used: the file is empty".into()));
        write(&folder, "two");
        assert_eq!(secret.login().await, Ok(login("two")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_cannot_be_read_is_not_read_without_a_pause_after_its_login_was_refused() {
        const MANY: usize = 100;
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let fetch: Fetch = Arc::new(move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match number {
                    0 => Ok(r#"{"username":"guest","password":"one"}"#.into()),
                    1..MANY => Err("the service is down".into()),
                    _ => Ok(r#"{"username":"guest","password":"two"}"#.into()),
                }
            })
        });
        let secret = Secret::new("arn".into(), Origin::Managed(fetch), AGE);
        let used = secret.login().await.unwrap();
        secret.refused(&used);
        assert!(timeout(10 * AGE + AGE / 2, secret.superseded(&used)).await.is_err(), "nothing took its place");
        assert_eq!(asked.load(Ordering::Relaxed), 1 + 10);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_secret_is_told_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("document");
        let check = async |content: Option<&[u8]>, expected: &str| {
            let _ = fs::remove_file(&path);
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            let words = Secret::new("pizza".into(), Origin::Document(path.clone()), AGE).login().await.unwrap_err();
            assert!(words.starts_with("the secret `pizza` cannot be used: ") && words.contains(expected), "{words}");
            assert!(!words.contains("hunter2"), "{words}");
        };
        check(None, "cannot read").await;
        check(Some(b"\xffhunter2"), "UTF-8").await;
        check(Some(b"hunter2"), "does not at line 1, column 1").await;
        check(Some(br#"{"username":"u","password":["hunter2"]}"#), "the file must hold").await;
        check(Some(&vec![b' '; 70_000]), "larger than a secret can be").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_asked_once_for_all_who_use_a_secret() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let fetch: Fetch = Arc::new(move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                if number == 1 {
                    Err("the service is down".into())
                } else {
                    Ok(r#"{"username":"guest","password":"one"}"#.into())
                }
            })
        });
        let secret = Secret::new("arn".into(), Origin::Managed(fetch), AGE);
        let (one, other) = tokio::join!(secret.login(), secret.login());
        assert_eq!((one, other), (Ok(login("one")), Ok(login("one"))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        sleep(AGE).await;
        assert_eq!(secret.login().await, Ok(login("one")), "what is known is used while the service is down");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
