//! Signature Version 4: a request is signed once more with our copy of the secret, and the two
//! signatures are compared.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>
//!
//! The body's hash is always ours, so a request that leaves its body unsigned is refused.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign},
    sign::v4,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION, request::Parts};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::refusal::Refusal;

/// How far the clocks of caller and service may differ, which is also how long a recorded request
/// can be sent again.
const SKEW: Duration = Duration::from_secs(5 * 60);
const ALGORITHM: &str = "AWS4-HMAC-SHA256 ";
const SERVICE: &str = "lambda";
const DATE: &str = "x-amz-date";
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// The two halves of an access key.
#[derive(Clone, Debug)]
pub(crate) struct AccessKey {
    /// The public half.
    pub(crate) id: String,
    /// The other.
    pub(crate) secret: SecretString,
}

impl PartialEq for AccessKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

impl Eq for AccessKey {}

/// A signature with what it says about itself, none of which is proven yet.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    access_key_id: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
    signed_at: SystemTime,
}

impl<'a> Presented<'a> {
    /// Reads it from the head of a request, and refuses what no key could make good.
    pub(super) fn read(head: &'a Parts, region: &str, now: SystemTime) -> Result<Self, Refusal> {
        let presented = Self::of_any_service(head, now)?;
        if (presented.region, presented.service) == (region, SERVICE) {
            Ok(presented)
        } else {
            Err(Refusal::Scope { region: region.into() })
        }
    }

    pub(super) fn of_any_service(head: &'a Parts, now: SystemTime) -> Result<Self, Refusal> {
        let mut values = head.headers.get_all(AUTHORIZATION).iter();
        let authorization = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().map_err(|_| Refusal::Incomplete("Authorization is no text"))?,
            (None, _) if is_presigned(head) => return Err(Refusal::Incomplete("presigned URLs are not taken")),
            (None, _) => return Err(Refusal::Missing),
            (Some(_), Some(_)) => return Err(Refusal::Incomplete("there are several Authorization headers")),
        };
        let [credential, signed_headers, signature] = members(authorization)?;
        let [access_key_id, date, region, service] = scope(credential)?;
        let signed_headers: Vec<_> = signed_headers.split(';').collect();
        check_coverage(&head.headers, &signed_headers)?;
        let time = text(&head.headers, DATE)?;
        let signed_at = check_time(time, now)?;
        if time.split('T').next() != Some(date) {
            return Err(Refusal::Incomplete("Credential must have the date of X-Amz-Date"));
        }
        Ok(Self { access_key_id, region, service, signed_headers, signature, signed_at })
    }

    /// Whose signature it is. Takes as long for a key that does not exist.
    pub(super) fn verify<'k>(
        &self,
        keys: &'k [AccessKey],
        head: &Parts,
        body: &[u8],
    ) -> Result<&'k AccessKey, Refusal> {
        let key = keys.iter().find(|key| key.id == self.access_key_id);
        let secret = key.map_or("", |key| key.secret.expose_secret());
        let expected = self.sign(secret, head, body)?;
        let matches = bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes()));
        key.filter(|_| matches).ok_or(Refusal::Mismatch)
    }

    fn sign(&self, secret: &str, head: &Parts, body: &[u8]) -> Result<String, Refusal> {
        let no_text = |_| Refusal::Incomplete("a signed header is no text");
        let mut headers = Vec::new();
        // The signer adds the date itself.
        for name in self.signed_headers.iter().filter(|name| **name != DATE) {
            for value in head.headers.get_all(*name) {
                headers.push((*name, value.to_str().map_err(no_text)?));
            }
        }
        let identity = Credentials::new(self.access_key_id, secret, None, None, "server.access_keys").into();
        let cannot = |_| Refusal::Mismatch;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.signed_at)
            .settings(settings())
            .build()
            .map_err(|_| Refusal::Mismatch)?;
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let body = SignableBody::Bytes(body);
        let request = SignableRequest::new(head.method.as_str(), path, headers.into_iter(), body).map_err(cannot)?;
        Ok(sign(request, &params.into()).map_err(cannot)?.signature().to_owned())
    }
}

fn settings() -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    // Routes see the path as it was sent, so it counts as it was sent.
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings
}

/// Signs a call of our own, which has no body.
pub(crate) fn sign_call(
    request: &mut reqwest::Request,
    key: &AccessKey,
    region: &str,
    now: SystemTime,
) -> anyhow::Result<()> {
    let identity = Credentials::new(&key.id, key.secret.expose_secret(), None, None, "environment").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(settings())
        .build()?;
    let (method, url) = (request.method().as_str(), request.url().as_str());
    let signable = SignableRequest::new(method, url, std::iter::empty(), SignableBody::Bytes(b""))?;
    let (signed, _) = sign(signable, &params.into())?.into_parts();
    for (name, value) in signed.headers() {
        request.headers_mut().insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(())
}

/// Whether the signature stands in the query, where logs and histories keep it.
fn is_presigned(head: &Parts) -> bool {
    let query = head.uri.query().unwrap_or_default();
    query.split('&').any(|parameter| parameter.starts_with("X-Amz-Signature="))
}

/// `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`
fn members(authorization: &str) -> Result<[&str; 3], Refusal> {
    let members = authorization
        .strip_prefix(ALGORITHM)
        .ok_or(Refusal::Incomplete("Authorization must begin with AWS4-HMAC-SHA256"))?;
    let mut found = [None; 3];
    for member in members.split(',') {
        let (name, value) = member.trim().split_once('=').unwrap_or_default();
        let place = match name {
            "Credential" => &mut found[0],
            "SignedHeaders" => &mut found[1],
            "Signature" => &mut found[2],
            _ => return Err(Refusal::Incomplete("Authorization has an unknown member")),
        };
        if place.replace(value).is_some() {
            return Err(Refusal::Incomplete("Authorization has a member twice"));
        }
    }
    match found {
        [Some(credential), Some(signed_headers), Some(signature)] => Ok([credential, signed_headers, signature]),
        _ => Err(Refusal::Incomplete("Authorization needs Credential, SignedHeaders and Signature")),
    }
}

/// `KEY/YYYYMMDD/REGION/SERVICE/aws4_request`
fn scope(credential: &str) -> Result<[&str; 4], Refusal> {
    let parts: Vec<_> = credential.split('/').collect();
    match parts.as_slice() {
        [key, date, region, service, "aws4_request"] => Ok([key, date, region, service]),
        _ => Err(Refusal::Incomplete("Credential needs a key, date, region, service and aws4_request")),
    }
}

/// What decides about a request must be signed, and what is signed must be there.
fn check_coverage(headers: &HeaderMap, signed: &[&str]) -> Result<(), Refusal> {
    if !signed.contains(&"host") {
        return Err(Refusal::Incomplete("the header host must be signed"));
    }
    if signed.iter().any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Err(Refusal::Incomplete("SignedHeaders must be in lower case"));
    }
    if !signed.iter().all(|name| headers.contains_key(*name)) {
        return Err(Refusal::Incomplete("a signed header is missing"));
    }
    let is_covered = |name: &str| !name.starts_with("x-amz-") || signed.contains(&name);
    if !headers.keys().all(|name| is_covered(name.as_str())) {
        return Err(Refusal::Incomplete("every header that begins with x-amz- must be signed"));
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(text)), None) => Ok(text),
        _ => Err(Refusal::Incomplete("X-Amz-Date must be there once")),
    }
}

fn check_time(time: &str, now: SystemTime) -> Result<SystemTime, Refusal> {
    let parsed = DateTime::strptime(TIME_FORMAT, time).and_then(|time| time.to_zoned(TimeZone::UTC));
    let signed_at = parsed.map_err(|_| Refusal::Incomplete("X-Amz-Date must be like 20201231T235959Z"))?.timestamp();
    let signed_at = SystemTime::from(signed_at);
    if signed_at + SKEW < now {
        return Err(Refusal::Expired { signed: time.into(), earliest: written(now - SKEW), now: written(now) });
    }
    if signed_at > now + SKEW {
        return Err(Refusal::NotYetCurrent { signed: time.into(), latest: written(now + SKEW), now: written(now) });
    }
    Ok(signed_at)
}

fn written(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| time.strftime(TIME_FORMAT).to_string()).unwrap_or_default()
}
