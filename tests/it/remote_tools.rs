//! Runs whose tools are reached over HTTP, on a real Temporal server: an HTTP tool, and tools of MCP servers that were
//! written with the SDKs of the protocol's authors, of both its eras. What was done is read from the servers' own records.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mandate_tests::{Behaviour, Https, Orders, Process, Scenario, program, run, until, workspace_folder};
use serde_json::{Value, json};

use crate::web_ui::prepared;

const AGENT: &str = "tenants/acme/support/refunds/agent.toml";

const POLICY: &str = r#"
@id("orders.cancel")
@reason("the support unit cancels orders")
permit (principal in Mandate::Unit::"acme/support", action == Mandate::Action::"orders.cancel", resource);
"#;

const SCRIPT: &str = r#"
[[conversation]]
[[conversation.reply]]
calls = [{ tool = "orders.cancel", arguments = { order_id = "o1" } }]
[[conversation.reply]]
text = "Order o1 is cancelled."
"#;

const SCHEMA: &str = r#"
[input_schema]
type = "object"
required = ["order_id"]

[input_schema.properties.order_id]
type = "string"

[argument_classes]
"/order_id" = "order"

[result_classes]
"" = "order"
"#;

/// A scenario with the tool and its server.
pub(crate) async fn cancels_orders(name: &str, server: &str, kind: &str, reach: &str) -> Scenario {
    let scenario = Scenario::new(name).await;
    let tool = format!(
        "name = \"orders.cancel\"\ndescription = \"Cancel an order.\"\nowner = \"support@acme.example\"\n\
         open_world = false\n{kind}\n{reach}\n{SCHEMA}"
    );
    scenario.write("tools/orders.cancel.toml", &tool);
    scenario.write("policies/orders.cedar", POLICY);
    scenario.write("scripts/refunds.toml", SCRIPT);
    scenario.edit("mandate.toml", "\n[models.support]", &format!("{server}\n[models.support]"));
    scenario.edit(AGENT, "tools = [", "tools = [\"orders.cancel\", ");
    scenario
}

const HTTP: &str = r#"
[http]
server = "orders"
method = "POST"
path = "/orders/{order_id}/cancel"
arguments = "body"
"#;

pub(crate) const MCP: &str = r#"
[mcp]
server = "orders"
tool = "cancel_order"
"#;

#[test]
fn an_http_tool_that_fails_after_it_has_done_its_work_does_it_once_and_the_run_completes() {
    run(async {
        let orders = Orders::behaving(Behaviour::FailsAfterwards, true).await;
        let scenario = cancels_orders("http-tool", &orders.server_toml(), "idempotent = true", HTTP).await;
        let looked = scenario.mandate(&["doctor"]).await;
        assert!(looked.stdout.contains("takes connections; nothing was sent"), "{looked:?}");
        assert!(orders.asked().is_empty());
        let _worker = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        until("the first request arrived", async || (!orders.asked().is_empty()).then_some(())).await;
        orders.behaves(Behaviour::Well);
        assert!(scenario.answer().await.contains("o1 is cancelled"));
        let keys: Vec<_> = orders.asked().into_iter().map(|order| order.key.unwrap()).collect();
        assert!(keys.len() >= 2 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        assert_eq!(orders.done().len(), 1);
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_plain_http_tool_that_fails_waits_for_a_person() {
    run(async {
        let orders = Orders::behaving(Behaviour::FailsAfterwards, false).await;
        let scenario = cancels_orders("http-tool-plain", &orders.server_toml(), "", HTTP).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        scenario.wait_state("OutcomeUnknown").await;
        assert_eq!((orders.asked().len(), orders.done().len()), (1, 1));
    });
}

#[test]
fn a_server_over_tls_is_sent_nothing_until_its_authority_is_believed() {
    run(async {
        let orders = Orders::behaving(Behaviour::Well, false).await;
        let folder = tempfile::tempdir().unwrap();
        let way = Https::to(orders.address(), folder.path()).await;
        let host = way.host();
        let server = format!("\n[servers.orders]\nbase_url = \"https://{host}/v1\"\nallow_internal = [\"{host}\"]\n");
        let scenario = cancels_orders("https-tool", &server, "", HTTP).await;
        let doubts = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        until("the refused certificate is shown", async || {
            let raw = scenario.describe().await.into_raw();
            format!("{:?}", raw.pending_activities).contains("no authority that this machine believes").then_some(())
        })
        .await;
        assert!(orders.asked().is_empty());
        doubts.stop().await;
        let _worker = scenario.worker_with_env(&[way.believed()]).await;
        assert!(scenario.answer().await.contains("o1 is cancelled"));
        assert_eq!((orders.asked().len(), orders.done().len()), (1, 1));
        scenario.audit_verify().await.ok();
    });
}

/// The server of the SDK, and the file with its record.
pub(crate) struct Sdk {
    process: Process,
    record: PathBuf,
    pub(crate) port: u16,
}

impl Sdk {
    pub(crate) async fn start(scenario: &Path, mode: &str, port: u16) -> Self {
        let modules = PathBuf::from(prepared("MANDATE_NODE_MODULES"));
        let script = modules.parent().unwrap().join("orders-http.mjs");
        let port = port.to_string();
        Self::run(scenario, mode, |record| vec!["node".into(), script, record, mode.into(), port.into()]).await
    }

    /// The SDK for Python, whose servers hold no session.
    async fn stateless(scenario: &Path) -> Self {
        let script = workspace_folder().join("tests/python/orders_http.py");
        Self::run(scenario, "stateless", |record| vec![prepared("MANDATE_PYTHON").into(), script, record]).await
    }

    async fn run(scenario: &Path, mode: &str, command: impl FnOnce(PathBuf) -> Vec<PathBuf>) -> Self {
        let (record, log) = (scenario.join("orders.jsonl"), scenario.join(format!("orders-{mode}.log")));
        let (path, command) = (std::env::var("PATH").unwrap(), command(record.clone()));
        let command: Vec<&str> = command.iter().map(|word| word.to_str().unwrap()).collect();
        let process = Process::start(Path::new("/usr/bin/env"), &command, &[("PATH", &path)], scenario, log).await;
        let port = until("it listens", async || process.log().lines().next()?.parse().ok()).await;
        Self { process, record, port }
    }

    pub(crate) fn done(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.record).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_tool_of_an_mcp_server_over_http_is_called_once_and_its_annotations_count_for_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sdk = Sdk::start(folder.path(), "well", 0).await;
        let host = format!("127.0.0.1:{}", sdk.port);
        let server = format!("\n[servers.orders]\nurl = \"http://{host}/mcp\"\nallow_internal = [\"{host}\"]\n");
        let scenario = cancels_orders("mcp-http", &server, "", MCP).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        assert!(scenario.answer().await.contains("o1 is cancelled"));
        let [done] = sdk.done().try_into().unwrap();
        assert!(done["key"].as_str().unwrap().starts_with("mcp-http/"), "{done}");
        scenario.audit_verify().await.ok();
        drop(sdk.process);
    });
}

#[test]
fn a_tool_of_an_mcp_server_without_sessions_is_called_once_over_tls() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sdk = Sdk::stateless(folder.path()).await;
        let way = Https::to(SocketAddr::from(([127, 0, 0, 1], sdk.port)), folder.path()).await;
        let host = way.host();
        let server = format!("\n[servers.orders]\nurl = \"https://{host}/mcp\"\nallow_internal = [\"{host}\"]\n");
        let scenario = cancels_orders("mcp-stateless", &server, "", MCP).await;
        let _worker = scenario.worker_with_env(&[way.believed()]).await;
        scenario.start_run("Cancel order o1").await;
        assert!(scenario.answer().await.contains("o1 is cancelled"));
        let [done] = sdk.done().try_into().unwrap();
        assert!(done["key"].as_str().unwrap().starts_with("mcp-stateless/"), "{done}");
        assert_eq!((&done["revision"], &done["session"]), (&json!("2026-07-28"), &Value::Null));
        scenario.audit_verify().await.ok();
        drop(sdk.process);
    });
}

#[test]
fn a_call_in_which_an_mcp_server_over_http_dies_is_parked_although_it_calls_itself_read_only() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let sdk = Sdk::start(folder.path(), "dies", 0).await;
        let host = format!("127.0.0.1:{}", sdk.port);
        let server = format!("\n[servers.orders]\nurl = \"http://{host}/mcp\"\nallow_internal = [\"{host}\"]\n");
        let scenario = cancels_orders("mcp-http-dies", &server, "", MCP).await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Cancel order o1").await;
        scenario.wait_state("OutcomeUnknown").await;
        let again = Sdk::start(folder.path(), "well", sdk.port).await;
        assert_eq!(again.done().len(), 1, "done once, and not sent again");
    });
}

#[test]
fn the_tools_of_the_example_are_the_same_over_http() {
    run(async {
        let scenario = Scenario::new("mcp-http-refunds").await;
        let (folder, log) = (scenario.path(""), scenario.path("refunds-http.log"));
        let arguments = ["--database", "var/payments.db", "--listen", "127.0.0.1:0"];
        let server = Process::start(&program("refunds-mcp"), &arguments, &[], &folder, log).await;
        let url = until("it listens", async || server.log().lines().next().map(str::to_owned)).await;
        let host = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        let text = std::fs::read_to_string(scenario.path("mandate.toml")).unwrap();
        let command = text.lines().find(|line| line.starts_with("command = ")).unwrap();
        scenario.edit("mandate.toml", command, &format!("url = \"{url}\"\nallow_internal = [\"{host}\"]"));
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o2").await;
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        let payments = scenario.payments().await;
        assert_eq!(payments.len(), 1, "{payments:?}");
        assert!(payments[0].key.is_some(), "a refund carries its idempotency key");
        scenario.audit_verify().await.ok();
        drop(server);
    });
}
