//! `mandate check`: whether the operating folder can be used, in short or with every error.

use mandate_domain::{Proof, ToolName, policy::Registry};

use super::load;
use crate::{
    cli::{Global, Listing},
    config::CheckSummary,
    output::{self, Exit, OutputFormat},
};

/// Loads the folder and says what is in it.
///
/// # Errors
/// [`crate::config::ConfigErrors`] with everything that is wrong.
pub fn check(global: &Global, options: &Listing) -> anyhow::Result<Exit> {
    let config = load(&global.folder)?;
    let summary = config.summary();
    for unmapped in config.policy.unmapped() {
        let (tool, pointer, why) = (&unmapped.tool, &unmapped.pointer, unmapped.why);
        output::note(format_args!("warning: policies cannot see `{pointer}` of tool `{tool}`: {why}"));
    }
    for tool in unclassified(config.policy.registry()) {
        output::note(format_args!("warning: results of tool `{tool}` are unclassified: it has no `result_classes`"));
    }
    for warning in config.notify_warnings() {
        output::note(format_args!("warning: {warning}"));
    }
    if config.catalog.identity.accepts(Proof::Claimed) {
        output::note("warning: people are identified by their own word (`claimed`): development only");
    }
    match options.output {
        OutputFormat::Json => output::json(&summary)?,
        OutputFormat::Text => output::data(text(&summary))?,
    }
    Ok(Exit::Done)
}

/// Tools without labels, in a folder that uses data classes.
fn unclassified(registry: &Registry) -> Vec<&ToolName> {
    let tools = registry.tools.values().filter(|tool| tool.result_classes.is_empty());
    tools.map(|tool| &tool.name).filter(|_| !registry.data_classes.is_empty()).collect()
}

fn text(summary: &CheckSummary) -> String {
    let proofs: Vec<_> = summary.accepted_proofs.iter().map(|proof| proof.as_str()).collect();
    let mut lines = vec![format!("profile {}", summary.profile), format!("proof   {}", proofs.join(", "))];
    for agent in &summary.agents {
        let tools: Vec<_> = agent.tools.iter().map(ToString::to_string).collect();
        lines.push(format!("agent   {}  model {}, tools {}", agent.name, agent.model, tools.join(", ")));
    }
    for tool in &summary.tools {
        let server = tool.server.as_ref().map_or("built in".to_owned(), |server| format!("server {server}"));
        let kind = if tool.read_only { "read-only" } else { "changes things" };
        let classes: Vec<_> = tool.result_classes.iter().map(ToString::to_string).collect();
        lines.push(format!("tool    {}  {server}, {kind}, results {}", tool.name, classes.join(", ")));
    }
    for server in &summary.servers {
        let program = server.program.as_ref().map(|program| program.display().to_string());
        let reached = program.or_else(|| server.url.clone()).unwrap_or_default();
        lines.push(format!("server  {}  {reached}", server.name));
    }
    for model in &summary.models {
        lines.push(format!("model   {}  {}", model.name, model.provider));
    }
    lines.push(format!("policy  {} file(s), bundle {}", summary.policy_files, summary.bundle));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_the_folder_defines() {
        let parse = serde_json::json!({
            "agents": [{ "name": "acme/support/refunds", "owner": "support@acme.example", "model": "support", "tools": ["clock"] }],
        });
        let agent = &parse["agents"][0];
        let summary = CheckSummary {
            profile: crate::config::Profile::Production,
            accepted_proofs: [Proof::Principal, Proof::Key].into(),
            agents: vec![crate::config::AgentSummary {
                name: serde_json::from_value(agent["name"].clone()).unwrap(),
                owner: serde_json::from_value(agent["owner"].clone()).unwrap(),
                model: serde_json::from_value(agent["model"].clone()).unwrap(),
                tools: serde_json::from_value(agent["tools"].clone()).unwrap(),
            }],
            tools: vec![crate::config::ToolSummary {
                name: "clock".parse().unwrap(),
                read_only: true,
                server: None,
                result_classes: ["public".parse().unwrap(), "unclassified".parse().unwrap()].into(),
            }],
            servers: Vec::new(),
            models: Vec::new(),
            policy_files: 1,
            bundle: mandate_domain::Digest::from_bytes([0; 32]),
        };
        let expected = format!(
            "profile production\nproof   key, principal\nagent   acme/support/refunds  model support, tools clock\ntool    clock  built in, read-only, results public, unclassified\n\
             policy  1 file(s), bundle {}",
            "0".repeat(64)
        );
        assert_eq!(text(&summary), expected);
    }
}
