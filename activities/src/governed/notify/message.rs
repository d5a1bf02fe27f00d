//! What a message says: which run waits for whom, until when, and the commands to decide.
//!
//! The message leaves the house, and whoever reads a channel reads it. So it holds no arguments, no question, and no
//! person: those stand on the card of the request, which Temporal shows to whom it lets in. The keyed digest of the
//! arguments tells nobody what they are.

use mandate_domain::{Address, AgentName, Proof, RunChain, ToolDefinition, audit::NoticeKind, render};
use serde::Serialize;

use super::super::Admitted;
use crate::{
    store::{QuestionRow, RequestRow},
    webhook::{Message, MessageTooLarge},
};

/// Longest reason of a gate, in characters.
const REASON_CHARS_MAX: usize = 500;
/// Most groups that are named.
const GROUPS_MAX: usize = 32;
/// Longest command, in characters. Only a workflow id full of quotes makes a longer one, and half a command is none.
const COMMAND_CHARS_MAX: usize = 4000;

/// What every message of a run names.
pub(super) struct Run<'a> {
    chain: &'a RunChain,
    agent: &'a AgentName,
    /// How people may show who they are.
    accepts: &'a [Proof],
    tool: Option<&'a str>,
}

impl<'a> Run<'a> {
    pub(super) fn of(run: &'a Admitted, tool: Option<&'a ToolDefinition>) -> Self {
        Self {
            chain: &run.chain,
            agent: &run.row.agent,
            accepts: &run.row.opened.accepts,
            tool: tool.map(|tool| tool.name.as_str()),
        }
    }

    fn data(&self) -> Data<'a> {
        Data {
            workflow_id: &self.chain.workflow_id,
            first_run_id: &self.chain.first_run_id,
            agent: self.agent.as_str(),
            request_id: None,
            question_id: None,
            call: String::new(),
            tool: self.tool,
            gate: None,
            reason: None,
            approver_groups: Vec::new(),
            arguments_digest: "",
            expires_at: None,
            commands: Vec::new(),
        }
    }
}

/// The `data` of a message. A field that says nothing is left out.
#[derive(Serialize)]
struct Data<'a> {
    workflow_id: &'a str,
    first_run_id: &'a str,
    agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question_id: Option<&'a str>,
    call: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approver_groups: Vec<String>,
    arguments_digest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<String>,
}

impl Data<'_> {
    /// Without the commands where there is no room for them: a workflow id that is made for that keeps nobody from being
    /// told.
    fn message(&self, event: &str, at: jiff::Timestamp) -> Result<Message, MessageTooLarge> {
        // Texts and times can always be written.
        let mut data = serde_json::to_value(self).unwrap_or_default();
        Message::new(event, at, &data).or_else(|_| {
            if let Some(data) = data.as_object_mut() {
                data.remove("commands");
            }
            Message::new(event, at, &data)
        })
    }
}

/// The message about a request.
pub(super) fn of_request(
    run: &Run<'_>,
    row: &RequestRow,
    kind: NoticeKind,
    at: jiff::Timestamp,
) -> Result<Message, MessageTooLarge> {
    let groups = row.gate.deciders(row.escalated);
    let commands = render::decide_commands(&run.chain.workflow_id, row.id.as_str(), run.accepts);
    let data = Data {
        request_id: Some(row.id.as_str()),
        call: row.call.to_string(),
        gate: Some(row.gate.id.as_str()),
        reason: Some(render::escape_line(&row.gate.reason).chars().take(REASON_CHARS_MAX).collect()),
        approver_groups: groups.iter().take(GROUPS_MAX).map(ToString::to_string).collect(),
        arguments_digest: row.arguments.as_str(),
        expires_at: row.expires_ms.and_then(time),
        commands: while_it_waits(kind, &commands),
        ..run.data()
    };
    data.message(&format!("mandate.request.{}", kind.as_str()), at)
}

/// The message about a question.
pub(super) fn of_question(
    run: &Run<'_>,
    row: &QuestionRow,
    input: &Address,
    kind: NoticeKind,
    at: jiff::Timestamp,
) -> Result<Message, MessageTooLarge> {
    let command = render::answer_command(&run.chain.workflow_id, row.id.as_str(), run.accepts);
    let data = Data {
        question_id: Some(row.id.as_str()),
        call: row.call.to_string(),
        arguments_digest: input.as_str(),
        expires_at: time(row.expires_ms),
        commands: while_it_waits(kind, &[command]),
        ..run.data()
    };
    data.message(&format!("mandate.question.{}", kind.as_str()), at)
}

/// The commands as a card shows them; none where there is nothing left to decide.
fn while_it_waits(kind: NoticeKind, commands: &[String]) -> Vec<String> {
    let waits = match kind {
        NoticeKind::Asked | NoticeKind::Reminder | NoticeKind::Escalated => true,
        NoticeKind::Expired => false,
    };
    let whole = commands.iter().all(|command| command.chars().count() <= COMMAND_CHARS_MAX);
    commands.iter().filter(|_| waits && whole).map(|command| render::escape_line(command)).collect()
}

fn time(ms: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::standing::tests::{question, request},
        *,
    };
    use crate::{
        store::{QuestionState, RequestState},
        webhook::BODY_BYTES_MAX,
    };

    fn at() -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(1_795_254_720_123_456).unwrap()
    }

    fn with_run<T>(workflow_id: &str, make: impl FnOnce(&Run<'_>) -> T) -> T {
        let chain = RunChain { workflow_id: workflow_id.to_owned(), first_run_id: "run-1".to_owned() };
        let agent = "acme/support/refunds".parse().unwrap();
        make(&Run { chain: &chain, agent: &agent, accepts: &[Proof::Claimed], tool: Some("payments.refund") })
    }

    fn asked(workflow_id: &str, kind: NoticeKind, escalated: bool) -> Value {
        let row = request(RequestState::Open, escalated);
        let message = with_run(workflow_id, |run| of_request(run, &row, kind, at()).unwrap());
        serde_json::from_str(message.body()).unwrap()
    }

    #[test]
    fn a_request_is_told_with_who_decides_until_when_and_how() {
        let said = asked("refund-o1", NoticeKind::Asked, false);
        let command = |verb: &str| {
            format!(
                "temporal workflow signal --workflow-id refund-o1 --name {verb} --input \
                 '{{\"request_id\":\"r1-7f3a9c\",\"by\":\"YOUR-ID\"}}'"
            )
        };
        let expected = json!({
            "type": "mandate.request.asked",
            "timestamp": "2026-11-21T09:52:00.123456Z",
            "data": {
                "workflow_id": "refund-o1",
                "first_run_id": "run-1",
                "agent": "acme/support/refunds",
                "request_id": "r1-7f3a9c",
                "call": "t1.0",
                "tool": "payments.refund",
                "gate": "refund.large",
                "reason": "refunds above 100 EUR need a finance lead",
                "approver_groups": ["finance-leads"],
                "arguments_digest": "07".repeat(32),
                "expires_at": "2026-11-21T09:52:00Z",
                "commands": [command("approve"), command("reject")],
            },
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn from_the_escalation_on_its_groups_are_named_and_at_the_end_no_command() {
        let said = asked("refund-o1", NoticeKind::Escalated, true);
        assert_eq!(said["data"]["approver_groups"], json!(["finance-leads", "board"]));
        let said = asked("refund-o1", NoticeKind::Expired, true);
        assert_eq!((&said["type"], said["data"].get("commands")), (&json!("mandate.request.expired"), None));
    }

    #[test]
    fn a_question_is_told_without_what_is_asked() {
        let (row, input) = (question(QuestionState::Open), Address::from_bytes([7; 32]));
        let message = with_run("refund-o1", |run| of_question(run, &row, &input, NoticeKind::Asked, at()).unwrap());
        let said: Value = serde_json::from_str(message.body()).unwrap();
        assert_eq!(
            (&said["type"], &said["data"]["question_id"]),
            (&"mandate.question.asked".into(), &"q1-7f3a9c".into())
        );
        assert!(said["data"]["commands"][0].as_str().unwrap().contains("--name answer"), "{said}");
        assert!(!message.body().contains("Refund him"), "{said}");
    }

    #[test]
    fn no_workflow_id_keeps_people_from_being_told() {
        // The longest that Temporal takes, and what grows most on its way into a command and into JSON.
        for worst in ["'", "\\", "\u{1b}", "\"", "a"] {
            let id = worst.repeat(1000);
            let said = asked(&id, NoticeKind::Asked, true);
            assert_eq!(said["data"]["workflow_id"], id, "{worst:?}");
            assert!(said.to_string().len() <= BODY_BYTES_MAX);
            for command in said["data"]["commands"].as_array().into_iter().flatten() {
                assert!(!command.as_str().unwrap().ends_with('…'), "{command}");
            }
        }
        assert_eq!(asked(&"a".repeat(1000), NoticeKind::Asked, true)["data"]["commands"].as_array().unwrap().len(), 2);
    }
}
