//! Who acts in a world, and how they show it: with a token on the server that knows its callers, with a key in a folder
//! that accepts keys.

use std::sync::Arc;

use mandate_domain::{Address, RunChain, Verdict, proof::InstructionKind};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::{Value, json};

use crate::{AGENT, Scenario, authorized_server, keys, until};

/// Who acts where a test says nothing else: the person that runs are started for.
const USUAL: &str = "ana@acme.example";

impl Scenario {
    /// A copy of the refunds example on the server with authorization. Workers have a worker's token; everything else is
    /// done with the token of `ana@acme.example`, until [`Self::as_person`] says otherwise.
    pub async fn on_authorized(name: &str) -> Self {
        Self::at(authorized_server().await.caller(USUAL).await, name)
    }

    /// The same world, acted in with somebody else's token: starts, signals, queries, the CLI and `mandate`.
    pub async fn as_person(&self, person: &str) -> Self {
        let server = self.server.authorized().expect("the development server knows nobody");
        Self {
            name: self.name.clone(),
            server: server.caller(person).await,
            world: Arc::clone(&self.world),
            more: self.more.clone(),
        }
    }

    /// Makes the folder one that others rely on: policies are applied, and people prove themselves with keys.
    pub fn in_production(&self) {
        self.edit("mandate.toml", r#"profile = "development""#, r#"profile = "production""#);
        keys::accept_keys(&self.path(""));
    }

    /// Whether the folder accepts keys: then starts and decisions are signed.
    #[must_use]
    pub fn accepts_keys(&self) -> bool {
        keys::key_file(&self.path(""), "bo@acme.example").exists()
    }

    /// Decides about a request, with a signature where the folder accepts keys.
    pub(super) async fn decide(&self, request: &str, verdict: Verdict, by: &str, comment: Option<&str>) {
        let payload = if self.accepts_keys() {
            let pending = self.pending().await;
            let digest = pending.iter().find(|one| one.request_id == request).and_then(|one| one.digest.clone());
            // One that does not wait has no digest to sign any more, and is refused for that.
            let digest = digest.unwrap_or_else(|| Address::from_bytes([0; 32]));
            keys::SaysOf { request, digest: &digest, verdict, comment, arguments: None }.signed(by)
        } else {
            json!({ "request_id": request, "by": by, "comment": comment })
        };
        self.signal(verdict.as_str(), &payload.to_string()).await.ok();
    }

    /// Lets the folder accept keys, and the gate of refunds ask for four eyes. From here on decisions are signed.
    pub fn accept_keys(&self) {
        keys::accept_keys(&self.path(""));
        self.edit("policies/refunds.cedar", "@quorum(\"1\")\n", "@quorum(\"1\")\n@four_eyes(\"requester\")\n");
    }

    /// A decision as the person who has the key of `by` signs it.
    #[must_use]
    pub fn signed_decision(&self, request: &PendingRequest, verdict: Verdict, by: &str) -> Value {
        let digest = request.digest.as_ref().expect("a digest");
        let says = keys::SaysOf { request: &request.request_id, digest, verdict, comment: None, arguments: None };
        says.signed(by)
    }

    /// Approves or rejects a request with a signature.
    pub async fn decide_signed(&self, request: &PendingRequest, verdict: Verdict, by: &str) {
        let payload = self.signed_decision(request, verdict, by).to_string();
        self.signal(verdict.as_str(), &payload).await.ok();
    }

    /// The run as signed instructions name it.
    pub async fn run_chain(&self) -> RunChain {
        let first_run_id = until("the run is open", async || self.status().await.first_run_id).await;
        RunChain { workflow_id: self.name.clone(), first_run_id }
    }

    /// An instruction as the person who has the key of `by` signs it: `fields` are those of its own, such as `text`.
    pub async fn signed_instruction(&self, kind: InstructionKind, fields: Value, by: &str, message_id: &str) -> Value {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let about = text("question_id").or_else(|| text("call"));
        let said = text("text").or_else(|| text("resolution"));
        let statement = keys::instruction(&self.run_chain().await, message_id, kind, about, said);
        let mut payload = fields.clone();
        for (name, value) in [("by", by), ("message_id", message_id), ("signature", &keys::sign(&statement, by, by))] {
            payload[name] = value.into();
        }
        payload
    }

    /// A task of the refunds agent that the person it acts for has signed.
    #[must_use]
    pub fn signed_task(&self, prompt: &str, by: &str) -> Value {
        let statement = keys::start(AGENT, prompt, by, &self.name);
        let proof = json!({ "signature": keys::sign(&statement, by, by) });
        json!({ "agent": AGENT, "prompt": prompt, "on_behalf_of": by, "proof": proof })
    }
}
