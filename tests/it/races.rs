//! An approval races with what could take its place, on a real server: runs of one world and one worker, and for each a
//! moment that a seed decides. Whoever wins, there is one winner: a call is paid once or not at all, the run says so, its
//! history replays, the audit chains verify, and whatever a person sent is answered or recorded.

use std::{ops::Range, time::Duration};

use futures::{StreamExt as _, future::join_all, stream};
use mandate_domain::{
    AgentResult, RunState, ToolCallId,
    agent_run::Answer,
    audit::{AuditRecord, RecordBody},
};
use mandate_tests::{Choices, Execution, Scenario, Told, Way, pass, until};

use crate::replay::replayer;

mod deadline;
mod policy;
mod stops;
mod workers;

const BO: &str = "bo@acme.example";
const ROUNDS: u64 = 20;
/// Rounds that go on at the same time.
const AT_ONCE: usize = 5;

/// A refund that a finance lead has to approve, and what the agent says of it.
const SCRIPT: &str = r#"
[[conversation]]
[[conversation.reply]]
calls = [{ tool = "payments.refund", arguments = { order_id = "o1", amount_cents = 50000, currency = "EUR" } }]
[[conversation.reply]]
when = "refunded"
text = "Paid."
[[conversation.reply]]
text = "Not paid."
"#;

/// A world in which many runs can be paid.
async fn world(name: &str) -> Scenario {
    let scenario = Scenario::new(name).await;
    scenario.write("scripts/refunds.toml", SCRIPT);
    scenario.raise_order("o1").await;
    scenario
}

/// A round: a run of its own, and what its seed decides.
struct Round {
    seed: u64,
    choices: Choices,
    run: Scenario,
    /// The request that waits.
    request: String,
    /// What the approval was told.
    told: Option<Told>,
}

impl Round {
    /// Starts a run, and waits until it waits.
    async fn start(world: &Scenario, seed: u64) -> Self {
        let run = world.of_run(&format!("{}-{seed}", world.name));
        run.start("Refund.").await;
        let request = run.first_request().await.unwrap_or_default();
        Self { seed, choices: Choices::seeded(seed), run, request, told: None }
    }

    async fn start_all(world: &Scenario, seeds: Range<u64>) -> Vec<Self> {
        join_all(seeds.map(|seed| Self::start(world, seed))).await
    }

    /// Approves, in the way that the seed decides.
    async fn approve(&mut self) {
        let way = if self.choices.flip() { Way::Signal } else { Way::Update };
        self.told = Some(self.run.approve_by(way, &self.request, BO).await);
    }

    /// The approval and its rival, in an order and at most so far apart as the seed decides.
    async fn race(mut self, apart_max_ms: u64, rival: impl AsyncFnOnce(&Scenario)) -> Self {
        let run = self.run.of_run(&self.run.name);
        match self.choices.below(4) {
            0 => {
                self.approve().await;
                until("it is paid", async || (payments_of(&run).await > 0).then_some(())).await;
                rival(&run).await;
            }
            1 => {
                rival(&run).await;
                self.approve().await;
            }
            _ => {
                let mut waits = [Duration::ZERO, self.choices.millis_below(apart_max_ms)];
                self.choices.shuffle(&mut waits);
                let [ours, theirs] = waits;
                let approval = async {
                    pass(ours).await;
                    self.approve().await;
                };
                let rival = async {
                    pass(theirs).await;
                    rival(&run).await;
                };
                futures::join!(approval, rival);
            }
        }
        self
    }
}

/// How often the calls of a run are paid.
async fn payments_of(run: &Scenario) -> usize {
    let own = format!("{}/", run.name);
    let payments = run.payments().await.into_iter().filter_map(|payment| payment.key);
    payments.filter(|key| key.starts_with(&own)).count()
}

/// Carries out rounds, some at the same time.
async fn each<R>(rounds: Vec<Round>, act: impl AsyncFn(Round) -> R) -> Vec<R> {
    stream::iter(rounds).map(async |round| act(round).await).buffer_unordered(AT_ONCE).collect().await
}

/// What a round came to.
struct Ended {
    seed: u64,
    told: Option<Told>,
    request: String,
    result: AgentResult,
    /// The newest first.
    executions: Vec<Execution>,
    records: Vec<AuditRecord>,
    paid: bool,
}

/// Waits for the end of all rounds, and holds everything against everything: payments, results, histories, audit chains.
async fn end(world: &Scenario, rounds: Vec<Round>) -> Vec<Ended> {
    for round in &rounds {
        round.run.wait_closed().await;
    }
    let records = world.records().await;
    assert_eq!(world.payments().await.len(), world.refund_calls().await.len(), "nothing is sent again");
    let replayer = replayer();
    let mut all = Vec::new();
    for round in rounds {
        let (seed, id) = (round.seed, round.run.name.clone());
        let executions = round.run.executions().await;
        for execution in &executions {
            let same = replayer.replay_workflow(execution.replayable()).await;
            same.unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        let result = executions[0].result().unwrap_or_else(|| panic!("{id} has no result"));
        let records: Vec<_> = records.iter().filter(|record| record.run.workflow_id == id).cloned().collect();
        let paid = payments_of(&round.run).await;
        assert!(paid <= 1, "{id} is paid {paid} times");
        let ended =
            Ended { seed, told: round.told, request: round.request, result, executions, records, paid: paid == 1 };
        ended.says_whether_it_was_paid();
        ended.heard(round.run.status().await.refused_messages);
        all.push(ended);
    }
    world.mandate(&["audit", "verify", "--witness", "temporal"]).await.ok();
    all
}

impl Ended {
    fn count(&self, which: impl Fn(&RecordBody) -> bool) -> usize {
        self.records.iter().filter(|record| which(&record.body)).count()
    }

    /// The result and the records say what the payments say.
    fn says_whether_it_was_paid(&self) {
        let (seed, result, paid) = (self.seed, &self.result, self.paid);
        let call: ToolCallId = "t1.0".parse().unwrap();
        match result.state {
            RunState::Completed => {
                let answer = result.answer.as_ref().map(|answer| answer.shown().to_owned());
                let expected = if paid { "Paid." } else { "Not paid." };
                assert_eq!(answer.as_deref(), Some(expected), "seed {seed}: {result:?}");
            }
            RunState::Stopped | RunState::Cancelled => {
                let performed = result.performed.iter().any(|performed| performed.call == call);
                let abandoned = result.not_performed.contains(&call);
                assert_eq!((performed, abandoned), (paid, !paid), "seed {seed}: {result:?}");
            }
            other => panic!("seed {seed}: {other:?}, {result:?}"),
        }
        assert!(result.unknown_outcomes.is_empty(), "seed {seed}: {result:?}");
        let intents = self.count(|body| matches!(body, RecordBody::Intent { approvals, .. } if !approvals.is_empty()));
        assert!(intents >= usize::from(paid), "seed {seed}: paid without its approval");
    }

    /// The approval is recorded once, or counted among the refused messages, or was turned away.
    fn heard(&self, refused_messages: u64) {
        let seed = self.seed;
        let decided = self.count(
            |body| matches!(body, RecordBody::ApprovalDecided { request, .. } if request.as_str() == self.request),
        );
        let counted = self.count(|body| matches!(body, RecordBody::ApprovalDecided { refused: None, .. }));
        let fits = match &self.told {
            None | Some(Told::TurnedAway(_)) => decided == 0,
            Some(Told::Taken | Told::Answered(Answer::Refused { .. })) => decided == 1 || refused_messages > 0,
            Some(Told::Answered(Answer::AlreadyDecided)) => decided == 1 && counted == 0,
            Some(Told::Answered(Answer::Accepted { .. })) => counted == 1,
        };
        assert!(fits, "seed {seed}: told {:?}, {decided} recorded, {refused_messages} refused", self.told);
        assert!(decided <= 1 && counted >= usize::from(self.paid), "seed {seed}: {decided}, {counted}");
    }
}
