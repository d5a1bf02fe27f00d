//! The keys of the provider: from a file, and from a server of this machine that rotates, breaks off and exaggerates.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    provider::{Provider, claims, header, in_a_file, settings, with},
    *,
};
use crate::identity::jwks::Pace;

/// Serves answers one after the other, the last one for ever, and counts the requests.
async fn serve(answers: Vec<(u16, String)>) -> (JwksSource, Arc<AtomicUsize>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answers.get(turn).or(answers.last()).unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await.unwrap();
            let head = format!(
                "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // The client may have hung up when it had read enough.
            let _ = stream.write_all(body.as_bytes()).await;
        }
    });
    (JwksSource::Url(url.parse().unwrap()), count)
}

fn with_pace(settings: IdentitySettings, fresh: Duration, again: Duration) -> Identities {
    let tokens = TokenVerifier::new(settings.jwt.clone().unwrap()).unwrap().with_pace(Pace { fresh, again });
    Identities { settings, tokens: Some(tokens) }
}

async fn prove(identities: &Identities, token: &str) -> Result<Result<Proved, Unproved>, IdentityUnavailable> {
    let evidence = Evidence { signature: None, token: Some(token.to_owned()) };
    let (statement, event) = (statement(Verdict::Approve), signal(None));
    let asked = Asked { claimed_by: None, evidence: &evidence, statement: &statement, event: Some(&event) };
    identities.prove(asked).await
}

#[tokio::test]
async fn keys_are_fetched_once_and_an_unknown_key_is_not_looked_for_at_once_again() {
    let provider = Provider::new();
    let (source, requests) = serve(vec![(200, provider.jwks().to_string())]).await;
    let identities = Identities::new(settings(source)).unwrap();
    let (good, unknown) = (provider.token(&header(), &claims()), with(header(), &json!({ "kid": "gone" })));
    let unknown = provider.token(&unknown, &claims());
    for _ in 0..3 {
        assert_eq!(prove(&identities, &good).await.unwrap().unwrap().by, person("bo"));
        assert!(matches!(prove(&identities, &unknown).await.unwrap(), Err(Unproved::UnknownKey { .. })));
    }
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_withdrawn_one_is_not_used_on() {
    let provider = Provider::new();
    let none = json!({ "keys": [] }).to_string();
    let day = Duration::from_hours(24);
    let token = provider.token(&header(), &claims());
    // The key appears between two looks.
    let (source, requests) = serve(vec![(200, none.clone()), (200, provider.jwks().to_string())]).await;
    let identities = with_pace(settings(source), day, Duration::ZERO);
    assert!(matches!(prove(&identities, &token).await.unwrap(), Err(Unproved::UnknownKey { .. })));
    assert!(prove(&identities, &token).await.unwrap().is_ok());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    // It disappears, or the provider does.
    for (status, body) in [(200, none), (503, String::new())] {
        let (source, _) = serve(vec![(200, provider.jwks().to_string()), (status, body)]).await;
        let identities = with_pace(settings(source), Duration::ZERO, day);
        assert!(prove(&identities, &token).await.unwrap().is_ok());
        assert!(!matches!(prove(&identities, &token).await, Ok(Ok(_))), "{status}");
    }
}

#[tokio::test]
async fn fresh_keys_outlive_a_failed_look_for_an_unknown_one() {
    let provider = Provider::new();
    let (source, requests) = serve(vec![(200, provider.jwks().to_string()), (503, String::new())]).await;
    let identities = with_pace(settings(source), Duration::from_hours(1), Duration::ZERO);
    let good = provider.token(&header(), &claims());
    let unknown = provider.token(&with(header(), &json!({ "kid": "gone" })), &claims());
    assert!(prove(&identities, &good).await.unwrap().is_ok());
    assert!(prove(&identities, &unknown).await.is_err(), "it may be new, and nobody can say now");
    assert!(prove(&identities, &good).await.unwrap().is_ok());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_tried_for_again_and_the_reason_is_told() {
    let token = Provider::new().token(&header(), &claims());
    let huge = "x".repeat(JWKS_BYTES_MAX + 1);
    for (status, body, reason) in [
        (503, "", "status 503"),
        (302, "", "status 302"),
        (200, "<html>", "it is no JSON Web Key Set"),
        (200, huge.as_str(), "it is over 262144 bytes"),
    ] {
        let (source, _) = serve(vec![(status, body.to_owned())]).await;
        let error = prove(&Identities::new(settings(source)).unwrap(), &token).await.unwrap_err();
        assert_eq!(error.reason, reason, "{status}");
    }
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let source = JwksSource::Url(format!("http://{unused}/jwks").parse().unwrap());
    let error = prove(&Identities::new(settings(source)).unwrap(), &token).await.unwrap_err();
    assert_eq!(error.reason, "no connection: Connection refused (os error 111)");
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_and_bounded() {
    let (provider, folder, settings) = in_a_file();
    let token = provider.token(&header(), &claims());
    let path = folder.path().join("jwks.json");
    let identities = with_pace(settings, Duration::ZERO, Duration::ZERO);
    assert!(prove(&identities, &token).await.unwrap().is_ok());
    std::fs::write(&path, json!({ "keys": [] }).to_string()).unwrap();
    assert!(matches!(prove(&identities, &token).await.unwrap(), Err(Unproved::UnknownKey { .. })));
    std::fs::write(&path, "x".repeat(JWKS_BYTES_MAX + 1)).unwrap();
    assert_eq!(prove(&identities, &token).await.unwrap_err().reason, "it is over 262144 bytes");
    std::fs::remove_file(&path).unwrap();
    let error = prove(&identities, &token).await.unwrap_err();
    assert!(error.to_string().contains("jwks.json"), "{error}");
}
