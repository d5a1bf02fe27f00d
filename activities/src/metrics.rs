//! What the governed path counts, on the worker's meter.
//!
//! Labels have few values: never an agent, a person, a tool or a workflow id, so that the number of series does not
//! grow with use, and nothing here tells who did what. A counter is there with 0 from the start, which makes its first
//! increment visible to whoever scrapes.

use std::{sync::Arc, time::Duration};

use mandate_domain::{DecisionOutcome, EffectId};
use temporalio_common::telemetry::metrics::{
    Counter, CounterBase as _, Gauge, GaugeBase as _, HistogramDuration, HistogramDurationBase as _, MetricAttributes,
    MetricKeyValue, MetricParameters, NewAttributes, TemporalMeter,
};

/// What policy decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedAction {
    /// A tool call.
    CallTool,
    /// A model call.
    InvokeModel,
    /// A notice to the webhook.
    Notify,
}

/// What became of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectResult {
    /// It was answered, by itself or by its check tool.
    Answered,
    /// It was answered with an error, or the model or the webhook refused.
    Error,
    /// It was claimed, and nothing was sent.
    NotSent,
    /// It was sent, or may have been, and nobody knows whether it happened.
    Unknown,
}

/// The instruments of a worker. A clone counts on the same ones; the default records nothing.
#[derive(Clone)]
pub struct Metrics {
    instruments: Arc<Instruments>,
}

struct Instruments {
    meter: TemporalMeter,
    decisions: Counter,
    effects: Counter,
    load_failures: Counter,
    bundle_version: Gauge,
    bundle_stale: Gauge,
    decision_time: HistogramDuration,
}

impl DecidedAction {
    const ALL: [Self; 3] = [Self::CallTool, Self::InvokeModel, Self::Notify];

    fn label(self) -> &'static str {
        match self {
            Self::CallTool => "call_tool",
            Self::InvokeModel => "invoke_model",
            Self::Notify => "notify",
        }
    }
}

impl From<EffectId> for DecidedAction {
    fn from(effect: EffectId) -> Self {
        match effect {
            EffectId::Tool(_) => Self::CallTool,
            EffectId::Model(_) => Self::InvokeModel,
            EffectId::Notice(_) => Self::Notify,
        }
    }
}

impl EffectResult {
    const ALL: [Self; 4] = [Self::Answered, Self::Error, Self::NotSent, Self::Unknown];

    /// An answer, which may report an error.
    pub(crate) fn of_answer(is_error: bool) -> Self {
        if is_error { Self::Error } else { Self::Answered }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Error => "error",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}

const OUTCOMES: [DecisionOutcome; 3] =
    [DecisionOutcome::Allow, DecisionOutcome::Deny, DecisionOutcome::RequireApproval];
const EFFECT_KINDS: [&str; 3] = ["tool", "model", "notice"];

fn outcome_label(outcome: DecisionOutcome) -> &'static str {
    match outcome {
        DecisionOutcome::Allow => "allow",
        DecisionOutcome::Deny => "deny",
        DecisionOutcome::RequireApproval => "require_approval",
    }
}

fn kind_label(effect: EffectId) -> &'static str {
    match effect {
        EffectId::Tool(_) => "tool",
        EffectId::Model(_) => "model",
        EffectId::Notice(_) => "notice",
    }
}

impl Metrics {
    /// Name of the histogram of decisions before the exporter adds the unit.
    pub const DECISION_TIME: &str = "mandate_decision";
    /// Upper bounds of its buckets, in seconds: a decision is a computation, far below the SDK's default of 50 ms.
    pub const DECISION_TIME_BUCKETS: [f64; 9] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];

    /// Makes the instruments. The meter's exporter is expected to add `_total` to counters and the unit, seconds, to
    /// histograms of time.
    #[must_use]
    pub fn new(meter: TemporalMeter) -> Self {
        let named = |name: &'static str, description: &'static str| {
            MetricParameters::builder().name(name).description(description).build()
        };
        let instruments = Instruments {
            decisions: meter.counter(named("mandate_decisions", "Decisions of policy by action and outcome")),
            effects: meter.counter(named("mandate_effects", "Effects by kind and by what became of them")),
            load_failures: meter.counter(named("mandate_policy_load_failures", "Policy bundles that did not load")),
            bundle_version: meter.gauge(named("mandate_policy_bundle_version", "Version of the policy bundle in use")),
            bundle_stale: meter.gauge(named(
                "mandate_policy_bundle_stale",
                "1 while an older policy bundle is in use because the active one does not load",
            )),
            decision_time: meter
                .histogram_duration(named(Self::DECISION_TIME, "Time that one decision of policy took")),
            meter,
        };
        instruments.start_at_zero();
        Self { instruments: Arc::new(instruments) }
    }

    /// Policy decided, and the decision is recorded.
    pub fn decided(&self, action: DecidedAction, outcome: DecisionOutcome) {
        self.instruments.count_decisions(1, action, outcome);
    }

    /// Policy took so long to decide.
    pub fn decision_took(&self, time: Duration) {
        self.instruments.decision_time.records(time);
    }

    /// What became of an effect is recorded.
    pub fn effect_ended(&self, effect: EffectId, result: EffectResult) {
        self.instruments.count_effects(1, kind_label(effect), result);
    }

    /// The active policy bundle of this version is in use.
    pub fn policy_bundle_in_use(&self, version: u64) {
        self.instruments.bundle_version.records(version);
        self.instruments.bundle_stale.records(0);
    }

    /// The bundle in use is no longer the active one, which does not load.
    pub fn policy_bundle_stale(&self) {
        self.instruments.bundle_stale.records(1);
    }

    /// A policy bundle did not load.
    pub fn policy_load_failed(&self) {
        self.instruments.load_failures.adds(1);
    }
}

impl Instruments {
    fn start_at_zero(&self) {
        for action in DecidedAction::ALL {
            for outcome in OUTCOMES {
                self.count_decisions(0, action, outcome);
            }
        }
        for kind in EFFECT_KINDS {
            for result in EffectResult::ALL {
                self.count_effects(0, kind, result);
            }
        }
        self.load_failures.adds(0);
    }

    fn count_decisions(&self, count: u64, action: DecidedAction, outcome: DecisionOutcome) {
        let labels = self.labels([("action", action.label()), ("outcome", outcome_label(outcome))]);
        self.decisions.add(count, &labels);
    }

    fn count_effects(&self, count: u64, kind: &'static str, result: EffectResult) {
        self.effects.add(count, &self.labels([("kind", kind), ("result", result.label())]));
    }

    fn labels<const LABELS: usize>(&self, labels: [(&'static str, &'static str); LABELS]) -> MetricAttributes {
        let labels = labels.map(|(name, value)| MetricKeyValue::new(name, value));
        self.meter.new_attributes(NewAttributes::from(labels))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(TemporalMeter::no_op())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mandate_domain::ToolCallId;
    use temporalio_common::telemetry::{
        PrometheusExporterOptions, TaskQueueLabelStrategy, metrics::CoreMeter, start_prometheus_metric_exporter,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    /// Lines of ours that an exporter serves after `record`.
    async fn served(record: impl FnOnce(&Metrics)) -> Vec<String> {
        let options = PrometheusExporterOptions::builder().socket_addr("127.0.0.1:0".parse().unwrap());
        let options = options.counters_total_suffix(true).use_seconds_for_durations(true).unit_suffix(true).build();
        let exporter = start_prometheus_metric_exporter(options).unwrap();
        let meter: Arc<dyn CoreMeter> = exporter.meter;
        record(&Metrics::new(TemporalMeter::new(meter, NewAttributes::default(), TaskQueueLabelStrategy::UseNormal)));
        let mut stream = TcpStream::connect(exporter.bound_addr).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.lines().filter(|line| line.starts_with("mandate_")).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_counter_is_there_with_0_before_anything_happened() {
        let lines = served(|_| {}).await;
        assert_eq!(lines.len(), 9 + 12 + 1, "{lines:#?}");
        assert!(lines.iter().all(|line| line.ends_with(" 0")), "{lines:#?}");
    }

    #[tokio::test]
    async fn what_happened_is_counted_under_its_labels() {
        let lines = served(|metrics| {
            let (tool, model) = (EffectId::Tool(ToolCallId::new(1, 0)), EffectId::Model(1));
            metrics.decided(tool.into(), DecisionOutcome::RequireApproval);
            metrics.clone().decided(model.into(), DecisionOutcome::Deny);
            metrics.decision_took(Duration::from_millis(2));
            metrics.effect_ended(tool, EffectResult::of_answer(true));
            metrics.effect_ended(model, EffectResult::NotSent);
            let notice = EffectId::Notice("r1.asked".parse().unwrap());
            metrics.decided(notice.into(), DecisionOutcome::Allow);
            metrics.effect_ended(notice, EffectResult::Answered);
            metrics.policy_bundle_in_use(7);
            metrics.policy_load_failed();
            metrics.policy_bundle_stale();
        })
        .await;
        for expected in [
            r#"mandate_decisions_total{action="call_tool",outcome="require_approval"} 1"#,
            r#"mandate_decisions_total{action="invoke_model",outcome="deny"} 1"#,
            "mandate_decision_seconds_count 1",
            r#"mandate_effects_total{kind="tool",result="error"} 1"#,
            r#"mandate_effects_total{kind="model",result="not_sent"} 1"#,
            r#"mandate_decisions_total{action="notify",outcome="allow"} 1"#,
            r#"mandate_effects_total{kind="notice",result="answered"} 1"#,
            "mandate_policy_bundle_version 7",
            "mandate_policy_load_failures_total 1",
            "mandate_policy_bundle_stale 1",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
        }
        let fresh = served(|metrics| {
            metrics.policy_bundle_stale();
            metrics.policy_bundle_in_use(8);
        })
        .await;
        assert!(fresh.iter().any(|line| line == "mandate_policy_bundle_stale 0"), "{fresh:#?}");
    }

    #[test]
    fn the_default_records_nothing_and_needs_no_exporter() {
        let metrics = Metrics::default();
        metrics.decided(DecidedAction::CallTool, DecisionOutcome::Allow);
        metrics.decision_took(Duration::ZERO);
        metrics.policy_bundle_in_use(1);
    }
}
