//! `mandate explain`: what happened in one run, or what operators did to the store, told from the audit log alone.
//! Temporal is not asked: its history may be gone long before the record is.

use anyhow::Context as _;
use mandate_activities::store::Store;
use mandate_domain::{
    AuditRecord, DataClass, DecisionOutcome, EffectId, KnownBy, PolicyId, Proof, RecordBody, Resolution, RunChain,
    Usage, Verdict, Who, audit::FoundEnd, proof::InstructionKind, render,
};

use super::open_existing_store;
use crate::{
    cli::{Explain, Global},
    output::{self, Exit, OutputFormat},
};

/// How much of a digest a line shows.
const DIGEST_SHOWN: usize = 12;

/// Prints the timeline of a run.
///
/// # Errors
/// When the store has no such run or a record cannot be read.
pub async fn explain(global: &Global, options: &Explain) -> anyhow::Result<Exit> {
    let store = open_existing_store(global).await?;
    let run = find(&store, &options.workflow_id, options.run_id.as_deref()).await?;
    let records = records(&store, &run).await?;
    match options.output {
        OutputFormat::Json => output::json(&records)?,
        OutputFormat::Text => records.iter().try_for_each(|record| output::data(line(record)))?,
    }
    store.close().await;
    Ok(Exit::Done)
}

async fn find(store: &Store, workflow_id: &str, first_run_id: Option<&str>) -> anyhow::Result<RunChain> {
    let runs = store.runs(Some(workflow_id)).await?;
    let wanted = |run: &RunChain| first_run_id.is_none_or(|first| run.first_run_id == first);
    let own = store.own_chain();
    let named = workflow_id == own.workflow_id;
    let found = runs.iter().map(|summary| summary.run.clone()).find(wanted).or_else(|| named.then_some(own));
    if runs.len() > 1 && first_run_id.is_none() {
        output::note(format_args!(
            "{} runs used this workflow id; this is the newest. Others by --run-id:",
            runs.len()
        ));
        runs.iter()
            .skip(1)
            .for_each(|other| output::note(format_args!("  {}", render::escape_line(&other.run.first_run_id))));
    }
    found.with_context(|| format!("the store knows no run `{}`", render::escape_line(workflow_id)))
}

/// The records of a run, in order.
///
/// # Errors
/// When one cannot be read: `mandate audit verify` says more.
pub(super) async fn records(store: &Store, run: &RunChain) -> anyhow::Result<Vec<AuditRecord>> {
    let stored = store.records(run).await?;
    let read = |(index, stored): (usize, &mandate_domain::audit::verify::StoredRecord)| {
        serde_json::from_slice(&stored.canonical)
            .with_context(|| format!("record {} cannot be read; run `mandate audit verify`", index + 1))
    };
    stored.iter().enumerate().map(read).collect()
}

/// One record on one line: time, sequence, who, what and why.
pub(super) fn line(record: &AuditRecord) -> String {
    let millis = record.time_micros / 1000;
    let time = format!("{}.{:03}", render::utc(millis), millis % 1000);
    let text = format!("{time}  {:>3}  {:<24}  {}", record.sequence, who(record), what(&record.body));
    render::escape_line(&text)
}

/// Who acted: a person where one did, else the agent.
fn who(record: &AuditRecord) -> String {
    match &record.body {
        RecordBody::ApprovalDecided { by, proof, .. }
        | RecordBody::Instructed { by, proof, .. }
        | RecordBody::Resolved { by, proof, .. }
        | RecordBody::Halted { by, proof, .. }
        | RecordBody::BundleApplied { by, proof, .. }
        | RecordBody::Quarantined { by, proof, .. }
        | RecordBody::QuarantineLifted { by, proof, .. }
        | RecordBody::OperatorRefused { by, proof, .. } => format!("{by} ({proof})"),
        RecordBody::RunOpened { .. } => {
            let Who { agent, on_behalf_of, proof, .. } = &record.who;
            format!("{agent} for {on_behalf_of} ({proof})")
        }
        // The decision before it says how they were proved.
        RecordBody::CallRevised { by, .. } => by.to_string(),
        RecordBody::Decision { .. } => "policy".to_owned(),
        RecordBody::RunReconciled { .. } | RecordBody::StoreBehindRun { .. } => "reconciler".to_owned(),
        RecordBody::CallRefused { .. }
        | RecordBody::Intent { .. }
        | RecordBody::Outcome { .. }
        | RecordBody::LateOutcome { .. }
        | RecordBody::NotSent { .. }
        | RecordBody::OutcomeUnknown { .. }
        | RecordBody::ApprovalRequested { .. }
        | RecordBody::ApprovalExpired { .. }
        | RecordBody::ApprovalEscalated { .. }
        | RecordBody::QuestionAsked { .. }
        | RecordBody::QuestionExpired { .. }
        | RecordBody::CallAbandoned { .. }
        | RecordBody::MessagesRefused { .. }
        | RecordBody::Intrusion { .. }
        | RecordBody::RunReset { .. }
        | RecordBody::RunClosed { .. } => record.who.agent.to_string(),
    }
}

fn what(body: &RecordBody) -> String {
    match body {
        RecordBody::RunOpened { prompt, model, bundle, started_by, started_by_proof, .. } => {
            let proof = started_by_proof.unwrap_or(Proof::Claimed);
            let starter =
                started_by.as_ref().map_or(String::new(), |person| format!(", started by {person} ({proof})"));
            let (prompt, bundle) = (short(prompt.as_str()), short(bundle.as_str()));
            format!("run opened: prompt {prompt}, model {model}, policies {bundle}{starter}")
        }
        RecordBody::Decision { effect, target, outcome, policies, reason, .. } => {
            format!("{effect} {target}: {}{}: {reason}", decided(*outcome), by(policies))
        }
        RecordBody::CallRefused { effect, target, reason, .. } => format!("{effect} {target}: refused: {reason}"),
        RecordBody::Intent { effect, target, input, epoch, approvals, .. } => {
            let released: Vec<_> = approvals.iter().map(|request| format!(", released by {request}")).collect();
            let released = released.concat();
            format!(
                "{effect} {target}: about to be performed, input {}, epoch {epoch}{released}",
                short(input.as_str())
            )
        }
        RecordBody::Outcome { effect, epoch, known_by, result, is_error, usage, duration_ms, classes, withheld } => {
            let kind = if *is_error { "error" } else { "result" };
            let (known, tokens) = (known(*known_by), tokens(usage.as_ref()));
            let seen = format!("{}{}", data(", shows", classes), data(", withholds", withheld));
            format!("{effect}: {kind} {}{known}, epoch {epoch}, {duration_ms} ms{tokens}{seen}", short(result.as_str()))
        }
        RecordBody::LateOutcome { effect, epoch, result, may_have_doubled } => {
            let doubled = if *may_have_doubled { ", MAY HAVE HAPPENED TWICE" } else { "" };
            format!("{effect}: late result {}, epoch {epoch}{doubled}", short(result.as_str()))
        }
        RecordBody::NotSent { effect, epoch, reason } => format!("{effect}: nothing was sent, epoch {epoch}: {reason}"),
        RecordBody::OutcomeUnknown { effect, reason } => format!("{effect}: OUTCOME UNKNOWN: {reason}"),
        RecordBody::ApprovalRequested { request, effect, input, gate, .. } => {
            let groups: Vec<_> = gate.approvers.iter().map(ToString::to_string).collect();
            let (id, groups, input) = (&gate.id, groups.join(", "), short(input.as_str()));
            format!("{effect}: request {request} to {groups}, input {input}, by {id}: {}", gate.reason)
        }
        RecordBody::ApprovalDecided { request, effect, verdict, refused, arguments, .. } => {
            let other =
                arguments.as_ref().map(|input| format!(" with other arguments, input {}", short(input.as_str())));
            let what = format!("request {request} {}{}", said(*verdict), other.unwrap_or_default());
            decision(*effect, &what, refused.as_deref())
        }
        RecordBody::ApprovalExpired { request, effect } => format!("{effect}: request {request} expired"),
        RecordBody::ApprovalEscalated { request, effect, to } => {
            let groups: Vec<_> = to.iter().map(ToString::to_string).collect();
            format!("{effect}: nobody decided about request {request} so far; {} may as well now", groups.join(", "))
        }
        RecordBody::CallRevised { effect, replaces, input, request, .. } => {
            format!("{effect}: takes the place of {replaces}, input {}, by request {request}", short(input.as_str()))
        }
        RecordBody::QuestionAsked { question, effect, input, expires_ms } => {
            let (input, until) = (short(input.as_str()), render::utc(*expires_ms));
            format!("{effect}: question {question} to people, input {input}, until {until}")
        }
        RecordBody::QuestionExpired { question, effect } => format!("{effect}: question {question} expired"),
        RecordBody::Instructed { instruction, about, text, refused, .. } => {
            let text = text.as_ref().map(|text| format!(", text {}", short(text.as_str()))).unwrap_or_default();
            counted(&format!("{}{text}", told(*instruction, about.as_deref())), refused.as_deref())
        }
        RecordBody::Resolved { effect, resolution, refused, .. } => {
            decision(*effect, resolved(*resolution), refused.as_deref())
        }
        RecordBody::CallAbandoned { effect, reason } => format!("{effect}: abandoned: {reason}"),
        RecordBody::MessagesRefused { count, last_reason } => {
            format!("{count} message(s) refused, last: {last_reason}")
        }
        RecordBody::Intrusion { what, reason } => format!("INTRUSION: {what}: {reason}"),
        RecordBody::Halted { comment, .. } => format!("halted the run{}", words(comment.as_deref())),
        RecordBody::BundleApplied { version, digest, previous, policies, rollback, .. } => {
            let verb = if *rollback { "rolled back to" } else { "applied" };
            let before = previous.as_ref().map_or("none", |previous| short(previous.as_str()));
            format!(
                "{verb} policies {}, version {version}, before {before}, permitted{}",
                short(digest.as_str()),
                by(policies)
            )
        }
        RecordBody::Quarantined { target, policies, reason, .. } => {
            format!("{target}: put into quarantine, permitted{}: {reason}", by(policies))
        }
        RecordBody::QuarantineLifted { target, policies, .. } => {
            format!("{target}: quarantine lifted, permitted{}", by(policies))
        }
        RecordBody::OperatorRefused { action, target, policies, reason, .. } => {
            format!("{target}: {action} refused{}: {reason}", by(policies))
        }
        RecordBody::RunReconciled { found, detail, .. } => reconciled(*found, detail),
        RecordBody::RunReset { run_id, original_run_id } => reset(run_id, original_run_id),
        RecordBody::StoreBehindRun { run, seen, found } => behind(run, seen.records, *found),
        RecordBody::RunClosed { state, reason, turns, usage, unknown_outcomes } => {
            let why = reason.map_or(String::new(), |reason| format!(" ({})", reason.as_str()));
            let open = unknown_outcomes.len();
            let unknown = if open == 0 { String::new() } else { format!(", {open} OUTCOME(S) UNKNOWN") };
            format!("run closed: {}{why}, {turns} turns{}{unknown}", state.as_str(), tokens(Some(usage)))
        }
    }
}

fn decision(effect: EffectId, what: &str, refused: Option<&str>) -> String {
    counted(&format!("{effect}: {what}"), refused)
}

fn counted(what: &str, refused: Option<&str>) -> String {
    match refused {
        Some(reason) => format!("{what}, which does not count: {reason}"),
        None => what.to_owned(),
    }
}

/// What a person told a run.
fn told(instruction: InstructionKind, about: Option<&str>) -> String {
    let about = about.unwrap_or_default();
    match instruction {
        InstructionKind::Answer => format!("answered question {about}"),
        InstructionKind::Steer => "told the agent something more".to_owned(),
        InstructionKind::Pause => "paused the run".to_owned(),
        InstructionKind::Resume => "let the run go on".to_owned(),
        // These two have records of their own.
        InstructionKind::Resolve => format!("said what became of {about}"),
        InstructionKind::Halt => "halted the run".to_owned(),
    }
}

fn decided(outcome: DecisionOutcome) -> &'static str {
    match outcome {
        DecisionOutcome::Allow => "allowed",
        DecisionOutcome::Deny => "denied",
        DecisionOutcome::RequireApproval => "people decide",
    }
}

fn said(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
    }
}

fn reconciled(found: FoundEnd, detail: &str) -> String {
    format!("found {} by Temporal and not closed: {detail}", found.as_str())
}

fn reset(run_id: &str, original_run_id: &str) -> String {
    format!("reset from outside: execution {run_id} carries on execution {original_run_id}")
}

fn behind(run: &RunChain, seen: u64, found: u64) -> String {
    format!("store_behind_run: the history of `{run}` has seen {seen} records and this store has {found}")
}

fn resolved(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Happened => "said to have happened",
        Resolution::DidNotHappen => "said not to have happened",
        Resolution::Skip => "skipped, unknown for good",
    }
}

fn known(known_by: KnownBy) -> &'static str {
    match known_by {
        KnownBy::Answer => "",
        KnownBy::Check => ", known by its check tool",
        KnownBy::Person => ", known by a person",
    }
}

/// Which policies said so. Where none did, the reason tells: nothing permits it, or a quarantine.
fn by(policies: &[PolicyId]) -> String {
    if policies.is_empty() {
        return String::new();
    }
    format!(" by {}", policies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn tokens(usage: Option<&Usage>) -> String {
    usage.map_or(String::new(), |usage| format!(", {} tokens in, {} out", usage.input_tokens, usage.output_tokens))
}

fn words(comment: Option<&str>) -> String {
    comment.map_or(String::new(), |comment| format!(": {comment}"))
}

fn data(word: &str, classes: &[DataClass]) -> String {
    if classes.is_empty() {
        return String::new();
    }
    format!("{word} {}", classes.iter().map(DataClass::as_str).collect::<Vec<_>>().join(", "))
}

fn short(digest: &str) -> &str {
    digest.get(..DIGEST_SHOWN).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &serde_json::Value, expected: &str) {
        let record = serde_json::from_value(serde_json::json!({
            "v": 1, "run": { "workflow_id": "refund-o1", "first_run_id": "run-1" }, "sequence": 7,
            "previous": "0".repeat(64), "time_micros": 1_795_254_720_123_456_u64, "key": "k",
            "who": { "agent": "acme/support/refunds", "agent_version": "1".repeat(64), "on_behalf_of": "ana@acme.example",
                     "proof": "claimed" },
            "origin": { "run_id": "run-1", "activity_id": "1", "attempt": 1, "worker": "w" }, "body": body,
        }));
        assert_eq!(line(&record.unwrap()), format!("2026-11-21 09:52:00.123    7  {expected}"));
    }

    #[test]
    fn each_record_is_one_line_with_who_what_and_why() {
        let input = "ab".repeat(32);
        check(
            &serde_json::json!({ "kind": "decision", "effect": "t2.0", "target": "payments.refund", "input": input,
                "outcome": "require_approval", "policies": ["refund.large"], "bundle": "2".repeat(64), "reason": "large" }),
            "policy                    t2.0 payments.refund: people decide by refund.large: large",
        );
        check(
            &serde_json::json!({ "kind": "decision", "effect": "m3", "target": "support", "input": input,
                "outcome": "deny", "policies": [], "bundle": "2".repeat(64), "reason": "`model:support` is in quarantine" }),
            "policy                    m3 support: denied: `model:support` is in quarantine",
        );
        check(
            &serde_json::json!({ "kind": "intent", "effect": "t2.0", "target": "payments.refund", "input": input,
                "epoch": 1, "approvals": ["r1-7f3a9c"] }),
            "acme/support/refunds      t2.0 payments.refund: about to be performed, input abababababab, epoch 1, \
             released by r1-7f3a9c",
        );
        check(
            &serde_json::json!({ "kind": "outcome", "effect": "m1", "epoch": 1, "known_by": "answer", "result": input,
                "is_error": false, "usage": { "input_tokens": 3, "output_tokens": 4 }, "duration_ms": 12 }),
            "acme/support/refunds      m1: result abababababab, epoch 1, 12 ms, 3 tokens in, 4 out",
        );
        check(
            &serde_json::json!({ "kind": "approval_decided", "request": "r1-7f3a9c", "effect": "t2.0",
                "verdict": "approve", "by": "eve@acme.example", "proof": "claimed", "refused": "not an approver" }),
            "eve@acme.example (claimed)  t2.0: request r1-7f3a9c approved, which does not count: not an approver",
        );
    }

    #[test]
    fn what_people_say_to_a_run_is_one_line_with_how_they_were_proved() {
        let input = "ab".repeat(32);
        check(
            &serde_json::json!({ "kind": "approval_decided", "request": "r1-7f3a9c", "effect": "t2.0", "verdict": "approve",
                "by": "bo@acme.example", "proof": "key", "evidence": "key 0a signature", "arguments": input }),
            "bo@acme.example (key)     t2.0: request r1-7f3a9c approved with other arguments, input abababababab",
        );
        check(
            &serde_json::json!({ "kind": "call_revised", "effect": "t2.0r2", "replaces": "t2.0", "input": input,
                "request": "r1-7f3a9c", "by": "bo@acme.example" }),
            "bo@acme.example           t2.0r2: takes the place of t2.0, input abababababab, by request r1-7f3a9c",
        );
        check(
            &serde_json::json!({ "kind": "approval_escalated", "effect": "t2.0", "request": "r1-7f3a9c", "to": ["board"] }),
            "acme/support/refunds      t2.0: nobody decided about request r1-7f3a9c so far; board may as well now",
        );
        check(
            &serde_json::json!({ "kind": "question_asked", "question": "q1-7f3a9c", "effect": "t2.1", "input": input,
                "expires_ms": 1_795_254_720_000_u64 }),
            "acme/support/refunds      t2.1: question q1-7f3a9c to people, input abababababab, until 2026-11-21 09:52:00",
        );
        check(
            &serde_json::json!({ "kind": "question_expired", "question": "q1-7f3a9c", "effect": "t2.1" }),
            "acme/support/refunds      t2.1: question q1-7f3a9c expired",
        );
        check(
            &serde_json::json!({ "kind": "instructed", "instruction": "answer", "about": "q1-7f3a9c", "text": input,
                "by": "bo@acme.example", "proof": "jwt" }),
            "bo@acme.example (jwt)     answered question q1-7f3a9c, text abababababab",
        );
        check(
            &serde_json::json!({ "kind": "instructed", "instruction": "pause", "by": "eve@acme.example",
                "proof": "principal", "refused": "nobody may" }),
            "eve@acme.example (principal)  paused the run, which does not count: nobody may",
        );
    }

    #[test]
    fn each_operator_act_is_one_line() {
        let by = "olga@acme.example (claimed)  ";
        let target = serde_json::json!({ "kind": "tool", "name": "payments.refund" });
        let check = |body: serde_json::Value, expected: &str| check(&body, &format!("{by}{expected}"));
        check(
            serde_json::json!({ "kind": "bundle_applied", "version": 2, "digest": "2".repeat(64),
                "previous": "1".repeat(64), "by": "olga@acme.example", "proof": "claimed",
                "policies": ["operators.apply"], "rollback": false }),
            "applied policies 222222222222, version 2, before 111111111111, permitted by operators.apply",
        );
        check(
            serde_json::json!({ "kind": "bundle_applied", "version": 1, "digest": "2".repeat(64),
                "by": "olga@acme.example", "proof": "claimed", "policies": [], "rollback": true }),
            "rolled back to policies 222222222222, version 1, before none, permitted",
        );
        check(
            serde_json::json!({ "kind": "quarantined", "target": target, "by": "olga@acme.example", "proof": "claimed",
                "policies": ["operators.stop"], "reason": "leak" }),
            "tool:payments.refund: put into quarantine, permitted by operators.stop: leak",
        );
        check(
            serde_json::json!({ "kind": "quarantine_lifted", "target": target, "by": "olga@acme.example",
                "proof": "claimed", "policies": ["operators.stop"] }),
            "tool:payments.refund: quarantine lifted, permitted by operators.stop",
        );
        check(
            serde_json::json!({ "kind": "operator_refused", "action": "lift", "target": "tool:payments.refund",
                "by": "olga@acme.example", "proof": "claimed", "policies": [], "reason": "nobody may" }),
            "tool:payments.refund: lift refused: nobody may",
        );
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        check(
            &serde_json::json!({ "kind": "messages_refused", "count": 2, "last_reason": "a\nb\u{1b}[2J" }),
            "acme/support/refunds      2 message(s) refused, last: a\\nb\\u{1b}[2J",
        );
    }
}
