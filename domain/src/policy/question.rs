//! A request in Cedar's terms: principal, action, resource, context, and the entities they need.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use serde_json::{Map, Value};

use super::{
    PersonAction, PersonRequest, PolicyAction, PolicyRequest, RunOf, Viewer,
    bundle::PolicyBundle,
    reads::{INVOKE_MODEL, NOTIFY},
    registry::server_of,
    shape::{self, ExpressError, INTEGER_MAX},
};
use crate::{AgentName, DataClass, ModelName, PersonId, QuarantineTarget, RunFacts, ToolDefinition, ToolName, Verdict};

/// A request that Cedar cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("tool `{0}` is not known to the policies in force")]
    UnknownTool(ToolName),
    #[error("tool `{0}` was described differently when the policies in force were applied")]
    ChangedTool(ToolName),
    #[error("model `{0}` is not known to the policies in force")]
    UnknownModel(ModelName),
    #[error("the run has read data class `{0}`, which the policies in force do not know")]
    UnknownClass(DataClass),
    #[error(transparent)]
    Arguments(#[from] ExpressError),
    #[error("the request does not fit the policy schema: {0}")]
    DoesNotFit(String),
    #[error("policy `{policy}` could not be evaluated: {error}")]
    Evaluation { policy: String, error: String },
    #[error("policy `{0}` decided and is not part of the bundle")]
    UnknownPolicy(String),
}

/// A request in Cedar's terms, but for the gates that are open.
pub(super) struct Question {
    pub(super) entities: Entities,
    pub(super) principal: EntityUid,
    pub(super) action: EntityUid,
    pub(super) resource: EntityUid,
    pub(super) context: Vec<(String, RestrictedExpression)>,
}

/// An effect of a run.
pub(super) fn of_agent(bundle: &PolicyBundle, request: &PolicyRequest<'_>) -> Result<Question, AskError> {
    let mut world = World::new(bundle);
    let run = RunOf {
        agent: request.agent,
        agent_owner: request.agent_owner,
        on_behalf_of: request.on_behalf_of,
        workflow_id: request.workflow_id,
    };
    let principal = world.agent(run.agent, run.agent_owner)?;
    let mut context = vec![
        ("on_behalf_of".to_owned(), expression(world.user(run.on_behalf_of)?)),
        ("workflow_id".to_owned(), RestrictedExpression::new_string(run.workflow_id.to_owned())),
        ("facts".to_owned(), facts(bundle, request.facts, action_of(&request.action))?),
    ];
    let (action, resource) = match &request.action {
        PolicyAction::CallTool { tool, arguments } => {
            context.push(("input".to_owned(), input(bundle, tool, arguments)?));
            (tool.name.as_str(), world.tool(tool)?)
        }
        PolicyAction::InvokeModel { model } => {
            context.push(("classes".to_owned(), classes(bundle, &request.facts.classes)?));
            (INVOKE_MODEL, world.model(model)?)
        }
        PolicyAction::Notify { kind } => {
            context.push(("kind".to_owned(), RestrictedExpression::new_string(kind.as_str().to_owned())));
            (NOTIFY, world.plain(&bundle.types.webhook, "notifications")?)
        }
    };
    world.question(principal, action, resource, context)
}

/// An act of a person.
pub(super) fn of_person(bundle: &PolicyBundle, request: &PersonRequest<'_>) -> Result<Question, AskError> {
    let mut world = World::new(bundle);
    let principal = world.user(request.person)?;
    let (action, resource, context) = match &request.action {
        PersonAction::StartRun { run } => {
            ("start_run", world.agent(run.agent, run.agent_owner)?, world.run(run, false)?)
        }
        PersonAction::Decide { run, tool, gate, verdict } => {
            let mut context = world.run(run, true)?;
            context.push(("gate".to_owned(), RestrictedExpression::new_string(gate.to_string())));
            let action = match verdict {
                Verdict::Approve => "approve",
                Verdict::Reject => "reject",
            };
            (action, world.tool(tool)?, context)
        }
        PersonAction::Resolve { run, tool } => ("resolve", world.tool(tool)?, world.run(run, true)?),
        PersonAction::Answer { run, tool } => ("answer", world.tool(tool)?, world.run(run, true)?),
        PersonAction::Steer { run } => ("steer", world.agent(run.agent, run.agent_owner)?, world.run(run, false)?),
        PersonAction::Pause { run } => ("pause", world.agent(run.agent, run.agent_owner)?, world.run(run, false)?),
        PersonAction::Resume { run } => ("resume", world.agent(run.agent, run.agent_owner)?, world.run(run, false)?),
        PersonAction::Quarantine(target) => ("quarantine", world.target(target)?, Vec::new()),
        PersonAction::LiftQuarantine(target) => ("lift_quarantine", world.target(target)?, Vec::new()),
        PersonAction::Apply { rollback } => {
            let context = vec![("rollback".to_owned(), RestrictedExpression::new_bool(*rollback))];
            ("apply", world.plain(&bundle.types.bundle, "active")?, context)
        }
    };
    world.question(principal, action, resource, context)
}

/// A look at data of a class.
pub(super) fn of_viewer(
    bundle: &PolicyBundle,
    viewer: &Viewer<'_>,
    on_behalf_of: &PersonId,
    class: &DataClass,
) -> Result<Question, AskError> {
    let mut world = World::new(bundle);
    let mut context = vec![("on_behalf_of".to_owned(), expression(world.user(on_behalf_of)?))];
    let principal = match viewer {
        Viewer::Agent { agent, agent_owner, model } => {
            context.push(("model".to_owned(), expression(world.model(model)?)));
            world.agent(agent, agent_owner)?
        }
        Viewer::Group(group) => world.plain(&bundle.types.group, group.as_str())?,
        Viewer::History => uid(&bundle.types.audience, "history"),
        Viewer::Answer => uid(&bundle.types.audience, "answer"),
    };
    world.question(principal, "reveal", data_class(bundle, class)?, context)
}

/// A tool call without its circumstances: enough to tell whose scope fits.
pub(super) fn scope_of_call(
    bundle: &PolicyBundle,
    agent: &AgentName,
    owner: &PersonId,
    tool: &ToolDefinition,
) -> Result<Question, AskError> {
    let mut world = World::new(bundle);
    let (principal, resource) = (world.agent(agent, owner)?, world.tool(tool)?);
    world.question(principal, tool.name.as_str(), resource, Vec::new())
}

/// A model call without its circumstances.
pub(super) fn scope_of_model(
    bundle: &PolicyBundle,
    agent: &AgentName,
    owner: &PersonId,
    model: &ModelName,
) -> Result<Question, AskError> {
    let mut world = World::new(bundle);
    let (principal, resource) = (world.agent(agent, owner)?, world.model(model)?);
    world.question(principal, "invoke_model", resource, Vec::new())
}

/// The entities of one question, each once.
struct World<'a> {
    bundle: &'a PolicyBundle,
    entities: BTreeMap<EntityUid, Entity>,
}

impl<'a> World<'a> {
    fn new(bundle: &'a PolicyBundle) -> Self {
        Self { bundle, entities: BTreeMap::new() }
    }

    fn question(
        self,
        principal: EntityUid,
        action: &str,
        resource: EntityUid,
        context: Vec<(String, RestrictedExpression)>,
    ) -> Result<Question, AskError> {
        let entities = Entities::from_entities(self.entities.into_values(), Some(&self.bundle.schema));
        let entities = entities.map_err(|error| AskError::DoesNotFit(error.to_string()))?;
        let action = uid(&self.bundle.types.action, action);
        Ok(Question { entities, principal, action, resource, context })
    }

    fn add<const N: usize>(
        &mut self,
        uid: EntityUid,
        attributes: [(&str, RestrictedExpression); N],
        parents: impl IntoIterator<Item = EntityUid>,
    ) -> Result<EntityUid, AskError> {
        let attributes: HashMap<_, _> = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let parents: HashSet<_> = parents.into_iter().collect();
        let entity = Entity::new(uid.clone(), attributes, parents);
        self.entities.insert(uid.clone(), entity.map_err(|error| AskError::DoesNotFit(error.to_string()))?);
        Ok(uid)
    }

    fn plain(&mut self, of: &EntityTypeName, id: &str) -> Result<EntityUid, AskError> {
        self.add(uid(of, id), [], [])
    }

    fn user(&mut self, person: &PersonId) -> Result<EntityUid, AskError> {
        let types = &self.bundle.types;
        let groups: Vec<_> =
            self.bundle.registry().groups_of(person).iter().map(|group| uid(&types.group, group.as_str())).collect();
        for group in &groups {
            self.add(group.clone(), [], [])?;
        }
        self.add(uid(&types.user, person.as_str()), [], groups)
    }

    fn agent(&mut self, agent: &AgentName, owner: &PersonId) -> Result<EntityUid, AskError> {
        let types = &self.bundle.types;
        let tenant = self.plain(&types.tenant, agent.tenant())?;
        let unit = self.add(uid(&types.unit, agent.unit()), [], [tenant])?;
        let owner = self.user(owner)?;
        self.add(uid(&types.agent, agent.as_str()), [("owner", expression(owner))], [unit])
    }

    fn tool(&mut self, tool: &ToolDefinition) -> Result<EntityUid, AskError> {
        let types = &self.bundle.types;
        let owner = self.user(&tool.owner)?;
        let server = server_of(tool).map(|server| uid(&types.tool_server, server.as_str()));
        if let Some(server) = &server {
            self.add(server.clone(), [], [])?;
        }
        let attributes = [
            ("read_only", RestrictedExpression::new_bool(tool.read_only)),
            ("destructive", RestrictedExpression::new_bool(tool.destructive)),
            ("idempotent", RestrictedExpression::new_bool(tool.idempotent)),
            ("open_world", RestrictedExpression::new_bool(tool.open_world)),
            ("cost_micros", long(i64::try_from(tool.cost_micros).unwrap_or(i64::MAX))),
            ("owner", expression(owner)),
        ];
        self.add(uid(&types.tool, tool.name.as_str()), attributes, server)
    }

    fn model(&mut self, model: &ModelName) -> Result<EntityUid, AskError> {
        let types = &self.bundle.types;
        let provider = self.bundle.registry().models.get(model);
        let provider = provider.ok_or_else(|| AskError::UnknownModel(model.clone()))?;
        let provider = self.plain(&types.provider, provider.as_str())?;
        self.add(uid(&types.model, model.as_str()), [], [provider])
    }

    fn target(&mut self, target: &QuarantineTarget) -> Result<EntityUid, AskError> {
        let types = &self.bundle.types;
        match target {
            // Its owner is not asked for: what is gone from the configuration can be locked up all the same.
            QuarantineTarget::Agent(name) => Ok(uid(&types.agent, name.as_str())),
            QuarantineTarget::Tool(name) => match self.bundle.registry().tools.get(name) {
                Some(tool) => self.tool(tool),
                None => Ok(uid(&types.tool, name.as_str())),
            },
            QuarantineTarget::Server(name) => self.plain(&types.tool_server, name.as_str()),
            QuarantineTarget::Model(name) => self.plain(&types.model, name.as_str()),
            QuarantineTarget::Person(name) => self.user(name),
        }
    }

    /// The context of an act about a run.
    fn run(&mut self, run: &RunOf<'_>, with_agent: bool) -> Result<Vec<(String, RestrictedExpression)>, AskError> {
        let mut context = vec![
            ("on_behalf_of".to_owned(), expression(self.user(run.on_behalf_of)?)),
            ("workflow_id".to_owned(), RestrictedExpression::new_string(run.workflow_id.to_owned())),
        ];
        if with_agent {
            context.push(("agent".to_owned(), expression(self.agent(run.agent, run.agent_owner)?)));
        }
        Ok(context)
    }
}

/// The arguments, as the bundle's schema has them.
fn input(
    bundle: &PolicyBundle,
    tool: &ToolDefinition,
    arguments: &Map<String, Value>,
) -> Result<RestrictedExpression, AskError> {
    let unknown = || AskError::UnknownTool(tool.name.clone());
    let known = bundle.registry().tools.get(&tool.name).ok_or_else(unknown)?;
    if known != tool {
        return Err(AskError::ChangedTool(tool.name.clone()));
    }
    let record = bundle.records.get(&tool.name).ok_or_else(unknown)?;
    Ok(shape::express_record(record, arguments, "")?)
}

fn action_of<'a>(action: &PolicyAction<'a>) -> &'a str {
    match action {
        PolicyAction::CallTool { tool, .. } => tool.name.as_str(),
        PolicyAction::InvokeModel { .. } => INVOKE_MODEL,
        PolicyAction::Notify { .. } => NOTIFY,
    }
}

fn facts(bundle: &PolicyBundle, facts: &RunFacts, action: &str) -> Result<RestrictedExpression, AskError> {
    let read = bundle.reads.get(action);
    let mut tools = Vec::new();
    for (name, tool) in &bundle.registry().tools {
        if read.is_some_and(|read| !read.contains(name)) {
            continue;
        }
        let sums = facts.of_tool(name);
        let amount = |amount: &String| (amount.clone(), long(sums.amounts.get(amount).copied().unwrap_or_default()));
        let amounts = record(tool.amounts.iter().map(amount).collect())?;
        let of_tool = [("calls", long(sums.calls)), ("failures", long(sums.failures)), ("amounts", amounts)];
        tools.push((name.to_string(), record(of_tool.map(|(key, value)| (key.to_owned(), value)).into())?));
    }
    let all = [
        ("model_calls", long(facts.model_calls)),
        ("tool_calls", long(facts.tool_calls())),
        ("tokens", long(facts.tokens)),
        ("cost_micros", long(facts.cost_micros())),
        ("failures", long(facts.failures())),
        ("denials", long(facts.denials)),
        ("classes", classes(bundle, &facts.classes)?),
        ("tools", record(tools)?),
    ];
    record(all.map(|(key, value)| (key.to_owned(), value)).into())
}

fn classes(bundle: &PolicyBundle, classes: &BTreeSet<DataClass>) -> Result<RestrictedExpression, AskError> {
    let each = classes.iter().map(|class| data_class(bundle, class).map(expression));
    Ok(RestrictedExpression::new_set(each.collect::<Result<Vec<_>, _>>()?))
}

fn data_class(bundle: &PolicyBundle, class: &DataClass) -> Result<EntityUid, AskError> {
    if bundle.registry().data_classes.contains_key(class) || *class == DataClass::unclassified() {
        return Ok(uid(&bundle.types.data_class, class.as_str()));
    }
    Err(AskError::UnknownClass(class.clone()))
}

fn record(fields: Vec<(String, RestrictedExpression)>) -> Result<RestrictedExpression, AskError> {
    RestrictedExpression::new_record(fields).map_err(|error| AskError::DoesNotFit(error.to_string()))
}

fn expression(uid: EntityUid) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid)
}

/// Within the bounds that keep sums in policies from overflowing.
fn long(n: i64) -> RestrictedExpression {
    RestrictedExpression::new_long(n.clamp(-INTEGER_MAX, INTEGER_MAX))
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}
