//! What arguments make of a template, and what they cannot make of it.

use serde_json::json;

use super::*;

fn request(path: &str, arguments: ArgumentsIn) -> HttpRequest {
    HttpRequest {
        server: ServerName::parse("orders").unwrap(),
        method: HttpMethod::Post,
        path: path.parse().unwrap(),
        arguments,
        answer_bytes_max: ANSWER_BYTES,
    }
}

/// The URL's path and query, or what is said of the arguments.
fn filled(path: &str, arguments: &Value) -> String {
    let arguments = arguments.as_object().cloned().unwrap();
    match request(path, ArgumentsIn::Query).target(&arguments) {
        Ok(target) => target.path_and_query,
        Err(error) => error.to_string(),
    }
}

#[test]
fn arguments_fill_the_places_of_the_template_and_the_rest_goes_where_it_is_stated_to() {
    let arguments = json!({ "order_id": "o 1", "amount": 5, "tags": ["a", "b&c"], "note": null });
    assert_eq!(filled("/orders/{order_id}", &arguments), "/orders/o%201?amount=5&tags=a&tags=b%26c");
    let target = request("/orders/{order_id}?v=2&full={amount}", ArgumentsIn::Body);
    let target = target.target(arguments.as_object().unwrap()).unwrap();
    assert_eq!(target.path_and_query, "/orders/o%201?v=2&full=5");
    assert_eq!(target.body, Some(json!({ "tags": ["a", "b&c"], "note": null })));
    assert_eq!(filled("/o/{a}-{b}.json", &json!({ "a": true, "b": 1.5 })), "/o/true-1.5.json");
}

#[test]
fn no_value_changes_the_way_of_a_path() {
    for value in ["..", ".", "", "../admin", "..;", "a/b", "/", "a\\b", "\\..", "a\nb", "\u{0}", "..%2fadmin"] {
        let said = filled("/orders/{id}/lines", &json!({ "id": value }));
        assert!(said.starts_with("argument `id` cannot be a part of a path"), "{value:?}: {said}");
    }
}

#[test]
fn no_value_begins_a_query_a_fragment_or_another_host() {
    for (value, encoded) in [
        ("a?admin=1", "a%3Fadmin%3D1"),
        ("a#b", "a%23b"),
        ("a&b", "a%26b"),
        ("%2e%2e", "%252e%252e"),
        ("x@evil.example:80", "x%40evil.example%3A80"),
        ("ä", "%C3%A4"),
        ("a+b;c=d", "a%2Bb%3Bc%3Dd"),
        (".hidden", ".hidden"),
    ] {
        assert_eq!(filled("/orders/{id}", &json!({ "id": value })), format!("/orders/{encoded}"));
        assert_eq!(filled("/orders?q={id}", &json!({ "id": value })), format!("/orders?q={encoded}"));
    }
    assert_eq!(filled("/orders?q={id}", &json!({ "id": "../a/b" })), "/orders?q=..%2Fa%2Fb");
    assert_eq!(filled("/orders", &json!({ "a=b&c": "d" })), "/orders?a%3Db%26c=d");
}

#[test]
fn what_makes_no_url_is_said_with_the_name_of_the_argument() {
    assert_eq!(filled("/o/{id}", &json!({})), "argument `id` is missing: it is a part of the URL");
    for value in [json!(null), json!(["a"]), json!({})] {
        assert!(filled("/o/{id}", &json!({ "id": value })).starts_with("argument `id` must be a text"));
    }
    assert!(filled("/o", &json!({ "a": { "b": 1 } })).starts_with("argument `a` cannot be a part of a query"));
    assert!(filled("/o?v=1", &json!({ "v": "2" })).starts_with("argument `v` has the name of a value"));
    assert!(filled("/o", &json!({ "a": "x".repeat(9000) })).contains("8192 is the most"));
}

#[test]
fn a_template_that_could_mean_something_else_is_refused() {
    for (text, said) in [
        ("orders", "a path begins with `/`"),
        ("https://a.example/x", "a path begins with `/`"),
        ("//evil.example/x", "a segment that is empty"),
        ("/a//b", "a segment that is empty"),
        ("/a/../b", "a segment that is empty"),
        ("/a/./b", "a segment that is empty"),
        ("/a/%2e%2e/b", "`%` cannot stand"),
        ("/a#b", "`#` cannot stand"),
        ("/a b", "` ` cannot stand"),
        ("/a\\b", "`\\` cannot stand"),
        ("/a/{b", "is no placeholder"),
        ("/a/b}", "is no placeholder"),
        ("/a/{+b}", "is no placeholder"),
        ("/a/{b,c}", "is no placeholder"),
        ("/a/{}", "is no placeholder"),
        ("/a?b", "not of the form"),
        ("/a?{b}=1", "not of the form"),
        ("/a?", "not of the form"),
        ("/a?b=1?c", "`?` cannot stand"),
    ] {
        let error = text.parse::<PathTemplate>().unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    for text in ["/", "/v1/orders/{id}", "/a/{b}.json?c={d}&e=1"] {
        if text == "/" {
            assert!(text.parse::<PathTemplate>().is_err());
        } else {
            assert_eq!(text.parse::<PathTemplate>().unwrap().as_str(), text);
        }
    }
}

#[test]
fn a_key_is_sent_in_characters_that_a_header_holds_and_two_never_become_one() {
    assert_eq!(key_as_sent("refund-1/run/t1.0"), "refund-1/run/t1.0");
    assert_eq!(key_as_sent("ä\"\\\n"), "%C3%A4%22%5C%0A");
    assert_ne!(key_as_sent("ä"), key_as_sent("%C3%A4"));
}
