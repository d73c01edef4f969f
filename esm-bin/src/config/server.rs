//! `[server]`: the listener, and who we are in AWS's terms.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{entry::Entry, problem::Reported, table::Table};

const PORT: u16 = 9321;
const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
const DATA_DIR: &str = "esm-data";

/// What `[server]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// How long a drain may take; absent, the functions' timeouts decide.
    pub drain_timeout: Option<Duration>,
    /// The folder of the store.
    pub data_dir: PathBuf,
    /// Who we are in AWS's terms.
    pub identity: Identity,
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
    let listen = table.optional("listen", listen);
    let region = table.optional("region", region);
    let account = table.optional("account_id", account);
    let drain_timeout = table.optional("drain_timeout_in_seconds", |entry| entry.within(1..=86_400));
    let data_dir = table.optional("data_dir", Entry::path);
    table.not_yet(&["access_keys", "tls", "memory_limit_in_mebibytes"]);
    Ok(Server {
        listen: listen?.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, PORT).into()),
        drain_timeout: drain_timeout?.map(Duration::from_secs),
        data_dir: data_dir?.unwrap_or_else(|| folder.join(DATA_DIR)),
        identity: Identity {
            region: region?.unwrap_or_else(|| REGION.into()),
            account: account?.unwrap_or_else(|| ACCOUNT.into()),
        },
    })
}

fn listen(entry: &Entry<'_>) -> Result<SocketAddr, Reported> {
    let Ok(address) = entry.text()?.parse::<SocketAddr>() else {
        return Err(entry.report(format_args!("must be an IP address and a port, such as 127.0.0.1:{PORT}")));
    };
    if !address.ip().is_loopback() {
        return Err(entry.report(
            "must be a loopback address such as 127.0.0.1: without server.access_keys, which this build does not \
             act on yet, whoever reaches the port may use it",
        ));
    }
    Ok(address)
}

fn region(entry: &Entry<'_>) -> Result<String, Reported> {
    let region = entry.text()?;
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || !region.bytes().all(is_allowed) {
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
