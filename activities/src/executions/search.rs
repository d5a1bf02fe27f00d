//! Finding one message in a history, event by event, and on the way everybody who worked on the execution before it, and
//! what the messages before it brought as evidence.

use std::collections::BTreeSet;

use mandate_domain::{Digest, Evidence};
use mandate_workflows::contract::UPDATES;
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes};

use super::{MessageEvent, Principal};

/// A search for the n-th message of a name.
pub(super) struct Search<'a> {
    name: &'a str,
    kind: Kind,
    /// How many more messages of the name there have to be.
    missing: u32,
    workers: BTreeSet<String>,
    evidence: BTreeSet<Digest>,
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Signal,
    Update,
}

/// A message as its event has it.
pub(super) struct Message {
    kind: Kind,
    name: String,
    /// The data of its first argument.
    pub(super) payload: Vec<u8>,
}

impl<'a> Search<'a> {
    /// For the `ordinal`-th message of this name, the first being 1. There is no message 0.
    pub(super) fn new(name: &'a str, ordinal: u32) -> Self {
        // A signal that has the name of an update is nothing to the workflow.
        let kind = if UPDATES.contains(&name) { Kind::Update } else { Kind::Signal };
        Self { name, kind, missing: ordinal, workers: BTreeSet::new(), evidence: BTreeSet::new() }
    }

    /// Looks at the next event; gives back the message once it is the one.
    pub(super) fn look_at(&mut self, event: HistoryEvent) -> Option<MessageEvent> {
        let (time_ms, principal) = (millis(&event), principal(&event));
        if event.attributes.as_ref().is_some_and(polled) {
            self.workers.extend(principal.map(|principal| principal.name));
            return None;
        }
        let message = message_of(event)?;
        let is_next = message.name == self.name && message.kind == self.kind && self.missing > 0;
        self.missing = self.missing.saturating_sub(u32::from(is_next));
        if !is_next || self.missing > 0 {
            self.evidence.extend(evidence_in(&message.payload));
            return None;
        }
        let carries_principal = self.kind == Kind::Signal;
        Some(MessageEvent {
            time_ms,
            principal: principal.filter(|_| carries_principal),
            carries_principal,
            payload: message.payload,
            worker_principals: std::mem::take(&mut self.workers),
            earlier: std::mem::take(&mut self.evidence),
        })
    }
}

/// The message of an event, if it is one: a signal, or an update that was accepted.
pub(super) fn message_of(event: HistoryEvent) -> Option<Message> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the server's enum grows, and all else is no message")]
    let (kind, name, input) = match event.attributes? {
        Attributes::WorkflowExecutionSignaledEventAttributes(signaled) => {
            (Kind::Signal, signaled.signal_name, signaled.input)
        }
        Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(accepted) => {
            let input = accepted.accepted_request?.input?;
            (Kind::Update, input.name, input.args)
        }
        _ => return None,
    };
    let payload = input.and_then(|input| input.payloads.into_iter().next());
    Some(Message { kind, name, payload: payload.map(|payload| payload.data).unwrap_or_default() })
}

/// What a message brought as evidence, whatever else it says and whether or not the workflow could read it.
pub(super) fn evidence_in(payload: &[u8]) -> Option<Digest> {
    serde_json::from_slice::<Evidence>(payload).ok()?.once()
}

/// Whether the event is one that only a poller causes.
fn polled(attributes: &Attributes) -> bool {
    matches!(
        attributes,
        Attributes::WorkflowTaskStartedEventAttributes(_)
            | Attributes::WorkflowTaskCompletedEventAttributes(_)
            | Attributes::ActivityTaskStartedEventAttributes(_)
    )
}

/// Who caused the event, where the server says so. A stamp without a name says nothing.
pub(super) fn principal(event: &HistoryEvent) -> Option<Principal> {
    let stamped = event.principal.as_ref().filter(|principal| !principal.name.is_empty())?;
    Some(Principal { kind: stamped.r#type.clone(), name: stamped.name.clone() })
}

/// When, in milliseconds since 1970-01-01 UTC.
pub(super) fn millis(event: &HistoryEvent) -> u64 {
    let Some(time) = &event.event_time else { return 0 };
    let (secs, nanos) = (u64::try_from(time.seconds).unwrap_or(0), u64::try_from(time.nanos).unwrap_or(0));
    secs.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use temporalio_common::protos::temporal::api::{
        common::v1,
        history::v1::{
            ActivityTaskStartedEventAttributes, WorkflowExecutionSignaledEventAttributes,
            WorkflowExecutionStartedEventAttributes, WorkflowTaskCompletedEventAttributes,
            WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes,
        },
    };

    use super::*;

    fn event(attributes: Attributes, by: &str) -> HistoryEvent {
        let principal = (!by.is_empty()).then(|| v1::Principal { r#type: "jwt".to_owned(), name: by.to_owned() });
        let mut event = HistoryEvent { principal, attributes: Some(attributes), ..Default::default() };
        let time = event.event_time.get_or_insert_default();
        (time.seconds, time.nanos) = (1_700_000_000, 12_345_678);
        event
    }

    fn signal(name: &str, payload: &str, by: &str) -> HistoryEvent {
        let payloads = vec![v1::Payload { data: payload.as_bytes().to_vec(), ..Default::default() }];
        let (signal_name, input) = (name.to_owned(), Some(v1::Payloads { payloads }));
        let signaled = WorkflowExecutionSignaledEventAttributes { signal_name, input, ..Default::default() };
        event(Attributes::WorkflowExecutionSignaledEventAttributes(signaled), by)
    }

    fn history() -> Vec<HistoryEvent> {
        vec![
            event(
                Attributes::WorkflowExecutionStartedEventAttributes(WorkflowExecutionStartedEventAttributes::default()),
                "ana@acme.example",
            ),
            event(
                Attributes::WorkflowTaskScheduledEventAttributes(WorkflowTaskScheduledEventAttributes::default()),
                "ana@acme.example",
            ),
            event(
                Attributes::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes::default()),
                "worker-1",
            ),
            signal("approve", "first", "bo@acme.example"),
            event(
                Attributes::WorkflowTaskCompletedEventAttributes(WorkflowTaskCompletedEventAttributes::default()),
                "worker-2",
            ),
            signal("steer", "other", "kim@acme.example"),
            event(
                Attributes::ActivityTaskStartedEventAttributes(ActivityTaskStartedEventAttributes::default()),
                "worker-3",
            ),
            signal("approve", "second", ""),
            event(
                Attributes::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes::default()),
                "worker-4",
            ),
        ]
    }

    fn find(name: &str, ordinal: u32) -> Option<MessageEvent> {
        let mut search = Search::new(name, ordinal);
        history().into_iter().find_map(|event| search.look_at(event))
    }

    #[test]
    fn the_signal_is_found_by_its_place_among_those_of_its_name() {
        let first = find("approve", 1).unwrap();
        assert_eq!((first.payload.as_slice(), first.time_ms), (b"first".as_slice(), 1_700_000_000_012));
        assert_eq!(first.principal.unwrap().to_string(), "jwt/bo@acme.example");
        let second = find("approve", 2).unwrap();
        assert_eq!((second.payload.as_slice(), second.principal), (b"second".as_slice(), None));
        assert_eq!(find("steer", 1).unwrap().payload, b"other");
        for (name, ordinal) in [("approve", 3), ("approve", 0), ("reject", 1)] {
            assert_eq!(find(name, ordinal), None, "{name} {ordinal}");
        }
    }

    #[test]
    fn whoever_polled_before_the_signal_is_a_worker_and_the_starter_is_none() {
        let workers = |name, ordinal| find(name, ordinal).unwrap().worker_principals.into_iter().collect::<Vec<_>>();
        assert_eq!(workers("approve", 1), ["worker-1"]);
        assert_eq!(workers("approve", 2), ["worker-1", "worker-2", "worker-3"]);
    }

    #[test]
    fn a_payload_is_not_printed() {
        let printed = format!("{:?}", find("approve", 1).unwrap());
        assert!(printed.contains("payload_bytes: 5") && !printed.contains("102, 105"), "{printed}");
    }
}
