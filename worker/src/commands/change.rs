//! What `mandate apply` and `mandate rollback` share: show the difference, ask policy and the person, make the bundle
//! the active one.

use std::collections::BTreeSet;

use anyhow::Context as _;
use mandate_activities::{
    operator::{Applied, BundleToApply, Judged, Judgement, Operator, OperatorError},
    policy::{OpenPolicyError, Usable, newest_usable},
    store::Store,
};
use mandate_domain::{
    Digest, PersonId, Proof,
    policy::{PersonAction, PersonRequest, PolicyBundle, PolicyDecision},
    render,
};
use serde::Serialize;

use super::{ask, worker};
use crate::{
    bundle::Difference,
    cli,
    output::{self, Exit, OutputFormat, Refused},
};

/// A bundle that is to become the active one.
pub(super) struct Proposal<'a> {
    pub(super) policy: &'a PolicyBundle,
    pub(super) bundle: BundleToApply,
    pub(super) dry_run: bool,
}

/// What is active now.
pub(super) struct Before {
    /// Its version; zero for none.
    version: u64,
    /// The bundle that judges; none where this is the first, or none can be used.
    judge: Option<Usable>,
}

/// What is shown, and what came of it.
#[derive(Serialize)]
struct Shown {
    before: Option<Named>,
    after: Named,
    /// The version that the difference is to, where that is not the one before, which cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_with: Option<u64>,
    difference: Difference,
    permitted: bool,
    policies: Vec<String>,
    reason: String,
    warnings: Vec<String>,
    outcome: Outcome,
}

/// A bundle by version and digest.
#[derive(Serialize)]
struct Named {
    version: u64,
    digest: Option<Digest>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Applied,
    AlreadyActive,
    DryRun,
    NotConfirmed,
    Refused,
}

impl Before {
    pub(super) fn nothing() -> Self {
        Self { version: 0, judge: None }
    }

    /// Looks at the store, and says if the active bundle cannot be used.
    pub(super) async fn of(store: &Store) -> anyhow::Result<Self> {
        match newest_usable(store).await {
            Ok(judge) => {
                warn_of_trouble(&judge);
                let version = judge.trouble.as_ref().map_or(judge.version, |trouble| trouble.active);
                Ok(Self { version, judge: Some(judge) })
            }
            Err(OpenPolicyError::Nothing) => Ok(Self::nothing()),
            Err(error @ OpenPolicyError::Unusable { version, .. }) => {
                output::note(format_args!("warning: {error}, and none before it either"));
                Ok(Self { version, judge: None })
            }
            Err(OpenPolicyError::Store(error)) => Err(error.into()),
        }
    }

    fn bundle(&self) -> Option<&PolicyBundle> {
        self.judge.as_ref().map(|judge| &judge.bundle)
    }

    fn is_active(&self, policy: &PolicyBundle) -> bool {
        self.judge.as_ref().is_some_and(|judge| judge.trouble.is_none() && judge.bundle.digest() == policy.digest())
    }

    fn named(&self) -> Option<Named> {
        let active = self.judge.as_ref().filter(|judge| judge.trouble.is_none());
        let digest = active.map(|judge| judge.bundle.digest().clone());
        (self.version > 0).then_some(Named { version: self.version, digest })
    }
}

/// Says so where the active bundle cannot be used and an older one judges.
pub(super) fn warn_of_trouble(judge: &Usable) {
    if let Some(trouble) = &judge.trouble {
        let (active, kept, reason) = (trouble.active, trouble.kept, render::escape_line(&trouble.reason));
        output::note(format_args!(
            "warning: policy bundle version {active} cannot be used, and version {kept} judges: {reason}"
        ));
    }
}

/// Shows the difference, asks, and makes the bundle the active one. `store` may only be missing for a dry run.
///
/// # Errors
/// [`Refused`] when policy does not permit it; [`output::UsageError`] without a terminal and without `--yes`; when
/// somebody else was faster.
pub(super) async fn carry_out(
    store: Option<&Store>,
    before: Before,
    mut proposal: Proposal<'_>,
    options: &cli::Change,
) -> anyhow::Result<Exit> {
    let decision = judge(&before, &proposal, &options.by);
    let mut shown = shown(&before, &proposal, &decision, &options.by);
    shown.show(options.output)?;
    if shown.outcome == Outcome::AlreadyActive {
        return shown.done(options.output);
    }
    if proposal.dry_run {
        return shown.done(options.output);
    }
    if decision.is_allowed() && !options.yes && !ask::confirm(&format!("{}?", proposal.verb()))? {
        shown.outcome = Outcome::NotConfirmed;
        return shown.done(options.output);
    }
    let store = store.context("there is no store")?;
    let judged = Judged { by: options.by.clone(), proof: Proof::Claimed, judgement: Judgement::from(decision) };
    proposal.bundle.expected_version = Some(before.version);
    let applied = Operator::new(store.clone(), worker::identity()).apply(&judged, &proposal.bundle).await;
    match applied.map_err(|error| advised(error, proposal.verb()))? {
        Applied::Applied { version } => {
            shown.after.version = version;
            shown.outcome = Outcome::Applied;
        }
        Applied::AlreadyActive { version } => {
            shown.after.version = version;
            shown.outcome = Outcome::AlreadyActive;
        }
        Applied::Refused { reason } => {
            shown.permitted = false;
            shown.reason = format!("`{}` may not {}: {reason}", options.by, proposal.verb());
            shown.outcome = Outcome::Refused;
        }
    }
    shown.done(options.output)
}

/// Says what to do where somebody else was faster.
fn advised(error: OperatorError, verb: &str) -> anyhow::Error {
    match error {
        OperatorError::BundleMoved { .. } | OperatorError::JudgedByOther { .. } => {
            anyhow::anyhow!("{error}; nothing was changed: {verb} again and read the new difference")
        }
        OperatorError::Store(_) | OperatorError::BundleTooLarge { .. } => error.into(),
    }
}

/// What policy says: the bundle in force, or where there is none the new one itself, so that nobody applies a first
/// bundle that locks them out.
fn judge(before: &Before, proposal: &Proposal<'_>, by: &PersonId) -> PolicyDecision {
    let action = PersonAction::Apply { rollback: proposal.bundle.rollback };
    before.bundle().unwrap_or(proposal.policy).decide_person(&PersonRequest { person: by, action })
}

impl Proposal<'_> {
    fn verb(&self) -> &'static str {
        if self.bundle.rollback { "roll back" } else { "apply" }
    }
}

fn shown(before: &Before, proposal: &Proposal<'_>, decision: &PolicyDecision, by: &PersonId) -> Shown {
    let active = before.is_active(proposal.policy);
    let version = if active { before.version } else { before.version.saturating_add(1) };
    let mut warnings = Vec::new();
    if !somebody_may_apply(proposal.policy, by) {
        warnings.push(
            "under the new policies nobody of the configured groups may apply others; whoever needs to will be refused"
                .to_owned(),
        );
    }
    Shown {
        before: before.named(),
        after: Named { version, digest: Some(proposal.policy.digest().clone()) },
        compared_with: before.judge.as_ref().filter(|judge| judge.trouble.is_some()).map(|judge| judge.version),
        difference: Difference::between(before.bundle(), proposal.policy),
        permitted: decision.is_allowed(),
        policies: decision.policies.iter().map(ToString::to_string).collect(),
        reason: decision.reason.clone(),
        warnings,
        outcome: if active { Outcome::AlreadyActive } else { Outcome::DryRun },
    }
}

/// Whether anybody that the bundle knows, or whoever is asking, may apply another one after it.
fn somebody_may_apply(policy: &PolicyBundle, by: &PersonId) -> bool {
    let people: BTreeSet<&PersonId> = policy.registry().groups.values().flatten().chain([by]).collect();
    let may = |person: &&PersonId| {
        let action = PersonAction::Apply { rollback: false };
        policy.decide_person(&PersonRequest { person, action }).is_allowed()
    };
    people.iter().any(may)
}

impl Shown {
    /// The difference, before anything is asked or done: as data for people, beside the data for programs.
    fn show(&self, format: OutputFormat) -> anyhow::Result<()> {
        let text = self.text();
        match format {
            OutputFormat::Text => output::data(text)?,
            OutputFormat::Json => output::note(text),
        }
        self.warnings.iter().for_each(|warning| output::note(format_args!("warning: {warning}")));
        Ok(())
    }

    fn text(&self) -> String {
        if self.outcome == Outcome::AlreadyActive {
            return format!("these policies are active already: {}", named(&self.after));
        }
        let before = self.before.as_ref().map_or("none".to_owned(), named);
        let head = format!("policies: {before} → {}", named(&self.after));
        let head = match self.compared_with {
            Some(version) => format!("{head}\ncompared with version {version}, the last one that can be used here"),
            None => head,
        };
        if self.difference.is_empty() {
            let nothing = self.compared_with.map_or(" but what this program makes of the files", |_| "");
            return format!("{head}\nnothing differs{nothing}");
        }
        format!("{head}\n\n{}\n", self.difference.text())
    }

    /// What came of it, and how the program ends.
    fn done(self, format: OutputFormat) -> anyhow::Result<Exit> {
        if format == OutputFormat::Json {
            output::json(&self)?;
        }
        let reason = render::escape_line(&self.reason);
        match self.outcome {
            Outcome::Applied if format == OutputFormat::Text => {
                output::data(format_args!("active now: {}", named(&self.after)))?;
            }
            Outcome::Applied | Outcome::AlreadyActive => {}
            Outcome::DryRun if self.permitted => {
                output::note(format_args!("nothing was applied; it would be permitted: {reason}"));
            }
            Outcome::DryRun => {
                return Err(Refused(format!("nothing was applied; it would be refused: {reason}")).into());
            }
            Outcome::NotConfirmed => {
                output::note("nothing was applied");
                return Ok(Exit::Denied);
            }
            Outcome::Refused => return Err(Refused(reason).into()),
        }
        Ok(Exit::Done)
    }
}

fn named(bundle: &Named) -> String {
    let digest = bundle.digest.as_ref().map_or("unusable", Digest::as_str);
    format!("version {}, {digest}", bundle.version)
}
