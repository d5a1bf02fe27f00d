//! The guard against names and addresses, with a look-up of the tests' own.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{catalog::Speaks, tools::Stop};

pub(crate) fn settings(url: &str, allow_internal: &[&str]) -> RemoteSettings {
    let _ = rustls::crypto::ring::default_provider().install_default();
    RemoteSettings {
        speaks: Speaks::Http,
        url: url.to_owned(),
        headers: [].into(),
        allow_internal: allow_internal.iter().map(|host| host.parse().unwrap()).collect(),
        connect_timeout_secs: 5,
        calls_max: 8,
    }
}

/// A look-up that gives these answers, one after the other, and the last one for ever.
fn answering(answers: &[&str]) -> LookUp {
    let parsed =
        answers.iter().map(|one| one.split_whitespace().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>());
    let answers = Arc::new(Mutex::new(parsed.collect::<VecDeque<_>>()));
    Arc::new(move |_| {
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        Box::pin(async move { Ok(answer) })
    })
}

/// A listener, and how many connections it took.
async fn listener() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            // Whoever only looks asks nothing.
            let Ok(1..) = stream.read(&mut [0; 4096]).await else { continue };
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        }
    });
    (port, taken)
}

fn refused(url: &str, allow_internal: &[&str]) -> String {
    let hosts: Vec<_> = allow_internal.iter().map(|host| host.parse().unwrap()).collect();
    check_url(url, &hosts).map_or_else(|error| error.to_string(), |()| "usable".to_owned())
}

#[test]
fn an_internal_address_in_any_notation_is_refused_where_the_url_is_read() {
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.5.5",
        "100.64.0.1",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "0177.0.0.1",
        "①②⑦.0.0.1",
    ] {
        let said = refused(&format!("https://{host}/api"), &[]);
        assert!(said.contains("`allow_internal` does not name it"), "{host}: {said}");
    }
    assert_eq!(refused("https://api.acme.example/v1", &[]), "usable");
    assert_eq!(refused("https://1.1.1.1/v1", &[]), "usable");
    assert_eq!(refused("http://127.0.0.1:8080/v1", &["127.0.0.1:8080"]), "usable");
    assert_eq!(refused("http://2130706433:8080/v1", &["127.0.0.1:8080"]), "usable");
    assert!(refused("http://127.0.0.1:8081/v1", &["127.0.0.1:8080"]).contains("`http://` is for hosts"));
    assert!(refused("http://api.acme.example/v1", &[]).contains("`http://` is for hosts"));
    assert!(refused("https://a:b@api.acme.example", &[]).contains("credentials"));
    assert!(refused("https://api.acme.example?a=b", &[]).contains("query"));
    for url in ["ftp://api.acme.example", "api.acme.example", "https://", "file:///etc/passwd"] {
        assert!(refused(url, &[]).contains("must be a URL"), "{url}");
    }
}

#[tokio::test]
async fn a_name_with_an_internal_address_is_not_connected_to() {
    let (port, taken) = listener().await;
    for answer in ["127.0.0.1", "93.184.216.34 127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "fd00::1"] {
        let url = format!("https://orders.acme.example:{port}/");
        let egress = Egress::new(&settings(&url, &[]), answering(&[answer])).unwrap();
        let said = egress.reach().await.unwrap_err().to_string();
        assert!(said.contains("`allow_internal` does not name it"), "{answer}: {said}");
        let unanswered = Unanswered::from(&egress.http.get(&url).send().await.unwrap_err());
        assert!(
            !unanswered.may_have_arrived && unanswered.reason.contains("does not name it"),
            "{}",
            unanswered.reason
        );
    }
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_turns_internal_between_look_and_use_is_not_connected_to() {
    let (port, taken) = listener().await;
    let url = format!("https://orders.acme.example:{port}/");
    let egress = Egress::new(&settings(&url, &[]), answering(&["93.184.216.34", "127.0.0.1"])).unwrap();
    assert_eq!(
        egress.route.addresses(&egress.look_up).await.unwrap(),
        [SocketAddr::new("93.184.216.34".parse().unwrap(), port)]
    );
    let unanswered = Unanswered::from(&egress.http.get(&url).send().await.unwrap_err());
    assert!(
        !unanswered.may_have_arrived && unanswered.reason.contains("an address of this machine"),
        "{}",
        unanswered.reason
    );
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_is_allowed_may_be_internal_and_never_a_metadata_service() {
    let (port, taken) = listener().await;
    let (url, allowed) = (format!("http://orders.internal:{port}/"), format!("orders.internal:{port}"));
    let egress =
        Egress::new(&settings(&url, &[&allowed]), answering(&["127.0.0.1", "127.0.0.1", "169.254.169.254"])).unwrap();
    egress.reach().await.unwrap();
    assert_eq!(egress.http.get(&url).send().await.unwrap().status(), 204);
    assert_eq!(taken.load(Ordering::SeqCst), 2);
    let said = egress.reach().await.unwrap_err().to_string();
    assert!(said.contains("link-local"), "{said}");
}

#[tokio::test]
async fn no_other_host_is_looked_up_or_reached() {
    let (port, taken) = listener().await;
    let egress = Egress::new(&settings("https://orders.acme.example/", &[]), answering(&["127.0.0.1"])).unwrap();
    let unanswered = Unanswered::from(&egress.http.get(format!("http://localhost:{port}/")).send().await.unwrap_err());
    assert!(unanswered.reason.contains("another host"), "{}", unanswered.reason);
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_connection_that_was_made_after_the_claim_ran_out_carries_nothing() {
    let (port, _) = listener().await;
    let (url, allowed) = (format!("http://127.0.0.1:{port}/"), format!("127.0.0.1:{port}"));
    let egress = Egress::new(&settings(&url, &[&allowed]), system()).unwrap();
    let never = Stop::default();
    let sending = |send_by| sent_by(send_by, &never, egress.http.get(&url).send());
    let unanswered = Unanswered::from(&sending(Instant::now()).await.unwrap_err());
    assert!(!unanswered.may_have_arrived && unanswered.reason.contains("the claim ran out"), "{}", unanswered.reason);
    let soon = Instant::now() + Duration::from_mins(1);
    assert_eq!(sending(soon).await.unwrap().status(), 204);
    let stopped = Stop::when(std::future::ready(()));
    let unanswered = Unanswered::from(&sent_by(soon, &stopped, egress.http.get(&url).send()).await.unwrap_err());
    assert!(!unanswered.may_have_arrived && unanswered.reason.contains("it was to stop"), "{}", unanswered.reason);
}

#[tokio::test]
async fn what_does_not_listen_is_not_reached() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (url, allowed) = (format!("http://127.0.0.1:{port}/"), format!("127.0.0.1:{port}"));
    let egress = Egress::new(&settings(&url, &[&allowed]), system()).unwrap();
    assert!(egress.reach().await.unwrap_err().to_string().contains("no connection to `127.0.0.1`"));
    assert!(!Unanswered::from(&egress.http.get(&url).send().await.unwrap_err()).may_have_arrived);
}
