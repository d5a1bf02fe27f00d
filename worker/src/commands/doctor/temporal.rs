//! Is Temporal there, and does it know what runs need?

use std::time::Duration;

use mandate_domain::render;
use temporalio_client::tonic::{Code, IntoRequest as _, Status};
use temporalio_common::protos::temporal::api::workflowservice::v1::{DescribeNamespaceRequest, GetSystemInfoRequest};

use super::Finding;
use crate::{
    cli::Global,
    connection::{self, Temporal, Unreachable},
    output,
    registration::{create_command, missing_search_attributes},
    search_attributes::SEARCH_ATTRIBUTES,
};

const CHECK: &str = "temporal";
/// How long one answer of the server may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects, then looks at the namespace and at its search attributes.
pub(super) async fn checks(global: &Global) -> Vec<Finding> {
    let temporal = match connection::connect(global).await {
        Ok(temporal) => temporal,
        Err(error) => return vec![not_connected(&error)],
    };
    match namespace(&temporal).await {
        Ok(found) => vec![found, search_attributes(&temporal).await],
        Err(missing) => vec![missing],
    }
}

fn not_connected(error: &anyhow::Error) -> Finding {
    match error.downcast_ref::<Unreachable>() {
        Some(Unreachable { address, why }) => {
            Finding::fail(CHECK, format!("cannot reach `{address}`: {why}"), Unreachable::ADVICE)
        }
        None => Finding::fail(
            CHECK,
            output::chain(error),
            "Correct the flags, the TEMPORAL_ variables or temporal.toml, whichever names it",
        ),
    }
}

/// The server and the namespace. An error is a namespace that nothing more can be asked of.
async fn namespace(temporal: &Temporal) -> Result<Finding, Finding> {
    let (address, name) = (&temporal.address, &temporal.namespace);
    let place = format!("`{address}`, namespace `{name}`");
    let mut service = temporal.client.connection().workflow_service();
    let version = answer(service.get_system_info(GetSystemInfoRequest {}.into_request())).await;
    let version = version.map_or_else(|_| "of unknown version".to_owned(), |info| info.into_inner().server_version);
    let describe = DescribeNamespaceRequest { namespace: name.clone(), ..DescribeNamespaceRequest::default() };
    match answer(service.describe_namespace(describe.into_request())).await {
        Ok(_) => Ok(Finding::ok(CHECK, format!("{place}, server {version}"))),
        Err(status) if status.code() == Code::NotFound => {
            let create = format!("temporal operator namespace create --namespace {}", render::shell_quote(name));
            let advice = format!("Name another with --namespace or TEMPORAL_NAMESPACE, or run: {create}");
            Err(Finding::fail(CHECK, format!("`{address}` has no namespace `{name}`"), advice))
        }
        Err(status) if status.code() == Code::PermissionDenied => {
            let detail = format!("{place}, server {version}, which does not say whether the namespace exists");
            Ok(Finding::warn(CHECK, detail, "Allow the worker's identity to describe its namespace"))
        }
        Err(status) => {
            let advice = "Look at the server's own health: `temporal operator cluster health`";
            Err(Finding::fail(CHECK, format!("{place}: {}", status.message()), advice))
        }
    }
}

async fn search_attributes(temporal: &Temporal) -> Finding {
    let check = "search attributes";
    let listed = tokio::time::timeout(ANSWER_TIMEOUT, missing_search_attributes(temporal)).await;
    let create = |missing: &[(&str, &str)]| create_command(&temporal.namespace, missing);
    match listed.unwrap_or_else(|_| Err(no_answer().message().to_owned())) {
        Ok(missing) if missing.is_empty() => {
            Finding::ok(check, format!("all {} are registered", SEARCH_ATTRIBUTES.len()))
        }
        Ok(missing) => {
            let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
            let detail = format!("missing: {}", names.join(", "));
            let advice = format!(
                "A worker registers them at its start if it may; else an administrator runs: {}",
                create(&missing)
            );
            Finding::warn(check, detail, advice)
        }
        Err(why) => {
            let advice = format!("If they are missing, an administrator runs: {}", create(&SEARCH_ATTRIBUTES));
            Finding::warn(check, format!("they cannot be listed: {why}"), advice)
        }
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> Status {
    Status::deadline_exceeded(format!("no answer within {ANSWER_TIMEOUT:?}"))
}
