//! `mandate audit verify`: whether each run's chain is whole and keeps the rules, against the head that the run's
//! result in Temporal's history carries, and whether the store's own chain is.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use mandate_activities::store::{RunSummary, Store};
use mandate_domain::{
    ChainHead, RunChain, StoreId,
    audit::verify::{Finding, Verification, verify as verify_chain, verify_own},
    render,
};
use serde::Serialize;

use super::open_existing_store;
use crate::{
    cli::{Global, Verify, WitnessKind},
    connection::{self, Temporal},
    output::{self, Exit, OutputFormat},
};

/// How long the result of one run is waited for. A run that is still open has none.
const RESULT_WITHIN: Duration = Duration::from_secs(3);
/// How many runs are asked for at once.
const ASKED_AT_ONCE: usize = 8;

/// The verdict about one chain.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    #[serde(flatten)]
    subject: Subject,
    holds: bool,
    records: u64,
    head: String,
    /// Whether Temporal's history confirms the head.
    witnessed: bool,
    violations: Vec<String>,
    /// What is no violation but has to be looked at.
    notices: Vec<String>,
}

/// Whose chain it is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Subject {
    Run { run: RunChain, closed: bool },
    Store { store: StoreId },
}

/// Verifies and prints one verdict a run, and one about the store's own chain unless a run was named.
///
/// # Errors
/// When the store or the witness that was asked for cannot be read.
pub async fn verify(global: &Global, options: &Verify) -> anyhow::Result<Exit> {
    let store = open_existing_store(global).await?;
    let witness = witness(global, options.witness).await?;
    let mut verdicts = verdicts(&store, options.workflow_id.as_deref(), witness.as_ref()).await?;
    if options.workflow_id.is_none() {
        verdicts.push(judge_own(&store).await?);
    }
    store.close().await;
    if let (Some(workflow_id), true) = (&options.workflow_id, verdicts.is_empty()) {
        anyhow::bail!("the store knows no run `{}`", render::escape_line(workflow_id));
    }
    match options.output {
        OutputFormat::Json => output::json(&verdicts)?,
        OutputFormat::Text => verdicts.iter().try_for_each(|verdict| output::data(text(verdict)))?,
    }
    Ok(if verdicts.iter().all(|verdict| verdict.holds) { Exit::Done } else { Exit::Failure })
}

/// The witness that was asked for, or else Temporal if somebody configured one and it answers.
async fn witness(global: &Global, wanted: Option<WitnessKind>) -> anyhow::Result<Option<Temporal>> {
    let target = connection::target(global)?;
    let temporal = match wanted {
        Some(WitnessKind::Temporal) => Some(target.connect().await?),
        None if target.configured => {
            let asked = target.connect().await;
            asked.inspect_err(|error| output::note(format_args!("warning: {error:#}"))).ok()
        }
        Some(WitnessKind::None) | None => None,
    };
    match &temporal {
        Some(temporal) => output::note(format_args!("witness: Temporal's history at `{}`", temporal.address)),
        None => output::note("witness: none, so a cut-off tail does not show; add --witness temporal"),
    }
    Ok(temporal)
}

/// The verdicts about the runs of a workflow id, or of all.
///
/// # Errors
/// When the store cannot be read.
pub(super) async fn verdicts(
    store: &Store,
    workflow_id: Option<&str>,
    witness: Option<&Temporal>,
) -> anyhow::Result<Vec<Verdict>> {
    let runs = store.runs(workflow_id).await?;
    let judged = stream::iter(runs).map(|summary| judge(store, summary, witness)).buffered(ASKED_AT_ONCE);
    judged.collect::<Vec<_>>().await.into_iter().collect()
}

impl Verdict {
    /// Whether nothing says that the record was changed or a rule broken.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }
}

async fn judge(store: &Store, summary: RunSummary, witness: Option<&Temporal>) -> anyhow::Result<Verdict> {
    let run = summary.run;
    // Asked first: records that are appended meanwhile then stand in the store, and are not missing.
    let seen = match witness {
        Some(temporal) => head_in_history(temporal, &run).await,
        None => None,
    };
    let records = store.records(&run).await?;
    let verification = verify_chain(&run, &records, seen.as_ref());
    let subject = Subject::Run { run, closed: verification.closed };
    Ok(verdict(subject, &verification, seen.is_some()))
}

/// No run ends with the head of the store's own chain, so nothing outside the store confirms it.
async fn judge_own(store: &Store) -> anyhow::Result<Verdict> {
    // Read first: what is appended meanwhile is then not missing.
    let head = store.own_head().await?;
    let chain = store.own_chain();
    let verification = verify_own(&chain, &store.records(&chain).await?, Some(&head));
    Ok(verdict(Subject::Store { store: store.id().clone() }, &verification, false))
}

/// The head in the run's result, if it ended with one.
async fn head_in_history(temporal: &Temporal, run: &RunChain) -> Option<ChainHead> {
    let handle = temporal.execution(&run.workflow_id, &run.first_run_id);
    let ended = tokio::time::timeout(RESULT_WITHIN, temporal.ended(&handle)).await;
    Some(ended.ok()?.ok()?.result?.audit)
}

fn verdict(subject: Subject, verification: &Verification, witnessed: bool) -> Verdict {
    let (violations, notices): (Vec<&Finding>, Vec<&Finding>) =
        verification.findings.iter().partition(|finding| finding.is_violation());
    let lines = |findings: Vec<&Finding>| findings.iter().map(ToString::to_string).collect();
    Verdict {
        subject,
        holds: verification.holds(),
        records: verification.head.records,
        head: verification.head.head.to_string(),
        witnessed,
        violations: lines(violations),
        notices: lines(notices),
    }
}

/// A verdict as lines for people.
pub(super) fn text(verdict: &Verdict) -> String {
    let word = if verdict.holds { "holds" } else { "VIOLATED" };
    let witnessed = if verdict.witnessed { "confirmed by Temporal's history" } else { "no witness" };
    let (records, head) = (verdict.records, verdict.head.get(..12).unwrap_or_default());
    let (name, state) = match &verdict.subject {
        Subject::Run { run, closed } => (
            format!("{} (run {})", render::escape_line(&run.workflow_id), render::escape_line(&run.first_run_id)),
            if *closed { ", closed" } else { ", open" },
        ),
        Subject::Store { store } => (format!("store {store}"), ""),
    };
    let mut lines = vec![format!("{word}  {name}: {records} records, head {head}{state}, {witnessed}")];
    let found = |kind: &str, line: &String| format!("  {kind}: {}", render::escape_line(line));
    lines.extend(verdict.violations.iter().map(|line| found("violation", line)));
    lines.extend(verdict.notices.iter().map(|line| found("look", line)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use mandate_activities::store::{AddressKeySource, StorePlace, StoreSettings};

    use super::*;

    fn run() -> RunChain {
        RunChain { workflow_id: "refund-\n1".into(), first_run_id: "run-1".into() }
    }

    fn of_run(closed: bool) -> Subject {
        Subject::Run { run: run(), closed }
    }

    #[test]
    fn an_empty_chain_is_a_violation_that_is_shown() {
        let verdict = verdict(of_run(false), &verify_chain(&run(), &[], None), false);
        let expected = "VIOLATED  refund-\\n1 (run run-1): 0 records, head 000000000000, open, no witness\n  \
                        violation: record 1: the chain does not begin with the opening of the run";
        assert_eq!(text(&verdict), expected);
        assert!(!verdict.holds);
    }

    #[test]
    fn a_notice_breaks_no_rule() {
        let findings = vec![Finding::OpenIntent { sequence: 4, effect: mandate_domain::EffectId::Model(1) }];
        let verification = Verification { head: ChainHead::empty(), closed: false, findings };
        let verdict = verdict(of_run(true), &verification, true);
        assert!(verdict.holds);
        assert!(
            text(&verdict)
                .ends_with("closed, confirmed by Temporal's history\n  look: record 4: intent of `m1` has no outcome")
        );
        let written = serde_json::to_value(&verdict).unwrap();
        assert_eq!((&written["run"]["first_run_id"], &written["closed"]), (&"run-1".into(), &true.into()));
    }

    async fn judged_own(store: &Store) -> (bool, String, serde_json::Value) {
        let verdict = judge_own(store).await.unwrap();
        (verdict.holds, text(&verdict), serde_json::to_value(&verdict).unwrap())
    }

    #[tokio::test]
    async fn the_stores_own_chain_has_a_verdict_that_names_the_store() {
        let home = tempfile::tempdir().unwrap();
        let settings = StoreSettings {
            place: StorePlace::File(home.path().join("mandate.db")),
            address_keys: AddressKeySource::Folder(home.path().join("keys")),
        };
        let store = Store::open(settings).await.unwrap();
        let id = store.id().clone();
        let (holds, said, _) = judged_own(&store).await;
        assert!(holds && said == format!("holds  store {id}: 0 records, head 000000000000, no witness"), "{said}");
        let origin =
            mandate_domain::Origin { run_id: "run-1".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() };
        store.record_intrusion(&origin, "call_tool", "a foreign workflow").await.unwrap();
        let (holds, said, written) = judged_own(&store).await;
        assert!(holds && said.starts_with(&format!("holds  store {id}: 1 records, head ")), "{said}");
        assert_eq!((&written["store"], &written["holds"]), (&id.as_str().into(), &true.into()), "{written}");
        assert!(written.get("run").is_none() && written.get("closed").is_none(), "{written}");
    }
}
