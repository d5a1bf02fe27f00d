//! The decision: default deny, `forbid` wins, an evaluation error denies, a gate asks people.
//!
//! Cedar answers twice at most for each set of gates: as things are, and with the gates that stand in the way opened.
//! People are asked only if that would be enough, so nobody is asked for a lost cause.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Authorizer, Context, Decision, Request, RestrictedExpression};

use super::{
    PolicyDecision, PolicyOutcome,
    bundle::PolicyBundle,
    gate::Rule,
    question::{AskError, Question},
};
use crate::{PolicyId, approval::Gate};

/// One answer of Cedar.
enum Answer<'a> {
    Allowed(Vec<&'a Rule>),
    Denied(Vec<&'a Rule>),
    Gated(Vec<&'a Gate>),
}

type Decided = (PolicyOutcome, Vec<PolicyId>, String);

/// Decides a request. Whatever cannot be judged is denied.
pub(super) fn decide(
    bundle: &PolicyBundle,
    question: Result<Question, AskError>,
    approved: &BTreeSet<PolicyId>,
) -> PolicyDecision {
    decision(bundle, question.and_then(|question| decide_with_gates(bundle, &question, approved)))
}

/// Decides a request that cannot wait for people.
pub(super) fn decide_at_once(bundle: &PolicyBundle, question: Result<Question, AskError>) -> PolicyDecision {
    let answer = question.and_then(|question| {
        Ok(match ask(bundle, &question, &BTreeSet::new())? {
            Answer::Allowed(rules) => (PolicyOutcome::Allow, ids(&rules), reasons(&rules, "permitted by")),
            Answer::Denied(rules) => denial(&rules),
            Answer::Gated(gates) => {
                let ids = gates.iter().map(|gate| gate.id.clone()).collect();
                (PolicyOutcome::Deny, ids, "a gate asks for approval, which only a tool call can wait for".to_owned())
            }
        })
    });
    decision(bundle, answer)
}

fn decision(bundle: &PolicyBundle, decided: Result<Decided, AskError>) -> PolicyDecision {
    let (outcome, policies, reason) =
        decided.unwrap_or_else(|error| (PolicyOutcome::Deny, Vec::new(), error.to_string()));
    PolicyDecision { outcome, policies, bundle: bundle.digest().clone(), reason }
}

fn decide_with_gates(
    bundle: &PolicyBundle,
    question: &Question,
    approved: &BTreeSet<PolicyId>,
) -> Result<Decided, AskError> {
    let mut approved = approved.clone();
    let mut gates: BTreeMap<PolicyId, Gate> = BTreeMap::new();
    // Each round opens at least one more gate, so this ends.
    loop {
        match ask(bundle, question, &approved)? {
            Answer::Allowed(rules) if gates.is_empty() => {
                return Ok((PolicyOutcome::Allow, ids(&rules), reasons(&rules, "permitted by")));
            }
            Answer::Allowed(_) => {
                let reason = gates.values().map(|gate| gate.reason.clone()).collect::<Vec<_>>().join("; ");
                let policies = gates.keys().cloned().collect();
                return Ok((PolicyOutcome::RequireApproval(gates.into_values().collect()), policies, reason));
            }
            Answer::Denied(rules) => return Ok(denial(&rules)),
            Answer::Gated(closed) => {
                for gate in closed {
                    if !approved.insert(gate.id.clone()) {
                        // Excluded by the load rules: an approved gate does not apply.
                        let reason = format!("gate `{}` does not open", gate.id);
                        return Ok((PolicyOutcome::Deny, vec![gate.id.clone()], reason));
                    }
                    gates.insert(gate.id.clone(), gate.clone());
                }
            }
        }
    }
}

fn denial(rules: &[&Rule]) -> Decided {
    if rules.is_empty() {
        return (PolicyOutcome::Deny, Vec::new(), "no policy permits this".to_owned());
    }
    (PolicyOutcome::Deny, ids(rules), reasons(rules, "forbidden by"))
}

fn ids(rules: &[&Rule]) -> Vec<PolicyId> {
    rules.iter().map(|rule| rule.id.clone()).collect()
}

fn reasons(rules: &[&Rule], without: &str) -> String {
    let reason = |rule: &&Rule| rule.reason.clone().unwrap_or_else(|| format!("{without} `{}`", rule.id));
    rules.iter().map(reason).collect::<Vec<_>>().join("; ")
}

fn ask<'a>(
    bundle: &'a PolicyBundle,
    question: &Question,
    approved: &BTreeSet<PolicyId>,
) -> Result<Answer<'a>, AskError> {
    let request = request(bundle, question, approved)?;
    let response = Authorizer::new().is_authorized(&request, &bundle.policies, &question.entities);
    // Cedar skips a policy that it cannot evaluate. A skipped `forbid` would fail open.
    if let Some(cedar_policy::AuthorizationError::PolicyEvaluationError(error)) = response.diagnostics().errors().next()
    {
        return Err(AskError::Evaluation { policy: error.policy_id().to_string(), error: error.inner().to_string() });
    }
    let mut rules = Vec::new();
    for id in response.diagnostics().reason() {
        let id: &str = id.as_ref();
        rules.push(bundle.rules.get(id).ok_or_else(|| AskError::UnknownPolicy(id.to_owned()))?);
    }
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(match response.decision() {
        Decision::Allow => Answer::Allowed(rules),
        Decision::Deny => denied(rules),
    })
}

fn request(bundle: &PolicyBundle, question: &Question, approved: &BTreeSet<PolicyId>) -> Result<Request, AskError> {
    let approved = approved.iter().map(|id| RestrictedExpression::new_string(id.to_string()));
    let mut pairs = question.context.clone();
    pairs.push(("approved".to_owned(), RestrictedExpression::new_set(approved)));
    let context = Context::from_pairs(pairs).map_err(|error| AskError::DoesNotFit(error.to_string()))?;
    let (principal, action) = (question.principal.clone(), question.action.clone());
    Request::new(principal, action, question.resource.clone(), context, Some(&bundle.schema))
        .map_err(|error| AskError::DoesNotFit(error.to_string()))
}

/// A plain `forbid` decides alone, whatever gates are closed beside it.
fn denied(rules: Vec<&Rule>) -> Answer<'_> {
    let gates: Vec<&Gate> = rules.iter().filter_map(|rule| rule.gate.as_ref()).collect();
    if !gates.is_empty() && gates.len() == rules.len() {
        return Answer::Gated(gates);
    }
    Answer::Denied(rules.into_iter().filter(|rule| rule.gate.is_none()).collect())
}
