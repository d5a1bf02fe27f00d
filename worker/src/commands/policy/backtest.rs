//! `mandate policy backtest`: what other policies would have said to what past runs asked, from the audit chains and the
//! recorded replies. Nothing is written, and nobody but the store is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use mandate_activities::{
    policy::load_row,
    store::{RunRow, Store, StoreError},
};
use mandate_domain::{
    Address, Arguments, AuditRecord, DecisionOutcome, Digest, EffectId, PolicyId, RecordBody, RunChain, ToolCallId,
    policy::{
        PolicyBundle,
        backtest::{PastRun, Replayed, Said, backtest as replay},
    },
    render,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    cli::{Backtest, Global},
    commands::{explain::records, load, open_existing_store_of},
    output::{self, Exit, OutputFormat, UsageError},
};

/// Most runs that are asked about.
const RUNS_MAX: u32 = 10_000;

/// Fewest digits that name a bundle.
const DIGITS_MIN: usize = 8;

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    /// The policies that were asked.
    bundle: Digest,
    since_micros: u64,
    runs: usize,
    /// Whether there were more runs than are asked about at once: the oldest are left out.
    truncated: bool,
    /// Decisions that would be the same.
    same: usize,
    changes: Vec<Change>,
    not_replayable: Vec<NotReplayed>,
    /// How many changes each policy makes; those that no policy makes stand under an empty name.
    by_policy: BTreeMap<String, usize>,
}

/// A decision that would be another.
#[derive(Debug, Serialize)]
struct Change {
    run: RunChain,
    /// The call, model call or person's decision.
    call: String,
    target: String,
    sequence: u64,
    then: Answer,
    now: Answer,
}

/// A decision that cannot be asked again.
#[derive(Debug, Serialize)]
struct NotReplayed {
    run: RunChain,
    call: String,
    target: String,
    sequence: u64,
    then: Answer,
    why: String,
}

#[derive(Debug, Serialize)]
struct Answer {
    outcome: DecisionOutcome,
    policies: BTreeSet<PolicyId>,
    reason: String,
}

impl From<Said> for Answer {
    fn from(Said { outcome, policies, reason }: Said) -> Self {
        Self { outcome, policies, reason }
    }
}

/// Asks the past and prints what would be otherwise.
///
/// # Errors
/// When the folder, the store or the bundle cannot be used.
pub async fn backtest(global: &Global, options: &Backtest) -> anyhow::Result<Exit> {
    let config = load(&global.folder)?;
    let store = open_existing_store_of(&config).await?;
    let bundle = match &options.bundle {
        Some(digest) => stored(&store, digest).await?,
        None => config.policy,
    };
    let report = report(&store, &bundle, since_micros(options.since)).await?;
    store.close().await;
    match options.output {
        OutputFormat::Json => output::json(&report)?,
        OutputFormat::Text => output::data(text(&report))?,
    }
    let changed = !report.changes.is_empty() || !report.not_replayable.is_empty();
    Ok(if options.deny_changes && changed { Exit::Failure } else { Exit::Done })
}

fn since_micros(secs: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(std::time::Duration::from_secs(secs));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

async fn stored(store: &Store, digits: &str) -> anyhow::Result<PolicyBundle> {
    if digits.len() < DIGITS_MIN {
        return Err(UsageError(format!("name the bundle by {DIGITS_MIN} or more digits of its digest")).into());
    }
    let all = store.bundles().await?;
    let found: BTreeSet<&Digest> =
        all.iter().map(|row| &row.digest).filter(|digest| digest.as_str().starts_with(digits)).collect();
    let digest = match found.into_iter().collect::<Vec<_>>()[..] {
        [digest] => digest.clone(),
        [] => anyhow::bail!("the store has no bundle `{}`", render::escape_line(digits)),
        [..] => return Err(UsageError(format!("more than one bundle begins with `{digits}`")).into()),
    };
    let row = store.bundle(&digest).await?.context("the bundle is gone from the store")?;
    load_row(&row).map_err(|reason| anyhow::anyhow!("bundle `{digest}` cannot be used: {reason}"))
}

async fn report(store: &Store, bundle: &PolicyBundle, since_micros: u64) -> anyhow::Result<Report> {
    let runs = store.runs_active_since(since_micros, RUNS_MAX).await?;
    let mut report = Report {
        bundle: bundle.digest().clone(),
        since_micros,
        runs: runs.len(),
        truncated: runs.len() >= usize::try_from(RUNS_MAX).unwrap_or(usize::MAX),
        same: 0,
        changes: Vec::new(),
        not_replayable: Vec::new(),
        by_policy: BTreeMap::new(),
    };
    // The oldest first, as things happened.
    for run in runs.into_iter().rev() {
        let Some(row) = store.run(&run).await? else { continue };
        let records = records(store, &run).await?;
        let arguments = arguments(store, &run, &row, &records).await?;
        let past = PastRun {
            agent: &row.agent,
            agent_owner: &row.definition.owner,
            on_behalf_of: &row.on_behalf_of,
            workflow_id: &run.workflow_id,
            tools: &row.tools,
            records: &records,
            arguments: &arguments,
        };
        for replayed in replay(bundle, &past, since_micros) {
            report.take(&run, replayed);
        }
    }
    Ok(report)
}

/// The arguments of the calls that were decided about, from the recorded replies and from what approvers put in their
/// place. Those that are gone, or are not what was decided about, are left out.
async fn arguments(
    store: &Store,
    run: &RunChain,
    row: &RunRow,
    records: &[AuditRecord],
) -> anyhow::Result<BTreeMap<ToolCallId, Map<String, Value>>> {
    let key = store.address_key(row.agent.tenant()).await?;
    let mut decided: BTreeMap<ToolCallId, &Address> = BTreeMap::new();
    for record in records {
        if let RecordBody::Decision { effect: EffectId::Tool(call), input, .. } = &record.body {
            decided.insert(*call, input);
        }
    }
    let mut arguments = BTreeMap::new();
    for (call, input) in decided {
        let object = match object(store, run, call).await {
            Ok(object) => object,
            Err(StoreError::Corrupt { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(object) = object.filter(|object| key.address_of(object).is_ok_and(|address| address == *input)) {
            arguments.insert(call, object);
        }
    }
    Ok(arguments)
}

/// The arguments of a call, as the model proposed them or as an approver changed them.
async fn object(store: &Store, run: &RunChain, call: ToolCallId) -> Result<Option<Map<String, Value>>, StoreError> {
    if call != call.proposed() {
        return Ok(store.revision(run, call).await?.map(|row| row.arguments));
    }
    let index = usize::try_from(call.index).unwrap_or(usize::MAX);
    let proposed = store.reply(run, call.turn).await?.and_then(|row| row.reply.calls.into_iter().nth(index));
    match proposed.map(|call| call.arguments) {
        Some(Arguments::Object(object)) => Ok(Some(object)),
        Some(Arguments::Malformed(_)) | None => Ok(None),
    }
}

impl Report {
    fn take(&mut self, run: &RunChain, replayed: Replayed) {
        let differs = replayed.differs();
        let (run, Replayed { subject: call, target, sequence, then, now, .. }) = (run.clone(), replayed);
        match now {
            Ok(_) if !differs => self.same += 1,
            Ok(now) => {
                let mut names: Vec<String> = now.policies.iter().map(ToString::to_string).collect();
                if names.is_empty() {
                    names.push(String::new());
                }
                for name in names {
                    *self.by_policy.entry(name).or_default() += 1;
                }
                self.changes.push(Change { run, call, target, sequence, then: then.into(), now: now.into() });
            }
            Err(why) => {
                let why = why.to_string();
                self.not_replayable.push(NotReplayed { run, call, target, sequence, then: then.into(), why });
            }
        }
    }
}

fn text(report: &Report) -> String {
    let mut parts = Vec::new();
    if !report.changes.is_empty() {
        let row = |change: &Change| {
            let Change { run, call, target, then, now, .. } = change;
            [&run.workflow_id, call, target, &answer(then), &answer(now)].map(|cell| render::escape_line(cell))
        };
        parts.push(output::table(["RUN", "CALL", "TARGET", "THEN", "NOW"], report.changes.iter().map(row)));
    }
    if !report.not_replayable.is_empty() {
        let row = |gone: &NotReplayed| {
            let NotReplayed { run, call, target, then, why, .. } = gone;
            [&run.workflow_id, call, target, &answer(then), why].map(|cell| render::escape_line(cell))
        };
        let rows = report.not_replayable.iter().map(row);
        parts.push(output::table(["RUN", "CALL", "TARGET", "THEN", "NOT REPLAYABLE"], rows));
    }
    parts.push(summary(report).join("\n"));
    parts.join("\n\n")
}

fn summary(report: &Report) -> Vec<String> {
    let (changes, gone) = (report.changes.len(), report.not_replayable.len());
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let asked = format!("{}, {}", counted(report.runs, "run"), counted(report.same + changes + gone, "decision"));
    let mut lines = vec![if changes + gone == 0 {
        format!("{asked}: nothing would end differently")
    } else {
        format!("{asked}: {changes} would end differently, {} would not, {gone} not replayable", report.same)
    }];
    for (policy, count) in &report.by_policy {
        let policy = if policy.is_empty() { "no policy" } else { policy };
        lines.push(format!("  by {policy}: {count}"));
    }
    if report.truncated {
        lines.push(format!("only the newest {RUNS_MAX} runs were asked about; shorten --since"));
    }
    lines
}

fn answer(answer: &Answer) -> String {
    let (outcome, policies) = (answer.outcome.as_str(), &answer.policies);
    let ids: Vec<_> = policies.iter().map(PolicyId::as_str).collect();
    match (ids.is_empty(), answer.reason.as_str()) {
        (false, _) => format!("{outcome} by {}", ids.join(", ")),
        (true, "") => outcome.to_owned(),
        // No name tells more than the reason.
        (true, reason) => format!("{outcome}: {reason}"),
    }
}
