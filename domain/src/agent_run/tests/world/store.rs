//! What activities answer: a store, a policy and a webhook, each of which may be lost before or behind what it did.

use super::*;
use crate::{CompensateOn, Refusal, RefusalKind};

/// What policy says of a call, fixed when it is first asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Policy {
    Allow,
    Deny,
    Gates(usize),
    Ask,
}

/// What the store knows of a call, and what was seen of it.
#[derive(Debug, Default)]
pub(in crate::agent_run::tests) struct Stored {
    policy: Option<Policy>,
    pub(in crate::agent_run::tests) requests: Vec<ApprovalRequest>,
    pub(in crate::agent_run::tests) approved: BTreeSet<RequestId>,
    pub(super) question: Option<Question>,
    /// What its server asked for, once it is answered: the call is made again.
    pub(super) goes_on: Option<QuestionId>,
    pub(super) intents: u32,
    pub(in crate::agent_run::tests) performed: u32,
    pub(super) end: Option<Address>,
    pub(super) unknown: bool,
    /// The revision in its place.
    pub(super) revised: Option<ToolCallId>,
    /// The request whose decision made this revision.
    pub(super) edited_by: Option<RequestId>,
    /// A request was closed and the run was not told how: the path may be walked to find out.
    pub(super) path_knows: bool,
    /// That has been so: the call's other requests may be decided while its path is walked.
    was_lost: bool,
    /// How often the path was walked.
    pub(in crate::agent_run::tests) walks: u32,
    /// The last decision that was reviewed.
    pub(super) reviewed: Ticket,
}

impl Stored {
    /// Whether a request can expire: one that is approved can, too.
    fn waits(&self, id: &RequestId) -> bool {
        let ended = self.end.is_some() || self.unknown || self.intents > 0 || self.revised.is_some();
        !ended && self.requests.iter().any(|one| one.id == *id)
    }

    fn is_open(&self, id: &RequestId) -> bool {
        self.waits(id) && !self.approved.contains(id)
    }
}

fn refusal(kind: RefusalKind) -> Refusal {
    Refusal { kind, policies: vec![], reason: "no".into() }
}

impl World {
    /// Whether what is under way can come to its end: a webhook that never answers does not.
    pub(super) fn can_complete(&self, position: usize) -> bool {
        let Command::Notify { notice } = &self.under_way[position] else { return true };
        !self.settings.silent || self.cancelled.contains(notice)
    }

    pub(in crate::agent_run::tests) fn complete(&mut self, position: usize, choices: &mut Choices, long: bool) {
        if !self.can_complete(position) {
            return;
        }
        let command = self.under_way.remove(position);
        let lost = self.loss(&command, choices);
        let event = match command {
            Command::OpenRun => lost.map_or_else(|| self.open(choices), Event::OpenFailed),
            Command::InvokeModel { turn, .. } => lost.map_or_else(|| self.reply(turn, choices), Event::ModelFailed),
            Command::CallTool { call, .. } | Command::Compensate { call } => self.perform(call, lost, choices),
            Command::ResolveOutcome { call } => self.look_up(call, lost),
            Command::ReviewApproval { call, subject } => self.review(call, &subject, lost, choices),
            Command::ReviewInstruction { ticket, subject } => self.review_word(ticket, subject, lost, choices),
            Command::Notify { notice } => self.notified(notice, lost, choices),
            Command::CloseRun(_) => lost.map_or_else(|| Event::Closed { performed: vec![] }, Event::CloseFailed),
            other @ (Command::StartTimer { .. }
            | Command::CancelTimer { .. }
            | Command::CancelEffects
            | Command::CancelNotices
            | Command::Publish
            | Command::Reply { .. }
            | Command::ContinueAsNew
            | Command::Finish(_)) => unreachable!("{other:?}"),
        };
        self.feed(&event, long);
    }

    /// Whether an activity ends without an answer, and how.
    fn loss(&self, command: &Command, choices: &mut Choices) -> Option<Failure> {
        // Look-ups and the closing record are not among what is cancelled.
        let stays = matches!(command, Command::ResolveOutcome { .. } | Command::CloseRun(_) | Command::Notify { .. });
        if self.effects_cancelled && !stays && choices.one_in(3) {
            return Some(Failure::Cancelled);
        }
        let often = self.settings.losses?;
        choices.one_in(often).then(|| Failure::Unavailable { detail: "lost".into() })
    }

    fn open(&mut self, choices: &mut Choices) -> Event {
        self.opened = true;
        let turns_max = choices.pick(12).map_or(RunLimits::default().turns_max, small);
        let turns_per_execution_max = choices.pick(6).map_or(300, |n| small(n) + 1);
        let limits = RunLimits { turns_max, turns_per_execution_max, ..RunLimits::default() };
        let limits = if self.settings.gated_calls.is_some() { RunLimits::default() } else { limits };
        let mut event = opened_with(limits, self.settings.notifies);
        if let (Event::Opened(opened), true) = (&mut event, self.settings.compensates) {
            opened.compensate = CompensateOn::ALL.to_vec();
        }
        event
    }

    fn reply(&mut self, turn: u32, choices: &mut Choices) -> Event {
        let gated = self.settings.gated_calls.map(|calls| if turn == 1 { calls } else { 0 });
        if gated.is_none() && choices.one_in(24) {
            return Event::ModelRefused { by_policy: choices.one_in(2), reason: "no".into() };
        }
        let calls = gated.unwrap_or_else(|| small(choices.pick(5).unwrap_or_default()));
        self.last_reply = (turn, calls);
        let mut event = replied(turn.into(), calls);
        if let (Event::ModelReplied(reply), true) = (&mut event, self.settings.compensates) {
            undoable(reply);
        }
        event
    }

    fn fresh(&mut self) -> Content {
        self.next += 1;
        content(self.next.into())
    }

    fn perform(&mut self, call: ToolCallId, lost: Option<Failure>, choices: &mut Choices) -> Event {
        self.calling.remove(&call);
        let before = choices.one_in(2);
        match lost {
            Some(failure) if before => Event::ToolFailed { call, failure },
            Some(failure) => {
                self.walk(call, choices);
                Event::ToolFailed { call, failure }
            }
            None => Event::ToolReturned { call, outcome: self.walk(call, choices) },
        }
    }

    /// The governed path: looks first, asks policy, and performs what it allows.
    fn walk(&mut self, call: ToolCallId, choices: &mut Choices) -> ToolCallOutcome {
        let drawn = match (self.settings.gated_calls, choices.pick(6)) {
            (Some(_), _) | (None, Some(0)) => Policy::Gates(1),
            (None, Some(1)) => Policy::Gates(2),
            (None, Some(2)) => Policy::Deny,
            (None, Some(3)) if !call.undo => Policy::Ask,
            (None, Some(_) | None) => Policy::Allow,
        };
        let (again, denied) = (choices.one_in(6), choices.one_in(6));
        let result = self.fresh();
        let stored = self.calls.get_mut(&call).unwrap();
        if let Some(end) = &stored.end {
            let result = Content::describe(end.clone(), "text", 1024);
            return ToolCallOutcome::Returned { result, is_error: false };
        }
        let mut policy = *stored.policy.get_or_insert(drawn);
        let released = !stored.requests.is_empty();
        if released && self.settings.gated_calls.is_none() {
            // Policy is asked again, and may have changed: it denies, or asks further people.
            policy = match policy {
                _ if denied => Policy::Deny,
                Policy::Gates(n) if again => Policy::Gates(n + 1),
                other @ (Policy::Allow | Policy::Deny | Policy::Gates(_) | Policy::Ask) => other,
            };
        }
        if released && self.policy_changed {
            policy = Policy::Deny;
        }
        stored.policy = Some(policy);
        match policy {
            Policy::Deny => {
                stored.end = Some(result.address.clone());
                ToolCallOutcome::Refused { result, refusal: refusal(RefusalKind::Denied) }
            }
            Policy::Gates(n) if stored.approved.len() < n => self.ask_people(call, n, choices),
            Policy::Ask => {
                let mut question = question(call, self.next);
                question.expires_ms = self.now + 60_000;
                stored.question = Some(question.clone());
                ToolCallOutcome::AnswerRequired { question }
            }
            Policy::Allow | Policy::Gates(_) => {
                stored.intents += 1;
                stored.performed += 1;
                assert_eq!((stored.intents, stored.performed), (1, 1), "{call} is performed twice");
                if choices.one_in(4) && self.settings.gated_calls.is_none() {
                    stored.unknown = true;
                    ToolCallOutcome::OutcomeUnknown { reason: "no answer".into() }
                } else {
                    stored.end = Some(result.address.clone());
                    ToolCallOutcome::Returned { result, is_error: false }
                }
            }
        }
    }

    /// Asks at gates until the call has had `n` of them; what was asked before and is open is asked again.
    fn ask_people(&mut self, call: ToolCallId, n: usize, choices: &mut Choices) -> ToolCallOutcome {
        while self.calls[&call].requests.len() < n {
            self.next += 1;
            let kind = choices.pick(4);
            let patient = matches!(kind, Some(1 | 2));
            let mut asked = if patient { patient_request(call, self.next) } else { request(call, "gate", self.next) };
            if matches!(kind, Some(2 | 3)) {
                asked.gate.on_expiry = OnExpiry::Halt;
            }
            self.calls.get_mut(&call).unwrap().requests.push(asked);
        }
        let stored = &self.calls[&call];
        let open = stored.requests.iter().filter(|one| !stored.approved.contains(&one.id));
        ToolCallOutcome::ApprovalRequired { requests: open.cloned().collect() }
    }

    fn look_up(&mut self, call: ToolCallId, lost: Option<Failure>) -> Event {
        let stored = self.calls.get_mut(&call).unwrap();
        if let Some(failure) = lost {
            // Nobody can tell: whatever the store knows, the run must not take it as done or not done.
            stored.unknown = true;
            return Event::ResolveFailed { call, failure };
        }
        let outcome = match (&stored.end, stored.unknown) {
            (Some(end), _) => {
                let result = Content::describe(end.clone(), "text", 1024);
                ToolCallOutcome::Returned { result, is_error: false }
            }
            (None, true) => ToolCallOutcome::OutcomeUnknown { reason: "intent".into() },
            (None, false) => ToolCallOutcome::NotPerformed,
        };
        Event::OutcomeResolved { call, outcome }
    }

    fn review(&mut self, call: ToolCallId, subject: &Subject, lost: Option<Failure>, choices: &mut Choices) -> Event {
        self.reviewing.remove(&call);
        let refuses = choices.one_in(4) && self.settings.gated_calls.is_none();
        if let Some(failure) = lost {
            // Lost before it did anything, or behind it.
            if choices.one_in(2) {
                self.judge(call, subject, false, choices);
            }
            return Event::ReviewFailed { call, failure };
        }
        let review = self.judge(call, subject, refuses, choices);
        self.seen.insert(review_name(&review).to_owned());
        Event::ApprovalReviewed { call, review }
    }

    fn judge(&mut self, call: ToolCallId, subject: &Subject, refuses: bool, choices: &mut Choices) -> Review {
        let few = choices.one_in(5) && self.settings.gated_calls.is_none();
        let comes_again = choices.one_in(8) && self.settings.losses.is_some();
        let (result, stops) = (self.fresh(), self.stops());
        let turned_away = || Review::Refused { reason: "not an approver".into() };
        let stored = self.calls.get_mut(&call).unwrap();
        match subject {
            Subject::Expiry { request } => {
                if !stored.waits(request) {
                    return Review::AlreadyDecided;
                }
                if refuses && !stops {
                    stored.unknown = true;
                    return turned_away();
                }
                stored.end = Some(result.address.clone());
                let halts = |one: &ApprovalRequest| one.id == *request && one.gate.on_expiry == OnExpiry::Halt;
                self.halts = stored.requests.iter().any(halts);
                Review::Expired { result }
            }
            Subject::Escalation { request } if !stored.is_open(request) => Review::AlreadyDecided,
            Subject::Escalation { .. } if refuses => turned_away(),
            Subject::Escalation { .. } => Review::Escalated { arguments_shown: "{}".into() },
            Subject::Decision { decision, .. } => {
                let id = &decision.request;
                if !stored.is_open(id) {
                    return Review::AlreadyDecided;
                }
                if refuses {
                    return turned_away();
                }
                if decision.arguments.is_some() && call.undo {
                    return turned_away();
                }
                if decision.arguments.is_some() && !stored.was_lost {
                    let revision = call.revised();
                    stored.revised = Some(revision);
                    let revised = Stored { edited_by: Some(id.clone()), ..Stored::default() };
                    self.calls.insert(revision, revised);
                    return Review::Revised { call: revision };
                }
                if decision.verdict == Verdict::Approve && few {
                    return Review::Counted { votes: 1, quorum_reached: false };
                }
                // The answer of an earlier attempt was lost, and the store only says that the request is closed.
                stored.path_knows |= comes_again;
                stored.was_lost |= comes_again;
                let review = match decision.verdict {
                    Verdict::Approve => {
                        stored.approved.insert(id.clone());
                        APPROVED
                    }
                    Verdict::Reject => {
                        stored.end = Some(result.address.clone());
                        Review::Rejected { result }
                    }
                };
                if comes_again { Review::AlreadyDecided } else { review }
            }
        }
    }

    fn review_word(&mut self, ticket: Ticket, word: Word, lost: Option<Failure>, choices: &mut Choices) -> Event {
        if let Some(failure) = lost {
            return Event::InstructionFailed { ticket, failure };
        }
        let refuses = choices.one_in(4);
        let review = match word {
            Word::Expiry { question } => self.expire_question(&question, refuses),
            Word::Sent { .. } if refuses => InstructionReview::Refused { reason: "not allowed".into() },
            Word::Sent { sent, .. } => self.take_word(sent.instruction),
        };
        self.seen.insert(word_name(&review).to_owned());
        Event::InstructionReviewed { ticket, review }
    }

    fn asker(&self, question: &QuestionId) -> ToolCallId {
        let asks = |stored: &Stored| stored.question.as_ref().is_some_and(|one| one.id == *question);
        *self.calls.iter().find(|(_, stored)| asks(stored)).expect("it was asked").0
    }

    fn settle_call(&mut self, call: ToolCallId) -> InstructionReview {
        let result = self.fresh();
        let stored = self.calls.get_mut(&call).unwrap();
        stored.unknown = false;
        stored.end = Some(result.address.clone());
        InstructionReview::Settled { outcome: ToolCallOutcome::Returned { result, is_error: false }, note: None }
    }

    fn expire_question(&mut self, question: &QuestionId, refuses: bool) -> InstructionReview {
        let (call, stops) = (self.asker(question), self.stops());
        assert!(stops || self.calls[&call].end.is_none(), "nothing expires that was answered");
        if refuses && !stops {
            self.calls.get_mut(&call).unwrap().unknown = true;
            return InstructionReview::Refused { reason: "no such question".into() };
        }
        self.settle_call(call)
    }

    fn take_word(&mut self, instruction: Instruction) -> InstructionReview {
        match instruction {
            Instruction::Answer { question, .. } => {
                let call = self.asker(&question);
                let stored = self.calls.get_mut(&call).unwrap();
                if stored.end.is_some() || stored.unknown || stored.goes_on.is_some() {
                    return InstructionReview::Refused { reason: "it is answered".into() };
                }
                if question.as_str().len() % 2 == 0 {
                    return self.settle_call(call);
                }
                (stored.goes_on, stored.policy) = (Some(question), Some(Policy::Allow));
                InstructionReview::GoesOn
            }
            Instruction::Resolve { call, .. } => self.settle_call(call),
            Instruction::Steer { .. } => {
                let message = self.fresh();
                self.steered.push(message.address.clone());
                InstructionReview::Taken { message: Some(message) }
            }
            Instruction::Pause => {
                self.paused = true;
                TAKEN
            }
            Instruction::Resume => {
                self.paused = false;
                TAKEN
            }
        }
    }

    fn notified(&mut self, notice: NoticeId, lost: Option<Failure>, choices: &mut Choices) -> Event {
        let in_time = choices.one_in(4);
        if !self.cancelled.remove(&notice) || (in_time && !self.settings.silent) {
            return Event::Notified { notice, failure: lost };
        }
        self.begun.remove(&notice);
        self.seen.insert("a notice is cancelled".to_owned());
        Event::Notified { notice, failure: Some(Failure::Cancelled) }
    }
}

fn review_name(review: &Review) -> &'static str {
    match review {
        Review::Counted { quorum_reached: true, .. } => "Review::Counted, enough",
        Review::Counted { quorum_reached: false, .. } => "Review::Counted, not enough",
        Review::Rejected { .. } => "Review::Rejected",
        Review::Revised { .. } => "Review::Revised",
        Review::Expired { .. } => "Review::Expired",
        Review::Escalated { .. } => "Review::Escalated",
        Review::Refused { .. } => "Review::Refused",
        Review::AlreadyDecided => "Review::AlreadyDecided",
    }
}

fn word_name(review: &InstructionReview) -> &'static str {
    match review {
        InstructionReview::Settled { .. } => "InstructionReview::Settled",
        InstructionReview::GoesOn => "InstructionReview::GoesOn",
        InstructionReview::Taken { .. } => "InstructionReview::Taken",
        InstructionReview::Refused { .. } => "InstructionReview::Refused",
    }
}
