//! What of a run's data is shown to whom. Every rendering goes through here: what the model reads, what stands in the
//! event history, request cards, the final answer.

use std::{collections::BTreeSet, sync::Arc};

use mandate_domain::{
    Address, Content, DataClass, FieldClasses, GroupName, MaskedText, Message, RunFacts, ToolDefinition, canonical,
    policy::{PolicyBundle, Viewer},
    reveal,
};
use serde_json::{Map, Value};

use super::{Admitted, Governed};
use crate::{
    failure::ActivityFailure,
    guards::{Guard, on},
    store::Tx,
};

/// Longest arguments on a request card, in bytes.
const ARGUMENTS_SHOWN_BYTES_MAX: usize = 4000;
/// Longest name of a tool in history and records, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The bundle in force in a transaction, asked about data.
pub(super) struct View(Arc<PolicyBundle>);

/// Where content will be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In the event history, up to so many bytes.
    History {
        /// The most that is inline.
        inline_max_bytes: usize,
    },
    /// As the run's final answer.
    Answer,
}

impl Governed {
    /// What is shown by the bundle in force in this transaction.
    pub(super) async fn view(&self, tx: &mut Tx) -> Result<View, ActivityFailure> {
        Ok(View(self.policy.in_force(tx).await?))
    }
}

impl View {
    /// What the agent's model is shown of a tool's answer.
    pub(super) fn of_answer(
        &self,
        run: &Admitted,
        tool: &ToolDefinition,
        text: &str,
        structured: Option<&Value>,
    ) -> MaskedText {
        let revealed = self.revealed(run, &agent(run), &labelled(&tool.result_classes));
        reveal::mask_text(text, structured, &tool.result_classes, &revealed)
    }

    /// Whether the agent's model may read all of these.
    pub(super) fn agent_sees(&self, run: &Admitted, classes: &BTreeSet<DataClass>) -> bool {
        self.revealed(run, &agent(run), classes).is_superset(classes)
    }

    /// The transcript as the model may read it now.
    pub(super) fn transcript(&self, run: &Admitted, messages: Vec<Message>, facts: &RunFacts) -> Vec<Message> {
        let revealed = self.revealed(run, &agent(run), &facts.classes);
        reveal::transcript(messages, facts, &revealed)
    }

    /// The arguments of a call on the card of a gate: what all of the groups that may decide may see.
    pub(super) fn card(
        &self,
        run: &Admitted,
        tool: &ToolDefinition,
        arguments: &Map<String, Value>,
        groups: &[GroupName],
    ) -> String {
        let mut revealed = labelled(&tool.argument_classes);
        for group in groups {
            revealed = self.revealed(run, &Viewer::Group(group), &revealed);
        }
        let masked = reveal::mask(&Value::Object(arguments.clone()), &tool.argument_classes, &revealed);
        shown(&masked.value)
    }

    /// The arguments of a call as the agent's model may read them: those that an approver put in place of its own.
    pub(super) fn arguments_for_agent(
        &self,
        run: &Admitted,
        tool: &ToolDefinition,
        arguments: &Map<String, Value>,
    ) -> String {
        let revealed = self.revealed(run, &agent(run), &labelled(&tool.argument_classes));
        let masked = reveal::mask(&Value::Object(arguments.clone()), &tool.argument_classes, &revealed);
        shown(&masked.value)
    }

    /// Describes content that carries these classes, as it may be read there: whole, or that it is withheld.
    pub(super) fn content(
        &self,
        run: &Admitted,
        place: Place,
        address: Address,
        text: &str,
        classes: &BTreeSet<DataClass>,
    ) -> Content {
        let (viewer, inline_max_bytes) = match place {
            Place::History { inline_max_bytes } => (Viewer::History, inline_max_bytes),
            Place::Answer => (Viewer::Answer, mandate_domain::INLINE_ONCE_BYTES_MAX),
        };
        let revealed = self.revealed(run, &viewer, classes);
        let hidden: BTreeSet<DataClass> = classes.difference(&revealed).cloned().collect();
        if hidden.is_empty() {
            return Content::describe(address, text, inline_max_bytes);
        }
        Content::withheld(address, text.len() as u64, reveal::withheld_text(&hidden))
    }

    /// The name of a tool that is not offered, as history and records have it: a text of the model's own, which carries
    /// what its model had read.
    pub(super) fn free_name(&self, run: &Admitted, name: &str, read: &BTreeSet<DataClass>) -> String {
        let revealed = self.revealed(run, &Viewer::History, read);
        let hidden: BTreeSet<DataClass> = read.difference(&revealed).cloned().collect();
        if hidden.is_empty() { name.chars().take(NAME_CHARS_MAX).collect() } else { reveal::withheld_text(&hidden) }
    }

    fn revealed(&self, run: &Admitted, viewer: &Viewer<'_>, classes: &BTreeSet<DataClass>) -> BTreeSet<DataClass> {
        if !on(Guard::Reveal) {
            return classes.clone();
        }
        self.0.revealed(viewer, &run.row.on_behalf_of, classes)
    }
}

fn agent(run: &Admitted) -> Viewer<'_> {
    let definition = &run.row.definition;
    Viewer::Agent { agent: &run.row.agent, agent_owner: &definition.owner, model: &definition.model }
}

/// Every class that a value with these labels can carry.
fn labelled(labels: &FieldClasses) -> BTreeSet<DataClass> {
    labels.values().cloned().chain([DataClass::unclassified()]).collect()
}

fn shown(arguments: &Value) -> String {
    let text = canonical::to_canonical(arguments).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    if text.len() <= ARGUMENTS_SHOWN_BYTES_MAX {
        return text;
    }
    let cut = (0..=ARGUMENTS_SHOWN_BYTES_MAX).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    format!("{cut}… ({} bytes in all; only the beginning is shown)", text.len())
}
