//! `mandate policy explain`: what an agent may do, under which conditions, who is asked, and what it sees. Told from the
//! policies' own text; nothing is decided.

use std::collections::{BTreeMap, BTreeSet};

use mandate_domain::{
    AgentDefinition, AgentName, DataClass, Digest, FieldPath, GroupName, ModelName, PersonId, PolicyId, ToolDefinition,
    ToolName,
    approval::{Escalation, Gate, OnExpiry, Party},
    policy::{
        PolicyBundle, Viewer,
        applying::{Applying, ApplyingError, Says},
    },
};
use serde::Serialize;

use crate::{
    cli::{ExplainPolicy, Global},
    commands::load,
    config::{Config, suggestion},
    output::{self, Exit, OutputFormat, UsageError},
};

mod text;

/// All that is told of an agent.
#[derive(Debug, Serialize)]
struct Explained {
    agent: AgentName,
    owner: PersonId,
    bundle: Digest,
    tools: Vec<OfTool>,
    models: Vec<OfModel>,
    views: Vec<View>,
}

/// What may be done with a tool.
#[derive(Debug, Serialize)]
struct OfTool {
    tool: ToolName,
    rules: Vec<Rule>,
    /// Classes of its results that the agent's model is not shown, or not always.
    masked: Vec<Mask>,
}

/// Whether a model may be called.
#[derive(Debug, Serialize)]
struct OfModel {
    model: ModelName,
    /// Whether it is the agent's.
    own: bool,
    rules: Vec<Rule>,
}

/// What a policy says, and when.
#[derive(Debug, Clone, Serialize)]
struct Rule {
    says: Word,
    policy: PolicyId,
    /// In Cedar; absent if it always says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<Gate>,
}

/// A rule's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Allow,
    RequireApproval,
    Deny,
}

/// A class that is masked.
#[derive(Debug, Serialize)]
struct Mask {
    class: DataClass,
    /// The labelled fields; empty for those without a label.
    fields: Vec<FieldPath>,
    /// The rules, if it depends; none if it is always masked.
    rules: Vec<Rule>,
}

/// What somebody sees.
#[derive(Debug, Serialize)]
struct View {
    viewer: String,
    sees: Vec<DataClass>,
    does_not_see: Vec<DataClass>,
    depends: BTreeMap<DataClass, Vec<Rule>>,
}

/// Whether a class is seen.
enum Sight {
    Always,
    Never,
    Depends(Vec<Rule>),
}

/// Tells what an agent may do.
///
/// # Errors
/// [`crate::config::ConfigErrors`] when the folder cannot be used; [`UsageError`] for an unknown agent.
pub fn explain(global: &Global, options: &ExplainPolicy) -> anyhow::Result<Exit> {
    let config = load(&global.folder)?;
    let explained = explained(&config, find(&config, &options.agent)?)?;
    match options.output {
        OutputFormat::Json => output::json(&explained)?,
        OutputFormat::Text => output::data(text::text(&explained))?,
    }
    Ok(Exit::Done)
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a AgentDefinition, UsageError> {
    let agents = &config.catalog.agents;
    agents.values().find(|agent| agent.name.as_str() == name).ok_or_else(|| {
        let help = suggestion(name, agents.keys().map(AgentName::as_str));
        UsageError(format!("unknown agent `{}` ({help})", mandate_domain::render::escape_line(name)))
    })
}

fn explained(config: &Config, agent: &AgentDefinition) -> Result<Explained, ApplyingError> {
    let policy = &config.policy;
    let tools = agent.tools.iter().filter_map(|name| config.catalog.tools.get(name));
    let tools = tools.map(|tool| of_tool(policy, agent, tool)).collect::<Result<Vec<_>, _>>()?;
    let model = |model: &ModelName| {
        let rules = rules(policy.applying_to_model(&agent.name, &agent.owner, model)?);
        Ok::<_, ApplyingError>(OfModel { model: model.clone(), own: *model == agent.model, rules })
    };
    let models = policy.registry().models.keys().map(model).collect::<Result<Vec<_>, _>>()?;
    let views = views(policy, agent, &tools)?;
    let bundle = policy.digest().clone();
    Ok(Explained { agent: agent.name.clone(), owner: agent.owner.clone(), bundle, tools, models, views })
}

fn of_tool(policy: &PolicyBundle, agent: &AgentDefinition, tool: &ToolDefinition) -> Result<OfTool, ApplyingError> {
    let rules = rules(policy.applying_to_tool(&agent.name, &agent.owner, tool)?);
    let mut masked = Vec::new();
    for (class, fields) in result_fields(tool) {
        match sight(policy, &own_view(agent), agent, &class)? {
            Sight::Always => {}
            Sight::Never => masked.push(Mask { class, fields, rules: Vec::new() }),
            Sight::Depends(rules) => masked.push(Mask { class, fields, rules }),
        }
    }
    Ok(OfTool { tool: tool.name.clone(), rules, masked })
}

/// The classes of a result with their labelled fields. What no label covers is unclassified.
fn result_fields(tool: &ToolDefinition) -> BTreeMap<DataClass, Vec<FieldPath>> {
    let mut fields: BTreeMap<DataClass, Vec<FieldPath>> = BTreeMap::new();
    for (path, class) in &tool.result_classes {
        fields.entry(class.clone()).or_default().push(path.clone());
    }
    if !tool.result_classes.keys().any(|path| path.as_str().is_empty()) {
        fields.entry(DataClass::unclassified()).or_default();
    }
    fields
}

fn own_view(agent: &AgentDefinition) -> Viewer<'_> {
    Viewer::Agent { agent: &agent.name, agent_owner: &agent.owner, model: &agent.model }
}

fn views(policy: &PolicyBundle, agent: &AgentDefinition, tools: &[OfTool]) -> Result<Vec<View>, ApplyingError> {
    let gates = tools.iter().flat_map(|tool| &tool.rules).filter_map(|rule| rule.gate.as_ref());
    let groups: BTreeSet<&GroupName> = gates.flat_map(|gate| &gate.approvers).collect();
    let own = (format!("the agent through model {}", agent.model), own_view(agent));
    let fixed = [own, ("event history".to_owned(), Viewer::History), ("final answer".to_owned(), Viewer::Answer)];
    let groups = groups.into_iter().map(|group| (format!("group {group} on a request"), Viewer::Group(group)));
    let mut views = Vec::new();
    for (viewer, as_asked) in fixed.into_iter().chain(groups) {
        let mut view = View { viewer, sees: Vec::new(), does_not_see: Vec::new(), depends: BTreeMap::new() };
        for class in policy.registry().classes() {
            match sight(policy, &as_asked, agent, &class)? {
                Sight::Always => view.sees.push(class),
                Sight::Never => view.does_not_see.push(class),
                Sight::Depends(rules) => {
                    view.depends.insert(class, rules);
                }
            }
        }
        views.push(view);
    }
    Ok(views)
}

fn sight(
    policy: &PolicyBundle,
    viewer: &Viewer<'_>,
    agent: &AgentDefinition,
    class: &DataClass,
) -> Result<Sight, ApplyingError> {
    let rules = rules(policy.applying_to_viewer(viewer, &agent.owner, class)?);
    let (permits, stops): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| rule.says == Word::Allow);
    let always = |rules: &[&Rule]| rules.iter().any(|rule| rule.condition.is_none());
    Ok(if permits.is_empty() || always(&stops) {
        Sight::Never
    } else if stops.is_empty() && always(&permits) {
        Sight::Always
    } else {
        Sight::Depends(rules)
    })
}

fn rules(applying: Vec<Applying>) -> Vec<Rule> {
    let rule = |Applying { policy, says, condition, reason }| {
        let (says, gate) = match says {
            Says::Allow => (Word::Allow, None),
            Says::Deny => (Word::Deny, None),
            Says::Ask(gate) => (Word::RequireApproval, Some(gate)),
        };
        Rule { says, policy, condition, reason, gate }
    };
    applying.into_iter().map(rule).collect()
}

/// Who is asked, in a few words.
fn asked(gate: &Gate) -> String {
    let groups: Vec<_> = gate.approvers.iter().map(GroupName::as_str).collect();
    let parties = gate.four_eyes.iter().map(|party| match party {
        Party::Requester => "the requester",
        Party::AgentOwner => "the agent's owner",
        Party::Starter => "whoever started the run",
        Party::Editor => "whoever changed the arguments",
    });
    let parties: Vec<_> = parties.collect();
    let not = if parties.is_empty() { String::new() } else { format!(", not {}", parties.join(" or ")) };
    let people = if gate.quorum == 1 { String::new() } else { format!(", {} people", gate.quorum) };
    let remind = gate.remind_secs.map(|secs| format!(", remind them after {}", duration(secs))).unwrap_or_default();
    let within = duration(gate.expires_secs);
    let (further, end) = (further(gate), at_the_end(gate.on_expiry));
    format!("ask {}{people}{not}, within {within}{remind}{further}{end}", groups.join(" or "))
}

/// Who is asked as well, after a while.
fn further(gate: &Gate) -> String {
    let Some(Escalation { after_secs, to }) = &gate.escalation else { return String::new() };
    let groups: Vec<_> = to.iter().map(GroupName::as_str).collect();
    format!(", {} too after {}", groups.join(" or "), duration(*after_secs))
}

fn at_the_end(on_expiry: OnExpiry) -> &'static str {
    match on_expiry {
        OnExpiry::Deny => "",
        OnExpiry::Halt => ", or the run stops",
    }
}

fn duration(secs: u64) -> String {
    match secs {
        secs if secs % 3600 == 0 => format!("{} h", secs / 3600),
        secs if secs % 60 == 0 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}
