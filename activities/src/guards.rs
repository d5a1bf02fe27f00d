//! The guards of the governed path by name: each check that a hostile model, caller, approver, tool server or worker of
//! somebody else runs into, and the scenarios that show what it holds off (`tests/it/hostile`).
//!
//! Promises: a guard is on. Only a program built with the feature `fault-injection`, which does not compile in release,
//! can be started with `MANDATE_GUARD_OFF=<name>`; then the path goes on as if the check were not written, and a
//! scenario of that guard fails. So no guard stands there untested.
//!
//! Deliberately absent: what holds by construction and has nothing to go on with. A task without a workflow execution
//! has no chain, a call that no reply proposed has no arguments, a run that nothing opened has no pins.

use mandate_domain::{approval::RefuseDecision, policy::PolicyOutcome};

/// Makes the enum, its list, its names and its scenarios from one table.
macro_rules! guards {
    ($($(#[$what:meta])* $guard:ident = $name:literal: [$($scenario:literal),+],)+) => {
        /// A check of the governed path.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Guard {
            $($(#[$what])* $guard,)+
        }

        impl Guard {
            /// All guards, in the order in which a call meets them.
            pub const ALL: &'static [Self] = &[$(Self::$guard),+];

            /// Its name, as `MANDATE_GUARD_OFF` takes it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$guard => $name,)+
                }
            }

            /// The hostile scenarios that it holds off; without it the first one succeeds.
            #[must_use]
            pub fn scenarios(self) -> &'static [&'static str] {
                match self {
                    $(Self::$guard => &[$($scenario),+],)+
                }
            }
        }
    };
}

guards! {
    /// Only executions of type `AgentWorkflow` ask for effects.
    WorkflowType = "workflow-type": ["foreign_workflow_type"],
    /// Only executions started on the task queue of agent runs.
    TaskQueue = "task-queue": ["foreign_task_queue"],
    /// The task comes from the first execution of a chain, which its caller started.
    FirstExecution = "first-execution": ["continued_with_a_task_of_its_own"],
    /// A run is served by the store that it is pinned to.
    StorePinned = "store-pinned": ["another_store"],
    /// A store that lacks what the run has seen is an old copy.
    StoreBehind = "store-behind": ["store_put_back"],
    /// Nothing is asked or performed after the closing record.
    ClosedRun = "closed-run": ["call_of_a_closed_run"],
    /// Behind the first undo a run does nothing but undo.
    Undoing = "undoing": ["call_behind_an_undo"],
    /// The model reads the recorded transcript of its own run.
    Transcript = "transcript": ["transcript_of_another_run"],
    /// A call is one that stands in a recorded reply, under that id.
    RecordedCall = "recorded-call": ["call_in_no_recorded_reply"],
    /// An outcome that is recorded is returned, whatever policy says now.
    LookFirst = "look-first": ["asked_again_after_its_outcome"],
    /// What was begun is reconciled before anything is decided.
    Reconcile = "reconcile": ["policy_tightened_after_the_effect"],
    /// A claim that has not run out belongs to its holder.
    LiveClaim = "live-claim": ["asked_twice_at_once"],
    /// The tool is offered to this agent.
    ToolOffered = "tool-offered": ["tool_not_offered"],
    /// The tool's definition is the one that the run began with.
    ToolUnchanged = "tool-unchanged": ["tool_changed_while_waiting", "tool_removed_while_waiting"],
    /// The tool's server announces what the registry states.
    ToolAsAnnounced = "tool-as-announced": ["tool_announced_with_another_schema"],
    /// The arguments fit the tool's schema.
    ArgumentsFit = "arguments-fit": ["arguments_break_the_schema", "approval_claimed_in_the_arguments"],
    /// What policy denies is not performed.
    PolicyDeny = "policy-deny": [
        "amount_above_the_ceiling", "policy_tightened_while_waiting", "currency_without_permit", "model_without_permit",
        "policy_applied_while_waiting", "transcript_for_a_provider_that_may_not_see_it", "many_small_refunds_at_once",
        "edit_above_the_ceiling"
    ],
    /// The bundle in force is what was applied.
    BundleAsApplied = "bundle-as-applied": ["forged_policy_bundle"],
    /// What policy has people decide waits for them.
    PolicyGate = "policy-gate": ["injected_by_a_tool_result", "approval_claimed_in_words"],
    /// An approval counts for its own call and its own arguments.
    ApprovalBound = "approval-bound": ["approval_of_one_call_opens_no_other", "arguments_changed_after_approval"],
    /// An effect that was claimed for one tool and input is not performed with another.
    EffectBound = "effect-bound": ["effect_claimed_for_something_else"],
    /// An approval is used before its request's time is over.
    ApprovalInTime = "approval-in-time": ["approval_used_after_its_time"],
    /// A decision counts that was accepted before its request's time was over.
    Deadline = "deadline": ["decision_after_the_deadline"],
    /// Who sent a message is proved by a way that configuration accepts.
    Proved = "proved": [
        "decision_without_a_proof", "decision_signed_by_another_key", "decision_signed_for_other_arguments",
        "decision_signed_for_the_other_verdict", "decision_signed_for_another_request", "decision_for_last_weeks_run",
        "token_of_another_issuer", "token_for_another_audience", "token_expired", "token_for_another_request",
        "token_signed_by_another_key", "token_with_an_algorithm_of_its_own", "token_of_somebody_else",
        "principal_of_somebody_else", "principal_of_a_worker", "principal_of_the_server_itself",
        "decision_by_a_batch", "decision_by_an_update",
        "answer_without_a_proof", "pause_without_a_proof", "resolution_without_a_proof"
    ],
    /// A signature or a token is good once.
    ProofOnce = "proof-once": [
        "token_used_again_to_approve", "token_used_again_to_reject", "token_of_a_decision_that_was_not_read",
        "pause_sent_again", "pause_that_came_too_late_sent_again", "start_sent_again"
    ],
    /// Claims hold neither a quorum nor four eyes.
    ProofNeeded = "proof-needed": ["quorum_by_claims"],
    /// In a production folder whoever starts a run is proved, and whom it acts for.
    StarterProved = "starter-proved": [
        "start_without_a_proof", "start_signed_for_another_prompt", "start_signed_for_another_workflow"
    ],
    /// Arguments that an approver puts in place of the model's fit the tool's schema.
    EditFits = "edit-fits": ["edit_that_breaks_the_schema", "edit_with_arguments_of_another_tool"],
    /// Policy lets this person answer, steer, pause and resume.
    Instructor = "instructor": [
        "answer_by_an_outsider", "steer_by_an_outsider", "pause_by_an_outsider", "resume_by_an_outsider"
    ],
    /// The model reads instructions that were accepted, each once.
    InstructionAccepted = "instruction-accepted": ["instruction_that_nobody_accepted"],
    /// Only members of the gate's groups decide.
    ApproverGroup = "approver-group": ["approval_by_an_outsider"],
    /// Nobody decides about what they asked for.
    FourEyes = "four-eyes": [
        "approval_by_the_requester", "approval_by_the_starter", "approval_by_the_editor", "approval_by_a_starter_unproved"
    ],
    /// One person, one vote.
    OneVote = "one-vote": ["second_vote_of_one_person"],
    /// A request that was decided stays so.
    RequestOpen = "request-open": ["decision_for_an_ended_call"],
    /// Policy lets this person decide.
    Decider = "decider": ["decision_that_policy_does_not_permit"],
    /// What is in quarantine is not touched.
    Quarantine = "quarantine": [
        "tool_in_quarantine_while_waiting", "agent_in_quarantine_while_waiting", "server_in_quarantine_while_waiting",
        "requester_in_quarantine_while_waiting", "approval_by_a_person_in_quarantine", "check_tool_in_quarantine"
    ],
    /// Policy lets this person start the run.
    Starter = "starter": ["start_that_policy_does_not_permit"],
    /// What is not revealed is masked.
    Reveal = "reveal": [
        "masked_field_for_the_model", "masked_field_through_read_result", "value_that_the_model_repeats_everywhere"
    ],
    /// An agent that is to submit its answers gives none beside that.
    Submission = "submission": ["answer_beside_its_gate"],
    /// Only whom policy lets, and who did not ask for the effect, says what became of it.
    Resolver = "resolver": ["resolution_by_an_outsider", "resolution_by_the_requester"],
    /// Only a call whose outcome is unknown is resolved by a person.
    UnknownOutcome = "unknown-outcome": ["resolution_of_a_call_under_way"],
}

/// Whether a guard is on.
#[cfg(not(feature = "fault-injection"))]
pub(crate) const fn on(_: Guard) -> bool {
    true
}

/// Whether a guard is on.
#[cfg(feature = "fault-injection")]
pub(crate) fn on(guard: Guard) -> bool {
    std::env::var_os("MANDATE_GUARD_OFF").is_none_or(|off| off != guard.name())
}

/// What policy said, as far as it is enforced.
pub(crate) fn enforced(outcome: &PolicyOutcome) -> &PolicyOutcome {
    let guard = match outcome {
        PolicyOutcome::Allow => return outcome,
        PolicyOutcome::Deny => Guard::PolicyDeny,
        PolicyOutcome::RequireApproval(_) => Guard::PolicyGate,
    };
    if on(guard) { outcome } else { &PolicyOutcome::Allow }
}

/// Whether the rule that a decision breaks is enforced.
pub(crate) fn refuses(broken: &RefuseDecision) -> bool {
    on(match broken {
        RefuseDecision::NotAnApprover { .. } => Guard::ApproverGroup,
        RefuseDecision::FourEyes { .. } | RefuseDecision::UnprovedParty { .. } => Guard::FourEyes,
        RefuseDecision::SecondVote { .. } => Guard::OneVote,
        RefuseDecision::Unproved { .. } => Guard::ProofNeeded,
    })
}
