//! Servers over HTTP and HTTP tools: what is taken as written, and what is refused where it stands.

use mandate_activities::catalog::{HeaderSetting, RemoteSettings, Speaks};
use mandate_domain::{
    ToolReach,
    tool::http::{ArgumentsIn, HttpMethod},
};

use super::*;

const SERVER: &str = r#"
[servers.orders]
base_url = "https://api.acme.example/v1"
"#;

const CANCEL: &str = r#"
name = "orders.cancel"
description = "Cancel an order."
owner = "support@acme.example"
[http]
server = "orders"
method = "POST"
path = "/orders/{order_id}/cancel"
arguments = "body"
[input_schema]
type = "object"
required = ["order_id"]
[input_schema.properties]
order_id = { type = "string" }
note = { type = ["string", "null"] }
lines = { type = "object" }
"#;

fn folder(server: &str, tool: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.write("mandate.toml", format!("{ROOT}{server}"));
    fixture.write("tools/orders.cancel.toml", tool);
    fixture
}

/// Expects one problem with these words, and no secret in it.
fn check(fixture: &Fixture, words: &[&str]) {
    let errors = fixture.errors();
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let all = format!("{}\n{}", lines[0], rendered(&errors));
    for word in words {
        assert!(all.contains(word), "`{word}` is missing: {all}");
    }
    assert!(!all.contains("s3cret"), "{all}");
}

fn check_server(lines: &str, words: &[&str]) {
    check(&folder(&format!("\n[servers.orders]\n{lines}\n"), TOOL_FREE), words);
}

fn check_tool(old: &str, new: &str, words: &[&str]) {
    assert!(CANCEL.contains(old), "{old}");
    check(&folder(SERVER, &CANCEL.replacen(old, new, 1)), words);
}

/// A tool that needs no server.
const TOOL_FREE: &str =
    "name = \"orders.cancel\"\ndescription = \"x\"\nowner = \"a@acme.example\"\nbuiltin = \"current_time\"\n";

#[test]
fn a_server_and_its_tool_are_taken_as_written() {
    let server = r#"
[servers.orders]
base_url = "http://10.0.0.7:8080/v1"
allow_internal = ["10.0.0.7:8080"]
connect_timeout_secs = 3
calls_max = 2
headers = { authorization = "Bearer env:TOKEN", x-auth = "Basic exec:pass show orders", x-api-key = "file:key", api-version = "2" }
[servers.remote]
url = "https://mcp.acme.example/mcp"
"#;
    let fixture =
        folder(server, &CANCEL.replace("arguments = \"body\"", "arguments = \"body\"\nanswer_bytes_max = 5000"));
    let config = fixture.load().map_err(|errors| rendered(&errors)).unwrap();
    let key = SecretRef::File(config.folder.join("key"));
    let expected = RemoteSettings {
        speaks: Speaks::Http,
        url: "http://10.0.0.7:8080/v1".to_owned(),
        headers: [
            (
                "authorization".to_owned(),
                HeaderSetting::Secret { prefix: "Bearer ".to_owned(), reference: SecretRef::Env("TOKEN".to_owned()) },
            ),
            (
                "x-auth".to_owned(),
                HeaderSetting::Secret {
                    prefix: "Basic ".to_owned(),
                    reference: SecretRef::parse("exec:pass show orders").unwrap(),
                },
            ),
            ("x-api-key".to_owned(), HeaderSetting::Secret { prefix: String::new(), reference: key }),
            ("api-version".to_owned(), HeaderSetting::Plain("2".to_owned())),
        ]
        .into(),
        allow_internal: vec!["10.0.0.7:8080".parse().unwrap()],
        connect_timeout_secs: 3,
        calls_max: 2,
    };
    assert_eq!(config.catalog.remotes[&"orders".parse().unwrap()], expected);
    assert_eq!(config.catalog.remotes[&"remote".parse().unwrap()].speaks, Speaks::Mcp);
    assert_eq!(config.catalog.servers.len(), 1);
    let ToolReach::Http(request) = &config.catalog.tools[&ToolName::parse("orders.cancel").unwrap()].reach else {
        panic!("no HTTP tool")
    };
    assert_eq!(
        (request.method, request.arguments, request.answer_bytes_max),
        (HttpMethod::Post, ArgumentsIn::Body, 5000)
    );
    assert_eq!(request.path.as_str(), "/orders/{order_id}/cancel");
    let shown = config.summary();
    assert!(shown.servers.iter().any(|server| server.url.as_deref() == Some("http://10.0.0.7:8080/v1")));
}

#[test]
fn a_server_that_cannot_be_reached_as_written_is_refused() {
    check_server(
        "base_url = \"http://api.acme.example\"",
        &["`base_url`", "`http://` is for hosts of `allow_internal`"],
    );
    check_server(
        "base_url = \"https://10.0.0.7\"",
        &["`10.0.0.7` is a private address", "name it in `allow_internal`"],
    );
    check_server("base_url = \"https://0x7f.1/\"", &["an address of this machine"]);
    check_server("url = \"https://169.254.169.254/mcp\"", &["`url`", "a link-local address"]);
    check_server("base_url = \"https://u:s3cret@api.acme.example\"", &["credentials"]);
    check_server("base_url = \"https://api.acme.example?a=b\"", &["a query or a fragment"]);
    check_server("base_url = \"api.acme.example\"", &["starts with `https://`"]);
    check_server("base_url = \"https://a.example\"\ncalls_max = 0", &["`calls_max` must be from 1 to 256"]);
    check_server("base_url = \"https://a.example\"\ncommand = [\"sh\"]", &["unknown key `command`"]);
    check_server(
        "base_url = \"https://a.example\"\nallow_internal = [\"10.0.0.0/8\"]",
        &["must be a host as it stands"],
    );
}

#[test]
fn a_header_that_holds_a_plain_secret_or_belongs_to_the_runtime_is_refused() {
    let header = |line: &str| format!("base_url = \"https://a.example\"\nheaders = {{ {line} }}");
    for name in ["authorization", "x-api-key", "cookie", "x-auth", "my-token"] {
        check_server(&header(&format!("{name} = \"Bearer s3cret\"")), &["is written as a reference"]);
    }
    for name in ["host", "idempotency-key", "content-length", "mcp-session-id"] {
        check_server(&header(&format!("{name} = \"x\"")), &["is stated by the runtime"]);
    }
    check_server(&header("Upper = \"x\""), &["`Upper` is no header"]);
    check_server(&header("plain = \"ä\""), &["no header can carry"]);
    check_server(&header("authorization = \"Bearer env:\""), &["`authorization`"]);
}

#[test]
fn a_request_that_does_not_fit_its_schema_or_its_server_is_refused() {
    check_tool("server = \"orders\"", "server = \"ordres\"", &["unknown server `ordres`", "did you mean `orders`?"]);
    check_tool("server = \"orders\"", "server = \"refunds\"", &["server `refunds` is an MCP server", "`base_url`"]);
    check_tool("POST", "FETCH", &["`FETCH` is not one of the methods"]);
    check_tool("/orders/{order_id}/cancel", "/orders/../{order_id}", &["a segment that is empty"]);
    check_tool("/orders/{order_id}/cancel", "https://evil.example/", &["a path begins with `/`"]);
    check_tool("arguments = \"body\"", "arguments = \"form\"", &["not `form`"]);
    check_tool("arguments = \"body\"\n", "", &["`arguments` is missing"]);
    check_tool("arguments = \"body\"", "arguments = \"query\"", &["`lines` is an object"]);
    check_tool("{order_id}/", "{id}/", &["`{id}` is no property of `input_schema`"]);
    check_tool("{order_id}/", "{note}/", &["`{note}` is a part of the URL, so it must be `required`"]);
    check_tool("arguments = \"body\"", "arguments = \"body\"\nanswer_bytes_max = 5000000", &["`answer_bytes_max`"]);
    check_tool("owner =", "builtin = \"current_time\"\nowner =", &["one of `[mcp]`, `[http]` and `builtin`"]);
}

#[test]
fn a_tool_that_changes_something_is_no_get() {
    let get =
        CANCEL.replace("POST", "GET").replace("\"body\"", "\"query\"").replace("lines = { type = \"object\" }\n", "");
    check(&folder(SERVER, &get), &["cannot be a `GET`", "read_only = true"]);
    folder(SERVER, &get.replace("[http]", "read_only = true\n[http]"))
        .load()
        .map_err(|errors| rendered(&errors))
        .unwrap();
    let nullable = CANCEL.replace("{order_id}/", "{note}/").replace("[\"order_id\"]", "[\"note\"]");
    check(&folder(SERVER, &nullable), &["its `type` must be string, integer, number or boolean"]);
    let mcp = TOOL.replace("\"refunds\"", "\"orders\"").replace("orders.read", "orders.cancel");
    check(&folder(SERVER, &mcp), &["server `orders` has HTTP tools"]);
}
