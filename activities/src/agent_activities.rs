//! The activities bound to the contract: thin adapters over the governed path.

use std::sync::Arc;

use mandate_domain::Digest;
use mandate_workflows::contract::{
    CallToolInput, CallToolOutput, CloseRunInput, CloseRunOutput, InvokeModelInput, InvokeModelOutput, NotifyInput,
    NotifyOutput, OpenRunInput, OpenRunOutput, ReviewApprovalInput, ReviewApprovalOutput, ReviewInstructionInput,
    ReviewInstructionOutput,
};
use mandate_workflows::reconcile::{ReconcileRunsInput, ReconcileRunsOutput};
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};

use crate::{
    caller::Caller,
    catalog::Catalog,
    executions::Executions,
    failure::ActivityFailure,
    governed::Governed,
    identity::{Identities, SetUpIdentitiesError},
    metrics::Metrics,
    models::{LoadModelsError, Models},
    policy::ActivePolicy,
    store::Store,
    tools::ToolSet,
    webhook::{BuildWebhookError, Webhook},
};

/// What a worker is made of.
pub struct Setup {
    /// The store.
    pub store: Store,
    /// What configuration defines.
    pub catalog: Catalog,
    /// The policies in force.
    pub policy: ActivePolicy,
    /// The task queue on which agent runs are started.
    pub task_queue: String,
    /// Who the worker is, as Temporal shows it. Made unique for each start.
    pub identity: String,
    /// Where first events come from.
    pub executions: Arc<dyn Executions>,
    /// What is counted.
    pub metrics: Metrics,
}

/// A worker cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Fix the model's configuration.
    #[error("a configured model cannot be used")]
    Models(#[from] LoadModelsError),
    /// Fix how people are proved.
    #[error("people cannot be proved as configured")]
    Identities(#[from] SetUpIdentitiesError),
    /// Fix `[notify]`.
    #[error("the webhook cannot be used")]
    Webhook(#[from] BuildWebhookError),
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system")]
    Random(#[from] getrandom::Error),
}

/// The activities of agent runs. A clone shares everything with its original.
#[derive(Clone)]
pub struct AgentActivities {
    path: Arc<Governed>,
}

impl AgentActivities {
    /// Makes the activities; tool servers are started on first use.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        let Setup { store, catalog, policy, task_queue, identity, executions, metrics } = setup;
        let mut start = [0; 32];
        getrandom::fill(&mut start)?;
        let start: String = Digest::from_bytes(start).as_str().chars().take(8).collect();
        let holder = format!("{identity}#{start}");
        let tools = ToolSet::new(catalog.servers.clone()).with_remotes(catalog.remotes.clone());
        let models = Models::new(catalog.models.clone())?;
        let webhook = catalog.notify.as_ref().map(Webhook::new).transpose()?;
        let policy = policy.reporting(metrics.clone());
        let identities = Identities::new(catalog.identity.clone())?;
        let path = Governed {
            store,
            catalog,
            policy,
            tools,
            models,
            webhook,
            executions,
            identities,
            task_queue,
            holder,
            metrics,
        };
        Ok(Self { path: Arc::new(path) })
    }

    /// Ends tool servers and closes the store. Call it when no activity runs any more.
    pub async fn close(&self) {
        self.path.tools.close().await;
        self.path.store.close().await;
    }

    async fn caller(&self, context: ActivityContext) -> Result<Caller, ActivityError> {
        match Caller::of(context, &self.path.holder) {
            Ok(caller) => Ok(caller),
            Err(orphan) => Err(self.path.refuse_orphan(orphan).await.into_activity_error()),
        }
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "the macro makes public items of each activity")]
mod bound {
    use super::{
        ActivityContext, ActivityError, ActivityFailure, AgentActivities, Arc, CallToolInput, CallToolOutput,
        CloseRunInput, CloseRunOutput, InvokeModelInput, InvokeModelOutput, NotifyInput, NotifyOutput, OpenRunInput,
        OpenRunOutput, ReconcileRunsInput, ReconcileRunsOutput, ReviewApprovalInput, ReviewApprovalOutput,
        ReviewInstructionInput, ReviewInstructionOutput, activities,
    };

    #[activities]
    impl AgentActivities {
        #[activity(definition = mandate_workflows::contract::OpenRun)]
        pub async fn open_run(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: OpenRunInput,
        ) -> Result<OpenRunOutput, ActivityError> {
            self.path.open_run(&self.caller(ctx).await?, &input).await.map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::contract::InvokeModel)]
        pub async fn invoke_model(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: InvokeModelInput,
        ) -> Result<InvokeModelOutput, ActivityError> {
            self.path.invoke_model(&self.caller(ctx).await?, &input).await.map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::contract::CallTool)]
        pub async fn call_tool(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: CallToolInput,
        ) -> Result<CallToolOutput, ActivityError> {
            self.path.call_tool(&self.caller(ctx).await?, &input).await.map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::contract::ReviewApproval)]
        pub async fn review_approval(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: ReviewApprovalInput,
        ) -> Result<ReviewApprovalOutput, ActivityError> {
            self.path
                .review_approval(&self.caller(ctx).await?, &input)
                .await
                .map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::contract::ReviewInstruction)]
        pub async fn review_instruction(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: ReviewInstructionInput,
        ) -> Result<ReviewInstructionOutput, ActivityError> {
            self.path
                .review_instruction(&self.caller(ctx).await?, &input)
                .await
                .map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::contract::Notify)]
        pub async fn notify(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: NotifyInput,
        ) -> Result<NotifyOutput, ActivityError> {
            self.path.notify(&self.caller(ctx).await?, &input).await.map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::contract::CloseRun)]
        pub async fn close_run(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: CloseRunInput,
        ) -> Result<CloseRunOutput, ActivityError> {
            self.path.close_run(&self.caller(ctx).await?, &input).await.map_err(ActivityFailure::into_activity_error)
        }

        #[activity(definition = mandate_workflows::reconcile::ReconcileRuns)]
        pub async fn reconcile_runs(
            self: Arc<Self>,
            ctx: ActivityContext,
            input: ReconcileRunsInput,
        ) -> Result<ReconcileRunsOutput, ActivityError> {
            self.path
                .reconcile_runs(&self.caller(ctx).await?, &input)
                .await
                .map_err(ActivityFailure::into_activity_error)
        }
    }
}
