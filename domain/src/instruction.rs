//! What people tell a run beside their decisions: answers, words on lost calls, further instructions, pause and resume;
//! and the questions of an agent that they answer.

use serde::{Deserialize, Serialize};

use crate::{
    Content, PersonId, QuestionId, Resolution, ToolCallId, ToolCallOutcome,
    proof::{Evidence, InstructionKind},
};

/// A question that waits for a person: a call of the built-in tool `ask_human`, or what a tool's server asks for before it
/// performs a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id, which an answer has to name.
    pub id: QuestionId,
    /// The call that waits.
    pub call: ToolCallId,
    /// What is asked, as canonical JSON: `question`, and where there are any `context` and `options`. As it may be shown in the event history, at most 4 KiB. Foreign text: escape before showing.
    pub asked: String,
    /// Until when it can be answered, in milliseconds since 1970-01-01 UTC by the Temporal server's clock.
    pub expires_ms: u64,
}

/// What a person tells a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Instruction {
    /// The answer to a question.
    Answer {
        /// The question.
        question: QuestionId,
        /// The answer, at most 4 KiB.
        text: String,
    },
    /// What became of a call whose outcome is unknown.
    Resolve {
        /// The call.
        call: ToolCallId,
        /// What became of it.
        resolution: Resolution,
    },
    /// A further instruction, which the model reads at its next turn.
    Steer {
        /// The instruction, at most 4 KiB.
        text: String,
    },
    /// Nothing new is to begin.
    Pause,
    /// Go on.
    Resume,
}

impl Instruction {
    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> InstructionKind {
        match self {
            Self::Answer { .. } => InstructionKind::Answer,
            Self::Resolve { .. } => InstructionKind::Resolve,
            Self::Steer { .. } => InstructionKind::Steer,
            Self::Pause => InstructionKind::Pause,
            Self::Resume => InstructionKind::Resume,
        }
    }

    /// What it is about, for statements: a question or a call.
    #[must_use]
    pub fn about(&self) -> Option<String> {
        match self {
            Self::Answer { question, .. } => Some(question.to_string()),
            Self::Resolve { call, .. } => Some(call.to_string()),
            Self::Steer { .. } | Self::Pause | Self::Resume => None,
        }
    }

    /// What it says, for statements.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Answer { text, .. } | Self::Steer { text } => Some(text),
            Self::Resolve { resolution, .. } => Some(resolution.as_str()),
            Self::Pause | Self::Resume => None,
        }
    }
}

/// Who sends a message, as the message says: nothing in it is checked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Who. A claim, and none is needed where the proof names the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PersonId>,
    /// Their words, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What makes one message differ from an equal one before it, chosen by the sender, so that a signature cannot be
    /// sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// What proves who they are.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// An instruction as a person sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentInstruction {
    /// What they say.
    #[serde(flatten)]
    pub instruction: Instruction,
    /// Who says so.
    #[serde(flatten)]
    pub sender: Sender,
}

/// What the review of an instruction, or of the end of a question's time, came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "review", rename_all = "snake_case")]
pub enum InstructionReview {
    /// It counts, and ends the call that it is about.
    Settled {
        /// What the call came to.
        #[serde(flatten)]
        outcome: ToolCallOutcome,
        /// What the person is to know, such as that an outcome had come in meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It counts, and the call that asked goes on with it: it is made again.
    GoesOn,
    /// It counts.
    Taken {
        /// What the model reads at its next turn.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<Content>,
    },
    /// It does not count.
    Refused {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_one_flat_object() {
        let text = r#"{"kind":"answer","question":"q1-7f3a9c","text":"yes","by":"bo","signature":"c2ln"}"#;
        let sent: SentInstruction = serde_json::from_str(text).unwrap();
        assert_eq!((sent.instruction.kind(), sent.instruction.text()), (InstructionKind::Answer, Some("yes")));
        assert_eq!(sent.instruction.about().as_deref(), Some("q1-7f3a9c"));
        assert_eq!(serde_json::to_string(&sent).unwrap(), text);
    }

    #[test]
    fn a_review_that_settles_a_call_is_read_again() {
        let outcome = ToolCallOutcome::OutcomeUnknown { reason: "sent".into() };
        let review = InstructionReview::Settled { outcome, note: None };
        let text = serde_json::to_string(&review).unwrap();
        assert_eq!(serde_json::from_str::<InstructionReview>(&text).unwrap(), review, "{text}");
    }
}
