//! Operator acts on the store: applying a policy bundle, quarantine, lifting it.
//!
//! Each is one transaction with its record in the store's own chain, so nothing changes unseen. Whether somebody may do
//! it is policy's to say: the caller asks first and brings the judgement, and a refused act is recorded and changes
//! nothing. A permission that was given under another bundle than the active one is not taken, unless this program
//! cannot use the active one: then the newest before it judges. A person in quarantine acts on nothing.

use mandate_domain::{
    Digest, PersonId, PolicyId, Proof, QuarantineTarget, RecordBody,
    policy::{PolicyDecision, PolicyOutcome},
};
use serde_json::Value;

use crate::{
    policy::{OpenPolicyError, load_row, newest_usable},
    store::{Appended, NewBundle, OwnTx, Store, StoreError, bounded},
};

/// Largest bundle, in bytes of its files as JSON.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Carries out operator acts.
#[derive(Debug, Clone)]
pub struct Operator {
    store: Store,
    identity: String,
}

/// Who asks for an act, and what policy says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Who.
    pub by: PersonId,
    /// How that was proved.
    pub proof: Proof,
    /// What policy said.
    pub judgement: Judgement,
}

/// What policy says of an operator act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It may be done.
    Permitted {
        /// The policies that permitted it; none where no policy was asked.
        policies: Vec<PolicyId>,
        /// The bundle that was asked; none where no policy was asked.
        bundle: Option<Digest>,
    },
    /// It may not.
    Refused {
        /// The policies that refused it; none where none permitted it.
        policies: Vec<PolicyId>,
        /// The bundle that was asked; none where no policy was asked.
        bundle: Option<Digest>,
        /// In a sentence.
        reason: String,
    },
}

impl From<PolicyDecision> for Judgement {
    fn from(decision: PolicyDecision) -> Self {
        let (policies, bundle) = (decision.policies, Some(decision.bundle));
        match decision.outcome {
            PolicyOutcome::Allow => Self::Permitted { policies, bundle },
            PolicyOutcome::Deny | PolicyOutcome::RequireApproval(_) => {
                Self::Refused { policies, bundle, reason: decision.reason }
            }
        }
    }
}

/// A bundle to apply. The caller has loaded it, so that a bad one never becomes the active one.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleToApply {
    /// Its files, as the workers will read them.
    pub files: Value,
    /// Its digest.
    pub digest: Digest,
    /// The operator's words.
    pub note: Option<String>,
    /// Whether older content is put back.
    pub rollback: bool,
    /// The version that it is to replace, zero for none. Without one it replaces whatever is there.
    pub expected_version: Option<u64>,
}

/// What came of applying a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is active now.
    Applied {
        /// Its version.
        version: u64,
    },
    /// It was active already, and nothing was written.
    AlreadyActive {
        /// Its version.
        version: u64,
    },
    /// Policy or a quarantine refused it. That was recorded.
    Refused {
        /// In a sentence.
        reason: String,
    },
}

/// What came of another act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// It was done.
    Done,
    /// It was so already, and nothing was written.
    AlreadySo,
    /// Policy or a quarantine refused it. That was recorded.
    Refused {
        /// In a sentence.
        reason: String,
    },
}

/// Why an act was not done. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The store failed or refuses. Whether it was done is unknown; doing it again does not do it twice.
    #[error("the store refuses")]
    Store(#[from] StoreError),
    /// Somebody else applied a bundle meanwhile. Look at it, then apply again.
    #[error("somebody applied a bundle meanwhile: version {found} is active, not version {expected}")]
    BundleMoved {
        /// What the caller saw; zero for none.
        expected: u64,
        /// What is active; zero for none.
        found: u64,
    },
    /// Policy was asked under a bundle that is not the active one any more. Ask again.
    #[error("policy was asked under bundle `{asked}`, and bundle `{active}` is active")]
    JudgedByOther {
        /// The bundle that was asked.
        asked: Digest,
        /// The bundle that is active.
        active: Digest,
    },
    /// The bundle is too large. Shorten or split its files.
    #[error("the bundle has {bytes} bytes, more than {BUNDLE_BYTES_MAX}")]
    BundleTooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// A permitted act: its transaction, and what its record says of the permission.
struct Permitted<'a> {
    tx: OwnTx,
    active: Option<(u64, Digest)>,
    policies: &'a [PolicyId],
    bundle: Option<&'a Digest>,
}

/// How an act begins.
enum Begun<'a> {
    Permitted(Box<Permitted<'a>>),
    /// It was recorded.
    Refused {
        reason: String,
    },
}

impl Operator {
    /// Acts on this store. `identity` says in the records which process it was.
    #[must_use]
    pub fn new(store: Store, identity: impl Into<String>) -> Self {
        Self { store, identity: identity.into() }
    }

    /// Makes a bundle the active one, for all workers at once.
    ///
    /// # Errors
    /// [`OperatorError::BundleMoved`] when another version is active than the expected one,
    /// [`OperatorError::JudgedByOther`], [`OperatorError::BundleTooLarge`], and whatever the store says.
    pub async fn apply(&self, judged: &Judged, bundle: &BundleToApply) -> Result<Applied, OperatorError> {
        let bytes = bundle.files.to_string().len();
        if bytes > BUNDLE_BYTES_MAX {
            return Err(OperatorError::BundleTooLarge { bytes });
        }
        let action = if bundle.rollback { "rollback" } else { "apply" };
        let mut permitted = match self.begin(judged, action, format!("bundle:{}", bundle.digest)).await? {
            Begun::Permitted(permitted) => *permitted,
            Begun::Refused { reason } => return Ok(Applied::Refused { reason }),
        };
        let found = match &permitted.active {
            Some((version, digest)) if *digest == bundle.digest && self.holds(bundle).await? => {
                return Ok(Applied::AlreadyActive { version: *version });
            }
            Some((version, _)) => *version,
            None => 0,
        };
        if let Some(expected) = bundle.expected_version
            && expected != found
        {
            return Err(OperatorError::BundleMoved { expected, found });
        }
        self.check_judge(&permitted, Some(&bundle.digest)).await?;
        let note = bundle.note.as_deref().map(bounded);
        let new =
            NewBundle { digest: &bundle.digest, files: &bundle.files, applied_by: &judged.by, note: note.as_deref() };
        let version = permitted.tx.put_bundle(new).await?;
        let body = RecordBody::BundleApplied {
            version,
            digest: bundle.digest.clone(),
            previous: permitted.active.map(|(_, digest)| digest),
            by: judged.by.clone(),
            proof: judged.proof,
            policies: permitted.policies.to_vec(),
            rollback: bundle.rollback,
        };
        self.commit(permitted.tx, judged, body).await?;
        Ok(Applied::Applied { version })
    }

    /// Puts something into quarantine. Where it is already, the first reason stays.
    ///
    /// # Errors
    /// [`OperatorError::JudgedByOther`], and whatever the store says.
    pub async fn quarantine(
        &self,
        judged: &Judged,
        target: &QuarantineTarget,
        reason: &str,
    ) -> Result<Acted, OperatorError> {
        let mut permitted = match self.begin(judged, "quarantine", target.to_string()).await? {
            Begun::Permitted(permitted) => *permitted,
            Begun::Refused { reason } => return Ok(Acted::Refused { reason }),
        };
        let reason = bounded(reason);
        if permitted.tx.quarantine(target, &judged.by, &reason).await? == Appended::AlreadyThere {
            return Ok(Acted::AlreadySo);
        }
        self.check_judge(&permitted, None).await?;
        let body = RecordBody::Quarantined {
            target: target.clone(),
            by: judged.by.clone(),
            proof: judged.proof,
            policies: permitted.policies.to_vec(),
            bundle: permitted.bundle.cloned(),
            reason,
        };
        self.commit(permitted.tx, judged, body).await?;
        Ok(Acted::Done)
    }

    /// Takes something out of quarantine.
    ///
    /// # Errors
    /// [`OperatorError::JudgedByOther`], and whatever the store says.
    pub async fn lift(&self, judged: &Judged, target: &QuarantineTarget) -> Result<Acted, OperatorError> {
        let mut permitted = match self.begin(judged, "lift", target.to_string()).await? {
            Begun::Permitted(permitted) => *permitted,
            Begun::Refused { reason } => return Ok(Acted::Refused { reason }),
        };
        if !permitted.tx.lift(target).await? {
            return Ok(Acted::AlreadySo);
        }
        self.check_judge(&permitted, None).await?;
        let body = RecordBody::QuarantineLifted {
            target: target.clone(),
            by: judged.by.clone(),
            proof: judged.proof,
            policies: permitted.policies.to_vec(),
            bundle: permitted.bundle.cloned(),
        };
        self.commit(permitted.tx, judged, body).await?;
        Ok(Acted::Done)
    }

    /// Begins a permitted act. A refused one is recorded instead.
    async fn begin<'a>(&self, judged: &'a Judged, action: &str, target: String) -> Result<Begun<'a>, OperatorError> {
        let mut tx = self.store.begin_own().await?;
        let quarantined = tx.quarantined(&judged.by).await?;
        let locked = quarantined.map(|hit| format!("`{}` is in quarantine: {}", hit.target, hit.reason));
        let (policies, bundle, reason) = match (&judged.judgement, locked) {
            (Judgement::Permitted { policies, bundle }, None) => {
                let active = tx.active_bundle().await?;
                let permitted = Permitted { tx, active, policies, bundle: bundle.as_ref() };
                return Ok(Begun::Permitted(Box::new(permitted)));
            }
            (Judgement::Permitted { bundle, .. } | Judgement::Refused { bundle, .. }, Some(locked)) => {
                (Vec::new(), bundle.clone(), bounded(&locked))
            }
            (Judgement::Refused { policies, bundle, reason }, None) => {
                (policies.clone(), bundle.clone(), bounded(reason))
            }
        };
        let body = RecordBody::OperatorRefused {
            action: action.to_owned(),
            target,
            by: judged.by.clone(),
            proof: judged.proof,
            policies,
            bundle,
            reason: reason.clone(),
        };
        self.commit(tx, judged, body).await?;
        Ok(Begun::Refused { reason })
    }

    /// Whether the active row holds what is to be applied, and does not only bear its digest.
    async fn holds(&self, bundle: &BundleToApply) -> Result<bool, StoreError> {
        match self.store.active_bundle().await {
            Ok(row) => Ok(row.is_some_and(|row| row.files == bundle.files || load_row(&row).is_ok())),
            Err(error) if error.may_pass() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Refuses a permission of a bundle that does not judge. Where none can be used, the one that is `applied` judges, as
    /// the first one does.
    async fn check_judge(&self, permitted: &Permitted<'_>, applied: Option<&Digest>) -> Result<(), OperatorError> {
        let (Some(asked), Some((_, active))) = (permitted.bundle, &permitted.active) else { return Ok(()) };
        if asked == active {
            return Ok(());
        }
        // The transaction holds the write lock, so no other bundle becomes the active one meanwhile.
        let judge = match newest_usable(&self.store).await {
            Ok(usable) => Some(usable.bundle.digest().clone()),
            Err(OpenPolicyError::Nothing | OpenPolicyError::Unusable { .. }) => applied.cloned(),
            Err(OpenPolicyError::Store(error)) => return Err(error.into()),
        };
        if judge.as_ref() == Some(asked) {
            return Ok(());
        }
        Err(OperatorError::JudgedByOther { asked: asked.clone(), active: active.clone() })
    }

    async fn commit(&self, tx: OwnTx, judged: &Judged, body: RecordBody) -> Result<(), OperatorError> {
        tx.commit(&judged.by, judged.proof, &self.identity, body).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
