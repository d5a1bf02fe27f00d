//! Cases first, by subject; then properties and races over event sequences against a simulated store. Here is what all
//! of them build their events from.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it looks for and passes over everything else")]

mod approvals;
mod calls;
mod compensation;
mod continuing;
mod ending;
mod instructions;
mod notices;
mod properties;
mod questions;
mod races;
mod world;

use super::*;
use crate::{
    Address, AgentResult, ApprovalDecision, ApprovalRequest, CallSummary, Content, Digest, Evidence, Gate, Instruction,
    InstructionReview, ModelName, ModelTurn, PolicyId, Question, QuestionId, RequestId, Resolution, Review, RunChain,
    RunLimits, RunPins, Sender, SentInstruction, StoreId, ToolCallId, ToolCallOutcome, UndoSummary, Verdict,
    approval::{Arrival, Escalation, OnExpiry},
    audit::Proof,
};

pub(super) const NOW: Moment = Moment { now_ms: 1_000_000, history_is_long: false };
pub(super) const LONG: Moment = Moment { history_is_long: true, ..NOW };
/// When the requests and questions of these tests expire.
pub(super) const DEADLINE_MS: u64 = NOW.now_ms + 60_000;

pub(super) fn address(n: u64) -> Address {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    Address::from_bytes(hash)
}

pub(super) fn person(name: &str) -> PersonId {
    PersonId::parse(format!("{name}@acme.example")).unwrap()
}

pub(super) fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

pub(super) fn content(n: u64) -> Content {
    Content::describe(address(n), "text", 1024)
}

pub(super) fn opened_with(limits: RunLimits, notifies: bool) -> Event {
    Event::Opened(Box::new(OpenedRun {
        run: RunChain { workflow_id: "w".into(), first_run_id: "r".into() },
        pins: RunPins {
            store: StoreId::parse("0".repeat(32)).unwrap(),
            agent_version: Digest::from_bytes([1; 32]),
            instructions: Digest::from_bytes([2; 32]),
            model: ModelName::parse("m").unwrap(),
            tools: std::collections::BTreeMap::new(),
            bundle: Digest::from_bytes([3; 32]),
        },
        limits,
        transcript: address(0),
        proof: Proof::Key,
        accepts: vec![Proof::Key],
        starter: None,
        starter_proof: Proof::Claimed,
        notifies,
        namespace_id: None,
        compensate: vec![],
    }))
}

pub(super) fn opened(limits: RunLimits) -> Event {
    opened_with(limits, false)
}

pub(super) fn replied(turn: u64, calls: u32) -> Event {
    Event::ModelReplied(ModelTurn {
        transcript: address(1_000 + turn),
        text: Some(content(2_000 + turn)),
        calls: (0..calls)
            .map(|n| CallSummary {
                tool: "payments.refund".into(),
                arguments: address(n.into()),
                timeout_secs: Some(5),
                submits_answer: false,
                undo: None,
            })
            .collect(),
        usage: Usage { input_tokens: 10, output_tokens: 1, ..Usage::default() },
    })
}

/// Makes each call of a reply one that can be undone.
pub(super) fn undoable(reply: &mut ModelTurn) {
    for call in &mut reply.calls {
        call.undo = Some(UndoSummary { tool: "payments.cancel_refund".into(), timeout_secs: 5 });
    }
}

pub(super) fn request(call: ToolCallId, gate: &str, ordinal: u32) -> ApprovalRequest {
    ApprovalRequest {
        id: RequestId::new(ordinal, &address(ordinal.into())),
        call,
        tool: "payments.refund".into(),
        arguments: address(7),
        gate: Gate {
            id: PolicyId::parse(gate).unwrap(),
            approvers: vec![group("finance-leads")],
            quorum: 1,
            four_eyes: vec![],
            expires_secs: 60,
            reason: "large".into(),
            remind_secs: None,
            escalation: None,
            on_expiry: OnExpiry::Deny,
        },
        arguments_shown: "{}".into(),
        digest: None,
        expires_ms: None,
    }
}

/// A request whose gate reminds after 10 seconds and asks the board as well after 20.
pub(super) fn patient_request(call: ToolCallId, ordinal: u32) -> ApprovalRequest {
    let mut asked = request(call, "refund.large", ordinal);
    asked.gate.remind_secs = Some(10);
    asked.gate.escalation = Some(Escalation { after_secs: 20, to: vec![group("board")] });
    asked
}

pub(super) fn question(call: ToolCallId, ordinal: u32) -> Question {
    let id = QuestionId::new(ordinal, &address(ordinal.into()));
    Question { id, call, asked: r#"{"question":"Refund him?"}"#.into(), expires_ms: DEADLINE_MS }
}

pub(super) fn decision(id: &RequestId, verdict: Verdict) -> ApprovalDecision {
    let (request, by) = (id.clone(), Some(person("bo")));
    ApprovalDecision { request, verdict, by, comment: None, arguments: None, evidence: Evidence::none() }
}

/// The `ordinal`-th message of this name.
pub(super) fn arrival(name: &str, ordinal: u32) -> Arrival {
    Arrival { run_id: "r".into(), name: name.into(), ordinal, at_ms: NOW.now_ms }
}

pub(super) fn decided(ticket: Ticket, id: &RequestId, verdict: Verdict) -> Event {
    let arrival = arrival(verdict.as_str(), ticket);
    Event::DecisionReceived { ticket, decision: decision(id, verdict), arrival }
}

pub(super) fn told(ticket: Ticket, instruction: Instruction) -> Event {
    let arrival = arrival(instruction.kind().as_str(), ticket);
    let sender = Sender { by: Some(person("bo")), ..Sender::default() };
    Event::InstructionReceived { ticket, sent: SentInstruction { instruction, sender }, arrival }
}

/// Another halt, by somebody who has seen that the run undoes what it did.
pub(super) fn halt_once_more(after_ms: u64) -> Event {
    let sender = Sender { by: Some(person("otto")), ..Sender::default() };
    let first = arrival("halt", 2);
    let arrival = Some(Arrival { at_ms: first.at_ms + after_ms, ..first });
    Event::HaltRequested(HaltRequest { sender, arrival })
}

pub(super) fn halt() -> Event {
    let sender = Sender { by: Some(person("olga")), ..Sender::default() };
    Event::HaltRequested(HaltRequest { sender, arrival: Some(arrival("halt", 1)) })
}

pub(super) fn steer() -> Instruction {
    Instruction::Steer { text: "ask for the order number first".into() }
}

/// A steer that counts: the message that the model reads at its next turn.
pub(super) fn taken(message: u64) -> InstructionReview {
    InstructionReview::Taken { message: Some(content(message)) }
}

pub(super) const TAKEN: InstructionReview = InstructionReview::Taken { message: None };

pub(super) const APPROVED: Review = Review::Counted { votes: 1, quorum_reached: true };

pub(super) fn returned(n: u64) -> ToolCallOutcome {
    ToolCallOutcome::Returned { result: content(n), is_error: false }
}

pub(super) fn lost() -> Failure {
    Failure::Unavailable { detail: "timed out".into() }
}

pub(super) fn call(index: u32) -> ToolCallId {
    ToolCallId::new(1, index)
}

/// A run with `calls` tool calls under way in its first turn, and a webhook where it is asked for.
fn acting_with(calls: u32, notifies: bool) -> AgentRun {
    let (mut run, first) = AgentRun::start(AgentName::parse("acme/support/refunds").unwrap(), person("ana"));
    assert_eq!(first, [Command::OpenRun, Command::Publish]);
    let commands = run.apply(opened_with(RunLimits::default(), notifies), NOW).unwrap();
    assert_eq!(commands, [asks_model(1, 0, &[], &[])]);
    run.apply(replied(1, calls), NOW).unwrap();
    run
}

fn acting(calls: u32) -> AgentRun {
    acting_with(calls, false)
}

fn apply(run: &mut AgentRun, event: Event) -> Vec<Command> {
    run.apply(event, NOW).unwrap()
}

/// A call comes back with its result.
fn end(run: &mut AgentRun, index: u32, result: u64) -> Vec<Command> {
    apply(run, Event::ToolReturned { call: call(index), outcome: returned(result) })
}

/// Makes a call wait at one gate; gives back the request.
fn wait(run: &mut AgentRun, index: u32) -> RequestId {
    let asked = request(call(index), "refund.large", index + 1);
    let commands = ask(run, std::slice::from_ref(&asked));
    assert!(commands.contains(&starts(Timer::Deadline(asked.id.clone()), DEADLINE_MS)), "{commands:?}");
    asked.id
}

/// Policy asks people about a call, which waits at all of these gates.
fn ask(run: &mut AgentRun, requests: &[ApprovalRequest]) -> Vec<Command> {
    let outcome = ToolCallOutcome::ApprovalRequired { requests: requests.to_vec() };
    apply(run, Event::ToolReturned { call: requests[0].call, outcome })
}

/// A call asks people something; gives back the question.
fn ask_people(run: &mut AgentRun, index: u32) -> Question {
    let question = question(call(index), index + 1);
    let outcome = ToolCallOutcome::AnswerRequired { question: question.clone() };
    let commands = apply(run, Event::ToolReturned { call: call(index), outcome });
    assert!(commands.contains(&starts(Timer::Question(question.id.clone()), DEADLINE_MS)), "{commands:?}");
    question
}

/// A decision arrives and its review comes back.
fn decide(run: &mut AgentRun, ticket: Ticket, id: &RequestId, call: ToolCallId, review: Review) -> Vec<Command> {
    apply(run, decided(ticket, id, Verdict::Approve));
    apply(run, Event::ApprovalReviewed { call, review })
}

/// An instruction arrives and its review comes back.
fn tell(run: &mut AgentRun, ticket: Ticket, instruction: Instruction, review: InstructionReview) -> Vec<Command> {
    let commands = apply(run, told(ticket, instruction));
    assert!(matches!(&commands[..], [Command::ReviewInstruction { ticket: t, .. }] if *t == ticket), "{commands:?}");
    apply(run, Event::InstructionReviewed { ticket, review })
}

fn starts(timer: Timer, at_ms: u64) -> Command {
    Command::StartTimer { timer, at_ms }
}

fn calls_tool(call: ToolCallId, released_by: Option<&RequestId>) -> Command {
    Command::CallTool { call, released_by: released_by.cloned() }
}

/// The model is asked, with these results and instructions.
fn asks_model(turn: u32, transcript: u64, append: &[u64], instructions: &[u64]) -> Command {
    let addresses = |of: &[u64]| of.iter().copied().map(address).collect();
    let (append, instructions) = (addresses(append), addresses(instructions));
    Command::InvokeModel { turn, transcript: address(transcript), append, instructions }
}

/// Whether anything new begins.
fn begins(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::CallTool { .. } | Command::InvokeModel { .. }))
}

fn answer_to(commands: &[Command], wanted: Ticket) -> Option<&Answer> {
    commands.iter().find_map(|command| match command {
        Command::Reply { ticket, answer } if *ticket == wanted => Some(answer),
        _ => None,
    })
}

fn is_refused(commands: &[Command], ticket: Ticket, why: &str) -> bool {
    matches!(answer_to(commands, ticket), Some(Answer::Refused { reason }) if reason.contains(why))
}

fn is_accepted(commands: &[Command], ticket: Ticket) -> bool {
    matches!(answer_to(commands, ticket), Some(Answer::Accepted { .. }))
}

fn is_closing(commands: &[Command], reason: EndReason) -> bool {
    commands.iter().any(|c| matches!(c, Command::CloseRun(closing) if closing.reason == Some(reason)))
}

fn completes(commands: &[Command]) -> bool {
    commands.iter().any(|c| matches!(c, Command::CloseRun(closing) if closing.state == RunState::Completed))
}

/// The run as its next execution gets it.
fn continued(run: &AgentRun) -> AgentRun {
    serde_json::from_slice(&serde_json::to_vec(run).unwrap()).unwrap()
}
