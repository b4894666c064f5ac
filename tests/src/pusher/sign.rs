//! Signatures of the Pusher protocol.
//!
//! **Lives here:** HMAC-SHA256 and MD5 as hexadecimal text, and what is signed where.
//! **Called by:** the sockets and requests beside it, tests that forge.
//! **Must not know:** who checks them.

use hmac::{Hmac, Mac as _};
use md5::{Digest as _, Md5};
use sha2::Sha256;

/// An application and one of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct App {
    /// The id in paths.
    pub id: &'static str,
    /// The public key.
    pub key: &'static str,
    /// What it signs with.
    pub secret: &'static str,
}

impl App {
    /// Returns the `auth` of a subscription.
    #[must_use]
    pub fn auth(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
        let data = channel_data.map(|data| format!(":{data}")).unwrap_or_default();
        format!("{}:{}", self.key, hmac_sha256(self.secret, &format!("{socket_id}:{channel}{data}")))
    }

    /// Returns the `auth` of a sign-in.
    #[must_use]
    pub fn user_auth(&self, socket_id: &str, user_data: &str) -> String {
        format!("{}:{}", self.key, hmac_sha256(self.secret, &format!("{socket_id}::user::{user_data}")))
    }
}

/// Returns HMAC-SHA256 as hexadecimal digits.
///
/// # Panics
/// Never: a key may have any length.
#[must_use]
pub fn hmac_sha256(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(text.as_bytes());
    hexadecimal(&mac.finalize().into_bytes())
}

/// Returns MD5 as hexadecimal digits.
#[must_use]
pub fn md5_hex(bytes: &[u8]) -> String {
    hexadecimal(&Md5::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PUSHER §1.7, §2.1: the vectors of the protocol's documentation.
    #[test]
    fn the_documented_signatures_come_out() {
        let app = App { id: "3", key: "278d425bdf160c739803", secret: "7ad3773142a6692b25b8" };
        let signed = |auth: String| auth.strip_prefix("278d425bdf160c739803:").map(str::to_owned);
        assert_eq!(
            signed(app.auth("1234.1234", "private-foobar", None)).unwrap(),
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
        let member = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
        assert_eq!(
            signed(app.auth("1234.1234", "presence-foobar", Some(member))).unwrap(),
            "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"
        );
        assert_eq!(
            signed(app.user_auth("1234.1234", r#"{"id":"12345"}"#)).unwrap(),
            "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"
        );
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        assert_eq!(md5_hex(body.as_bytes()), "ec365a775a4cd0599faeb73354201b6f");
        let request = "POST\n/apps/3/events\nauth_key=278d425bdf160c739803&auth_timestamp=1353088179&\
                       auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f";
        assert_eq!(
            hmac_sha256(app.secret, request),
            "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }
}
