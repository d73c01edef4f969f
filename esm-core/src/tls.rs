//! TLS towards brokers: the system's trust store, or an authority of one's own, and perhaps a client
//! certificate.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use native_tls::{Certificate, Identity, TlsConnectorBuilder};

/// The files that TLS is set up from, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and its chain.
    pub cert_file: Option<PathBuf>,
    /// The client's key, as PKCS#8.
    pub key_file: Option<PathBuf>,
}

/// Why TLS cannot be set up from its files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A file holds no certificate.
    #[error("`{path}` holds no PEM certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are no pair, or the key is not of the form.
    #[error(
        "`{cert}` and `{key}` are no client certificate and its key: {cause} (the key must be PKCS#8, `BEGIN PRIVATE KEY`)"
    )]
    NoIdentity {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The TLS library's words.
        cause: native_tls::Error,
    },
    /// One of the two is missing.
    #[error("cert_file and key_file need each other")]
    HalfIdentity,
}

/// What TLS connections are made with.
#[derive(Clone, Default)]
pub struct TlsMaterial {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl TlsMaterial {
    /// Reads the files.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let authorities = match &files.ca_file {
            None => Vec::new(),
            Some(path) => match Certificate::stack_from_pem(&read(path)?) {
                Ok(authorities) if !authorities.is_empty() => authorities,
                _ => return Err(TlsError::NoCertificate { path: path.clone() }),
            },
        };
        let identity = match (&files.cert_file, &files.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                Some(Identity::from_pkcs8(&read(cert)?, &read(key)?).map_err(|cause| TlsError::NoIdentity {
                    cert: cert.clone(),
                    key: key.clone(),
                    cause,
                })?)
            }
            _ => return Err(TlsError::HalfIdentity),
        };
        Ok(Self { authorities, identity })
    }

    /// What a connection is set up by.
    pub fn connector(&self) -> TlsConnectorBuilder {
        let mut builder = native_tls::TlsConnector::builder();
        builder.disable_built_in_roots(!self.authorities.is_empty());
        for authority in &self.authorities {
            builder.add_root_certificate(authority.clone());
        }
        if let Some(identity) = &self.identity {
            builder.identity(identity.clone());
        }
        builder
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.to_owned(), cause })
}
