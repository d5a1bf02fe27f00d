//! What each answer means.

use super::*;

const JSON: &str = "content-type: application/json\r\n";

async fn of(status: &str, headers: &str, body: &str) -> String {
    let origin = Origin::saying(status, headers, body).await;
    let outcome = outcome(&origin, &cancel()).await;
    assert_eq!(origin.requests().len(), 1, "asked once, whatever it answers");
    outcome
}

#[tokio::test]
async fn a_success_is_read_as_what_it_says_that_it_is() {
    assert_eq!(of("200 OK", JSON, "[1, 2]").await, "answer: [1,2]");
    assert_eq!(of("201 Created", "content-type: application/vnd.a+json; v=1\r\n", "{}").await, "answer: {}");
    assert_eq!(of("200 OK", "content-type: text/plain; charset=utf-8\r\n", "ä").await, "answer: ä");
    assert_eq!(
        of("204 No Content", "", "").await,
        "answer: done: the server answered with status 204 and nothing else"
    );
}

#[tokio::test]
async fn a_success_that_cannot_be_read_was_still_performed() {
    let performed = "answer: tool `orders.cancel` was performed (status 200); its answer ";
    assert_eq!(
        of("200 OK", JSON, "{").await,
        format!("{performed}is not the JSON that it says it is, and was left out")
    );
    for (headers, named) in [
        ("content-type: image/png\r\n", "content type `image/png`"),
        ("", "no content type"),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\n", "encoding `gzip`"),
    ] {
        let expected = format!("{performed}has {named}, which is neither JSON nor text, and was left out");
        assert_eq!(of("200 OK", headers, "x").await, expected);
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_that_the_model_reads() {
    assert_eq!(
        of("404 Not Found", JSON, r#"{"error":"no such order"}"#).await,
        r#"error: the server refused the call with status 404: {"error":"no such order"}"#
    );
    assert_eq!(of("409 Conflict", "", "").await, "error: the server refused the call with status 409");
    assert_eq!(
        of("403 Forbidden", "content-type: image/png\r\n", "x").await,
        "error: the server refused the call with status 403"
    );
    let long = of("400 Bad Request", "content-type: text/plain\r\n", &"x".repeat(100_000)).await;
    assert_eq!(long.len(), "error: the server refused the call with status 400: ".len() + 2000);
}

#[tokio::test]
async fn a_server_that_declines_is_waited_for_as_long_as_it_asks_and_no_longer_than_the_bound() {
    assert_eq!(of("429 Too Many Requests", "retry-after: 7\r\n", "").await, "declined: 429 Some(7s)");
    assert_eq!(of("429 Too Many Requests", "retry-after: 86400\r\n", "").await, "declined: 429 Some(600s)");
    assert_eq!(of("425 Too Early", "", "").await, "declined: 425 None");
}

#[tokio::test]
async fn what_leaves_open_whether_it_happened_is_told_so() {
    for (status, code) in [
        ("500 Internal Server Error", 500),
        ("502 Bad Gateway", 502),
        ("504 Gateway Timeout", 504),
        ("408 Request Timeout", 408),
    ] {
        assert_eq!(of(status, "", "").await, format!("unavailable: {code} None"));
    }
    assert_eq!(of("503 Service Unavailable", "retry-after: 3\r\n", "").await, "unavailable: 503 Some(3s)");
    assert_eq!(of("600 Beyond", "", "").await, "unknown: the server answered with status 600, which says nothing");
}

fn asked(again: bool) -> answer::Asked {
    answer::Asked { reads: false, again, repeats: false }
}

#[test]
fn what_a_server_refuses_of_a_repeated_call_says_nothing_of_the_one_before() {
    let arrived = |status| {
        let headers = reqwest::header::HeaderMap::new;
        Arrived::new(status, headers(), Body::Whole(Vec::new()), &headers())
    };
    let name = ToolName::parse("orders.cancel").unwrap();
    for status in [reqwest::StatusCode::NOT_FOUND, reqwest::StatusCode::UNAUTHORIZED] {
        let repeated = answer::Asked { repeats: true, ..asked(true) };
        let code = status.as_u16();
        assert_eq!(in_a_line(answer::judge(&name, &arrived(status), repeated)), format!("unavailable: {code} None"));
        assert!(in_a_line(answer::judge(&name, &arrived(status), asked(true))).starts_with("error: "));
    }
}

#[test]
fn a_redirect_leaves_open_whether_something_was_done() {
    let headers = reqwest::header::HeaderMap::new;
    let arrived = Arrived::new(reqwest::StatusCode::SEE_OTHER, headers(), Body::Whole(Vec::new()), &headers());
    let name = ToolName::parse("orders.cancel").unwrap();
    assert!(
        in_a_line(answer::judge(&name, &arrived, asked(false)))
            .starts_with("unknown: the server answered with a redirect")
    );
    let reads = answer::Asked { reads: true, ..asked(false) };
    assert!(in_a_line(answer::judge(&name, &arrived, reads)).starts_with("error: the server answered with a redirect"));
}

#[test]
fn a_conflict_with_an_earlier_attempt_of_the_same_call_leaves_it_open() {
    let arrived = Arrived::new(
        reqwest::StatusCode::CONFLICT,
        reqwest::header::HeaderMap::new(),
        Body::Whole(Vec::new()),
        &reqwest::header::HeaderMap::new(),
    );
    let name = ToolName::parse("orders.cancel").unwrap();
    assert_eq!(in_a_line(answer::judge(&name, &arrived, asked(true))), "unavailable: 409 None");
    assert!(in_a_line(answer::judge(&name, &arrived, asked(false))).starts_with("error: the server refused"));
}

#[tokio::test]
async fn a_secret_that_the_server_repeats_is_not_told() {
    let origin =
        Origin::saying("401 Unauthorized", "content-type: text/plain\r\n", "bad `Bearer s3cret-token` s3cret-token")
            .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret-token").unwrap();
    let reference = SecretRef::File(folder.path().join("token"));
    let bearer = HeaderSetting::Secret { prefix: "Bearer ".to_owned(), reference };
    let settings = RemoteSettings { headers: [("authorization".to_owned(), bearer)].into(), ..origin.settings() };
    let said = in_a_line(call(settings, &cancel()).await);
    assert_eq!(said, "error: the server refused the call with status 401: bad `[secret]` [secret]");
}
