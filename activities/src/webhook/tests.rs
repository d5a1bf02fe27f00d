//! The webhook against a receiver on a socket of this machine.

use mandate_domain::{EffectId, audit::NoticeId};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A folder with the secret in a file, and the webhook at an address that signs with it.
fn webhook(url: &str, secret: &str, timeout_secs: u64) -> (tempfile::TempDir, Webhook) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), secret).unwrap();
    let secrets = vec![SecretRef::File(folder.path().join("secret"))];
    (
        folder,
        Webhook::new(&NotifySettings { url: url.to_owned(), secrets, allow_internal: Vec::new(), timeout_secs })
            .unwrap(),
    )
}

fn message() -> Message {
    let at = jiff::Timestamp::from_second(1_795_254_720).unwrap();
    Message::new("mandate.request.asked", at, &json!({ "request_id": "r1-7f3a9c" })).unwrap()
}

fn permit() -> RecordedPermit {
    let notice: NoticeId = "r1.asked".parse().unwrap();
    RecordedPermit::unrecorded(EffectId::Notice(notice))
}

/// Takes one request and answers it; gives back what the sender made of it, and the request.
async fn exchange(answer: &str) -> (Result<Answer, SendWebhookError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_folder, webhook) = webhook(&format!("http://{}/hook", listener.local_addr().unwrap()), SECRET, 5);
    let receiver = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while !seen.ends_with("}}") {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the request broke off: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        // A sender that has read enough may be gone.
        let _ = stream.shutdown().await;
        seen
    };
    let keys = webhook.keys().await.unwrap();
    let (permit, message) = (permit(), message());
    tokio::join!(webhook.send(&permit, &keys, &message), receiver)
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
}

#[tokio::test]
async fn a_receiver_can_verify_what_arrives() {
    let (answer, seen) = exchange("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
    assert_eq!(answer.unwrap(), Answer::Taken { status: 204 });
    assert!(seen.starts_with("POST /hook HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(&seen, "content-type"), "application/json");
    let body = seen.split_once("\r\n\r\n").unwrap().1;
    let expected =
        r#"{"type":"mandate.request.asked","timestamp":"2026-11-21T09:52:00Z","data":{"request_id":"r1-7f3a9c"}}"#;
    assert_eq!(body, expected);
    let id = header(&seen, "webhook-id");
    assert_eq!(id, canonical::sha256(b"test/run/r1.asked").as_str(), "the same for each attempt");
    let (timestamp, signature) = (header(&seen, "webhook-timestamp"), header(&seen, "webhook-signature"));
    let received = Received { id, timestamp, signature, body: body.as_bytes() };
    verify(&SigningKey::parse(SECRET).unwrap(), received, jiff::Timestamp::now()).unwrap();
}

#[tokio::test]
async fn the_answer_decides_and_redirects_are_not_followed() {
    let (answer, _) = exchange("HTTP/1.1 410 Gone\r\ncontent-length: 5\r\nconnection: close\r\n\r\ngone!").await;
    assert_eq!(answer.unwrap(), Answer::Refused { status: 410 });
    let moved = "HTTP/1.1 307 X\r\nlocation: /other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (answer, _) = exchange(moved).await;
    assert!(matches!(answer, Err(SendWebhookError::Unavailable { status: 307, retry_after: None })), "{answer:?}");
    let busy = "HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (answer, _) = exchange(busy).await;
    let seven = Some(Duration::from_secs(7));
    assert!(
        matches!(answer, Err(SendWebhookError::Unavailable { status: 503, retry_after }) if retry_after == seven),
        "{answer:?}"
    );
    let (answer, _) = exchange("").await;
    assert!(matches!(answer, Err(SendWebhookError::Unanswered { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_long_answer_is_not_read_to_its_end() {
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n{}", "x".repeat(2 * ANSWER_BYTES_MAX));
    let (answer, _) = exchange(&endless).await;
    assert_eq!(answer.unwrap(), Answer::Taken { status: 200 });
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    // Bound and not listening: the port is nobody else's, and connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_folder, webhook) = webhook(&format!("http://{}", socket.local_addr().unwrap()), SECRET, 5);
    let error = webhook.send(&permit(), &webhook.keys().await.unwrap(), &message()).await.unwrap_err();
    assert_eq!(error.to_string(), "the webhook was not told: no connection: Connection refused (os error 111)");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_in_time_may_have_been_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_folder, webhook) = webhook(&format!("http://{}", listener.local_addr().unwrap()), SECRET, 1);
    let keys = webhook.keys().await.unwrap();
    let error = webhook.send(&permit(), &keys, &message()).await.unwrap_err();
    assert_eq!(error.to_string(), "the webhook did not answer: no answer in time");
}

#[tokio::test]
async fn a_secret_that_is_missing_or_no_key_is_named_by_its_reference() {
    let (folder, webhook) = webhook("http://127.0.0.1:9", "not-a-key", 5);
    let error = webhook.keys().await.unwrap_err();
    assert!(matches!(error, SendWebhookError::BadSecret { .. }) && !format!("{error:?}").contains("not-a-key"));
    assert!(error.to_string().contains("secret`"), "{error}");
    std::fs::remove_file(folder.path().join("secret")).unwrap();
    let error = webhook.keys().await.unwrap_err();
    assert!(matches!(error, SendWebhookError::NoSecret(_)), "{error}");
}

#[test]
fn a_message_that_is_too_large_is_not_made() {
    let data = |bytes| json!({ "reason": "x".repeat(bytes) });
    let at = jiff::Timestamp::UNIX_EPOCH;
    assert!(Message::new("t", at, &data(BODY_BYTES_MAX - 100)).is_ok());
    let error = Message::new("t", at, &data(BODY_BYTES_MAX)).unwrap_err();
    assert!(error.to_string().ends_with("16384 is the most that is sent"), "{error}");
}

#[test]
fn only_this_machine_is_told_without_tls() {
    for good in [
        "https://hooks.acme.example/mandate?team=1",
        "HTTPS://hooks.acme.example",
        "http://127.0.0.1:8080/hook",
        "http://localhost/hook",
        "http://[::1]:8080",
    ] {
        assert_eq!(check_url(good, &[]), Ok(()), "{good}");
    }
    assert_eq!(check_url("https://10.0.0.1", &["10.0.0.1".parse().unwrap()]), Ok(()));
    for (bad, expected) in [
        ("", CheckUrlError::NotWeb),
        ("hooks.acme.example", CheckUrlError::NotWeb),
        ("ftp://hooks.acme.example", CheckUrlError::NotWeb),
        ("file:///etc/passwd", CheckUrlError::NotWeb),
        ("http://hooks.acme.example", CheckUrlError::Plain),
        ("http://localhost.acme.example", CheckUrlError::Plain),
        ("http://10.0.0.1", CheckUrlError::Plain),
        ("https://10.0.0.1", CheckUrlError::Internal("a private address")),
        ("https://[::ffff:169.254.169.254]/", CheckUrlError::Internal("a link-local address")),
        ("https://user:word@hooks.acme.example", CheckUrlError::Credentials),
        ("https://user@hooks.acme.example", CheckUrlError::Credentials),
    ] {
        assert_eq!(check_url(bad, &[]), Err(expected), "{bad}");
    }
}
