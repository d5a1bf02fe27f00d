//! The event history of an execution, as the tests ask about it.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use serde_json::Value;
use temporalio_common::protos::temporal::api::{
    enums::v1::EventType,
    history::v1::{HistoryEvent, history_event::Attributes},
};

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The type.
    pub kind: EventType,
    /// When it happened.
    pub time: SystemTime,
    /// Its size on the wire.
    pub bytes: usize,
    /// The activity type, for a scheduled activity.
    pub activity: Option<String>,
    /// The input of a scheduled activity.
    pub input: Option<Value>,
    /// What the Web UI shows beside it.
    pub summary: Option<String>,
    /// The attempt, for a started activity.
    pub attempt: Option<i32>,
    /// Who caused it, by the server's own knowledge: `jwt/bo@acme.example`. Servers that take every caller say nothing.
    pub principal: Option<String>,
    /// Who the sender of a start or a signal claims to be.
    pub identity: Option<String>,
}

/// All events of one execution.
#[derive(Debug, Clone)]
pub struct History(pub Vec<Event>);

impl History {
    pub(crate) fn of(events: &[HistoryEvent]) -> Self {
        Self(events.iter().map(event).collect())
    }

    /// How many activities of a type were scheduled.
    #[must_use]
    pub fn activities(&self, name: &str) -> usize {
        self.0.iter().filter(|event| event.activity.as_deref() == Some(name)).count()
    }

    /// What the activities of a type were scheduled with.
    #[must_use]
    pub fn inputs(&self, name: &str) -> Vec<Value> {
        let of_type = self.0.iter().filter(|event| event.activity.as_deref() == Some(name));
        of_type.filter_map(|event| event.input.clone()).collect()
    }

    /// How many events of a type there are.
    #[must_use]
    pub fn count(&self, kind: EventType) -> usize {
        self.0.iter().filter(|event| event.kind == kind).count()
    }

    /// Who caused the events of a type, by the server's own knowledge.
    #[must_use]
    pub fn principals(&self, kind: EventType) -> Vec<Option<&str>> {
        self.0.iter().filter(|event| event.kind == kind).map(|event| event.principal.as_deref()).collect()
    }

    /// Bytes of each turn: from one `invoke_model` to the next.
    #[must_use]
    pub fn turns(&self) -> Vec<usize> {
        let mut turns = Vec::new();
        for event in &self.0 {
            if event.activity.as_deref() == Some("invoke_model") {
                turns.push(0);
            }
            if let Some(bytes) = turns.last_mut() {
                *bytes += event.bytes;
            }
        }
        turns
    }

    /// How long after a moment the next activity attempt or workflow task started.
    #[must_use]
    pub fn started_after(&self, moment: SystemTime) -> Option<Duration> {
        let started = [EventType::ActivityTaskStarted, EventType::WorkflowTaskStarted];
        let after = self.0.iter().filter(|event| started.contains(&event.kind));
        after.filter_map(|event| event.time.duration_since(moment).ok()).min()
    }
}

fn event(event: &HistoryEvent) -> Event {
    let time = event.event_time.expect("every event has its time");
    let since_1970 = Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs());
    let (activity, input, attempt) = match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => {
            let input = scheduled.input.as_ref().and_then(|input| input.payloads.first());
            let input = input.and_then(|payload| serde_json::from_slice(&payload.data).ok());
            (scheduled.activity_type.as_ref().map(|kind| kind.name.clone()), input, None)
        }
        Some(Attributes::ActivityTaskStartedEventAttributes(started)) => (None, None, Some(started.attempt)),
        _ => (None, None, None),
    };
    let identity = match &event.attributes {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => Some(started.identity.clone()),
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(signaled)) => Some(signaled.identity.clone()),
        _ => None,
    };
    let principal = event.principal.as_ref().map(|principal| format!("{}/{}", principal.r#type, principal.name));
    let summary = event.user_metadata.as_ref().and_then(|shown| shown.summary.as_ref());
    Event {
        kind: event.event_type(),
        time: SystemTime::UNIX_EPOCH + since_1970,
        bytes: event.encoded_len(),
        activity,
        input,
        summary: summary.and_then(|payload| serde_json::from_slice(&payload.data).ok()),
        attempt,
        principal,
        identity,
    }
}
