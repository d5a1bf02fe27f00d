//! A transcript as a model may read it now. What was shown when it was recorded may be withheld since.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::withheld_text;
use crate::{Arguments, DataClass, Message, RunFacts};

/// Withholds every message that carries a class that is not revealed any more: as a whole, since its fields were not
/// kept apart. A reply carries the classes of everything that its model had read.
#[must_use]
pub fn transcript(messages: Vec<Message>, facts: &RunFacts, revealed: &BTreeSet<DataClass>) -> Vec<Message> {
    let mut turn = 0;
    messages
        .into_iter()
        .map(|message| {
            if matches!(message, Message::Assistant { .. }) {
                turn += 1;
            }
            let classes = match &message {
                // What people wrote to the agent has no class.
                Message::System { .. } | Message::User { .. } => return message,
                Message::Assistant { .. } => facts.classes_of_reply(turn),
                Message::Tool { call, .. } => facts.classes_of_call(*call),
            };
            let hidden: BTreeSet<DataClass> = classes.difference(revealed).cloned().collect();
            if hidden.is_empty() { message } else { withheld(message, &hidden) }
        })
        .collect()
}

fn withheld(message: Message, hidden: &BTreeSet<DataClass>) -> Message {
    let text = withheld_text(hidden);
    match message {
        Message::Tool { call, is_error, .. } => Message::Tool { call, text, is_error },
        Message::Assistant { text: said, mut calls } => {
            for call in &mut calls {
                let arguments = Map::from_iter([("withheld".to_owned(), Value::String(text.clone()))]);
                call.arguments = Arguments::Object(arguments);
            }
            Message::Assistant { text: said.map(|_| text), calls }
        }
        other @ (Message::System { .. } | Message::User { .. }) => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Address, EffectId, KnownBy, ProposedCall, RecordBody, ToolCallId};

    fn classes(names: &[&str]) -> BTreeSet<DataClass> {
        names.iter().map(|name| DataClass::parse(*name).unwrap()).collect()
    }

    fn outcome(effect: EffectId, names: &[&str]) -> RecordBody {
        RecordBody::Outcome {
            effect,
            epoch: 1,
            known_by: KnownBy::Answer,
            result: Address::from_bytes([1; 32]),
            is_error: false,
            usage: None,
            classes: classes(names).into_iter().collect(),
            withheld: vec![],
            duration_ms: 1,
        }
    }

    fn conversation() -> (Vec<Message>, RunFacts) {
        let call = ToolCallId::new(1, 0);
        let arguments = json!({ "customer_id": "c1" }).as_object().cloned().unwrap();
        let proposed = ProposedCall {
            tool: "customers.read".into(),
            arguments: Arguments::Object(arguments),
            provider_id: Some("p1".into()),
        };
        let messages = vec![
            Message::System { text: "rules".into() },
            Message::User { text: "mail the customer".into() },
            Message::Assistant { text: None, calls: vec![proposed.clone()] },
            Message::Tool { call, text: "mia@example.com".into(), is_error: false },
            Message::Assistant { text: Some("to mia@example.com".into()), calls: vec![proposed] },
        ];
        let mut facts = RunFacts::default();
        let intent = RecordBody::Intent {
            effect: EffectId::Tool(call),
            target: "customers.read".into(),
            input: Address::from_bytes([1; 32]),
            epoch: 1,
            approvals: vec![],
            amounts: [].into(),
            cost_micros: 0,
        };
        for body in [
            outcome(EffectId::Model(1), &[]),
            intent,
            outcome(EffectId::Tool(call), &["contact"]),
            outcome(EffectId::Model(2), &["contact"]),
        ] {
            facts.add(&body);
        }
        (messages, facts)
    }

    #[test]
    fn what_is_still_revealed_is_told_as_it_was() {
        let (messages, facts) = conversation();
        assert_eq!(transcript(messages.clone(), &facts, &classes(&["contact"])), messages);
    }

    #[test]
    fn what_is_not_revealed_any_more_is_withheld_with_all_that_followed_from_it() {
        let (messages, facts) = conversation();
        let told = transcript(messages.clone(), &facts, &classes(&["order"]));
        assert_eq!(told[..3], messages[..3]);
        assert!(!format!("{:?}", &told[3..]).contains("mia@"), "{told:?}");
        let Message::Tool { text, .. } = &told[3] else { panic!("{told:?}") };
        assert_eq!(text, "[withheld: contact]");
        let Message::Assistant { text: Some(text), calls } = &told[4] else { panic!("{told:?}") };
        assert_eq!((text.as_str(), calls[0].provider_id.as_deref()), ("[withheld: contact]", Some("p1")));
        assert!(!format!("{calls:?}").contains("c1"), "{calls:?}");
    }
}
