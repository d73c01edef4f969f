//! Signature Version 4 of our own requests.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings},
    sign::v4,
};
use reqsign_aws_core::Credential;
use reqwest::{
    Method, Url,
    header::{HOST, HeaderMap, HeaderName, HeaderValue},
};

/// What a signature is for beside the request.
pub(crate) struct Scope<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) now: SystemTime,
}

/// Adds a signature to the headers, which covers all of them. `payload` is the SHA-256 of the body
/// in hexadecimal.
pub(crate) fn sign(
    credential: &Credential,
    scope: &Scope<'_>,
    method: &Method,
    url: &Url,
    headers: &mut HeaderMap,
    payload: String,
) -> Result<(), &'static str> {
    let Credential { access_key_id, secret_access_key, session_token, .. } = credential;
    let identity = Credentials::new(access_key_id, secret_access_key, session_token.clone(), None, "esm").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| "the request cannot be signed")?;
    let host = host(url);
    let mut signed = vec![(HOST.as_str(), host.as_str())];
    for (name, value) in headers.iter() {
        signed.push((name.as_str(), value.to_str().map_err(|_| "a header is no text")?));
    }
    let body = SignableBody::Precomputed(payload);
    let request = SignableRequest::new(method.as_str(), url.as_str(), signed.into_iter(), body);
    let request = request.map_err(|_| "the URL cannot be signed")?;
    let signed = aws_sigv4::http_request::sign(request, &params.into()).map_err(|_| "the request cannot be signed")?;
    let (instructions, _) = signed.into_parts();
    for (name, value) in instructions.headers() {
        let name = HeaderName::try_from(name).map_err(|_| "a header of the signature is none")?;
        let mut value = HeaderValue::try_from(value).map_err(|_| "the session token is no text")?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}

/// As the client sends it: with the port if that is not the scheme's own.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
