//! `[undo]`, `compensate` and `[reconciler]`: what is taken as written, and what cannot work.

use mandate_domain::CompensateOn;

use super::*;

const PAY: &str = r#"
name = "payments.refund"
description = "Refund an order."
owner = "payments@acme.example"

[undo]
tool = "payments.cancel"

[undo.arguments]
refund_id = "/result/refund_id"
order_id = "/arguments/order_id"

[mcp]
server = "refunds"
tool = "refund_payment"

[input_schema]
type = "object"
required = ["order_id"]

[input_schema.properties.order_id]
type = "string"
"#;

const CANCEL: &str = r#"
name = "payments.cancel"
description = "Take a refund back."
owner = "payments@acme.example"

[mcp]
server = "refunds"
tool = "cancel_refund"

[input_schema]
type = "object"
required = ["refund_id"]

[input_schema.properties.refund_id]
type = "string"

[input_schema.properties.order_id]
type = "string"
"#;

const COMPENSATE: &str = "compensate = [\"halt\", \"failure\"]\n";

fn folder(pay: &str, cancel: &str, agent: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.write("tools/payments.refund.toml", pay);
    fixture.write("tools/payments.cancel.toml", cancel);
    let tools = AGENT.replace("[\"orders.read\"]", "[\"orders.read\", \"payments.refund\"]");
    fixture.write(AGENT_FILE, format!("{tools}{agent}"));
    fixture
}

/// Expects these words, each in a problem of its own.
fn check(fixture: &Fixture, words: &[&str]) {
    let errors = fixture.errors();
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), words.len(), "{lines:#?}");
    for word in words {
        assert!(lines.iter().any(|line| line.contains(word)), "{word}: {lines:#?}");
    }
}

fn edited(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old}");
    text.replacen(old, new, 1)
}

#[test]
fn an_undo_is_taken_as_written_and_nothing_is_undone_unless_the_agent_says_when() {
    let config = folder(PAY, CANCEL, COMPENSATE).load().map_err(|errors| rendered(&errors)).unwrap();
    let undo = config.catalog.tools[&ToolName::parse("payments.refund").unwrap()].undo.clone().unwrap();
    assert_eq!(undo.tool.as_str(), "payments.cancel");
    assert_eq!(undo.arguments["refund_id"], "/result/refund_id");
    let agent = |config: &Config| config.catalog.agents.values().next().unwrap().compensate.clone();
    assert_eq!(agent(&config), [CompensateOn::Failure, CompensateOn::Halt]);
    let silent = folder(PAY, CANCEL, "").load().map_err(|errors| rendered(&errors)).unwrap();
    assert_eq!(agent(&silent), []);
}

#[test]
fn an_undo_that_cannot_work_is_reported() {
    let pay = |old: &str, new: &str| folder(&edited(PAY, old, new), CANCEL, COMPENSATE);
    check(&pay("tool = \"payments.cancel\"", "tool = \"payments.cancle\""), &["unknown tool `payments.cancle`"]);
    check(&pay("refund_id = \"/result/refund_id\"\n", ""), &["`payments.cancel` needs the argument `refund_id`"]);
    check(&pay("order_id = \"/arg", "order = \"/arg"), &["tool `payments.cancel` has no argument `order`"]);
    check(&pay("/arguments/order_id", "/arguments/order"), &["tool `payments.refund` has no argument `order`"]);
    check(&pay("/result/refund_id", "/result"), &["name a field of it"]);
    check(&pay("/result/refund_id", "refund_id"), &["neither in `/arguments` nor in `/result`"]);
    check(
        &pay("[undo]", "read_only = true\n\n[undo]"),
        &["`payments.refund` is `read_only`: there is nothing to undo"],
    );
    check(&pay("[undo.arguments]", "how = 1\n\n[undo.arguments]"), &["unknown key `how`"]);
    let reads = edited(CANCEL, "[mcp]", "read_only = true\n\n[mcp]");
    check(&folder(PAY, &reads, COMPENSATE), &["`payments.cancel` changes nothing, so it undoes nothing"]);
}

#[test]
fn undos_that_lead_back_to_where_they_began_are_reported() {
    let back = "[undo]\ntool = \"payments.refund\"\n[undo.arguments]\norder_id = \"/arguments/order_id\"\n\n[mcp]";
    let round =
        ["`payments.refund` is undone by itself in the end", "`payments.cancel` is undone by itself in the end"];
    check(&folder(PAY, &edited(CANCEL, "[mcp]", back), COMPENSATE), &round);
}

#[test]
fn an_agent_that_has_nothing_to_undo_or_says_an_unknown_word_is_reported() {
    let without = edited(PAY, &PAY[PAY.find("[undo]").unwrap()..PAY.find("[mcp]").unwrap()], "");
    check(&folder(&without, CANCEL, COMPENSATE), &["none of the agent's tools has an `[undo]`"]);
    check(&folder(PAY, CANCEL, "compensate = [\"always\"]\n"), &["`always` is no end of a run"]);
    let many = "compensate = [\"halt\"]\n[limits]\ntool_calls_max = 501\n";
    let fixture = folder(PAY, CANCEL, many);
    fixture.write("mandate.toml", format!("[limits]\ntool_calls_max = 1000\n{ROOT}"));
    check(&fixture, &["makes at most 500 tool calls, and 501 are allowed"]);
}

#[test]
fn the_reconciler_comes_every_five_minutes_unless_it_is_said_otherwise() {
    let read = |text: &str| {
        let fixture = Fixture::new();
        fixture.write("mandate.toml", format!("{text}{ROOT}"));
        fixture.load().map(|config| (config.reconciler.enabled, config.reconciler.every_secs))
    };
    assert_eq!(read("").unwrap(), (true, 300));
    assert_eq!(read("[reconciler]\nevery_secs = 60\n").unwrap(), (true, 60));
    assert_eq!(read("[reconciler]\nenabled = false\n").unwrap(), (false, 300));
    assert!(read("[reconciler]\nevery_secs = 1\n").is_err() && read("[reconciler]\nevery = 60\n").is_err());
}
