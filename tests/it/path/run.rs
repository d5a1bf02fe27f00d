//! One run, driven by hand: what the workflow would schedule, in few words.

use std::{collections::BTreeMap, time::Duration};

use mandate_activities::AgentActivities;
use mandate_domain::{
    Address, AgentName, ApprovalDecision, ApprovalRequest, ChainHead, EndReason, Evidence, Instruction,
    InstructionReview, ModelTurn, OpenedRun, PersonId, Proof, RecordBody, Refusal, RefusalKind, RequestId, Resolution,
    Review, RunState, Sender, SentInstruction, ToolCallId, ToolCallOutcome, Usage, Verdict, agent_run::Word,
    approval::Arrival,
};
use mandate_tests::keys;
use mandate_workflows::contract::{
    CallPurpose, CallToolInput, CallToolOutput, CloseRunInput, CloseRunOutput, InvokeModelInput, InvokeModelOutput,
    ModelCallOutcome, NotifyInput, NotifyOutput, OpenRunInput, OpenRunOutput, ReviewApprovalInput,
    ReviewApprovalOutput, ReviewInstructionInput, ReviewInstructionOutput, ReviewSubject, RunPointer,
};
use temporalio_common::error::ApplicationFailure;
use temporalio_sdk::{
    activities::ActivityError,
    testing::{ActivityEnvironment, ActivityEnvironmentError},
};

use super::world::{LATE, RUN_ID, Task, World};

pub(super) const BO: &str = "bo@acme.example";
pub(super) const EVE: &str = "eve@acme.example";
/// The person that the run acts for.
pub(super) const ANA: &str = "ana@acme.example";

/// What Temporal is told of an activity that ends without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) kind: String,
    pub(super) text: String,
    pub(super) again: bool,
    pub(super) delay: Option<Duration>,
}

impl Failed {
    fn of(error: ActivityEnvironmentError) -> Self {
        match error {
            ActivityEnvironmentError::Activity(ActivityError::Application(failure)) => Self::read(&failure),
            other => panic!("no application failure: {other:?}"),
        }
    }

    fn read(failure: &ApplicationFailure) -> Self {
        Self {
            kind: failure.type_name().unwrap_or_default().to_owned(),
            text: failure.source_error().to_string(),
            again: !failure.is_non_retryable(),
            delay: failure.next_retry_delay(),
        }
    }

    /// It is this one, for good, and says so.
    #[track_caller]
    pub(super) fn for_good(&self, kind: &str, words: &str) {
        assert!(self.kind == kind && !self.again && self.text.contains(words), "{self:?}");
    }

    /// It is this one, and Temporal tries again.
    #[track_caller]
    pub(super) fn may_pass(&self, kind: &str, words: &str) {
        assert!(self.kind == kind && self.again && self.text.contains(words), "{self:?}");
    }
}

pub(super) fn id(text: &str) -> ToolCallId {
    text.parse().unwrap()
}

pub(super) fn person(text: &str) -> PersonId {
    PersonId::parse(text).unwrap()
}

pub(super) async fn open(env: &ActivityEnvironment) -> Result<OpenRunOutput, Failed> {
    let input = OpenRunInput { agent: AgentName::parse("acme/support/refunds").unwrap() };
    env.run(AgentActivities::open_run, input).await.map_err(Failed::of)
}

pub(super) async fn invoke(env: &ActivityEnvironment, input: InvokeModelInput) -> Result<InvokeModelOutput, Failed> {
    env.run(AgentActivities::invoke_model, input).await.map_err(Failed::of)
}

pub(super) async fn call(env: &ActivityEnvironment, input: CallToolInput) -> Result<CallToolOutput, Failed> {
    env.run(AgentActivities::call_tool, input).await.map_err(Failed::of)
}

pub(super) async fn review(
    env: &ActivityEnvironment,
    input: ReviewApprovalInput,
) -> Result<ReviewApprovalOutput, Failed> {
    env.run(AgentActivities::review_approval, input).await.map_err(Failed::of)
}

pub(super) async fn instruct(env: &ActivityEnvironment, input: ReviewInstructionInput) -> Result<Told, Failed> {
    env.run(AgentActivities::review_instruction, input).await.map(Told::from).map_err(Failed::of)
}

pub(super) async fn notify(env: &ActivityEnvironment, input: NotifyInput) -> Result<NotifyOutput, Failed> {
    env.run(AgentActivities::notify, input).await.map_err(Failed::of)
}

pub(super) async fn close(env: &ActivityEnvironment, input: CloseRunInput) -> Result<CloseRunOutput, Failed> {
    env.run(AgentActivities::close_run, input).await.map_err(Failed::of)
}

/// What an instruction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// What the call came to that it was about.
    pub(super) settled: Option<ToolCallOutcome>,
    /// Why it does not count, or what the person is told beside the outcome.
    pub(super) refused: Option<String>,
    /// What the model reads at its next turn.
    pub(super) message: Option<Address>,
    pub(super) audit: ChainHead,
}

impl From<ReviewInstructionOutput> for Told {
    fn from(output: ReviewInstructionOutput) -> Self {
        let (settled, refused, message) = match output.review {
            InstructionReview::Settled { outcome, note } => (Some(outcome), note, None),
            InstructionReview::Refused { reason } => (None, Some(reason), None),
            InstructionReview::GoesOn => (None, None, None),
            InstructionReview::Taken { message } => (None, None, message.map(|message| message.address)),
        };
        Self { settled, refused, message, audit: output.audit }
    }
}

/// A run as its workflow sees it.
pub(super) struct Run<'w> {
    pub(super) world: &'w World,
    /// The worker that carries out its activities.
    pub(super) worker: ActivityEnvironment,
    pub(super) opened: OpenedRun,
    pub(super) audit: ChainHead,
    pub(super) transcript: Address,
    pub(super) turn: u32,
    calls: u32,
    results: BTreeMap<ToolCallId, Address>,
    reviews: u32,
}

impl<'w> Run<'w> {
    pub(super) async fn open(world: &'w World) -> Self {
        Self::open_on(world, world.worker().await).await
    }

    /// Opened by a worker that is there already.
    pub(super) async fn open_on(world: &'w World, worker: ActivityEnvironment) -> Self {
        let OpenRunOutput { opened, audit } = open(&worker).await.unwrap();
        let transcript = opened.transcript.clone();
        Self { world, worker, opened, audit, transcript, turn: 0, calls: 0, results: BTreeMap::new(), reviews: 0 }
    }

    /// Opened, and the model has proposed its calls.
    pub(super) async fn proposed(world: &'w World) -> Self {
        let mut run = Self::open(world).await;
        run.turn().await;
        run
    }

    pub(super) fn pointer(&self) -> RunPointer {
        RunPointer { store: self.opened.pins.store.clone(), audit: self.audit.clone(), refused_messages: None }
    }

    /// What the next `invoke_model` is told.
    pub(super) fn next_turn(&self) -> InvokeModelInput {
        let append = (0..self.calls).map(|index| self.results[&ToolCallId::new(self.turn, index)].clone());
        let (run, transcript) = (self.pointer(), self.transcript.clone());
        InvokeModelInput { run, turn: self.turn + 1, transcript, append: append.collect(), instructions: vec![] }
    }

    /// What `invoke_model` was told of the first turn.
    pub(super) fn first_turn(&self) -> InvokeModelInput {
        InvokeModelInput {
            run: self.pointer(),
            turn: 1,
            transcript: self.opened.transcript.clone(),
            append: vec![],
            instructions: vec![],
        }
    }

    pub(super) async fn try_turn(&mut self) -> Result<ModelCallOutcome, Failed> {
        let output = invoke(&self.worker, self.next_turn()).await?;
        self.audit = output.audit;
        if let ModelCallOutcome::Replied(turn) = &output.outcome {
            self.turn += 1;
            self.transcript = turn.transcript.clone();
            self.calls = u32::try_from(turn.calls.len()).unwrap();
        }
        Ok(output.outcome)
    }

    pub(super) async fn turn(&mut self) -> ModelTurn {
        match self.try_turn().await {
            Ok(ModelCallOutcome::Replied(turn)) => turn,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn call_input(&self, call: &str) -> CallToolInput {
        CallToolInput { run: self.pointer(), call: id(call), purpose: CallPurpose::Perform }
    }

    pub(super) async fn try_call(&mut self, text: &str) -> Result<ToolCallOutcome, Failed> {
        let output = call(&self.worker, self.call_input(text)).await?;
        self.audit = output.audit;
        self.note(id(text), &output.outcome);
        Ok(output.outcome)
    }

    pub(super) async fn call(&mut self, text: &str) -> ToolCallOutcome {
        self.try_call(text).await.unwrap()
    }

    pub(super) async fn look_up(&mut self, text: &str) -> ToolCallOutcome {
        let input = CallToolInput { purpose: CallPurpose::LookUp, ..self.call_input(text) };
        let output = call(&self.worker, input).await.unwrap();
        self.audit = output.audit;
        self.note(id(text), &output.outcome);
        output.outcome
    }

    fn note(&mut self, call: ToolCallId, outcome: &ToolCallOutcome) {
        if let ToolCallOutcome::Returned { result, .. } | ToolCallOutcome::Refused { result, .. } = outcome {
            self.results.insert(call, result.address.clone());
        }
    }

    /// The call returned, without an error.
    pub(super) async fn returned(&mut self, call: &str) -> String {
        match self.call(call).await {
            ToolCallOutcome::Returned { result, is_error: false } => result.shown().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// The call was refused: why, and what the model reads.
    pub(super) async fn refused(&mut self, call: &str) -> (RefusalKind, String) {
        let outcome = self.call(call).await;
        let (refusal, text) = refusal(outcome);
        (refusal.kind, text)
    }

    /// The call waits for these requests.
    pub(super) async fn asked(&mut self, call: &str) -> Vec<ApprovalRequest> {
        match self.call(call).await {
            ToolCallOutcome::ApprovalRequired { requests } => requests,
            other => panic!("{other:?}"),
        }
    }

    /// A decision, signed where the folder accepts keys.
    pub(super) async fn decision(
        &self,
        call: ToolCallId,
        request: &RequestId,
        verdict: Verdict,
        by: &str,
    ) -> ReviewApprovalInput {
        let evidence = if self.opened.accepts == [Proof::Key] {
            let row = self.world.store.begin(&self.opened.run).await.unwrap().request(request).await.unwrap();
            let digest = row.map_or_else(|| Address::from_bytes([0; 32]), |row| row.digest);
            let says =
                keys::SaysOf { request: request.as_str(), digest: &digest, verdict, comment: None, arguments: None };
            Evidence { signature: Some(keys::sign(&says.statement(), by, by)), token: None }
        } else {
            Evidence::none()
        };
        let by = Some(person(by));
        let decision =
            ApprovalDecision { request: request.clone(), verdict, by, comment: None, arguments: None, evidence };
        let subject = ReviewSubject::Decision { decision, ordinal: self.reviews + 1, arrival: None };
        ReviewApprovalInput { run: self.pointer(), call, subject }
    }

    pub(super) async fn review(&mut self, input: ReviewApprovalInput) -> Review {
        self.reviews += 1;
        let call = input.call;
        let output = match &input.subject {
            ReviewSubject::Expiry { .. } => {
                let late = self.world.worker_for(Task { started: LATE, ..Task::default() }).await;
                review(&late, input).await.unwrap()
            }
            ReviewSubject::Decision { .. } | ReviewSubject::Escalation { .. } => {
                review(&self.worker, input).await.unwrap()
            }
        };
        self.audit = output.audit;
        if let Review::Rejected { result } | Review::Expired { result } = &output.review {
            self.results.insert(call, result.address.clone());
        }
        output.review
    }

    pub(super) async fn approve(&mut self, request: &ApprovalRequest, by: &str) -> Review {
        self.review(self.decision(request.call, &request.id, Verdict::Approve, by).await).await
    }

    pub(super) async fn reject(&mut self, request: &ApprovalRequest, by: &str) -> Review {
        self.review(self.decision(request.call, &request.id, Verdict::Reject, by).await).await
    }

    pub(super) fn expiry(&self, request: &ApprovalRequest) -> ReviewApprovalInput {
        let subject = ReviewSubject::Expiry { request: request.id.clone() };
        ReviewApprovalInput { run: self.pointer(), call: request.call, subject }
    }

    pub(super) fn resolution(&self, call: &str, resolution: Resolution, by: &str) -> ReviewInstructionInput {
        let instruction = Instruction::Resolve { call: id(call), resolution };
        self.says(instruction, by)
    }

    pub(super) async fn resolve(&mut self, call: &str, resolution: Resolution, by: &str) -> Told {
        let input = self.resolution(call, resolution, by);
        self.tell(call, input).await
    }

    /// What somebody tells the run, by claim.
    pub(super) fn says(&self, instruction: Instruction, by: &str) -> ReviewInstructionInput {
        let sender = Sender { by: Some(person(by)), ..Sender::default() };
        let sent = SentInstruction { instruction, sender };
        let arrival = Arrival { run_id: RUN_ID.into(), name: "signal".into(), ordinal: 1, at_ms: 0 };
        ReviewInstructionInput { run: self.pointer(), word: Word::Sent { sent, arrival }, ordinal: self.reviews + 1 }
    }

    /// Tells the run something about a call.
    pub(super) async fn tell(&mut self, call: &str, input: ReviewInstructionInput) -> Told {
        self.reviews += 1;
        let output = instruct(&self.worker, input).await.unwrap();
        self.audit = output.audit.clone();
        if let Some(outcome) = &output.settled {
            self.note(id(call), outcome);
        }
        output
    }

    pub(super) fn closing(&self) -> CloseRunInput {
        CloseRunInput {
            run: self.pointer(),
            state: RunState::Stopped,
            reason: Some(EndReason::Halted),
            turns: self.turn,
            usage: Usage::default(),
            abandoned: Vec::new(),
            unknown_outcomes: Vec::new(),
            halted_by: None,
            undoing_halted_by: None,
        }
    }

    pub(super) async fn close(&mut self) {
        self.audit = close(&self.worker, self.closing()).await.unwrap().audit;
    }

    /// From now on a worker carries on that has read the folder again.
    pub(super) async fn next_worker(&mut self) {
        self.worker = self.world.worker().await;
    }

    /// The run's records, which verify, and how many of them are as asked.
    pub(super) async fn count(&self, which: impl Fn(&RecordBody) -> bool) -> usize {
        self.world.bodies(&self.opened.run).await.iter().filter(|body| which(body)).count()
    }

    pub(super) async fn intents(&self) -> usize {
        let tool =
            |body: &RecordBody| matches!(body, RecordBody::Intent { effect: mandate_domain::EffectId::Tool(_), .. });
        self.count(tool).await
    }

    pub(super) async fn records(&self) -> usize {
        self.count(|_| true).await
    }

    /// The amounts that were paid, after the audit log was verified.
    pub(super) async fn paid(&self) -> Vec<i64> {
        self.world.bodies(&self.opened.run).await;
        self.world.payments().await.into_iter().map(|(_, amount)| amount).collect()
    }
}

pub(super) fn refusal(outcome: ToolCallOutcome) -> (Refusal, String) {
    match outcome {
        ToolCallOutcome::Refused { result, refusal } => {
            let text = result.shown().to_owned();
            (refusal, text)
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn counted(votes: u32, quorum_reached: bool) -> Review {
    Review::Counted { votes, quorum_reached }
}

/// A refund of order o1 as the model proposes it.
pub(super) fn refund(cents: u32) -> String {
    format!(
        r#"{{ tool = "payments.refund", arguments = {{ order_id = "o1", amount_cents = {cents}, currency = "EUR" }} }}"#
    )
}

pub(super) const READ: &str = r#"{ tool = "orders.read", arguments = { order_id = "o1" } }"#;
