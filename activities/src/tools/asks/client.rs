//! The client that a server talks to: it offers forms, and answers neither sampling nor roots. What is asked while a call
//! is under way is put off.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{
    ClientHandler, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationCapability,
        ErrorData, FormElicitationCapability, Implementation,
    },
    service::RequestContext,
};
use serde_json::Value;

use super::{Form, ServerAsks, Told};
use crate::tools::ToolAnswer;

/// The client of one connection.
#[derive(Debug, Clone, Default)]
pub(in crate::tools) struct Governed {
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    under_way: BTreeMap<u64, Conversation>,
}

#[derive(Debug, Default)]
struct Conversation {
    told: Vec<(Form, Value)>,
    /// What was put off, by its ordinal.
    asked: BTreeMap<String, Form>,
    /// What it cannot get, in half a sentence.
    refused: Option<String>,
}

impl ClientHandler for Governed {
    fn get_info(&self) -> ClientConfig {
        let forms = ElicitationCapability::default().with_form(FormElicitationCapability::default());
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(forms);
        ClientConfig::new(capabilities, Implementation::new("mandate", env!("CARGO_PKG_VERSION")))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(self.asked(Form::of(request)))
    }
}

impl Governed {
    /// A call begins, with what the server was told before.
    pub(in crate::tools) fn begin(&self, told: Option<&Told>) -> Talk {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.next += 1;
        let number = calls.next;
        let told = told.map(|told| told.pairs.clone()).unwrap_or_default();
        calls.under_way.insert(number, Conversation { told, ..Conversation::default() });
        Talk { with: self.clone(), number }
    }

    /// What a server asks while calls are under way. With two of them nobody can tell which one asks, and both go without.
    fn asked(&self, form: Result<Form, String>) -> ElicitResult {
        let put_off = ElicitResult::new(ElicitationAction::Cancel);
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = calls.under_way.len() == 1;
        let Some(mut conversation) = calls.under_way.first_entry().filter(|_| alone) else { return put_off };
        let conversation = conversation.get_mut();
        match form {
            Ok(form) => {
                if let Some((_, response)) = conversation.told.iter().find(|(asked, _)| *asked == form) {
                    return serde_json::from_value(response.clone()).unwrap_or(put_off);
                }
                conversation.asked.insert(conversation.asked.len().to_string(), form);
            }
            Err(why) => conversation.refused = Some(why),
        }
        put_off
    }
}

/// What is said in one call. Over when it is dropped.
#[derive(Debug)]
pub(in crate::tools) struct Talk {
    with: Governed,
    number: u64,
}

impl Talk {
    /// What the call came to: its answer, or a question that was put off and led to an error.
    pub(in crate::tools) fn ended(self, answer: ToolAnswer) -> Result<ToolAnswer, Box<ServerAsks>> {
        let conversation = self.take();
        let asks = !conversation.asked.is_empty() && conversation.refused.is_none();
        if !asks || !answer.is_error {
            return Ok(answer);
        }
        let (forms, before) = (conversation.asked, conversation.told);
        let asks = ServerAsks { forms, state: None, before, answered: Some(answer.clone()) };
        match asks.bounded() {
            Ok(asks) => Err(Box::new(asks)),
            Err(_) => Ok(answer),
        }
    }

    fn take(&self) -> Conversation {
        let mut calls = self.with.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.under_way.remove(&self.number).unwrap_or_default()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.take();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::asks::tests::{account, form};

    fn failed() -> ToolAnswer {
        ToolAnswer { text: "cancelled".to_owned(), structured: None, is_error: true }
    }

    #[test]
    fn what_is_asked_during_a_call_is_put_off_and_answered_when_it_is_made_again() {
        let client = Governed::default();
        let talk = client.begin(None);
        assert_eq!(client.asked(Ok(account())).action, ElicitationAction::Cancel);
        let asks = talk.ended(failed()).unwrap_err();
        assert_eq!(asks.answered, Some(failed()));
        let told = asks.told("main").unwrap();

        let talk = client.begin(Some(&told));
        let answer = client.asked(Ok(account()));
        assert_eq!((answer.action, answer.content), (ElicitationAction::Accept, Some(json!({ "account": "main" }))));
        let other = form("Sure?", &json!({ "sure": { "type": "boolean" } }), &["sure"]);
        assert_eq!(client.asked(Ok(other.clone())).action, ElicitationAction::Cancel);
        let asks = talk.ended(failed()).unwrap_err();
        let told = asks.told("yes").unwrap();

        let talk = client.begin(Some(&told));
        for form in [account(), other] {
            assert_eq!(client.asked(Ok(form)).action, ElicitationAction::Accept, "both are known now");
        }
        assert!(talk.ended(failed()).is_ok(), "an error to which no question led");
    }

    #[test]
    fn of_two_calls_under_way_neither_is_taken_to_ask() {
        let client = Governed::default();
        let (one, other) = (client.begin(None), client.begin(None));
        assert_eq!(client.asked(Ok(account())).action, ElicitationAction::Cancel);
        assert!(one.ended(failed()).is_ok() && other.ended(failed()).is_ok());
        assert_eq!(client.asked(Ok(account())).action, ElicitationAction::Cancel, "no call is under way");
    }

    #[test]
    fn a_call_that_succeeds_without_its_question_has_its_answer() {
        let client = Governed::default();
        let talk = client.begin(None);
        client.asked(Ok(account()));
        let answer = ToolAnswer { is_error: false, ..failed() };
        assert_eq!(talk.ended(answer.clone()), Ok(answer));
    }
}
