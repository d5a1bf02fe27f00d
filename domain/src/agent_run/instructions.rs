//! What people tell a run: answers, words on lost calls, further instructions, pause and resume. Each is reviewed by an
//! activity, one after the other in the order in which they came, so that a pause and the resume behind it mean what
//! was meant. What came of the last ones is kept under the message ids that their senders chose: a signal has no answer.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    AgentRun, Answer, CallState, Command, Failure, Phase, Stop, Ticket, UnexpectedEvent, Word, call::settled,
    json_bytes, questions::Answerable,
};
use crate::{
    Address, QuestionId, ToolCallId, ToolCallOutcome,
    approval::Arrival,
    audit::NoticeKind,
    instruction::{Instruction, InstructionReview, SentInstruction},
};

/// How many instructions may wait for their review at once, and how many bytes of JSON; those above are refused. A run
/// that goes on in a new execution takes them along.
const QUEUE_MAX: usize = 32;
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// How many instructions may wait for the model's next turn; those above are refused.
const UNDELIVERED_MAX: usize = 16;
/// How many instructions count in one run; those above are refused. What does not count uses nothing up, else anybody
/// who can send could keep those out who may.
const TAKEN_MAX: u32 = 1000;
/// How many answers are kept for senders who ask what came of their message.
const ANSWERS_MAX: usize = 16;
/// What a sender is told whose message comes to nothing because the run ends.
const ENDING: &str = "the run is ending";

/// All instructions of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instructions {
    queue: VecDeque<Queued>,
    reviewing: Option<Queued>,
    /// What the model reads at its next turn.
    undelivered: Vec<Address>,
    #[serde(default)]
    taken: u32,
    #[serde(default)]
    answers: VecDeque<MessageAnswer>,
}

/// What came of a message whose sender gave it an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageAnswer {
    /// The id, as the sender chose it. Foreign text.
    pub message_id: String,
    /// What came of it.
    #[serde(flatten)]
    pub answer: Answer,
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

    fn message_id(&self) -> Option<String> {
        match &self.word {
            Word::Sent { sent, .. } => sent.sender.message_id.clone(),
            Word::Expiry { .. } => None,
        }
    }
}

impl Instructions {
    /// Whether a review is under way.
    pub(super) fn under_way(&self) -> bool {
        self.reviewing.is_some()
    }

    /// Whether a review is under way or waits.
    pub(super) fn any_said(&self) -> bool {
        self.under_way() || !self.queue.is_empty()
    }

    pub(super) fn push(&mut self, ticket: Ticket, word: Word) {
        self.queue.push_back(Queued { ticket, word });
    }

    pub(super) fn has_undelivered(&self) -> bool {
        !self.undelivered.is_empty()
    }

    /// Whether anything waits for its review or for the model, so that a final answer is not final yet.
    pub(super) fn any_open(&self) -> bool {
        self.has_undelivered() || self.any_said()
    }

    pub(super) fn take_undelivered(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.undelivered)
    }

    /// Gives up all that waits, because the run ends. A review under way comes back on its own.
    pub(super) fn withdraw(&mut self) -> Vec<Ticket> {
        self.undelivered.clear();
        let sent = |queued: &Queued| queued.instruction().is_some();
        let withdrawn: Vec<Queued> = std::mem::take(&mut self.queue).into_iter().filter(sent).collect();
        for queued in &withdrawn {
            self.keep(queued.message_id(), &Answer::Refused { reason: ENDING.to_owned() });
        }
        withdrawn.into_iter().map(|queued| queued.ticket).collect()
    }

    /// Keeps an answer for a sender who asks for it.
    fn keep(&mut self, message_id: Option<String>, answer: &Answer) {
        let Some(message_id) = message_id else { return };
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(MessageAnswer { message_id, answer: answer.clone() });
    }

    fn waits_to_say(&self, call: ToolCallId) -> bool {
        let says = |queued: &Queued| matches!(queued.instruction(), Some(Instruction::Resolve { call: of, .. }) if *of == call);
        self.queue.iter().chain(&self.reviewing).any(says)
    }

    /// Whether one like this waits for its review, or is under it.
    fn has(&self, instruction: &Instruction) -> bool {
        self.queue.iter().chain(&self.reviewing).any(|queued| queued.instruction() == Some(instruction))
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
                self.instructions.push(ticket, Word::Sent { sent, arrival });
            }
            Err(answer) => {
                self.refuse_message(match &answer {
                    Answer::Refused { reason } => reason.clone(),
                    Answer::AlreadyDecided | Answer::Accepted { .. } => "the question was answered before".to_owned(),
                });
                self.reply_to_sender(ticket, sent.sender.message_id, answer, commands);
            }
        }
    }

    fn reply_to_sender(
        &mut self,
        ticket: Ticket,
        message_id: Option<String>,
        answer: Answer,
        commands: &mut Vec<Command>,
    ) {
        self.instructions.keep(message_id, &answer);
        commands.push(Command::Reply { ticket, answer });
    }

    /// What came of the last messages whose senders gave them an id, the oldest first.
    pub fn answers(&self) -> impl Iterator<Item = &MessageAnswer> {
        self.instructions.answers.iter()
    }

    /// Whether an instruction is about something that waits for it.
    fn fits(&self, instruction: &Instruction) -> Result<(), Answer> {
        let refused = |reason: String| Err(Answer::Refused { reason });
        // What undoes a call may ask, too.
        let undoes = self.phase == Phase::Compensating && matches!(instruction, Instruction::Answer { .. });
        if !undoes && !matches!(self.phase, Phase::Opening | Phase::Thinking | Phase::Acting | Phase::Resting) {
            return refused(ENDING.to_owned());
        }
        if self.instructions.queue.len() >= QUEUE_MAX || json_bytes(&self.instructions.queue) >= QUEUE_BYTES_MAX {
            return refused("too many instructions wait for their review; send this one again later".to_owned());
        }
        if self.instructions.taken >= TAKEN_MAX {
            return refused(format!("the run has taken {TAKEN_MAX} instructions, and takes no more"));
        }
        // What waits for its review may not count: it lets others in and keeps nobody out.
        let may_pause = !self.paused || self.instructions.has(&Instruction::Resume);
        let may_resume = self.paused || self.instructions.has(&Instruction::Pause);
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
            Instruction::Pause if !may_pause => refused("the run is paused already".to_owned()),
            Instruction::Resume if !may_resume => refused("the run is not paused".to_owned()),
            Instruction::Steer { .. } | Instruction::Pause | Instruction::Resume => Ok(()),
        }
    }

    /// Starts the next review, unless one is under way or the run has not begun.
    pub(super) fn pump_instructions(&mut self, commands: &mut Vec<Command>) {
        if self.instructions.under_way() || self.opened.is_none() {
            return;
        }
        while let Some(next) = self.instructions.queue.pop_front() {
            if let Word::Expiry { question } = &next.word
                && self.questions.call_of(question).is_none()
            {
                // An answer that came in time has ended the question meanwhile.
                continue;
            }
            let (ticket, subject) = (next.ticket, next.word.clone());
            self.instructions.reviewing = Some(next);
            commands.push(Command::ReviewInstruction { ticket, subject });
            return;
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
                match &answer {
                    Answer::Accepted { .. } => self.instructions.taken = self.instructions.taken.saturating_add(1),
                    Answer::Refused { reason } => self.show_refusal(reason),
                    Answer::AlreadyDecided => {}
                }
                self.reply_to_sender(ticket, sent.sender.message_id, answer, commands);
            }
        }
        Ok(())
    }

    /// What an instruction changes once it was reviewed.
    fn taken(&mut self, instruction: Instruction, review: InstructionReview, commands: &mut Vec<Command>) -> Answer {
        match (instruction, review) {
            (_, InstructionReview::Refused { reason }) => Answer::Refused { reason },
            (Instruction::Steer { .. } | Instruction::Pause | Instruction::Resume, InstructionReview::Taken { .. })
                if self.phase == Phase::Stopping =>
            {
                Answer::Refused { reason: "the run is ending".to_owned() }
            }
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
            (Instruction::Answer { question, .. }, InstructionReview::GoesOn) => {
                if let Some(call) = self.questions.call_of(&question) {
                    self.questions.end(&question, commands);
                    self.call_again(call, None, commands);
                }
                Answer::Accepted { detail: format!("`{question}` is answered, and its call goes on") }
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
                Instruction::Answer { .. }
                | Instruction::Resolve { .. }
                | Instruction::Steer { .. }
                | Instruction::Pause
                | Instruction::Resume,
                InstructionReview::Taken { .. } | InstructionReview::Settled { .. } | InstructionReview::GoesOn,
            ) => Answer::Refused { reason: "the review does not fit the instruction".to_owned() },
        }
    }

    /// The question that a word is about, and the undo that asks it.
    fn asked_by_an_undo(&self, word: &Word) -> Option<(QuestionId, ToolCallId)> {
        let question = match word {
            Word::Expiry { question } => question,
            Word::Sent { sent, .. } => match &sent.instruction {
                Instruction::Answer { question, .. } => question,
                Instruction::Resolve { .. } | Instruction::Steer { .. } | Instruction::Pause | Instruction::Resume => {
                    return None;
                }
            },
        };
        Some((question.clone(), self.questions.call_of(question).filter(|call| call.undo)?))
    }

    fn end_by_word(&mut self, call: ToolCallId, outcome: ToolCallOutcome) {
        self.note_for_undoing(call, &outcome);
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
            InstructionReview::Taken { .. } | InstructionReview::GoesOn => {
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
        if self.phase == Phase::Compensating
            && let Some((question, call)) = self.asked_by_an_undo(&word)
        {
            // Others may still be undone.
            self.questions.end(&question, commands);
            self.note_not_undone(call, &failure.detail());
            self.set_call(call, CallState::Abandoned);
            if let Word::Sent { sent, .. } = word {
                let answer = Answer::Refused { reason: failure.detail() };
                self.reply_to_sender(ticket, sent.sender.message_id, answer, commands);
            }
            return Ok(());
        }
        if let Word::Sent { sent, .. } = word {
            let reason = format!("the instruction could not be recorded and does not count: {}", failure.detail());
            // It has no record of its own: a stop may have cancelled its review before that began.
            self.refuse_message(reason.clone());
            self.reply_to_sender(ticket, sent.sender.message_id, Answer::Refused { reason }, commands);
        }
        self.begin_stop(Stop::after(failure), commands);
        // A run that was ending already may hold instructions that nothing will review now.
        self.refuse_what_waits(commands);
        Ok(())
    }
}
