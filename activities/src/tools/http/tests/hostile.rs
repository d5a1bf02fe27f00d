//! Servers that mean no good, or that are broken.

use super::*;

#[tokio::test]
async fn a_redirect_is_not_followed_wherever_it_leads() {
    let target = Origin::saying("200 OK", "content-type: text/plain\r\n", "credentials").await;
    let inside = format!("http://127.0.0.1:{}/latest/meta-data/", target.port);
    for (status, code) in
        [("301 Moved", 301), ("302 Found", 302), ("303 See Other", 303), ("307 T", 307), ("308 P", 308)]
    {
        for location in [inside.as_str(), "http://169.254.169.254/latest/meta-data/", "//localhost/x"] {
            let origin = Origin::saying(status, &format!("location: {location}\r\n"), "").await;
            let said = outcome(&origin, &cancel()).await;
            let expected =
                format!("unknown: the server answered with a redirect (status {code}), which is not followed");
            assert!(said.starts_with(&expected) && !said.contains("169.254"), "{said}");
            assert_eq!(origin.requests().len(), 1);
        }
    }
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off_at_its_limit() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";
    let origin = Origin::doing(Act::Flood(head.to_owned())).await;
    let mut small = request_of(HttpMethod::Post, "/orders", ArgumentsIn::Body);
    small.answer_bytes_max = 100_000;
    let said = outcome(&origin, &tool(small)).await;
    assert_eq!(
        said,
        "answer: tool `orders.cancel` was performed (status 200); its answer is over the limit of 100000 bytes, and was left out"
    );
}

#[tokio::test]
async fn a_server_that_answers_slowly_for_ever_is_cut_off_at_the_time_limit() {
    let quick = ToolDefinition { timeout_secs: 1, ..cancel() };
    let began = Instant::now();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9999999\r\n\r\n";
    for (act, expected) in [
        (Act::Nothing, "unknown: no answer within 1 s"),
        (Act::Drip("HTTP/1.1 200 OK\r\nx-slow: ".to_owned()), "unknown: no answer within 1 s"),
        (
            Act::Drip(head.to_owned()),
            "unknown: the answer began with status 200, and did not arrive whole: no answer within 1 s",
        ),
    ] {
        let origin = Origin::doing(act).await;
        assert_eq!(outcome(&origin, &quick).await, expected);
        assert_eq!(origin.requests().len(), 1);
    }
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_the_outcome_open() {
    let origin = Origin::doing(Act::Close).await;
    assert_eq!(outcome(&origin, &cancel()).await, "unknown: the connection broke");
    assert_eq!(origin.requests().len(), 1, "not sent again");
    let half = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf";
    let origin = Origin::doing(Act::Say(half.to_owned())).await;
    let expected = "unknown: the answer began with status 200, and did not arrive whole: the connection broke";
    assert_eq!(outcome(&origin, &cancel()).await, expected);
    let origin = Origin::doing(Act::Say("no HTTP at all\r\n\r\n".to_owned())).await;
    assert_eq!(outcome(&origin, &cancel()).await, "unknown: the connection broke");
}

#[tokio::test]
async fn a_status_that_refuses_decides_whether_or_not_its_words_arrive() {
    let half = "HTTP/1.1 422 Unprocessable\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nno such";
    let origin = Origin::doing(Act::Say(half.to_owned())).await;
    assert_eq!(outcome(&origin, &cancel()).await, "error: the server refused the call with status 422: no such");
}

#[tokio::test]
async fn a_server_that_died_between_the_look_and_the_call_was_not_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let origin = Origin::saying("204 No Content", "", "").await;
    let settings = RemoteSettings {
        url: format!("http://{address}/"),
        allow_internal: vec![address.to_string().parse().unwrap()],
        ..origin.settings()
    };
    let tools = tools(settings);
    let prepared = tools.prepare(&cancel()).await.unwrap();
    drop(listener);
    let arguments = json!({ "order_id": "o1" });
    let outcome = tools.call(&permit(), prepared, arguments.as_object().unwrap()).await;
    assert_eq!(in_a_line(outcome), "not sent: no connection: Connection refused (os error 111)");
}
