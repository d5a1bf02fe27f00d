//! What is told of a request without an answer. The client's own text names the URL, which may hold arguments or a key, so
//! only the cause at its bottom is told.

use std::{error::Error, io};

use rustls::CertificateError;

use super::{PastDeadline, ReachError};

/// What to do about a certificate of an authority that is not known.
const AUTHORITIES: &str = "no authority that this machine believes vouches for it (`SSL_CERT_FILE` can name others)";

/// Why there is no answer, and whether the request may have arrived.
pub(crate) struct Unanswered {
    pub(crate) reason: String,
    pub(crate) may_have_arrived: bool,
}

impl From<&reqwest::Error> for Unanswered {
    fn from(error: &reqwest::Error) -> Self {
        let may_have_arrived = !error.is_connect();
        let reason = match (cause::<ReachError>(error), cause::<PastDeadline>(error)) {
            (Some(refused), _) => refused.to_string(),
            (None, Some(late)) => late.to_string(),
            (None, None) if !may_have_arrived => no_connection(error),
            (None, None) if error.is_timeout() => "no answer in time".to_owned(),
            (None, None) => "the connection broke".to_owned(),
        };
        Self { reason, may_have_arrived }
    }
}

/// Why no connection could be made.
fn no_connection(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no connection in time".to_owned();
    }
    let Some(mut cause) = cause::<io::Error>(error) else { return "no connection".to_owned() };
    while let Some(inner) = inner::<io::Error>(cause) {
        cause = inner;
    }
    match inner::<rustls::Error>(cause) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            format!("no connection: {cause}: {AUTHORITIES}")
        }
        Some(_) | None => format!("no connection: {cause}"),
    }
}

/// What an error of input or output was made of, which is not among its sources.
fn inner<E: Error + 'static>(error: &io::Error) -> Option<&E> {
    error.get_ref()?.downcast_ref()
}

/// The cause of this type, if there is one.
fn cause<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
