//! A signature of events, by which a webhook can tell that they come from us.

use std::fmt::Write as _;

use esm_core::event::Event;
use hmac::{Hmac, KeyInit as _, Mac as _, digest::InvalidLength};
use sha2::Sha256;

/// Where the signature stands.
pub(crate) const HEADER: &str = "x-esm-signature";

/// Signs events with one key.
#[derive(Clone)]
pub(crate) struct Signer(Hmac<Sha256>);

impl Signer {
    pub(crate) fn new(key: &str) -> Result<Self, InvalidLength> {
        Hmac::new_from_slice(key.as_bytes()).map(Self)
    }

    /// `t=SECONDS,v1=SIGNATURE`: when it was made, since 1970, and HMAC-SHA-256 of those seconds, a
    /// point and the body, in hexadecimal. The time lets a receiver refuse what somebody recorded.
    pub(crate) fn sign(&self, seconds: u64, event: Event) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{seconds}.").as_bytes());
        for piece in event.into_chunks() {
            mac.update(&piece);
        }
        format!("t={seconds},v1={}", hexadecimal(&mac.finalize().into_bytes()))
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_signature_is_that_of_other_tools() {
        // printf '1598827811.{"a":1}' | openssl dgst -sha256 -hmac hunter2
        let signature = Signer::new("hunter2").unwrap().sign(1_598_827_811, Bytes::from(r#"{"a":1}"#).into());
        assert_eq!(signature, "t=1598827811,v1=f55d85fe683423db9f28e96fbb5217fcb4bf6df5817c33dda455f028c18aa704");
    }
}
