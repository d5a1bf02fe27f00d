//! Which policies can have a say in something, and under which condition: what an author reads to know what an agent may
//! do. Nothing is decided here.
//!
//! Whether a policy's scope fits is asked of Cedar itself, with the conditions taken away. Of the conditions only who asks,
//! what is asked about and the registry's word on a tool are known beforehand: a policy that they rule out is left out,
//! one that needs nothing else has no condition.

use cedar_policy::{Authorizer, Context, Effect, EntityUid, Policy, PolicySet, Request};
use serde_json::{Value, json};

use super::{
    PolicyBundle, Viewer,
    question::{self, AskError, Question},
};
use crate::{AgentName, DataClass, ModelName, PersonId, PolicyId, ToolDefinition, approval::Gate};

/// A policy that can have a say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applying {
    /// Its id.
    pub policy: PolicyId,
    /// What it says.
    pub says: Says,
    /// The conditions under which it says so, as they are written; none if it always does. The clause by which a gate
    /// opens is left out.
    pub condition: Option<String>,
    /// Its `@reason`.
    pub reason: Option<String>,
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// A `permit`.
    Allow,
    /// A gate: people decide first.
    Ask(Gate),
    /// A `forbid`.
    Deny,
}

/// Why this cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("what applies cannot be told: {0}")]
pub struct ApplyingError(String);

impl From<AskError> for ApplyingError {
    fn from(error: AskError) -> Self {
        Self(error.to_string())
    }
}

impl PolicyBundle {
    /// The policies that can have a say in calls of a tool: permits, then gates, then forbids, each in the order of ids.
    ///
    /// # Errors
    /// [`ApplyingError`] when the policies do not know what is asked about.
    pub fn applying_to_tool(
        &self,
        agent: &AgentName,
        owner: &PersonId,
        tool: &ToolDefinition,
    ) -> Result<Vec<Applying>, ApplyingError> {
        applying(self, question::scope_of_call(self, agent, owner, tool)?, Some(tool))
    }

    /// The policies that can have a say in calls of a model.
    ///
    /// # Errors
    /// [`ApplyingError`] when the policies do not know what is asked about.
    pub fn applying_to_model(
        &self,
        agent: &AgentName,
        owner: &PersonId,
        model: &ModelName,
    ) -> Result<Vec<Applying>, ApplyingError> {
        applying(self, question::scope_of_model(self, agent, owner, model)?, None)
    }

    /// The policies that can have a say in whether somebody sees a class of data.
    ///
    /// # Errors
    /// [`ApplyingError`] when the policies do not know what is asked about.
    pub fn applying_to_viewer(
        &self,
        viewer: &Viewer<'_>,
        on_behalf_of: &PersonId,
        class: &DataClass,
    ) -> Result<Vec<Applying>, ApplyingError> {
        // For whom is a condition and no part of a scope.
        applying(self, question::of_viewer(self, viewer, on_behalf_of, class)?, None)
    }
}

fn applying(
    bundle: &PolicyBundle,
    question: Question,
    tool: Option<&ToolDefinition>,
) -> Result<Vec<Applying>, ApplyingError> {
    let failed = |error: &dyn std::fmt::Display| ApplyingError(error.to_string());
    let (mut scopes, mut found) = (PolicySet::new(), Vec::new());
    for policy in bundle.policies.policies() {
        scopes.add(scope_only(policy).map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    let known = Known { principal: question.principal.clone(), resource: question.resource.clone(), tool };
    let request = Request::new(question.principal, question.action, question.resource, Context::empty(), None);
    let request = request.map_err(|error| failed(&error))?;
    let response = Authorizer::new().is_authorized(&request, &scopes, &question.entities);
    for id in response.diagnostics().reason() {
        let (Some(policy), Some(rule)) = (bundle.policies.policy(id), bundle.rules.get::<str>(id.as_ref())) else {
            continue;
        };
        let holds = known.conditions(policy);
        if holds == Some(false) {
            continue;
        }
        let says = match (&rule.gate, policy.effect()) {
            (Some(gate), _) => Says::Ask(gate.clone()),
            (None, Effect::Permit) => Says::Allow,
            (None, Effect::Forbid) => Says::Deny,
        };
        let condition = if holds == Some(true) { None } else { condition(policy, rule.gate.as_ref()) };
        found.push(Applying { policy: rule.id.clone(), says, condition, reason: rule.reason.clone() });
    }
    found.sort_by_key(|applying| (applying.says.rank(), applying.policy.clone()));
    Ok(found)
}

impl Says {
    fn rank(&self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Ask(_) => 1,
            Self::Deny => 2,
        }
    }
}

/// The policy without conditions, as a `permit`: it is satisfied where its scope fits.
fn scope_only(policy: &Policy) -> Result<Policy, Box<dyn std::error::Error>> {
    let mut text = policy.to_json()?;
    if let Some(policy) = text.as_object_mut() {
        policy.insert("conditions".to_owned(), json!([]));
        policy.insert("effect".to_owned(), json!("permit"));
    }
    Ok(Policy::from_json(Some(policy.id().clone()), text)?)
}

/// What is known before anything happens.
struct Known<'a> {
    principal: EntityUid,
    resource: EntityUid,
    tool: Option<&'a ToolDefinition>,
}

impl Known<'_> {
    /// What the conditions of a policy come to, where that is known.
    fn conditions(&self, policy: &Policy) -> Option<bool> {
        let body = policy.to_json().ok()?;
        let mut all = Some(true);
        for condition in body.get("conditions")?.as_array()? {
            let holds = self.truth(condition.get("body")?);
            let holds = if condition.get("kind")? == "unless" { holds.map(|holds| !holds) } else { holds };
            match holds {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
        }
        all
    }

    /// The value of a Boolean expression; none where it depends on what is not known.
    fn truth(&self, expression: &Value) -> Option<bool> {
        let sides = |operator: &str| {
            let sides = expression.get(operator)?;
            Some((sides.get("left")?, sides.get("right")?))
        };
        let values = |operator: &str| sides(operator).map(|(left, right)| (self.truth(left), self.truth(right)));
        if let Some(literal) = expression.get("Value") {
            return literal.as_bool();
        }
        if let Some(inner) = expression.get("!") {
            return self.truth(inner.get("arg")?).map(|value| !value);
        }
        if let Some(both) = values("&&") {
            return match both {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                (None, _) | (_, None) => None,
            };
        }
        if let Some(either) = values("||") {
            return match either {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                (None, _) | (_, None) => None,
            };
        }
        if let Some((left, right)) = sides("==") {
            return Some(self.entity(left)? == self.entity(right)?);
        }
        if let Some((left, right)) = sides("!=") {
            return Some(self.entity(left)? != self.entity(right)?);
        }
        if let Some((set, one)) = sides("contains") {
            let wanted = self.entity(one)?;
            let members: Option<Vec<_>> = set.get("Set")?.as_array()?.iter().map(|item| self.entity(item)).collect();
            return Some(members?.contains(&wanted));
        }
        let access = expression.get(".").filter(|access| access.get("left") == Some(&json!({ "Var": "resource" })))?;
        attribute(self.tool?, access.get("attr")?.as_str()?)
    }

    fn entity(&self, expression: &Value) -> Option<EntityUid> {
        match expression.get("Var").and_then(Value::as_str) {
            Some("principal") => Some(self.principal.clone()),
            Some("resource") => Some(self.resource.clone()),
            Some(_) => None,
            None => EntityUid::from_json(expression.get("Value")?.clone()).ok(),
        }
    }
}

fn attribute(tool: &ToolDefinition, name: &str) -> Option<bool> {
    match name {
        "read_only" => Some(tool.read_only),
        "destructive" => Some(tool.destructive),
        "idempotent" => Some(tool.idempotent),
        "open_world" => Some(tool.open_world),
        _ => None,
    }
}

/// The conditions as they are written, on one line.
fn condition(policy: &Policy, gate: Option<&Gate>) -> Option<String> {
    let text = policy.to_cedar()?;
    let written = after_scope(&text)?;
    let opening = gate.map(|gate| format!("unless {{ context.approved.contains(\"{}\") }}", gate.id));
    let written = opening.map_or_else(|| written.clone(), |opening| written.replace(&opening, "").trim().to_owned());
    (!written.is_empty()).then_some(written)
}

/// What stands between the scope and the semicolon, without comments, white space as single blanks.
fn after_scope(text: &str) -> Option<String> {
    let tokens = tokens(text);
    let is_effect = |index: usize| {
        let before = index.checked_sub(1).and_then(|before| tokens.get(before)).copied();
        matches!(tokens.get(index).copied(), Some("permit" | "forbid")) && before != Some("@")
    };
    let (mut depth, mut in_scope) = (0_usize, false);
    for (index, token) in tokens.iter().enumerate() {
        match *token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => in_scope |= depth == 0 && is_effect(index),
        }
        if in_scope && *token == ")" && depth == 0 {
            return Some(joined(tokens.get(index + 1..)?));
        }
    }
    None
}

/// Words, strings, blanks and single signs; comments are left out.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == '"' {
            string_length(rest)
        } else if first.is_whitespace() {
            rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !token.starts_with("//") {
            tokens.push(if first.is_whitespace() { " " } else { token });
        }
        rest = after;
    }
    tokens
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

fn joined(tokens: &[&str]) -> String {
    let mut text = String::new();
    for token in tokens {
        if *token != " " || !text.ends_with(' ') {
            text.push_str(token);
        }
    }
    text.trim().trim_end_matches(';').trim_end().to_owned()
}
