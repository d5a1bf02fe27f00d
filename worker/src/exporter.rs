//! Metrics for Prometheus: Temporal's SDK and the governed path on one exporter, served at `/metrics`.
//!
//! The exporter knows no authentication. It serves where it is told to, which should be a loopback address or a network
//! that only the collector reaches.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use mandate_activities::Metrics;
use temporalio_common::telemetry::{
    HistogramBucketOverrides, PrometheusExporterOptions, TaskQueueLabelStrategy, TelemetryOptions,
    metrics::{CoreMeter, NewAttributes, TemporalMeter},
    start_prometheus_metric_exporter, telemetry_init,
};

/// Metrics cannot be served. Free the address or choose another.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at `{address}`: {source}. Free the address, or choose another with --metrics-address")]
pub struct ServeMetricsError {
    address: SocketAddr,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a worker measures itself with. The default measures nothing.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// For the SDK's runtime.
    pub options: TelemetryOptions,
    /// For the connection to Temporal.
    pub connection: Option<TemporalMeter>,
    /// For the governed path.
    pub metrics: Metrics,
}

/// Serves metrics from now on, within the current tokio runtime and until it ends.
///
/// # Errors
/// [`ServeMetricsError`] when the address cannot be bound.
pub fn serve(address: SocketAddr) -> Result<Telemetry, ServeMetricsError> {
    let failed = |source: anyhow::Error| ServeMetricsError { address, source: source.into() };
    let buckets = HashMap::from([(Metrics::DECISION_TIME.to_owned(), Metrics::DECISION_TIME_BUCKETS.to_vec())]);
    let options = PrometheusExporterOptions::builder()
        .socket_addr(address)
        .counters_total_suffix(true)
        .use_seconds_for_durations(true)
        .unit_suffix(true)
        .histogram_bucket_overrides(HistogramBucketOverrides { overrides: buckets })
        .build();
    let served = start_prometheus_metric_exporter(options).map_err(failed)?;
    tracing::info!(address = %served.bound_addr, path = "/metrics", "metrics are served");
    let meter: Arc<dyn CoreMeter> = served.meter;
    let options = TelemetryOptions::builder().metrics(Arc::clone(&meter)).build();
    // Only a telemetry instance makes the meter that names the connection's metrics as the SDK's own.
    let connection = telemetry_init(options.clone()).map_err(failed)?.get_temporal_metric_meter();
    let meter = TemporalMeter::new(meter, NewAttributes::default(), TaskQueueLabelStrategy::UseNormal);
    Ok(Telemetry { options, connection, metrics: Metrics::new(meter) })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve(address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot serve metrics at `{address}`: Address already in use")), "{error}");
        assert!(error.contains("--metrics-address"), "{error}");
    }
}
