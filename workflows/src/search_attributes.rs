//! Search attributes: the inbox and the overview are Temporal queries. Never personal data: they are not encrypted.

use mandate_domain::{AgentName, AgentRun, EndReason};
use temporalio_common::search_attributes::SearchAttributeKey;
use temporalio_workflow::WorkflowContext;

use crate::AgentWorkflow;

/// Full name of the agent (Keyword).
pub const AGENT: SearchAttributeKey<String> = SearchAttributeKey::keyword("MandateAgent");
/// Its tenant (Keyword).
pub const TENANT: SearchAttributeKey<String> = SearchAttributeKey::keyword("MandateTenant");
/// State of the run (Keyword).
pub const STATE: SearchAttributeKey<String> = SearchAttributeKey::keyword("MandateState");
/// Groups that are asked to decide (`KeywordList`).
pub const APPROVERS: SearchAttributeKey<Vec<String>> = SearchAttributeKey::keyword_list("MandateApprovers");
/// Why the run ended without completing (Keyword).
pub const FAILURE: SearchAttributeKey<String> = SearchAttributeKey::keyword("MandateFailure");
/// Cost of the run in millionths of the configured currency (Int).
pub const COST_MICROS: SearchAttributeKey<i64> = SearchAttributeKey::int("MandateCostMicros");

pub(crate) fn name_agent(ctx: &WorkflowContext<AgentWorkflow>, agent: &AgentName) {
    ctx.upsert_search_attributes([AGENT.value_set(agent.to_string()), TENANT.value_set(agent.tenant().to_owned())]);
}

/// Shows state and approver groups; at the end also the reason and the cost.
pub(crate) fn publish(ctx: &WorkflowContext<AgentWorkflow>, run: &AgentRun) {
    let groups = run.approver_groups().iter().map(ToString::to_string).collect();
    let mut attributes = vec![STATE.value_set(run.state().as_str().to_owned()), APPROVERS.value_set(groups)];
    if run.state().is_terminal() {
        let cost = i64::try_from(run.usage().cost_micros).unwrap_or(i64::MAX);
        attributes.push(COST_MICROS.value_set(cost));
        if let Some(reason) = run.result().reason {
            attributes.push(FAILURE.value_set(EndReason::as_str(reason).to_owned()));
        }
    }
    ctx.upsert_search_attributes(attributes);
}
