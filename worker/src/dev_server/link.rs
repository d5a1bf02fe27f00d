//! Links into Temporal's Web UI.

use std::fmt::Write as _;

/// The page of one run in the Web UI at `ui_url`, each part percent-encoded.
#[must_use]
pub fn workflow_url(ui_url: &str, namespace: &str, workflow_id: &str, run_id: &str) -> String {
    let base = ui_url.trim_end_matches('/');
    format!(
        "{base}/namespaces/{}/workflows/{}/{}/history",
        percent_encode(namespace),
        percent_encode(workflow_id),
        percent_encode(run_id)
    )
}

/// Encodes everything but RFC 3986's unreserved characters, so that a `/` in a workflow id stays inside its segment.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(workflow_id: &str, expected: &str) {
        let url = workflow_url("http://127.0.0.1:8233/", "default", workflow_id, "r");
        assert_eq!(url, format!("http://127.0.0.1:8233/namespaces/default/workflows/{expected}/r/history"));
    }

    #[test]
    fn every_part_stays_inside_its_segment() {
        check("refund-o1", "refund-o1");
        check("acme/refunds 1", "acme%2Frefunds%201");
        check("a%2Fb?c#d", "a%252Fb%3Fc%23d");
        check("größe", "gr%C3%B6%C3%9Fe");
    }
}
