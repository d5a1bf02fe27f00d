//! Questions of the agent that wait for a person's answer. A question is a call like any other: it waits, and it ends
//! with one result, the answer.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{AgentRun, CallState, Command, Timer, Word};
use crate::{
    QuestionId, ToolCallId,
    audit::{NoticeId, NoticeKind},
    instruction::Question,
};

/// How many ended questions a run remembers, to answer late answers.
const ENDED_MAX: usize = 64;

/// A question that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingQuestion {
    /// What is asked.
    pub question: Question,
    /// Its time is over, and an answer that came in time may still be reviewed.
    overdue: bool,
}

/// All questions of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Questions {
    waiting: Vec<WaitingQuestion>,
    ended: VecDeque<QuestionId>,
}

/// Whether a question can be answered.
pub(super) enum Answerable {
    Waits,
    Ended,
    Unknown,
}

impl Questions {
    pub(super) fn waiting(&self) -> impl Iterator<Item = &WaitingQuestion> {
        self.waiting.iter()
    }

    pub(super) fn answerable(&self, id: &QuestionId) -> Answerable {
        if self.waiting.iter().any(|waiting| waiting.question.id == *id) {
            Answerable::Waits
        } else if self.ended.contains(id) {
            Answerable::Ended
        } else {
            Answerable::Unknown
        }
    }

    pub(super) fn call_of(&self, id: &QuestionId) -> Option<ToolCallId> {
        self.waiting.iter().find(|waiting| waiting.question.id == *id).map(|waiting| waiting.question.call)
    }

    /// Timers of the waiting questions, for a new execution.
    pub(super) fn timers(&self) -> Vec<Command> {
        let waiting = self.waiting.iter().filter(|waiting| !waiting.overdue);
        waiting.map(|waiting| start_timer(&waiting.question)).collect()
    }

    /// Ends a question.
    pub(super) fn end(&mut self, id: &QuestionId, commands: &mut Vec<Command>) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.question.id == *id) else { return };
        if !self.waiting.remove(at).overdue {
            commands.push(Command::CancelTimer { timer: Timer::Question(id.clone()) });
        }
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(id.clone());
    }

    /// Ends all that wait, because the run ends.
    pub(super) fn withdraw(&mut self, commands: &mut Vec<Command>) {
        for id in self.waiting.iter().map(|waiting| waiting.question.id.clone()).collect::<Vec<_>>() {
            self.end(&id, commands);
        }
    }
}

fn start_timer(question: &Question) -> Command {
    Command::StartTimer { timer: Timer::Question(question.id.clone()), at_ms: question.expires_ms }
}

impl AgentRun {
    /// A call asks people something: it waits for the answer.
    pub(super) fn ask_people(&mut self, call: ToolCallId, question: &Question, commands: &mut Vec<Command>) {
        self.set_call(call, CallState::Asked);
        commands.push(start_timer(question));
        self.questions.waiting.push(WaitingQuestion { question: question.clone(), overdue: false });
        self.notify_of(question.id.as_str(), NoticeKind::Asked, commands);
    }

    /// The time of a question is over. Answers that came in before are reviewed first.
    pub(super) fn question_overdue(&mut self, id: &QuestionId) {
        let waiting = self.questions.waiting.iter_mut().find(|waiting| waiting.question.id == *id);
        let Some(waiting) = waiting.filter(|waiting| !waiting.overdue) else { return };
        waiting.overdue = true;
        let ticket = self.ticket();
        self.instructions.push(ticket, Word::Expiry { question: id.clone() });
    }

    pub(super) fn notify_of(&mut self, id: &str, kind: NoticeKind, commands: &mut Vec<Command>) {
        if let Some(notice) = NoticeId::of(id, kind) {
            self.notify(notice, commands);
        }
    }
}
