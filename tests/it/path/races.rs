//! An approval races with what could take its place, on two workers that share a store and know nothing of each other:
//! at once, begun in an order that a seed decides. Whoever wins, there is one winner: the call is paid once or not at all
//! and ends as the winner says, every decision has its record, the chain verifies, and whoever asks again is told the
//! same.

mod policy;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use mandate_activities::AgentActivities;
use mandate_domain::{
    AuditRecord, EffectId, EndReason, RecordBody, RefusalKind, Review, RunState, Sender, ToolCallOutcome, Verdict,
    agent_run::HaltRequest,
};
use mandate_tests::{Choices, On, pass};
use mandate_workflows::contract::{CallPurpose, CallToolInput, CloseRunInput, ReviewApprovalInput, ReviewSubject};
use temporalio_sdk::testing::ActivityEnvironment;

use super::{
    run::{BO, EVE, Run, call, close, counted, id, person, refund, review},
    world::{ENGINE, Folder, LATE, Task, World, environment, on_both_engines},
};

const ROUNDS: u64 = 200;
/// What is won by each at least: else it was no race.
const WON_MIN: u64 = 10;
/// How far ahead whoever begins first may be: in milliseconds, and in turns of other tasks on top.
const LEAD_MAX_MS: u64 = 16;
const YIELDS_MAX: u64 = 400;

/// How the rounds on PostgreSQL differ: each statement is a way to another process, so all take longer, the approval with
/// its looks before the lock most of all, and whoever is to win needs a longer lead.
const FEWER: u64 = 4;
const LONGER: u64 = 5;

fn on_postgres() -> bool {
    ENGINE.try_with(|on| *on == On::Postgres).unwrap_or(false)
}
/// Calls of one run that wait, where the round does not end the run.
const CALLS: usize = 4;

/// What an approval races with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    /// The end of the request's time.
    Expiry,
    /// Another person's word.
    Rejection,
    /// The closing of a run that somebody halted.
    Halt,
    /// The closing of a run that was cancelled.
    Cancel,
    /// The same review, on a second worker that takes the first for dead.
    OtherWorker,
    /// The same review, asked for by the next execution.
    NextExecution,
}

/// Names the round when an assertion fails, also one of the world.
struct Named {
    rival: String,
    seed: u64,
}

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}, seed {}", self.rival, self.seed);
        }
    }
}

/// Two workers of one folder, each with a handle of its own on the store.
struct Arena {
    world: World,
    workers: [AgentActivities; 2],
}

impl Arena {
    /// In which a run waits for so many calls.
    async fn new(calls: usize) -> Self {
        let world = Folder::proposing(&vec![refund(50_000).as_str(); calls]).world().await;
        let second = world.another_handle().await;
        let workers = [world.activities_on(world.store.clone()).await, world.activities_on(second).await];
        let arena = Self { world, workers };
        // The first call starts the server, which makes its database.
        arena.waiting("first".to_owned()).await;
        arena.world.raise_order("o1").await;
        arena
    }

    /// A run whose calls wait for an approval each.
    async fn waiting(&self, name: String) -> Vec<Waiting<'_>> {
        let workflow_id: &'static str = name.leak();
        let first: &'static str = format!("{workflow_id}.1").leak();
        let next: &'static str = format!("{workflow_id}.2").leak();
        self.world.start_other(workflow_id, first, first);
        self.world.start_other(workflow_id, next, first);
        let [task, next_task] =
            [first, next].map(|run_id| Task { workflow_id: Some(workflow_id), run_id, ..Task::default() });
        let mut run = Run::open_on(&self.world, environment(self.workers[0].clone(), task)).await;
        let calls: Vec<_> = (0..run.turn().await.calls.len()).map(|index| format!("t1.{index}")).collect();
        let mut requests = Vec::new();
        for call in &calls {
            requests.push(run.asked(call).await.remove(0));
        }
        let run = Arc::new(run);
        let mut waiting = Vec::new();
        for (call, request) in calls.into_iter().zip(requests) {
            let approval = run.decision(request.call, &request.id, Verdict::Approve, BO).await;
            let rejection = run.decision(request.call, &request.id, Verdict::Reject, EVE).await;
            let (expiry, run) = (run.expiry(&request), Arc::clone(&run));
            waiting.push(Waiting {
                arena: self,
                task,
                next_task,
                run,
                call,
                approval,
                expiry,
                rejection: second(rejection),
            });
        }
        waiting
    }

    fn env(&self, worker: usize, task: Task) -> ActivityEnvironment {
        environment(self.workers[worker].clone(), task)
    }

    /// What the calls came to is what was paid, once, and nothing was sent again.
    async fn check_payments(&self, mut paid: Vec<String>) {
        let mut payments: Vec<_> = self.world.payments().await.into_iter().map(|(key, _)| key).collect();
        paid.sort();
        payments.sort();
        assert_eq!(payments, paid);
        assert_eq!(usize::try_from(self.world.requests_received().await).unwrap(), paid.len());
    }
}

/// The decision as it is taken in behind another.
fn second(mut decision: ReviewApprovalInput) -> ReviewApprovalInput {
    if let ReviewSubject::Decision { ordinal, .. } = &mut decision.subject {
        *ordinal += 1;
    }
    decision
}

/// A call that waits, and what may be said about its request.
struct Waiting<'a> {
    arena: &'a Arena,
    task: Task,
    /// The same run in its next execution.
    next_task: Task,
    run: Arc<Run<'a>>,
    call: String,
    approval: ReviewApprovalInput,
    expiry: ReviewApprovalInput,
    rejection: ReviewApprovalInput,
}

/// What a contender asks for.
#[derive(Debug, Clone)]
enum Act {
    Review(ReviewApprovalInput),
    Close(CloseRunInput),
}

/// What it is told.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Review(Review),
    Closed,
}

/// How long a contender waits before it begins.
#[derive(Debug, Clone, Copy, Default)]
struct Lead {
    millis: u64,
    yields: u64,
}

impl Lead {
    fn drawn(choices: &mut Choices) -> Self {
        Self {
            millis: choices.below(LEAD_MAX_MS * if on_postgres() { LONGER } else { 1 }),
            yields: choices.below(YIELDS_MAX),
        }
    }

    async fn pass(self) {
        if self.millis > 0 {
            pass(Duration::from_millis(self.millis)).await;
        }
        for _ in 0..self.yields {
            tokio::task::yield_now().await;
        }
    }
}

/// A moment later, as Temporal tries again.
async fn again() {
    pass(Duration::from_millis(20)).await;
}

/// Asks until there is an answer.
async fn act(env: &ActivityEnvironment, act: &Act) -> Told {
    loop {
        let told = match act {
            Act::Review(input) => review(env, input.clone()).await.map(|output| Told::Review(output.review)),
            Act::Close(input) => close(env, input.clone()).await.map(|_| Told::Closed),
        };
        match told {
            Ok(told) => return told,
            Err(failed) => assert!(failed.again, "{failed:?}"),
        }
        again().await;
    }
}

/// Walks the path until the call has its end.
async fn walk(env: &ActivityEnvironment, input: &CallToolInput) -> ToolCallOutcome {
    loop {
        match call(env, input.clone()).await {
            Ok(output) => return output.outcome,
            Err(failed) => assert!(failed.again, "{failed:?}"),
        }
        again().await;
    }
}

/// Acts, and walks the path where the request is approved then.
async fn contend(env: ActivityEnvironment, lead: Lead, asked: Act, input: CallToolInput) -> Told {
    lead.pass().await;
    let told = act(&env, &asked).await;
    if told == Told::Review(counted(1, true)) {
        walk(&env, &input).await;
    }
    told
}

impl Waiting<'_> {
    fn rival(&self, rival: Rival) -> Act {
        let closing = |state, reason| CloseRunInput {
            state,
            reason: Some(reason),
            abandoned: vec![id(&self.call)],
            ..self.run.closing()
        };
        match rival {
            Rival::Expiry => Act::Review(self.expiry.clone()),
            Rival::Rejection => Act::Review(self.rejection.clone()),
            Rival::Halt => {
                let sender = Sender { by: Some(person(EVE)), ..Sender::default() };
                let halted_by = Some(HaltRequest { sender, arrival: None });
                Act::Close(CloseRunInput { halted_by, ..closing(RunState::Stopped, EndReason::Halted) })
            }
            Rival::Cancel => Act::Close(closing(RunState::Cancelled, EndReason::Cancelled)),
            Rival::OtherWorker | Rival::NextExecution => Act::Review(self.approval.clone()),
        }
    }

    /// The approval and its rival at once: what each was told.
    async fn race(&self, rival: Rival, choices: &mut Choices) -> [Told; 2] {
        let mut leads = [Lead::default(), Lead::drawn(choices)];
        choices.shuffle(&mut leads);
        let theirs = match rival {
            Rival::NextExecution => self.next_task,
            Rival::Expiry => Task { started: LATE, ..self.task },
            Rival::Rejection | Rival::Halt | Rival::Cancel | Rival::OtherWorker => self.task,
        };
        let envs = [self.arena.env(0, self.task), self.arena.env(1, theirs)];
        let acts = [Act::Review(self.approval.clone()), self.rival(rival)];
        let input = self.run.call_input(&self.call);
        let tasks = envs.into_iter().zip(leads).zip(acts.clone());
        let tasks = tasks.map(|((env, lead), act)| tokio::spawn(contend(env, lead, act, input.clone())));
        let told: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        // The other worker says the same, also of the other's.
        let envs = [self.arena.env(1, self.task), self.arena.env(0, theirs)];
        for ((env, asked), told) in envs.iter().zip(&acts).zip(&told) {
            assert_eq!(act(env, asked).await, *told);
        }
        told.try_into().unwrap()
    }

    /// What the call came to, as the second worker says.
    async fn end(&self) -> ToolCallOutcome {
        let input = CallToolInput { purpose: CallPurpose::LookUp, ..self.run.call_input(&self.call) };
        walk(&self.arena.env(1, self.task), &input).await
    }

    /// What the system of record knows a payment of the call by.
    fn key(&self) -> String {
        format!("{}/{}", self.run.opened.run, self.call)
    }

    /// The records of the run, which verify.
    async fn records(&self) -> Vec<AuditRecord> {
        self.arena.world.records(&self.run.opened.run).await
    }
}

/// How many records of each kind a call has, and its run.
#[derive(Debug, PartialEq, Eq, Default)]
struct Recorded {
    intents: u64,
    outcomes: u64,
    decided: u64,
    counted: u64,
    expired: u64,
    abandoned: u64,
    halted: u64,
    closed: u64,
}

impl Recorded {
    fn of(records: &[AuditRecord], call: &str) -> Self {
        let own = EffectId::Tool(id(call));
        let mut recorded = Self::default();
        for record in records {
            match &record.body {
                RecordBody::Intent { effect, .. } if *effect == own => recorded.intents += 1,
                RecordBody::Outcome { effect, .. } if *effect == own => recorded.outcomes += 1,
                RecordBody::ApprovalDecided { effect, refused, .. } if *effect == own => {
                    recorded.decided += 1;
                    recorded.counted += u64::from(refused.is_none());
                }
                RecordBody::ApprovalExpired { effect, .. } if *effect == own => recorded.expired += 1,
                RecordBody::CallAbandoned { effect, .. } if *effect == own => recorded.abandoned += 1,
                RecordBody::Halted { .. } => recorded.halted += 1,
                RecordBody::RunClosed { .. } => recorded.closed += 1,
                _ => {}
            }
        }
        recorded
    }

    /// What a call has whose approval was told this and that was paid so often.
    fn expected(rival: Rival, approval: &Review, paid: u64) -> Self {
        let counted = u64::from(matches!(approval, Review::Counted { .. }));
        let common = Self { intents: paid, outcomes: paid, decided: 1, counted, ..Self::default() };
        match rival {
            Rival::Expiry => Self { expired: 1 - paid, ..common },
            Rival::Rejection => Self { decided: 2, counted: 1, ..common },
            Rival::Halt => Self { abandoned: 1 - paid, halted: 1, closed: 1, ..common },
            Rival::Cancel => Self { abandoned: 1 - paid, closed: 1, ..common },
            Rival::OtherWorker | Rival::NextExecution => common,
        }
    }
}

/// The approval and its rival were told what goes with what the call came to.
fn fits(rival: Rival, told: &[Told; 2], end: &ToolCallOutcome) -> bool {
    let paid = matches!(end, ToolCallOutcome::Returned { is_error: false, .. });
    let refused = |kind| matches!(end, ToolCallOutcome::Refused { refusal, .. } if refusal.kind == kind);
    let [Told::Review(approval), rivals] = told else { return false };
    let approved = *approval == counted(1, true);
    match (rival, rivals) {
        (Rival::Expiry | Rival::Rejection, Told::Review(Review::AlreadyDecided)) => paid && approved,
        // An approval that was not used in time runs out as well.
        (Rival::Expiry, Told::Review(Review::Expired { .. })) => {
            refused(RefusalKind::Expired) && (approved || *approval == Review::AlreadyDecided)
        }
        (Rival::Rejection, Told::Review(Review::Rejected { .. })) => {
            refused(RefusalKind::Rejected) && *approval == Review::AlreadyDecided
        }
        (Rival::Halt | Rival::Cancel, Told::Closed) => {
            let ended = matches!(approval, Review::Refused { reason } if reason.contains("the run has ended"));
            if paid { approved } else { *end == ToolCallOutcome::NotPerformed && (approved || ended) }
        }
        (Rival::OtherWorker | Rival::NextExecution, Told::Review(same)) => paid && approved && same == approval,
        (_, Told::Review(_) | Told::Closed) => false,
    }
}

fn is_paid(end: &ToolCallOutcome) -> bool {
    matches!(end, ToolCallOutcome::Returned { is_error: false, .. })
}

/// One round: what both were told, and what the call came to.
async fn round(waiting: &Waiting<'_>, rival: Rival, seed: u64) -> ([Told; 2], ToolCallOutcome) {
    let _named = Named { rival: format!("{rival:?}"), seed };
    let told = waiting.race(rival, &mut Choices::seeded(seed)).await;
    let end = waiting.end().await;
    assert!(fits(rival, &told, &end), "{told:?}, {end:?}");
    (told, end)
}

/// Whether the worker that opened the run has recorded the first decision about the call.
fn first_worker_won(records: &[AuditRecord], call: &str) -> bool {
    let own = EffectId::Tool(id(call));
    let is_own = |body: &RecordBody| matches!(body, RecordBody::ApprovalDecided { effect, .. } if *effect == own);
    let decided = records.iter().find(|record| is_own(&record.body)).unwrap();
    decided.origin.worker == records[0].origin.worker
}

/// Runs all rounds. Either contender won some of them: it was a race.
async fn race(rival: Rival) {
    let calls = if matches!(rival, Rival::Halt | Rival::Cancel) { 1 } else { CALLS };
    let arena = Arena::new(calls).await;
    let (mut won, mut paid) = (0, Vec::new());
    let fewer = if on_postgres() { FEWER } else { 1 };
    let (rounds, won_min) = (ROUNDS / fewer, WON_MIN / fewer);
    for first in (0..rounds).step_by(calls) {
        let waiting = arena.waiting(format!("{rival:?}-{first}")).await;
        let mut ended = Vec::new();
        for (waiting, seed) in waiting.iter().zip(first..) {
            ended.push(round(waiting, rival, seed).await);
        }
        let records = waiting[0].records().await;
        for ((waiting, (told, end)), seed) in waiting.iter().zip(ended).zip(first..) {
            let _named = Named { rival: format!("{rival:?}"), seed };
            let [Told::Review(approval), _] = &told else { panic!("{told:?}") };
            let expected = Recorded::expected(rival, approval, u64::from(is_paid(&end)));
            assert_eq!(Recorded::of(&records, &waiting.call), expected, "{told:?}, {end:?}");
            won += u64::from(match rival {
                Rival::Expiry | Rival::Rejection | Rival::Halt | Rival::Cancel => is_paid(&end),
                Rival::OtherWorker | Rival::NextExecution => first_worker_won(&records, &waiting.call),
            });
            paid.extend(is_paid(&end).then(|| waiting.key()));
        }
    }
    arena.check_payments(paid).await;
    assert!((won_min..=rounds - won_min).contains(&won), "{rival:?}: the first won {won} of {rounds} rounds");
}

async fn an_approval_races_with_the_expiry_of_its_request() {
    race(Rival::Expiry).await;
}

async fn an_approval_races_with_a_rejection() {
    race(Rival::Rejection).await;
}

async fn an_approval_races_with_the_close_of_a_halted_run() {
    race(Rival::Halt).await;
}

async fn an_approval_races_with_the_close_of_a_cancelled_run() {
    race(Rival::Cancel).await;
}

async fn an_approval_races_with_itself_on_a_second_worker() {
    race(Rival::OtherWorker).await;
}

async fn an_approval_races_with_itself_in_the_next_execution() {
    race(Rival::NextExecution).await;
}

on_both_engines! {
    an_approval_races_with_the_expiry_of_its_request
    an_approval_races_with_a_rejection
    an_approval_races_with_the_close_of_a_halted_run
    an_approval_races_with_the_close_of_a_cancelled_run
    an_approval_races_with_itself_on_a_second_worker
    an_approval_races_with_itself_in_the_next_execution
}
