//! What people tell a run from the command line, and what came of it.
//!
//! An instruction carries a message id that nobody has used before, so that its signature or token is good for this one
//! message, and the run keeps what came of it under that id: a signal has no answer of its own. Only the answer to a
//! question can go as an update, which has one.

use std::time::Duration;

use anyhow::Context as _;
use mandate_domain::{Instruction, RunChain, RunState, Statement, agent_run::Answer, proof::InstructionSaid, render};
use mandate_workflows::snapshot::Status;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{
    ask,
    sender::{self, Sender},
};
use crate::{
    cli::{Global, SenderOptions},
    connection::{self, Handle, Temporal},
    output::{self, Exit, Refused},
};

/// How often the run is asked.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// How long the run may take to review what a person says.
pub(super) const TAKEN_WITHIN: Duration = Duration::from_mins(1);
/// What a person reads who asks too early.
pub(super) const NOT_BEGUN: &str = "the run has not begun: its worker has not opened it yet";
/// The states in which nothing is taken any more.
const ENDED: [RunState; 4] = [RunState::Completed, RunState::Stopped, RunState::Failed, RunState::Cancelled];

/// A run, and where it stood before anything was said.
pub(super) struct Conversation {
    temporal: Temporal,
    handle: Handle,
    pub(super) status: Status,
}

impl Conversation {
    /// Asks the run where it stands.
    ///
    /// # Errors
    /// When there is no such run, no worker answers, or it has not begun.
    pub(super) async fn with(global: &Global, workflow_id: &str) -> anyhow::Result<Self> {
        let temporal = connection::connect(global).await?;
        let handle = temporal.handle(workflow_id);
        let status = temporal.status(&handle).await?.context(NOT_BEGUN)?;
        Ok(Self { temporal, handle, status })
    }

    /// Who is going to say something, if the run accepts it.
    ///
    /// # Errors
    /// As [`Sender::new`].
    pub(super) fn sender(&self, options: SenderOptions) -> anyhow::Result<Sender> {
        Sender::new(options, &self.status.accepts)
    }

    /// Asks the person, if there is a question, sends the instruction, and prints what came of it.
    ///
    /// # Errors
    /// [`Refused`] when it does not count; [`output::UsageError`] without a terminal to ask on.
    pub(super) async fn tell(
        &self,
        sender: &Sender,
        instruction: &Instruction,
        asked: Option<&str>,
    ) -> anyhow::Result<Exit> {
        let message_id = sender::message_id()?;
        let ready = sender.ready(|| self.statement(&message_id, instruction))?;
        if let Some(question) = asked
            && !ask::confirm(question)?
        {
            return Ok(ask::nothing_was_sent());
        }
        let message = ready.message(fields(instruction, &message_id)).await?;
        let by_update = matches!(instruction, Instruction::Answer { .. }) && !sender.is_known_by_the_server();
        let answer = if by_update {
            self.temporal.update(&self.handle, "answer_question", &message).await?
        } else {
            self.temporal.signal(&self.handle, instruction.kind().as_str(), &message).await?;
            self.answer(&message_id).await?
        };
        said(answer)
    }

    fn statement(&self, message_id: &str, instruction: &Instruction) -> anyhow::Result<Statement> {
        let first_run_id = self.status.first_run_id.clone();
        let first_run_id = first_run_id.context("the run is not open yet, and a proof has to name it; try again")?;
        let run = RunChain { workflow_id: self.handle.info().workflow_id.clone(), first_run_id };
        let about = instruction.about();
        let (kind, text) = (instruction.kind(), instruction.text());
        Ok(Statement::instruction(&InstructionSaid { run: &run, message_id, kind, about: about.as_deref(), text })?)
    }

    async fn answer(&self, message_id: &str) -> anyhow::Result<Answer> {
        let answer = until(TAKEN_WITHIN, async || {
            let status = self.temporal.status(&self.handle).await?;
            Ok(status.and_then(|status| seen(&status, message_id)))
        });
        answer.await?.with_context(not_taken)
    }
}

/// What is said to a run that does not answer in time.
pub(super) fn not_taken() -> String {
    format!("the run did not take it within {TAKEN_WITHIN:?}; ask `mandate status`")
}

/// Looks again and again, over lost answers, until something is found or the time is over.
///
/// # Errors
/// The last one, if the last look had no answer.
pub(super) async fn until<T>(
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let deadline = Instant::now() + within;
    loop {
        let looked = look().await;
        if matches!(looked, Ok(Some(_))) || Instant::now() >= deadline {
            return looked;
        }
        sleep(POLL_EVERY).await;
    }
}

/// The instruction's own part of the message.
fn fields(instruction: &Instruction, message_id: &str) -> Map<String, Value> {
    let fields = match instruction {
        Instruction::Answer { question, text } => json!({ "question_id": question, "text": text }),
        Instruction::Resolve { call, resolution } => json!({ "call": call, "resolution": resolution }),
        Instruction::Steer { text } => json!({ "text": text }),
        Instruction::Pause | Instruction::Resume => json!({}),
    };
    let mut fields = fields.as_object().cloned().unwrap_or_default();
    fields.insert("message_id".to_owned(), message_id.into());
    fields
}

/// What came of a message, if anything did.
fn seen(status: &Status, message_id: &str) -> Option<Answer> {
    let kept = status.answers.iter().find(|kept| kept.message_id == message_id);
    kept.map(|kept| kept.answer.clone()).or_else(|| has_ended(status).then(too_late))
}

/// Whether nothing is taken any more.
pub(super) fn has_ended(status: &Status) -> bool {
    ENDED.iter().any(|state| state.as_str() == status.state)
}

fn too_late() -> Answer {
    Answer::Refused { reason: "the run has ended".to_owned() }
}

/// Prints what came of a message, and says how the program ends.
///
/// # Errors
/// [`Refused`] when it does not count.
pub(super) fn said(answer: Answer) -> anyhow::Result<Exit> {
    match answer {
        Answer::Accepted { detail } => {
            output::data(render::escape_line(&detail))?;
            Ok(Exit::Done)
        }
        Answer::AlreadyDecided => Err(Refused("it was decided before; nothing changed".to_owned()).into()),
        Answer::Refused { reason } => Err(Refused(render::escape_line(&reason)).into()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mandate_domain::Resolution;
    use mandate_workflows::lenient::Lenient;

    use super::*;

    pub(in crate::commands) fn status(more: &Value) -> Status {
        let mut status = json!({
            "state": "Running", "agent": "a/b/c", "turn": 1, "tool_calls": 1, "audit_records": 1, "waiting": [],
            "usage": { "input_tokens": 0, "output_tokens": 0 }, "unknown_outcomes": [], "refused_messages": 0,
        });
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn the_run_reads_what_is_sent_as_it_was_meant() {
        let sent = |instruction: &Instruction| {
            let text = Value::Object(fields(instruction, "m1")).to_string();
            let read = Lenient::json(text.into_bytes());
            let read = match instruction {
                Instruction::Answer { .. } => read.answer(),
                Instruction::Resolve { .. } => read.resolution(),
                Instruction::Steer { .. } => read.steer(),
                Instruction::Pause | Instruction::Resume => read.plain(instruction.clone()),
            };
            let read = read.unwrap();
            assert_eq!((&read.instruction, read.sender.message_id.as_deref()), (instruction, Some("m1")));
        };
        sent(&Instruction::Answer { question: "q1-7f3a9c".parse().unwrap(), text: "yes".into() });
        sent(&Instruction::Resolve { call: "t2.0r2".parse().unwrap(), resolution: Resolution::DidNotHappen });
        sent(&Instruction::Steer { text: "use order o2".into() });
        sent(&Instruction::Pause);
        sent(&Instruction::Resume);
    }

    #[test]
    fn an_answer_is_found_by_the_id_of_its_message() {
        let refused = json!({ "message_id": "m1", "answer": "refused", "reason": "not yours" });
        let taken = json!({ "message_id": "m2", "answer": "accepted", "detail": "the run goes on" });
        let status = status(&json!({ "answers": [refused, taken] }));
        assert_eq!(seen(&status, "m1"), Some(Answer::Refused { reason: "not yours".into() }));
        assert_eq!(seen(&status, "m2"), Some(Answer::Accepted { detail: "the run goes on".into() }));
        assert_eq!(seen(&status, "m3"), None);
    }

    #[test]
    fn a_run_that_has_ended_takes_nothing() {
        assert_eq!(seen(&status(&json!({ "state": "Stopped" })), "m1"), Some(too_late()));
        assert_eq!(seen(&status(&json!({ "state": "Paused" })), "m1"), None);
    }

    #[test]
    fn what_does_not_count_is_a_refusal() {
        assert_eq!(said(Answer::Accepted { detail: "x".into() }).unwrap(), Exit::Done);
        for answer in [Answer::AlreadyDecided, Answer::Refused { reason: "no".into() }] {
            assert!(said(answer).unwrap_err().is::<Refused>());
        }
    }

    #[tokio::test]
    async fn a_lost_answer_is_asked_for_again() {
        let mut looks = 0;
        let found = until(Duration::from_secs(9), async || {
            looks += 1;
            match looks {
                1 => anyhow::bail!("lost"),
                2 => Ok(None),
                _ => Ok(Some(looks)),
            }
        });
        assert_eq!(found.await.unwrap(), Some(3));
        assert_eq!(until(Duration::ZERO, async || Ok(None::<u32>)).await.unwrap(), None);
        let lost = until(Duration::ZERO, async || anyhow::bail!("lost")).await;
        assert_eq!(lost.map(|_: Option<u32>| ()).unwrap_err().to_string(), "lost");
    }
}
