//! What a run carries into its next execution, and what its queries show.

use std::collections::VecDeque;

use mandate_domain::{
    Address, AgentRun, InstructionReview, ModelTurn, Proof, ToolCallId, ToolCallOutcome, Usage,
    agent_run::{Call, CallState, Event, MessageAnswer},
    render,
};
use serde::{Deserialize, Serialize};

/// Input of the next execution: `{"continue": …}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// The run.
    pub run: AgentRun,
    /// The last messages.
    #[serde(default)]
    pub transcript: Transcript,
}

/// The last messages, for the query `transcript`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Transcript(VecDeque<Line>);

/// One message as the query shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// `assistant` or `tool`.
    role: String,
    /// The call that a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<ToolCallId>,
    /// Address of the content.
    digest: Address,
    /// Its beginning.
    preview: String,
}

/// How many messages are kept.
const LINES_MAX: usize = 50;
/// How much of each is kept, in characters.
const PREVIEW_CHARS_MAX: usize = 200;

impl Transcript {
    /// Takes note of what the model or a tool said.
    pub(crate) fn take_note(&mut self, event: &Event) {
        if let Event::ModelReplied(turn) = event {
            self.replied(turn);
        } else if let Event::ToolReturned { call, outcome } | Event::OutcomeResolved { call, outcome } = event {
            self.returned(Some(*call), outcome);
        } else if let Event::InstructionReviewed { review: InstructionReview::Settled { outcome, .. }, .. } = event {
            self.returned(None, outcome);
        }
    }

    fn replied(&mut self, turn: &ModelTurn) {
        let preview = turn.text.as_ref().map(mandate_domain::Content::shown).unwrap_or_default();
        self.push("assistant", None, turn.transcript.clone(), preview);
    }

    fn returned(&mut self, call: Option<ToolCallId>, outcome: &ToolCallOutcome) {
        if let ToolCallOutcome::Returned { result, .. } | ToolCallOutcome::Refused { result, .. } = outcome {
            self.push("tool", call, result.address.clone(), result.shown());
        }
    }

    fn push(&mut self, role: &str, call: Option<ToolCallId>, digest: Address, text: &str) {
        if self.0.len() == LINES_MAX {
            self.0.pop_front();
        }
        let preview = text.chars().take(PREVIEW_CHARS_MAX).collect();
        self.0.push_back(Line { role: role.to_owned(), call, digest, preview });
    }
}

/// Answer of the query `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// `MandateState`.
    pub state: String,
    /// The agent.
    pub agent: String,
    /// Turns so far.
    pub turn: u32,
    /// Tool calls so far.
    pub tool_calls: u32,
    /// Tokens so far.
    pub usage: Usage,
    /// Audit records so far.
    pub audit_records: u64,
    /// Run id of the first execution of the chain, once the run is open: what a signed instruction names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_run_id: Option<String>,
    /// A person paused it.
    #[serde(default)]
    pub paused: bool,
    /// The ways of proof that count for what people tell the run.
    #[serde(default)]
    pub accepts: Vec<Proof>,
    /// Requests that wait for people.
    pub waiting: Vec<String>,
    /// Questions that wait for an answer.
    #[serde(default)]
    pub questions: Vec<PendingQuestion>,
    /// Calls whose outcome nobody knows.
    pub unknown_outcomes: Vec<ToolCallId>,
    /// The same calls, with what is known of each.
    #[serde(default)]
    pub unknown_calls: Vec<UnknownCall>,
    /// What came of the last messages whose senders gave them an id, the oldest first: a signal has no answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<MessageAnswer>,
    /// Messages that do not count: refused at once, or reviewed and refused.
    pub refused_messages: u64,
    /// Why the last one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
}

impl Status {
    /// Of a run.
    #[must_use]
    pub fn of(run: &AgentRun, workflow_id: &str) -> Self {
        let (refused_messages, last_refusal) = run.refusals();
        let unknown = |state: &CallState| matches!(state, CallState::Unknown { .. });
        Self {
            state: run.state().as_str().to_owned(),
            agent: run.agent().to_string(),
            turn: run.turn(),
            tool_calls: run.tool_calls(),
            usage: run.usage(),
            audit_records: run.audit().records,
            first_run_id: run.opened_run().map(|opened| opened.run.first_run_id.clone()),
            paused: run.is_paused(),
            accepts: run.accepts(),
            questions: PendingQuestion::all(run, workflow_id),
            waiting: run.waiting_requests().map(|waiting| waiting.request.id.to_string()).collect(),
            unknown_outcomes: run.calls().iter().filter(|call| unknown(&call.state)).map(|call| call.id).collect(),
            unknown_calls: UnknownCall::all(run, workflow_id),
            answers: run.answers().cloned().collect(),
            refused_messages,
            last_refusal: last_refusal.map(str::to_owned),
        }
    }
}

/// One request in the answer of the query `pending`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingRequest {
    /// The id that a decision has to name.
    pub request_id: String,
    /// The call.
    pub call: ToolCallId,
    /// The tool. Foreign text.
    pub tool: String,
    /// The arguments as canonical JSON. Foreign text.
    pub arguments: String,
    /// Address of the arguments.
    pub arguments_digest: Address,
    /// The keyed digest of the request, which a signature covers and which a token's `nonce` has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Address>,
    /// The ways of proof that count for a decision.
    #[serde(default)]
    pub accepts: Vec<Proof>,
    /// The policy that asks.
    pub gate: String,
    /// Why it asks.
    pub reason: String,
    /// Groups whose members may decide.
    pub approvers: Vec<String>,
    /// Different people who approved so far.
    pub votes: u32,
    /// Different people who have to.
    pub quorum: u32,
    /// Until when, UTC.
    pub deadline: String,
    /// The card, in Markdown.
    pub card: String,
    /// The commands to approve and to reject.
    pub commands: Vec<String>,
}

impl PendingRequest {
    /// All of a run, oldest first.
    #[must_use]
    pub fn all(run: &AgentRun, workflow_id: &str) -> Vec<Self> {
        let accepts = run.accepts();
        let one = |waiting: &mandate_domain::agent_run::WaitingRequest| {
            let request = &waiting.request;
            Self {
                request_id: request.id.to_string(),
                call: request.call,
                tool: request.tool.clone(),
                arguments: request.arguments_shown.clone(),
                arguments_digest: request.arguments.clone(),
                digest: request.digest.clone(),
                accepts: accepts.clone(),
                gate: request.gate.id.to_string(),
                reason: request.gate.reason.clone(),
                approvers: waiting.deciders().iter().map(ToString::to_string).collect(),
                votes: waiting.votes,
                quorum: request.gate.quorum,
                deadline: render::utc(waiting.deadline_ms),
                card: render::request_card(workflow_id, waiting, &accepts),
                commands: render::decide_commands(workflow_id, request.id.as_str(), &accepts).to_vec(),
            }
        };
        run.waiting_requests().map(one).collect()
    }
}

/// One question in the answer of the query `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingQuestion {
    /// The id that an answer has to name.
    pub question_id: String,
    /// The call that asks.
    pub call: ToolCallId,
    /// What is asked, as canonical JSON. Foreign text.
    pub asked: String,
    /// Until when, UTC.
    pub deadline: String,
    /// The card, in Markdown.
    pub card: String,
    /// The command to answer.
    pub command: String,
}

impl PendingQuestion {
    /// All of a run, oldest first.
    #[must_use]
    pub fn all(run: &AgentRun, workflow_id: &str) -> Vec<Self> {
        let accepts = run.accepts();
        let one = |waiting: &mandate_domain::agent_run::WaitingQuestion| {
            let question = &waiting.question;
            Self {
                question_id: question.id.to_string(),
                call: question.call,
                asked: question.asked.clone(),
                deadline: render::utc(question.expires_ms),
                card: render::question_card(workflow_id, question, &accepts),
                command: render::answer_command(workflow_id, question.id.as_str(), &accepts),
            }
        };
        run.waiting_questions().map(one).collect()
    }
}

/// One call of which nobody knows whether it happened, in the answer of the query `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnknownCall {
    /// The call.
    pub call: ToolCallId,
    /// Its tool. Foreign text.
    pub tool: String,
    /// What is known. Foreign text.
    pub reason: String,
    /// The card, in Markdown.
    pub card: String,
    /// The command to say what became of it.
    pub command: String,
}

impl UnknownCall {
    /// All of a run, in the model's order.
    #[must_use]
    pub fn all(run: &AgentRun, workflow_id: &str) -> Vec<Self> {
        let accepts = run.accepts();
        let one = |call: &Call| match &call.state {
            CallState::Unknown { reason } => Some(Self {
                call: call.id,
                tool: call.tool.clone(),
                reason: reason.clone(),
                card: render::unknown_card(workflow_id, call, reason, &accepts),
                command: render::resolve_command(workflow_id, call.id, &accepts),
            }),
            CallState::Calling
            | CallState::Waiting
            | CallState::LookingUp { .. }
            | CallState::Asked
            | CallState::Held { .. }
            | CallState::Ended { .. }
            | CallState::Abandoned => None,
        };
        run.calls().iter().filter_map(one).collect()
    }
}
