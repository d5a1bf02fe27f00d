//! An MCP server of others as a tool: `@modelcontextprotocol/server-filesystem`.

use std::path::Path;

use mandate_tests::{Scenario, run};

use crate::web_ui::prepared;

#[test]
fn a_third_party_server_is_called_under_the_same_rules() {
    run(async {
        let modules = prepared("MANDATE_NODE_MODULES");
        let server = Path::new(&modules).join("@modelcontextprotocol/server-filesystem/dist/index.js");
        let scenario = Scenario::new("filesystem").await;
        let files = scenario.path("files");
        let files = files.to_str().unwrap();
        scenario.write("files/terms.txt", "Refunds within 30 days.");
        scenario.set_server(&["/usr/bin/env", "node", server.to_str().unwrap(), files]);
        for tool in ["orders.read", "customers.read", "payments.refund", "payments.refund_status"] {
            std::fs::remove_file(scenario.path(&format!("tools/{tool}.toml"))).unwrap();
        }
        std::fs::remove_file(scenario.path("policies/refunds.cedar")).unwrap();
        scenario.write("tools/files.read.toml", READ);
        scenario.write("tools/files.write.toml", WRITE);
        scenario.write("policies/files.cedar", POLICY);
        let agent = "tenants/acme/support/refunds/agent.toml";
        scenario.edit(
            agent,
            r#"["orders.read", "customers.read", "payments.refund", "people.ask", "read_result", "clock"]"#,
            r#"["files.read", "files.write"]"#,
        );
        scenario.write("scripts/refunds.toml", &SCRIPT.replace("FILES", files));
        let _worker = scenario.start_worker().await;
        scenario.start_run("Read the terms and note them").await;
        let request = scenario.pending_id().await;
        assert!(!scenario.path("files/note.txt").exists(), "writing waits for a person");
        scenario.approve(&request, "bo@acme.example").await;
        let answer = scenario.answer().await;
        assert!(answer.contains("noted"), "{answer}");
        let note = std::fs::read_to_string(scenario.path("files/note.txt")).unwrap();
        assert_eq!(note, "30 days");
        scenario.audit_verify().await.ok();
    });
}

const READ: &str = r#"
name = "files.read"
description = "Read a text file."
owner = "platform@acme.example"
read_only = true
open_world = false
mcp.server = "refunds"
mcp.tool = "read_text_file"
[input_schema]
type = "object"
required = ["path"]
[input_schema.properties.path]
type = "string"
[input_schema.properties.head]
type = "number"
[input_schema.properties.tail]
type = "number"
"#;

const WRITE: &str = r#"
name = "files.write"
description = "Write a text file."
owner = "platform@acme.example"
read_only = false
open_world = false
mcp.server = "refunds"
mcp.tool = "write_file"
[input_schema]
type = "object"
required = ["path", "content"]
[input_schema.properties.path]
type = "string"
[input_schema.properties.content]
type = "string"
"#;

const POLICY: &str = r#"
@id("files.reveal") permit (principal, action == Mandate::Action::"reveal", resource);
@id("models") permit (principal, action == Mandate::Action::"invoke_model", resource);
@id("files.read.permit") permit (principal, action == Mandate::Action::"files.read", resource);
@id("files.write.permit") permit (principal, action == Mandate::Action::"files.write", resource);
@id("files.write.gate")
@decision("require_approval") @approvers("finance-leads") @quorum("1") @expires("PT1H")
@reason("a person looks at every file that is written")
forbid (principal, action == Mandate::Action::"files.write", resource)
unless { context.approved.contains("files.write.gate") };
"#;

const SCRIPT: &str = r#"
[[conversation]]
[[conversation.reply]]
calls = [{ tool = "files.read", arguments = { path = "FILES/terms.txt" } }]
[[conversation.reply]]
when = "30 days"
calls = [{ tool = "files.write", arguments = { path = "FILES/note.txt", content = "30 days" } }]
[[conversation.reply]]
text = "The terms are noted."
"#;
