//! Functions behind a TLS server that asks for a certificate.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener},
    path::PathBuf,
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use esm_core::{
    invoker::{Invoke as _, Outcome},
    tls::{TlsFiles, TlsMaterial},
};
use esm_invoke::http::{HttpInvoker, HttpSettings};
use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    ssl::{HandshakeError, SslAcceptor, SslMethod, SslVerifyMode},
    x509::{
        X509, X509Name, X509Ref,
        extension::{BasicConstraints, SubjectAlternativeName},
        store::X509StoreBuilder,
    },
};
use tempfile::TempDir;

/// A certificate and its key.
struct Certified {
    certificate: X509,
    key: PKey<Private>,
}

impl Certified {
    /// Signed by `issuer`, or an authority that signs itself.
    fn new(name: &str, issuer: Option<&Certified>) -> Self {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
        let mut subject = X509Name::builder().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(issuer.map_or(&subject, |issuer| issuer.certificate.subject_name())).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        match issuer {
            None => builder.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap(),
            Some(issuer) => {
                let context = builder.x509v3_context(Some(&issuer.certificate), None);
                let addresses = SubjectAlternativeName::new().ip("127.0.0.1").build(&context).unwrap();
                builder.append_extension(addresses).unwrap();
            }
        }
        builder.sign(issuer.map_or(&key, |issuer| &issuer.key), MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }
}

/// A function that only holders of a certificate of `authority` may invoke. Tells who invoked it.
fn serve(authority: &Certified) -> (SocketAddr, mpsc::Receiver<String>) {
    let own = Certified::new("function", Some(authority));
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&own.certificate).unwrap();
    acceptor.set_private_key(&own.key).unwrap();
    let mut trusted = X509StoreBuilder::new().unwrap();
    trusted.add_cert(authority.certificate.clone()).unwrap();
    acceptor.set_verify_cert_store(trusted.build()).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (names, who) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = match acceptor.accept(stream.unwrap()) {
                Ok(stream) => stream,
                Err(HandshakeError::Failure(refused)) => {
                    // Closed while something is unread, a connection is reset, and the reason is lost on the way.
                    let mut socket = refused.get_ref();
                    socket.shutdown(Shutdown::Write).unwrap();
                    let _ = io::copy(&mut socket, &mut io::sink());
                    continue;
                }
                Err(_) => continue,
            };
            let name = stream.ssl().peer_certificate().map(|certificate| name(&certificate)).unwrap_or_default();
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                let mut some = [0; 1024];
                let read = stream.read(&mut some).unwrap();
                request.extend_from_slice(&some[..read]);
            }
            names.send(name).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnull").unwrap();
        }
    });
    (address, who)
}

fn name(certificate: &X509Ref) -> String {
    let names = certificate.subject_name().entries();
    names.map(|entry| entry.data().to_string().unwrap()).collect()
}

/// Files as a configuration names them.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// Invokes the function with the certificate that is shown, trusting `authority`.
async fn invoke(address: SocketAddr, authority: &Certified, shown: Option<&Certified>) -> Outcome {
    let files = Files::new();
    let pem = |certified: &Certified| certified.certificate.to_pem().unwrap();
    let tls = TlsFiles {
        ca_file: Some(files.write("ca.pem", &pem(authority))),
        cert_file: shown.map(|shown| files.write("client.pem", &pem(shown))),
        key_file: shown.map(|shown| files.write("client.key", &shown.key.private_key_to_pem_pkcs8().unwrap())),
    };
    let mut settings = HttpSettings::new(format!("https://{address}/"), Duration::from_secs(60));
    settings.tls = Some(TlsMaterial::read(&tls).unwrap());
    HttpInvoker::new(settings).unwrap().invoke(Bytes::from_static(b"{}").into()).await.outcome
}

fn assert_unavailable(outcome: &Outcome, words: &str) {
    let Outcome::Unavailable { reason, .. } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(words), "{reason}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let authority = Certified::new("authority", None);
    let (address, who) = serve(&authority);
    let client = Certified::new("esm of the pizzeria", Some(&authority));

    assert_eq!(invoke(address, &authority, Some(&client)).await, Outcome::Success);

    assert_eq!(who.try_recv().unwrap(), "esm of the pizzeria");
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_spends_no_attempt() {
    let (authority, stranger) = (Certified::new("authority", None), Certified::new("stranger", None));
    let (address, who) = serve(&authority);
    let client = Certified::new("client", Some(&stranger));

    assert_unavailable(&invoke(address, &authority, None).await, "certificate required");
    assert_unavailable(&invoke(address, &authority, Some(&client)).await, "alert");

    assert!(who.try_recv().is_err(), "the function was not invoked");
}

#[tokio::test]
async fn a_server_of_an_authority_that_is_not_trusted_gets_no_event() {
    let (authority, stranger) = (Certified::new("authority", None), Certified::new("stranger", None));
    let (address, who) = serve(&authority);

    assert_unavailable(&invoke(address, &stranger, None).await, "certificate verify failed");

    assert!(who.try_recv().is_err(), "the function was not invoked");
}
