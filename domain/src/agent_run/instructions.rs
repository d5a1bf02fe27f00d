//! What people tell a run: answers, words on lost calls, further instructions, pause and resume. Each is reviewed by an
//! activity, one after the other in the order in which they came, so that a pause and the resume behind it mean what
//! was meant.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    AgentRun, Answer, CallState, Command, Failure, Phase, Stop, Ticket, UnexpectedEvent, Word, call::settled,
    questions::Answerable,
};
use crate::{
    Address, QuestionId, ToolCallId, ToolCallOutcome,
    approval::Arrival,
    audit::NoticeKind,
    instruction::{Instruction, InstructionReview, SentInstruction},
};

/// How many instructions may wait for their review at once; those above are refused.
const QUEUE_MAX: usize = 32;
/// How many instructions may wait for the model's next turn; those above are refused.
const UNDELIVERED_MAX: usize = 16;
/// How many instructions of one run are reviewed; those above are counted only.
const REVIEWS_MAX: u32 = 1000;

/// All instructions of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instructions {
    queue: VecDeque<Queued>,
    reviewing: Option<Queued>,
    /// What the model reads at its next turn.
    undelivered: Vec<Address>,
    reviews: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Queued {
    ticket: Ticket,
    word: Word,
}

impl Queued {
    fn instruction(&self) -> Option<&Instruction> {
        match &self.word {
            Word::Sent { sent, .. } => Some(&sent.instruction),
            Word::Expiry { .. } => None,
        }
    }
}

impl Instructions {
    /// Whether a review is under way or waits.
    pub(super) fn reviewing(&self) -> bool {
        self.reviewing.is_some() || !self.queue.is_empty()
    }

    /// Whether an activity is under way.
    pub(super) fn under_way(&self) -> bool {
        self.reviewing.is_some()
    }

    pub(super) fn push(&mut self, ticket: Ticket, word: Word) {
        self.queue.push_back(Queued { ticket, word });
    }

    pub(super) fn has_undelivered(&self) -> bool {
        !self.undelivered.is_empty()
    }

    /// Whether something may still reach the model, so that a final answer is not final yet.
    pub(super) fn may_reach_the_model(&self) -> bool {
        let steers = |queued: &Queued| matches!(queued.instruction(), Some(Instruction::Steer { .. }));
        self.has_undelivered() || self.queue.iter().chain(&self.reviewing).any(steers)
    }

    pub(super) fn take_undelivered(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.undelivered)
    }

    /// Gives up all that waits, because the run ends. A review under way comes back on its own.
    pub(super) fn withdraw(&mut self) -> Vec<Ticket> {
        self.undelivered.clear();
        let sent = |queued: &Queued| queued.instruction().is_some();
        self.queue.drain(..).filter(sent).map(|queued| queued.ticket).collect()
    }

    fn waits_to_say(&self, call: ToolCallId) -> bool {
        let says = |queued: &Queued| matches!(queued.instruction(), Some(Instruction::Resolve { call: of, .. }) if *of == call);
        self.queue.iter().chain(&self.reviewing).any(says)
    }

    /// Whether the run will be paused when all that waits counts.
    fn paused_in_the_end(&self, paused: bool) -> bool {
        self.reviewing.iter().chain(&self.queue).fold(paused, |paused, queued| match queued.instruction() {
            Some(Instruction::Pause) => true,
            Some(Instruction::Resume) => false,
            Some(Instruction::Answer { .. } | Instruction::Resolve { .. } | Instruction::Steer { .. }) | None => paused,
        })
    }
}

impl AgentRun {
    pub(super) fn instruction_received(
        &mut self,
        ticket: Ticket,
        sent: SentInstruction,
        arrival: Arrival,
        commands: &mut Vec<Command>,
    ) {
        match self.fits(&sent.instruction) {
            Ok(()) => {
                self.instructions.reviews += 1;
                self.instructions.push(ticket, Word::Sent { sent, arrival });
                self.pump_instructions(commands);
            }
            Err(Answer::Refused { reason }) => {
                self.refuse_message(reason.clone());
                commands.push(Command::Reply { ticket, answer: Answer::Refused { reason } });
            }
            Err(answer @ (Answer::AlreadyDecided | Answer::Accepted { .. })) => {
                self.refuse_message("the question was answered before".to_owned());
                commands.push(Command::Reply { ticket, answer });
            }
        }
    }

    /// Whether an instruction is about something that waits for it.
    fn fits(&self, instruction: &Instruction) -> Result<(), Answer> {
        let refused = |reason: String| Err(Answer::Refused { reason });
        if !matches!(self.phase, Phase::Opening | Phase::Thinking | Phase::Acting | Phase::Resting) {
            return refused("the run is ending".to_owned());
        }
        if self.instructions.queue.len() >= QUEUE_MAX || self.instructions.reviews >= REVIEWS_MAX {
            return refused("too many instructions; send this one again later".to_owned());
        }
        let paused = self.instructions.paused_in_the_end(self.paused);
        match instruction {
            Instruction::Answer { question, .. } => match self.questions.answerable(question) {
                Answerable::Waits => Ok(()),
                Answerable::Ended => Err(Answer::AlreadyDecided),
                Answerable::Unknown => refused(format!("no question `{question}` waits in this run")),
            },
            Instruction::Resolve { call, .. } => {
                let unknown = |one: &&super::Call| one.id == *call && matches!(one.state, CallState::Unknown { .. });
                if self.calls.iter().any(|one| unknown(&one)) && !self.instructions.waits_to_say(*call) {
                    return Ok(());
                }
                refused(format!("call `{call}` does not wait for a person's word on its outcome"))
            }
            Instruction::Steer { .. } if self.instructions.undelivered.len() >= UNDELIVERED_MAX => {
                refused("too many instructions wait for the agent's next turn".to_owned())
            }
            Instruction::Pause if paused => refused("the run is paused already".to_owned()),
            Instruction::Resume if !paused => refused("the run is not paused".to_owned()),
            Instruction::Steer { .. } | Instruction::Pause | Instruction::Resume => Ok(()),
        }
    }

    /// Starts the next review, unless one is under way or the run has not begun.
    pub(super) fn pump_instructions(&mut self, commands: &mut Vec<Command>) {
        if self.instructions.under_way() || self.opened.is_none() {
            return;
        }
        if let Some(next) = self.instructions.queue.pop_front() {
            let (ticket, subject) = (next.ticket, next.word.clone());
            self.instructions.reviewing = Some(next);
            commands.push(Command::ReviewInstruction { ticket, subject });
        }
    }

    fn take_reviewing(&mut self, ticket: Ticket, event: &'static str) -> Result<Queued, UnexpectedEvent> {
        if self.instructions.reviewing.as_ref().is_none_or(|reviewing| reviewing.ticket != ticket) {
            return Err(self.unexpected(event));
        }
        self.instructions.reviewing.take().ok_or_else(|| self.unexpected(event))
    }

    pub(super) fn instruction_reviewed(
        &mut self,
        ticket: Ticket,
        review: InstructionReview,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let Queued { word, .. } = self.take_reviewing(ticket, "InstructionReviewed")?;
        match word {
            Word::Expiry { question } => self.question_expired(&question, review, commands),
            Word::Sent { sent, .. } => {
                let answer = self.taken(sent.instruction, review, commands);
                if let Answer::Refused { reason } = &answer {
                    self.show_refusal(reason);
                }
                commands.push(Command::Reply { ticket, answer });
            }
        }
        self.pump_instructions(commands);
        Ok(())
    }

    /// What an instruction changes once it was reviewed.
    fn taken(&mut self, instruction: Instruction, review: InstructionReview, commands: &mut Vec<Command>) -> Answer {
        match (instruction, review) {
            (_, InstructionReview::Refused { reason }) => Answer::Refused { reason },
            (Instruction::Resolve { call, .. }, InstructionReview::Settled { outcome, note }) => {
                self.end_by_word(call, outcome);
                Answer::Accepted { detail: note.unwrap_or_else(|| format!("`{call}` is resolved")) }
            }
            (Instruction::Answer { question, .. }, InstructionReview::Settled { outcome, note }) => {
                if let Some(call) = self.questions.call_of(&question) {
                    self.questions.end(&question, commands);
                    self.end_by_word(call, outcome);
                }
                Answer::Accepted { detail: note.unwrap_or_else(|| format!("`{question}` is answered")) }
            }
            (Instruction::Steer { .. }, InstructionReview::Taken { message }) => {
                self.instructions.undelivered.extend(message.map(|message| message.address));
                Answer::Accepted { detail: "the agent reads it at its next turn".to_owned() }
            }
            (Instruction::Pause, InstructionReview::Taken { .. }) => {
                self.paused = true;
                Answer::Accepted { detail: "the run is paused: nothing new begins".to_owned() }
            }
            (Instruction::Resume, InstructionReview::Taken { .. }) => {
                self.paused = false;
                self.call_held(commands);
                Answer::Accepted { detail: "the run goes on".to_owned() }
            }
            (
                Instruction::Answer { .. } | Instruction::Resolve { .. } | Instruction::Steer { .. }
                | Instruction::Pause | Instruction::Resume,
                InstructionReview::Taken { .. } | InstructionReview::Settled { .. },
            ) => Answer::Refused { reason: "the review does not fit the instruction".to_owned() },
        }
    }

    fn end_by_word(&mut self, call: ToolCallId, outcome: ToolCallOutcome) {
        if let Some(state) = settled(outcome) {
            self.set_call(call, state);
        }
    }

    fn question_expired(&mut self, id: &QuestionId, review: InstructionReview, commands: &mut Vec<Command>) {
        let Some(call) = self.questions.call_of(id) else { return };
        self.questions.end(id, commands);
        match review {
            InstructionReview::Settled { outcome, .. } => {
                self.end_by_word(call, outcome);
                self.notify_of(id.as_str(), NoticeKind::Expired, commands);
            }
            // The store does not know what this run waits for: the call has no end to go on with.
            InstructionReview::Refused { reason } => {
                self.set_call(call, CallState::Unknown { reason });
            }
            InstructionReview::Taken { .. } => {
                let reason = "the end of a question was answered as if it were an instruction".to_owned();
                self.set_call(call, CallState::Unknown { reason });
            }
        }
    }

    pub(super) fn instruction_failed(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let Queued { word, .. } = self.take_reviewing(ticket, "InstructionFailed")?;
        if let Word::Sent { .. } = word {
            let reason = format!("the instruction could not be recorded and does not count: {}", failure.detail());
            commands.push(Command::Reply { ticket, answer: Answer::Refused { reason } });
        }
        self.begin_stop(Stop::after(failure), commands);
        // A run that was ending already may hold instructions that nothing will review now.
        self.refuse_what_waits(commands);
        Ok(())
    }
}
