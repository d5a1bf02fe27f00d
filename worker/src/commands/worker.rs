//! `mandate worker`: carries out runs until it is asked to end.

use std::{pin::pin, sync::Arc};

use anyhow::Context as _;
use mandate_activities::{AgentActivities, ServerExecutions, Setup};
use temporalio_common::telemetry::TelemetryOptions;
use temporalio_sdk::{Runtime, Worker, runtime::RuntimeOptions};

use super::{load, open_store};
use crate::{
    bundle,
    cli::{self, Global},
    connection, exporter,
    output::Exit,
    registration, schedule, shutdown,
};

/// Loads, connects, registers and polls.
///
/// # Errors
/// A folder that cannot be used, an address that is in use, an unreachable server, an unreadable store.
pub async fn worker(global: &Global, options: cli::Worker) -> anyhow::Result<Exit> {
    let config = load(&global.folder)?;
    let telemetry = options.metrics_address.map(exporter::serve).transpose()?.unwrap_or_default();
    let temporal = connection::target(global)?.measured(telemetry.connection).connect().await?;
    let store = open_store(&config).await?;
    registration::ensure_search_attributes(&temporal).await;
    let task_queue = options.task_queue.unwrap_or_else(|| config.task_queue.clone());
    if config.reconciler.enabled {
        schedule::ensure_reconciler(&temporal, &task_queue, config.reconciler.every_secs).await;
    }
    let identity = identity();
    let policy = bundle::in_force(&config, &store, &identity).await?;
    let bundle = policy.last().digest().to_string();
    let store_id = store.id().to_string();
    let activities = AgentActivities::new(Setup {
        store,
        catalog: config.catalog,
        policy,
        task_queue: task_queue.clone(),
        identity,
        executions: Arc::new(ServerExecutions::new(temporal.client.clone())),
        metrics: telemetry.metrics,
    })?;
    let registered = registration::worker_options(&task_queue, activities.clone())?;
    let runtime = start_runtime(telemetry.options)?;
    let mut worker = Worker::new(&runtime, temporal.client.clone(), registered)
        .map_err(|error| anyhow::anyhow!("cannot start the worker: {error}"))?;
    tracing::info!(
        task_queue,
        namespace = temporal.namespace,
        address = temporal.address,
        store = store_id,
        bundle,
        "worker ready"
    );
    let ran = poll_until_asked(&mut worker).await;
    activities.close().await;
    ran?;
    tracing::info!("worker stopped");
    Ok(Exit::Done)
}

fn start_runtime(telemetry: TelemetryOptions) -> anyhow::Result<Runtime> {
    let options = RuntimeOptions::builder().telemetry_options(telemetry).build();
    let options = options.map_err(|error| anyhow::anyhow!("cannot use the SDK's options: {error}"))?;
    Runtime::from_current_tokio(options).map_err(|error| anyhow::anyhow!("cannot start the SDK's runtime: {error}"))
}

/// Polls until SIGTERM or SIGINT, then lets what is under way end.
async fn poll_until_asked(worker: &mut Worker) -> anyhow::Result<()> {
    let stop = worker.shutdown_handle();
    let mut polling = pin!(worker.run());
    let asked = shutdown::requested();
    tokio::select! {
        ended = &mut polling => return ended.map_err(|error| anyhow::anyhow!("the worker ended: {error}")),
        asked = asked => asked.context("cannot wait for signals")?,
    }
    tracing::info!("worker stops: what is under way may end within ten seconds");
    stop();
    polling.await.map_err(|error| anyhow::anyhow!("the worker ended: {error}"))
}

/// Process and host, as Temporal's SDKs name a worker.
pub(super) fn identity() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{}@{}", std::process::id(), host.to_string_lossy())
}
