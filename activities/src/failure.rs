//! Every way in which an activity ends without an answer, and the one place that decides whether Temporal tries again.
//!
//! A refusal is never here: it is an outcome. What is here either passes (retryable) or will not (not retryable).

use std::time::Duration;

use mandate_domain::{AgentName, EffectId, PersonId, canonical::CanonicalError, tool::arguments::CompileSchemaError};
use temporalio_common::error::ApplicationFailure;
use temporalio_sdk::activities::ActivityError;

use crate::{
    executions::LookUpError,
    identity::IdentityUnavailable,
    models::ModelError,
    store::StoreError,
    tools::{CallToolError, PrepareToolError},
    webhook::SendWebhookError,
};

/// Why an activity has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivityFailure {
    #[error("the store refuses")]
    Store(#[from] StoreError),
    #[error("the Temporal server cannot be asked about the execution")]
    Server(#[from] LookUpError),
    #[error("a value has no canonical form")]
    Canonical(#[from] CanonicalError),
    #[error("the input schema of a pinned tool cannot be used")]
    Schema(#[from] CompileSchemaError),
    #[error(transparent)]
    Prepare(#[from] PrepareToolError),
    #[error(transparent)]
    Tool(#[from] CallToolError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Webhook(#[from] SendWebhookError),
    /// Another attempt may be performing the effect right now.
    #[error("`{effect}` is claimed by worker `{holder}`; trying again when the claim has run out")]
    Claimed { effect: EffectId, holder: String, wait: Duration },
    /// The check tool says "not yet", and it may still happen.
    #[error("`{effect}` has not happened so far; asking again when it has surely settled")]
    NotSettled { effect: EffectId, wait: Duration },
    /// That a time is over is a claim of the input. The workflow's timer may be ahead of the store's time by a little.
    #[error("the time of `{what}` is not over; trying again when it is")]
    TooEarly { what: String, wait: Duration },
    #[error("activity `{activity}` was scheduled without a workflow execution; only an agent run may ask for effects")]
    NoWorkflow { activity: String },
    /// Recorded before it is returned.
    #[error("refused: {reason}")]
    Intrusion { reason: String },
    #[error("the start input is no task: {reason}")]
    InvalidInput { reason: String },
    #[error("no agent `{agent}` is configured on this worker; it knows: {known}")]
    UnknownAgent { agent: AgentName, known: String },
    #[error("agent `{agent}` cannot be used: {reason}")]
    BrokenAgent { agent: AgentName, reason: String },
    /// Recorded before it is returned.
    #[error("`{by}` may not start agent `{agent}`: {reason}")]
    StartDenied { by: PersonId, agent: AgentName, reason: String },
    /// Recorded before it is returned.
    #[error("agent `{agent}` is not started: {reason}")]
    StarterUnproved { agent: AgentName, reason: String },
    #[error("it cannot be proved now who sent this")]
    Identity(#[from] IdentityUnavailable),
    #[error("cancelled before anything was begun")]
    Cancelled,
}

/// What Temporal is to do.
enum Verdict {
    Again(Option<Duration>),
    Never,
}

impl ActivityFailure {
    /// The failure's type and whether Temporal tries again: the one match.
    fn verdict(&self) -> (&'static str, Verdict) {
        match self {
            Self::Store(error) => store_verdict(error),
            Self::Server(_) => ("ServerUnreachable", Verdict::Again(None)),
            Self::Canonical(_) => ("NotCanonical", Verdict::Never),
            Self::Schema(_) => ("BrokenSchema", Verdict::Never),
            Self::Prepare(PrepareToolError::Unreachable { .. }) => ("ToolServerUnreachable", Verdict::Again(None)),
            Self::Prepare(PrepareToolError::Unknown { .. }) => ("UnknownTool", Verdict::Never),
            Self::Prepare(PrepareToolError::Changed { .. }) => ("ToolChanged", Verdict::Never),
            Self::Tool(CallToolError::NotSent { .. }) => ("NotSent", Verdict::Again(None)),
            Self::Tool(CallToolError::Asks { .. }) => ("ToolAsks", Verdict::Again(None)),
            Self::Tool(CallToolError::OutcomeUnknown { .. }) => ("NoAnswer", Verdict::Again(None)),
            Self::Tool(CallToolError::Declined { retry_after, .. }) => ("ToolDeclined", Verdict::Again(*retry_after)),
            Self::Tool(CallToolError::Unavailable { retry_after, .. }) => {
                ("ToolUnavailable", Verdict::Again(*retry_after))
            }
            Self::Model(error) => model_verdict(error),
            Self::Webhook(error) => webhook_verdict(error),
            Self::Claimed { wait, .. } => ("Claimed", Verdict::Again(Some(*wait))),
            Self::NotSettled { wait, .. } => ("NotSettled", Verdict::Again(Some(*wait))),
            Self::TooEarly { wait, .. } => ("TooEarly", Verdict::Again(Some(*wait))),
            Self::NoWorkflow { .. } => ("NoWorkflow", Verdict::Never),
            Self::Intrusion { .. } => ("Refused", Verdict::Never),
            Self::InvalidInput { .. } => ("InvalidInput", Verdict::Never),
            Self::UnknownAgent { .. } => ("UnknownAgent", Verdict::Never),
            Self::BrokenAgent { .. } => ("BrokenAgent", Verdict::Never),
            Self::StartDenied { .. } | Self::StarterUnproved { .. } => ("StartDenied", Verdict::Never),
            Self::Identity(_) => ("IdentityUnavailable", Verdict::Again(None)),
            Self::Cancelled => ("Cancelled", Verdict::Never),
        }
    }
}

/// An unreachable or busy store passes; one that holds something else than the run expects does not.
fn store_verdict(error: &StoreError) -> (&'static str, Verdict) {
    if matches!(error, StoreError::Clock(_)) {
        return ("ClockUnreadable", Verdict::Again(None));
    }
    if error.may_pass() {
        return ("StoreUnavailable", Verdict::Again(None));
    }
    let kind = if matches!(error, StoreError::OtherStore { .. }) {
        "OtherStore"
    } else if matches!(error, StoreError::BehindRun { .. }) {
        "store_behind_run"
    } else {
        "StoreRefused"
    };
    (kind, Verdict::Never)
}

fn model_verdict(error: &ModelError) -> (&'static str, Verdict) {
    match error {
        ModelError::NotSent { .. } => ("NotSent", Verdict::Again(None)),
        ModelError::RateLimited { retry_after } => ("RateLimited", Verdict::Again(*retry_after)),
        ModelError::Overloaded { retry_after } => ("Overloaded", Verdict::Again(*retry_after)),
        ModelError::Unreachable { .. } => ("ModelUnreachable", Verdict::Again(None)),
        ModelError::Protocol { .. } => ("BrokenAnswer", Verdict::Again(None)),
        ModelError::Refused { .. } => ("ModelRefused", Verdict::Never),
    }
}

/// Whatever a webhook refuses for good is an outcome. A secret that is missing is mended while it is tried again.
fn webhook_verdict(error: &SendWebhookError) -> (&'static str, Verdict) {
    match error {
        SendWebhookError::NoSecret(_) | SendWebhookError::BadSecret { .. } => ("NoSecret", Verdict::Again(None)),
        SendWebhookError::NotSent { .. } => ("NotSent", Verdict::Again(None)),
        SendWebhookError::Unanswered { .. } => ("WebhookUnreachable", Verdict::Again(None)),
        SendWebhookError::Unavailable { retry_after, .. } => ("WebhookUnavailable", Verdict::Again(*retry_after)),
    }
}

/// The error and its causes in one line: Temporal's UI shows the message alone.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

impl ActivityFailure {
    /// What Temporal is told. A method rather than `From`: the SDK turns every error into a retryable failure by `?`.
    pub(crate) fn into_activity_error(self) -> ActivityError {
        if matches!(self, Self::Cancelled) {
            return ActivityError::cancelled();
        }
        let (kind, verdict) = self.verdict();
        let message = Box::<dyn std::error::Error + Send + Sync>::from(with_causes(&self));
        let failure = ApplicationFailure::builder(message).type_name(kind.to_owned());
        match verdict {
            Verdict::Again(None) => failure.build().into(),
            Verdict::Again(Some(wait)) => failure.next_retry_delay(wait).build().into(),
            Verdict::Never => failure.non_retryable(true).build().into(),
        }
    }
}
