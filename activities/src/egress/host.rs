//! Hosts of configuration that may have internal addresses.

use std::{fmt, net::IpAddr, str::FromStr};

/// A host that may have internal addresses: a name or an address, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalHost {
    host: String,
    port: Option<u16>,
}

/// The text names no host. Correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be a host as it stands in the URL, such as `orders.internal`, `10.0.0.7:8443` or `[fd00::7]`")]
pub struct ParseInternalHostError;

impl InternalHost {
    /// Whether this names the host and port of a URL.
    #[must_use]
    pub fn names(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port.is_none_or(|named| named == port)
    }
}

impl FromStr for InternalHost {
    type Err = ParseInternalHostError;

    /// A host is compared with a URL's, which a parser has put into one form: what has another is refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let after_host = text.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match text.get(after_host..).and_then(|rest| rest.rfind(':')) {
            Some(colon) => {
                let (host, port) = text.split_at(after_host + colon);
                (host, Some(port.trim_start_matches(':').parse().map_err(|_| ParseInternalHostError)?))
            }
            None => (text, None),
        };
        let url = reqwest::Url::parse(&format!("http://{host}/")).map_err(|_| ParseInternalHostError)?;
        // A parser takes more for a host than a name server does.
        let is_plain = host.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c));
        if is_plain && url.host_str() == Some(host) && url.port().is_none() {
            Ok(Self { host: host.to_owned(), port })
        } else {
            Err(ParseInternalHostError)
        }
    }
}

impl fmt::Display for InternalHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// The address that a host of a URL is, if it is no name.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_exactly_as_a_url_has_it() {
        for (text, host, port, names) in [
            ("127.0.0.1:8080", "127.0.0.1", 8080, true),
            ("127.0.0.1:8080", "127.0.0.1", 8081, false),
            ("127.0.0.1", "127.0.0.1", 8081, true),
            ("[::1]:80", "[::1]", 80, true),
            ("[::1]", "[::1]", 80, true),
            ("orders.internal", "orders.internal", 443, true),
            ("orders.internal", "x.orders.internal", 443, false),
        ] {
            assert_eq!(text.parse::<InternalHost>().unwrap().names(host, port), names, "{text}");
        }
        for text in ["", "*", "10.0.0.0/8", "0x7f.1", "2130706433", "::1", "a:b", "http://a", "A.example", "a/b", "a@b"]
        {
            assert!(text.parse::<InternalHost>().is_err(), "{text}");
        }
    }
}
