//! A certificate authority of our own, a server's certificate and a client's, made with `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;

/// What each certificate is for, in openssl's words.
const CONFIGURATION: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[client]
basicConstraints = critical, CA:false
extendedKeyUsage = clientAuth
";

/// The files' names; keys are PKCS#8.
pub(super) struct Certificates {
    pub(super) ca: PathBuf,
    pub(super) server: PathBuf,
    pub(super) server_key: PathBuf,
    pub(super) client: PathBuf,
    pub(super) client_key: PathBuf,
}

impl Certificates {
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            ca: folder.join("ca.pem"),
            server: folder.join("server.pem"),
            server_key: folder.join("server.key"),
            client: folder.join("client.pem"),
            client_key: folder.join("client.key"),
        }
    }

    pub(super) fn create(folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("openssl.cnf"), CONFIGURATION)?;
        issue(folder, "ca", "/CN=private test authority", "authority", &[])?;
        let signed = ["-CA", "ca.pem", "-CAkey", "ca.key"];
        issue(folder, "server", "/CN=localhost", "server", &signed)?;
        issue(folder, "client", "/CN=guest", "client", &signed)
    }
}

fn issue(folder: &Path, name: &str, subject: &str, kind: &str, signed: &[&str]) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["req", "-x509", "-config", "openssl.cnf", "-days", "365", "-nodes"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject, "-extensions", kind]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]).args(signed);
    process::output(&mut command).map(drop)
}
