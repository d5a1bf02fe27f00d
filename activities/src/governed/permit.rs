//! The proof that an effect was decided and that its intent is durable.
//!
//! INVARIANT (recorded permit): a [`RecordedPermit`] is made by the transaction that recorded decision, intent and claim
//! (`claim.rs`), and once more for the question of a check tool about an effect so recorded (`reconcile.rs`). Tools and
//! models take nothing less, so an ungoverned or unrecorded call does not compile.

use std::time::{Duration, Instant};

use mandate_domain::{EffectId, RunChain};

/// An effect that was allowed, recorded and claimed, and may be performed once, until `send_by`.
#[derive(Debug)]
pub struct RecordedPermit {
    run: RunChain,
    effect: EffectId,
    epoch: u32,
    send_by: Instant,
    repeats: bool,
}

/// The claim ran out before anything was sent. Give it back and let the next attempt decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the claim ran out before anything was sent")]
pub struct ClaimRanOut;

impl RecordedPermit {
    /// For the recording transaction alone. `send_by` counts from before the commit.
    pub(in crate::governed) fn new(run: RunChain, effect: EffectId, epoch: u32, send_by: Instant) -> Self {
        Self { run, effect, epoch, send_by, repeats: false }
    }

    /// A permit that nothing recorded, for tests of tools and models.
    #[cfg(any(test, feature = "fault-injection"))]
    #[must_use]
    pub fn unrecorded(effect: EffectId) -> Self {
        let run = RunChain { workflow_id: "test".to_owned(), first_run_id: "run".to_owned() };
        Self::new(run, effect, 1, Instant::now() + Duration::from_mins(1))
    }

    /// The same, for an attempt behind another one that changed something, or may have.
    pub(in crate::governed) fn repeating(self, repeats: bool) -> Self {
        Self { repeats, ..self }
    }

    /// Whether an attempt before this one changed something, or may have. What a server refuses then is this attempt alone.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// The effect.
    #[must_use]
    pub fn effect(&self) -> EffectId {
        self.effect
    }

    /// The epoch of the claim: 1 for the first, one more for each that took over.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The key that makes a second request of this effect recognisable, whichever worker or attempt sends it. Goes to
    /// every tool and provider (MCP `_meta`, HTTP `Idempotency-Key`).
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        idempotency_key(&self.run, self.effect)
    }

    /// Whether it may still be sent: asked last thing before the bytes go out.
    ///
    /// # Errors
    /// [`ClaimRanOut`] after `send_by`: another worker may hold the effect by now.
    pub fn may_send(&self) -> Result<(), ClaimRanOut> {
        if Instant::now() < self.send_by { Ok(()) } else { Err(ClaimRanOut) }
    }

    /// Time left to send.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.send_by.saturating_duration_since(Instant::now())
    }
}

/// The key of an effect: the run chain and the call id.
#[must_use]
pub fn idempotency_key(run: &RunChain, effect: EffectId) -> String {
    format!("{run}/{effect}")
}
