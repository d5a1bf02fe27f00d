//! The decision: default deny, `forbid` wins, an evaluation error denies, a gate asks people.
//!
//! Cedar answers twice at most for each set of gates: as things are, and with the gates that stand in the way opened.
//! People are asked only if that would be enough, so nobody is asked for a lost cause.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};

use super::{
    PolicyAction, PolicyDecision, PolicyOutcome, PolicyRequest,
    bundle::PolicyBundle,
    gate::Rule,
    schema::{self, ExpressError},
};
use crate::{PersonId, PolicyId, ToolDefinition, ToolName, approval::Gate};

/// A request that Cedar cannot be asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("tool `{0}` is not known to the policies in force")]
    UnknownTool(ToolName),
    #[error("the arguments of tool `{0}` were described differently when the policies were loaded")]
    ChangedTool(ToolName),
    #[error(transparent)]
    Arguments(#[from] ExpressError),
    #[error("the request does not fit the policy schema: {0}")]
    DoesNotFit(String),
    #[error("policy `{policy}` could not be evaluated: {error}")]
    Evaluation { policy: String, error: String },
    #[error("policy `{0}` decided and is not part of the bundle")]
    UnknownPolicy(String),
}

/// One answer of Cedar.
enum Answer<'a> {
    Allowed(Vec<&'a Rule>),
    Denied(Vec<&'a Rule>),
    Gated(Vec<&'a Gate>),
}

/// Decides a request. Whatever cannot be judged is denied.
pub(super) fn decide(bundle: &PolicyBundle, request: &PolicyRequest<'_>) -> PolicyDecision {
    let (outcome, policies, reason) =
        decide_with_gates(bundle, request).unwrap_or_else(|error| (PolicyOutcome::Deny, Vec::new(), error.to_string()));
    PolicyDecision { outcome, policies, bundle: bundle.digest().clone(), reason }
}

fn decide_with_gates(
    bundle: &PolicyBundle,
    request: &PolicyRequest<'_>,
) -> Result<(PolicyOutcome, Vec<PolicyId>, String), AskError> {
    let question = Question::new(bundle, request)?;
    let mut approved = request.approved.clone();
    let mut gates: BTreeMap<PolicyId, Gate> = BTreeMap::new();
    // Each round opens at least one more gate, so this ends.
    loop {
        match question.ask(&approved)? {
            Answer::Allowed(rules) if gates.is_empty() => {
                return Ok((PolicyOutcome::Allow, ids(&rules), reasons(&rules, "permitted by")));
            }
            Answer::Allowed(_) => {
                let reason = gates.values().map(|gate| gate.reason.clone()).collect::<Vec<_>>().join("; ");
                let policies = gates.keys().cloned().collect();
                return Ok((PolicyOutcome::RequireApproval(gates.into_values().collect()), policies, reason));
            }
            Answer::Denied(rules) if rules.is_empty() => {
                return Ok((PolicyOutcome::Deny, Vec::new(), "no policy permits this".to_owned()));
            }
            Answer::Denied(rules) => return Ok((PolicyOutcome::Deny, ids(&rules), reasons(&rules, "forbidden by"))),
            Answer::Gated(closed) => {
                for gate in closed {
                    if !approved.insert(gate.id.clone()) {
                        // Excluded by the load rules: an approved gate does not apply.
                        return Ok((
                            PolicyOutcome::Deny,
                            vec![gate.id.clone()],
                            format!("gate `{}` does not open", gate.id),
                        ));
                    }
                    gates.insert(gate.id.clone(), gate.clone());
                }
            }
        }
    }
}

fn ids(rules: &[&Rule]) -> Vec<PolicyId> {
    rules.iter().map(|rule| rule.id.clone()).collect()
}

fn reasons(rules: &[&Rule], without: &str) -> String {
    let reason = |rule: &&Rule| rule.reason.clone().unwrap_or_else(|| format!("{without} `{}`", rule.id));
    rules.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// A request in Cedar's terms, but for the gates that are open.
struct Question<'a> {
    bundle: &'a PolicyBundle,
    entities: Entities,
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    on_behalf_of: EntityUid,
    workflow_id: String,
    input: Option<RestrictedExpression>,
}

impl<'a> Question<'a> {
    fn new(bundle: &'a PolicyBundle, request: &PolicyRequest<'_>) -> Result<Self, AskError> {
        let types = &bundle.types;
        let (action, resource, input) = match &request.action {
            PolicyAction::CallTool { tool, arguments } => {
                let known = bundle.tools.get(&tool.name).ok_or_else(|| AskError::UnknownTool(tool.name.clone()))?;
                if known.input_schema != tool.input_schema {
                    return Err(AskError::ChangedTool(tool.name.clone()));
                }
                let input = schema::express_record(&known.record, arguments, "")?;
                (tool.name.as_str(), uid(&types.tool, tool.name.as_str()), Some(input))
            }
            PolicyAction::InvokeModel { model } => ("invoke_model", uid(&types.model, model.as_str()), None),
        };
        Ok(Self {
            bundle,
            entities: entities(bundle, request, &resource)?,
            principal: uid(&types.agent, request.agent.as_str()),
            action: uid(&types.action, action),
            resource,
            on_behalf_of: user(bundle, request.on_behalf_of),
            workflow_id: request.workflow_id.to_owned(),
            input,
        })
    }

    fn ask(&self, approved: &BTreeSet<PolicyId>) -> Result<Answer<'a>, AskError> {
        let request = self.request(approved)?;
        let response = Authorizer::new().is_authorized(&request, &self.bundle.policies, &self.entities);
        // Cedar skips a policy that it cannot evaluate. A skipped `forbid` would fail open.
        if let Some(cedar_policy::AuthorizationError::PolicyEvaluationError(error)) =
            response.diagnostics().errors().next()
        {
            return Err(AskError::Evaluation {
                policy: error.policy_id().to_string(),
                error: error.inner().to_string(),
            });
        }
        let mut rules = Vec::new();
        for id in response.diagnostics().reason() {
            let id: &str = id.as_ref();
            rules.push(self.bundle.rules.get(id).ok_or_else(|| AskError::UnknownPolicy(id.to_owned()))?);
        }
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(match response.decision() {
            Decision::Allow => Answer::Allowed(rules),
            Decision::Deny => denied(rules),
        })
    }

    fn request(&self, approved: &BTreeSet<PolicyId>) -> Result<Request, AskError> {
        let approved = approved.iter().map(|id| RestrictedExpression::new_string(id.to_string()));
        let mut pairs = vec![
            ("on_behalf_of".to_owned(), RestrictedExpression::new_entity_uid(self.on_behalf_of.clone())),
            ("workflow_id".to_owned(), RestrictedExpression::new_string(self.workflow_id.clone())),
            ("approved".to_owned(), RestrictedExpression::new_set(approved)),
        ];
        pairs.extend(self.input.clone().map(|input| ("input".to_owned(), input)));
        let context = Context::from_pairs(pairs).map_err(|error| AskError::DoesNotFit(error.to_string()))?;
        let (principal, action) = (self.principal.clone(), self.action.clone());
        Request::new(principal, action, self.resource.clone(), context, Some(&self.bundle.schema))
            .map_err(|error| AskError::DoesNotFit(error.to_string()))
    }
}

/// A plain `forbid` decides alone, whatever gates are closed beside it.
fn denied(rules: Vec<&Rule>) -> Answer<'_> {
    let gates: Vec<&Gate> = rules.iter().filter_map(|rule| rule.gate.as_ref()).collect();
    if !gates.is_empty() && gates.len() == rules.len() {
        return Answer::Gated(gates);
    }
    Answer::Denied(rules.into_iter().filter(|rule| rule.gate.is_none()).collect())
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

fn user(bundle: &PolicyBundle, person: &PersonId) -> EntityUid {
    uid(&bundle.types.user, person.as_str())
}

fn entities(bundle: &PolicyBundle, request: &PolicyRequest<'_>, resource: &EntityUid) -> Result<Entities, AskError> {
    let types = &bundle.types;
    let name = request.agent.as_str();
    let tenant = uid(&types.tenant, request.agent.tenant());
    let unit = uid(&types.unit, name.rsplit_once('/').map_or(name, |(unit, _)| unit));
    let mut people = BTreeSet::from([request.agent_owner, request.on_behalf_of]);
    let owner = RestrictedExpression::new_entity_uid(user(bundle, request.agent_owner));
    let mut all = vec![
        entity(tenant.clone(), [], None)?,
        entity(unit.clone(), [], Some(tenant))?,
        entity(uid(&types.agent, name), [("owner", owner)], Some(unit))?,
    ];
    match &request.action {
        PolicyAction::CallTool { tool, .. } => {
            people.insert(&tool.owner);
            all.push(tool_entity(bundle, tool, resource.clone())?);
        }
        PolicyAction::InvokeModel { .. } => all.push(entity(resource.clone(), [], None)?),
    }
    for person in people {
        all.push(entity(user(bundle, person), [], None)?);
    }
    Entities::from_entities(all, Some(&bundle.schema)).map_err(|error| AskError::DoesNotFit(error.to_string()))
}

fn tool_entity(bundle: &PolicyBundle, tool: &ToolDefinition, resource: EntityUid) -> Result<Entity, AskError> {
    let attributes = [
        ("read_only", RestrictedExpression::new_bool(tool.read_only)),
        ("destructive", RestrictedExpression::new_bool(tool.destructive)),
        ("idempotent", RestrictedExpression::new_bool(tool.idempotent)),
        ("open_world", RestrictedExpression::new_bool(tool.open_world)),
        ("owner", RestrictedExpression::new_entity_uid(user(bundle, &tool.owner))),
    ];
    entity(resource, attributes, None)
}

fn entity<const N: usize>(
    uid: EntityUid,
    attributes: [(&str, RestrictedExpression); N],
    parent: Option<EntityUid>,
) -> Result<Entity, AskError> {
    let attributes: HashMap<_, _> = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let parents: HashSet<_> = parent.into_iter().collect();
    Entity::new(uid, attributes, parents).map_err(|error| AskError::DoesNotFit(error.to_string()))
}
