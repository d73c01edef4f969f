//! `[server]`: the listener, and who we are in AWS's terms.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use esm_core::memory::Memory;

use super::{
    entry::{self, Entry},
    problem::Reported,
    secret,
    table::Table,
};
use crate::{
    access::{Access, AccessKey},
    listener::Tls,
};

const PORT: u16 = 9321;
const REGION: &str = "us-east-1";
/// After a change of a password in its secret, it takes so long until it is used.
pub(super) const SECRETS_MAXIMUM_AGE: Duration = Duration::from_secs(300);
const ACCOUNT: &str = "000000000000";
const DATA_DIR: &str = "esm-data";

/// What `[server]` says.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where the control API, metrics and health are served.
    pub listen: SocketAddr,
    /// Who may call the control API.
    pub access: Arc<Access>,
    /// The certificate that the listener shows; absent, it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// How long a drain may take; absent, the functions' timeouts decide.
    pub drain_timeout: Option<Duration>,
    /// How old a login may be until it is read again.
    pub(super) secrets_maximum_age: Duration,
    /// The bytes of messages that all mappings together may have in hand.
    pub memory_limit: usize,
    /// The folder of the store.
    pub data_dir: PathBuf,
    /// Who we are in AWS's terms.
    pub identity: Identity,
}

impl Server {
    /// The keys of `[server]` that say something else here, and that are read at the start only.
    pub(crate) fn fixed_keys_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("listen", self.listen != other.listen),
            ("access_keys", !self.access.has_the_keys_of(&other.access)),
            ("drain_timeout_in_seconds", self.drain_timeout != other.drain_timeout),
            ("secrets_max_age_in_seconds", self.secrets_maximum_age != other.secrets_maximum_age),
            ("data_dir", self.data_dir != other.data_dir),
            ("region", self.identity.region != other.identity.region),
            ("account_id", self.identity.account != other.identity.account),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Region and account, of which ARNs are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    region: String,
    account: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { region: REGION.into(), account: ACCOUNT.into() }
    }
}

impl Identity {
    /// The ARN of a broker that has none of its own.
    pub(super) fn broker_arn(&self, name: &str) -> String {
        let Self { region, account } = self;
        let id = super::uuid_of(&["broker", name]);
        format!("arn:{}:mq:{region}:{account}:broker:{name}:b-{id}", self.partition())
    }

    /// The ARN of a function.
    pub(super) fn function_arn(&self, name: &str) -> String {
        self.function_arn_of(&self.account, name)
    }

    /// The ARN of a function in some account.
    pub(super) fn function_arn_of(&self, account: &str, name: &str) -> String {
        format!("arn:{}:lambda:{}:{account}:function:{name}", self.partition(), self.region)
    }

    /// The ARN of an event source mapping, without its UUID.
    pub fn mapping_arn_prefix(&self) -> String {
        let Self { region, account } = self;
        format!("arn:{}:lambda:{region}:{account}:event-source-mapping:", self.partition())
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    fn partition(&self) -> &'static str {
        match self.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

pub(super) fn read(table: &mut Table<'_>) -> Result<Server, Reported> {
    let folder = table.folder();
    let listen = table.optional("listen", |entry| Ok((entry.clone(), listen(entry)?)));
    let region = table.optional("region", region);
    let account = table.optional("account_id", account);
    let drain_timeout = table.optional("drain_timeout_in_seconds", |entry| entry.within(1..=86_400));
    let data_dir = table.optional("data_dir", Entry::path);
    let maximum_age = table.optional("secrets_max_age_in_seconds", |entry| entry.within(1..=86_400));
    let access_keys = table.optional("access_keys", access_keys);
    let tls = table.optional("tls", |entry| entry.table(|table| tls(entry, table)));
    let memory_limit = table.optional("memory_limit_in_mebibytes", |entry| entry.within::<usize>(16..=1_048_576));
    let (listen, access_keys) = (listen?, access_keys?.unwrap_or_default());
    let listen = match listen {
        None => (Ipv4Addr::LOCALHOST, PORT).into(),
        Some((entry, address)) if access_keys.is_empty() && !address.ip().is_loopback() => {
            return Err(entry.report(
                "whoever reaches this address may change every mapping: add [[server.access_keys]], so that calls \
                 need a signature, or listen on a loopback address such as 127.0.0.1",
            ));
        }
        Some((_, address)) => address,
    };
    let region = region?.unwrap_or_else(|| REGION.into());
    Ok(Server {
        listen,
        access: Arc::new(Access::new(access_keys, region.clone())),
        tls: tls?,
        secrets_maximum_age: maximum_age?.map_or(SECRETS_MAXIMUM_AGE, Duration::from_secs),
        drain_timeout: drain_timeout?.map(Duration::from_secs),
        memory_limit: memory_limit?.map_or(Memory::DEFAULT, |mebibytes| mebibytes * 1024 * 1024),
        data_dir: data_dir?.unwrap_or_else(|| folder.join(DATA_DIR)),
        identity: Identity { region, account: account?.unwrap_or_else(|| ACCOUNT.into()) },
    })
}

fn listen(entry: &Entry<'_>) -> Result<SocketAddr, Reported> {
    let no_address = |_| entry.report(format_args!("must be an IP address and a port, such as 127.0.0.1:{PORT}"));
    entry.text()?.parse().map_err(no_address)
}

fn access_keys(entry: &Entry<'_>) -> Result<Vec<AccessKey>, Reported> {
    let entries = entry.list()?;
    let keys = entry::all(entries.iter().map(|entry| entry.table(access_key)))?;
    let is_repeated = |(index, key): (usize, &AccessKey)| keys[..index].iter().any(|other| other.id == key.id);
    match keys.iter().enumerate().position(is_repeated) {
        Some(index) => Err(entries[index].report("has the access_key_id of one before it; remove one of the two")),
        None => Ok(keys),
    }
}

fn access_key(table: &mut Table<'_>) -> Result<AccessKey, Reported> {
    let id = table.required("access_key_id", access_key_id);
    let secret = table.required("secret_access_key", secret::secret);
    Ok(AccessKey { id: id?, secret: secret? })
}

fn access_key_id(entry: &Entry<'_>) -> Result<String, Reported> {
    let id = entry.text()?;
    let is_allowed = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_allowed || !(1..=128).contains(&id.len()) {
        return Err(entry.report("must have from 1 to 128 letters, digits and `_`, such as AKIAIOSFODNN7EXAMPLE"));
    }
    Ok(id)
}

fn tls(entry: &Entry<'_>, table: &mut Table<'_>) -> Result<Tls, Reported> {
    let cert_file = table.required("cert_file", Entry::readable_file);
    let key_file = table.required("key_file", Entry::readable_file);
    Tls::read(&cert_file?, &key_file?).map_err(|words| entry.report(words))
}

pub(super) fn region(entry: &Entry<'_>) -> Result<String, Reported> {
    let region = entry.text()?;
    if !super::names::is_region(&region) {
        return Err(entry.report("must be a region's name, such as us-east-1"));
    }
    Ok(region)
}

fn account(entry: &Entry<'_>) -> Result<String, Reported> {
    let account = entry.text()?;
    if !super::names::is_account(&account) {
        return Err(entry.report("must be 12 digits in quotes"));
    }
    Ok(account)
}
