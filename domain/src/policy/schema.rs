//! The Cedar schema, generated from the registry, so that a misspelt argument name in a policy is a load error.
//!
//! The names of entity types, actions and attributes are a promise to whoever writes policies; `docs/policies.md`
//! describes them.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    reads::{INVOKE_MODEL, NOTIFY, Reads},
    registry::Registry,
    shape::{RecordShape, quoted, record_text},
};
use crate::{ToolDefinition, ToolName};

/// Actions that are no tools. A tool may not take one of these names.
pub(super) const ACTIONS: [&str; 22] = [
    "call_tool",
    "invoke_model",
    "reveal",
    "start_run",
    "decide",
    "approve",
    "reject",
    "resolve",
    "answer",
    "instruct",
    "steer",
    "pause",
    "resume",
    "notify",
    "operate",
    "quarantine",
    "lift_quarantine",
    "apply",
    "memory",
    "remember",
    "recall",
    "forget",
];

/// What every agent action is told of its run.
fn run(facts: &str) -> String {
    format!("on_behalf_of: User, workflow_id: String, facts: {facts}, approved: Set<String>")
}

const ENTITIES: &str = "namespace Mandate {
  entity Tenant;
  entity Unit in [Tenant];
  entity Group;
  entity User in [Group];
  entity Agent in [Unit] { owner: User };
  entity Provider;
  entity Model in [Provider];
  entity ToolServer;
  entity Tool in [ToolServer] { read_only: Bool, destructive: Bool, idempotent: Bool, open_world: Bool, \
cost_micros: Long, owner: User };
  entity Bundle;
  entity Webhook;
  entity MemorySpace;
  entity Audience enum [\"history\", \"answer\"];
";

const PEOPLE: &str = "  action \"start_run\" appliesTo { principal: [User], resource: [Agent], \
context: { on_behalf_of: User, workflow_id: String, approved: Set<String> } };
  action \"decide\";
  action \"approve\", \"reject\" in [\"decide\"] appliesTo { principal: [User], resource: [Tool], \
context: { agent: Agent, on_behalf_of: User, workflow_id: String, gate: String, approved: Set<String> } };
  action \"resolve\", \"answer\" appliesTo { principal: [User], resource: [Tool], \
context: { agent: Agent, on_behalf_of: User, workflow_id: String, approved: Set<String> } };
  action \"instruct\";
  action \"steer\", \"pause\", \"resume\" in [\"instruct\"] appliesTo { principal: [User], resource: [Agent], \
context: { on_behalf_of: User, workflow_id: String, approved: Set<String> } };
  action \"operate\";
  action \"quarantine\", \"lift_quarantine\" in [\"operate\"] appliesTo { principal: [User], \
resource: [Agent, Tool, ToolServer, Model, User], context: { approved: Set<String> } };
  action \"apply\" in [\"operate\"] appliesTo { principal: [User], resource: [Bundle], \
context: { rollback: Bool, approved: Set<String> } };
  action \"reveal\" appliesTo { principal: [Agent, Group, Audience], resource: [DataClass], \
context: { on_behalf_of: User, model?: Model, approved: Set<String> } };
";

/// The whole schema, as Cedar writes schemas: what policies may name.
pub(super) fn schema_text(registry: &Registry, records: &BTreeMap<ToolName, RecordShape>) -> String {
    text(registry, records, None)
}

/// The schema of what is asked: like the whole one, but the facts have no more tools than are read.
pub(super) fn asked_text(registry: &Registry, records: &BTreeMap<ToolName, RecordShape>, reads: &Reads) -> String {
    text(registry, records, Some(reads))
}

fn text(registry: &Registry, records: &BTreeMap<ToolName, RecordShape>, reads: Option<&Reads>) -> String {
    let run_of = |action: &str| match reads {
        None => run("Facts"),
        Some(reads) => {
            let read = |tool: &ToolName| reads.get(action).is_none_or(|tools| tools.contains(tool));
            run(&facts(registry.tools.iter().filter(|(name, _)| read(name))))
        }
    };
    let mut text = String::from(ENTITIES);
    let classes: Vec<_> = registry.classes().iter().map(|class| quoted(class.as_str())).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  entity DataClass enum [{}];", classes.join(", "));
    let _ = writeln!(text, "  type Facts = {};", facts(&registry.tools));
    let _ = writeln!(
        text,
        "  action \"invoke_model\" appliesTo {{ principal: [Agent], resource: [Model], \
         context: {{ {}, classes: Set<DataClass> }} }};",
        run_of(INVOKE_MODEL)
    );
    let _ = writeln!(
        text,
        "  action \"notify\" appliesTo {{ principal: [Agent], resource: [Webhook], context: {{ {}, kind: String }} }};",
        run_of(NOTIFY)
    );
    let _ = writeln!(
        text,
        "  action \"memory\";\n  action \"remember\", \"recall\", \"forget\" in [\"memory\"] appliesTo {{ \
         principal: [Agent], resource: [MemorySpace], context: {{ {}, classes: Set<DataClass> }} }};",
        run("Facts")
    );
    text.push_str(PEOPLE);
    text.push_str("  action \"call_tool\";\n");
    for (name, record) in records {
        let _ = writeln!(
            text,
            "  action {} in [\"call_tool\"] appliesTo {{ principal: [Agent], resource: [Tool], \
             context: {{ {}, input: {} }} }};",
            quoted(name.as_str()),
            run_of(name.as_str()),
            record_text(record)
        );
    }
    text.push_str("}\n");
    text
}

fn facts<'a>(tools: impl IntoIterator<Item = (&'a ToolName, &'a ToolDefinition)>) -> String {
    let tools = tools.into_iter().map(|(name, tool)| {
        let amounts: Vec<_> = tool.amounts.iter().map(|amount| format!("{}: Long", quoted(amount))).collect();
        let amounts = amounts.join(", ");
        format!("{}: {{ calls: Long, failures: Long, amounts: {{ {amounts} }} }}", quoted(name.as_str()))
    });
    format!(
        "{{ model_calls: Long, tool_calls: Long, tokens: Long, cost_micros: Long, failures: Long, denials: Long, \
         classes: Set<DataClass>, tools: {{ {} }} }}",
        tools.collect::<Vec<_>>().join(", ")
    )
}
