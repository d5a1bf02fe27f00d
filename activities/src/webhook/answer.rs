//! What the status of a webhook's answer means.

use reqwest::header::HeaderMap;

use super::SendWebhookError;
use crate::egress::retry_after::retry_after;

/// An answer after which nothing more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The message was taken: 2xx.
    Taken {
        /// The status.
        status: u16,
    },
    /// The message will not be taken, however often it is sent: 410 and other 4xx.
    Refused {
        /// The status.
        status: u16,
    },
}

/// A status that says that waiting helps, or nothing at all of the message, is worth another attempt.
pub(super) fn judge(status: u16, headers: &HeaderMap, now: jiff::Timestamp) -> Result<Answer, SendWebhookError> {
    match status {
        200..=299 => Ok(Answer::Taken { status }),
        // Timeout, too early, too many requests.
        408 | 425 | 429 => Err(SendWebhookError::Unavailable { status, retry_after: retry_after(headers, now) }),
        400..=499 => Ok(Answer::Refused { status }),
        _ => Err(SendWebhookError::Unavailable { status, retry_after: retry_after(headers, now) }),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::RETRY_AFTER;

    use super::*;

    /// 2026-11-21 09:52:00 UTC.
    fn now() -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_795_254_720).unwrap()
    }

    fn said(status: u16, retry_after: &str) -> String {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, retry_after.parse().unwrap())]);
        match judge(status, &headers, now()) {
            Ok(Answer::Taken { status }) => format!("taken {status}"),
            Ok(Answer::Refused { status }) => format!("refused {status}"),
            Err(SendWebhookError::Unavailable { status, retry_after }) => format!("later {status} {retry_after:?}"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_message_is_taken_refused_for_good_or_sent_again() {
        for status in [200, 202, 204, 299] {
            assert_eq!(said(status, ""), format!("taken {status}"));
        }
        for status in [400, 401, 404, 410, 422] {
            assert_eq!(said(status, "1"), format!("refused {status}"));
        }
        for status in [101, 302, 408, 425, 429, 500, 503, 599, 600] {
            assert_eq!(said(status, ""), format!("later {status} None"));
        }
    }

    #[test]
    fn the_wait_that_a_receiver_asks_for_is_kept_within_its_bound() {
        for (asked, expected) in [
            ("7", "Some(7s)"),
            ("0", "Some(0ns)"),
            ("-7", "Some(0ns)"),
            ("86400", "Some(600s)"),
            ("Sat, 21 Nov 2026 09:52:30 GMT", "Some(30s)"),
            ("Sat, 21 Nov 2026 09:51:30 GMT", "Some(0ns)"),
            ("Sun, 22 Nov 2026 09:52:30 GMT", "Some(600s)"),
            ("soon", "None"),
            ("99999999999999999999", "None"),
        ] {
            assert_eq!(said(503, asked), format!("later 503 {expected}"), "{asked}");
        }
    }
}
