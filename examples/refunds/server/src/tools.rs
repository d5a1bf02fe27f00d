//! The tools: their schemas, their annotations, and what each does with the ledger.
//!
//! The schemas are written by hand: the registry states the same text, and a generated one carries `format` and `$defs`
//! that say nothing more.

use std::{path::PathBuf, time::Duration};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, InputRequiredResult,
        JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::ledger::{Ledger, Refund, Refunded};

/// Where a client puts the key of an effect.
const KEY: &str = "dev.mandate/idempotency-key";

/// Longest note, in characters.
const NOTE_CHARS_MAX: usize = 200;

/// The field that says from which account a refund is paid, and the state of a server that has asked for it.
const ACCOUNT: &str = "account";
const STATE: &str = "asked for the account";

/// From which account a refund is paid.
enum Account {
    /// This one, or the usual one.
    Known(Option<String>),
    /// People have to say.
    Asked(InputRequiredResult),
    /// People did not say.
    Declined,
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct Refunds {
    pub(crate) ledger: Ledger,
    pub(crate) delay_before: Duration,
    pub(crate) delay: Duration,
    pub(crate) delay_read: Duration,
    /// Until this file is there nothing is paid.
    pub(crate) hold_before: Option<PathBuf>,
    /// Above so many cents it asks from which account a refund is paid.
    pub(crate) ask_above_cents: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadOrder {
    order_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadCustomer {
    customer_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundStatus {
    idempotency_key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelRefund {
    refund_id: String,
}

impl ServerHandler for Refunds {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("refunds-mcp", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let in_params = request.meta.as_ref().and_then(|meta| meta.get(KEY));
        let key = context.meta.get(KEY).or(in_params).and_then(Value::as_str);
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        let result = match request.name.as_ref() {
            "read_order" => self.read_order(arguments, key).await,
            "read_customer" => self.read_customer(arguments).await,
            "refund_payment" => match self.account(&request, &arguments)? {
                Account::Known(account) => self.refund_payment(arguments, key, account).await,
                Account::Asked(asks) => {
                    // What it was asked is logged as a request, though nothing was done.
                    let logged = self.ledger.log_call("refund_payment", key).await;
                    logged.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                    return Ok(asks.into());
                }
                Account::Declined => Ok(failed("The refund was not paid: nobody said from which account.")),
            },
            "refund_status" => self.refund_status(arguments).await,
            "cancel_refund" => self.cancel_refund(arguments, key).await,
            other => return Err(ErrorData::invalid_params(format!("there is no tool `{other}`"), None)),
        };
        // A refusal and a broken database read the same to the model: nothing was done.
        Ok(result.unwrap_or_else(|error| failed(&format!("error: {error}"))).into())
    }
}

impl Refunds {
    async fn read_order(&self, arguments: Value, key: Option<&str>) -> anyhow::Result<CallToolResult> {
        self.ledger.log_call("read_order", key).await?;
        let ReadOrder { order_id } = parse(arguments)?;
        tokio::time::sleep(self.delay_read).await;
        let order = self.ledger.order(&order_id).await?;
        Ok(order.map_or_else(|| failed(&format!("error: there is no order `{order_id}`")), answered))
    }

    async fn read_customer(&self, arguments: Value) -> anyhow::Result<CallToolResult> {
        let ReadCustomer { customer_id } = parse(arguments)?;
        let customer = self.ledger.customer(&customer_id).await?;
        Ok(customer.map_or_else(|| failed(&format!("error: there is no customer `{customer_id}`")), answered))
    }

    /// From which account a refund is paid, where that has to be asked.
    fn account(&self, request: &CallToolRequestParams, arguments: &Value) -> Result<Account, ErrorData> {
        let cents = arguments.get("amount_cents").and_then(Value::as_i64).unwrap_or_default();
        if self.ask_above_cents.is_none_or(|most| cents <= most) {
            return Ok(Account::Known(None));
        }
        let said = request.input_responses.as_ref().and_then(|responses| responses.get(ACCOUNT));
        let Some(said) = said.filter(|_| request.request_state.as_deref() == Some(STATE)) else {
            let message = format!("From which account are {cents} cents paid?");
            let schema = json!({
                "type": "object",
                "properties": { ACCOUNT: { "type": "string", "enum": ["main", "reserve"] } },
                "required": [ACCOUNT],
            });
            let form = json!({ "mode": "form", "message": message, "requestedSchema": schema });
            let asked = json!({ ACCOUNT: { "method": "elicitation/create", "params": form } });
            let asked =
                serde_json::from_value(asked).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            return Ok(Account::Asked(InputRequiredResult::new(Some(asked), Some(STATE.to_owned()))));
        };
        let account = said.get("content").and_then(|content| content.get(ACCOUNT)).and_then(Value::as_str);
        let accepted = said.get("action").and_then(Value::as_str) == Some("accept");
        Ok(account.filter(|_| accepted).map_or(Account::Declined, |account| Account::Known(Some(account.to_owned()))))
    }

    async fn refund_payment(
        &self,
        arguments: Value,
        key: Option<&str>,
        account: Option<String>,
    ) -> anyhow::Result<CallToolResult> {
        self.ledger.log_call("refund_payment", key).await?;
        let mut refund: Refund = parse(arguments)?;
        if let Some(account) = account {
            refund.note = Some(format!("paid from {account}"));
        }
        anyhow::ensure!(refund.amount_cents >= 1, "`amount_cents` is less than 1");
        let note_chars = refund.note.as_deref().unwrap_or_default().chars().count();
        anyhow::ensure!(note_chars <= NOTE_CHARS_MAX, "`note` is longer than {NOTE_CHARS_MAX} characters");
        tokio::time::sleep(self.delay_before).await;
        while self.hold_before.as_ref().is_some_and(|file| !file.exists()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match self.ledger.refund(&refund, key).await? {
            Refunded::Written(answer) => {
                tokio::time::sleep(self.delay).await;
                Ok(answered(answer))
            }
            Refunded::Before(answer) => Ok(answered(answer)),
            Refunded::Refused(reason) => Ok(failed(&reason)),
        }
    }

    async fn cancel_refund(&self, arguments: Value, key: Option<&str>) -> anyhow::Result<CallToolResult> {
        self.ledger.log_call("cancel_refund", key).await?;
        let CancelRefund { refund_id } = parse(arguments)?;
        let cancelled = self.ledger.cancel(&refund_id, key).await?;
        Ok(cancelled.map_or_else(|| failed(&format!("error: there is no refund `{refund_id}`")), answered))
    }

    async fn refund_status(&self, arguments: Value) -> anyhow::Result<CallToolResult> {
        let RefundStatus { idempotency_key } = parse(arguments)?;
        let result = self.ledger.refund_of(&idempotency_key).await?;
        Ok(CallToolResult::structured(json!({ "happened": result.is_some(), "result": result })))
    }
}

fn parse<T: DeserializeOwned>(arguments: Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(arguments)?)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where a function of a value is asked for")]
fn answered(value: Value) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(value.to_string())])
}

fn failed(text: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

fn tools() -> Vec<Tool> {
    let reads = || ToolAnnotations::new().read_only(true).destructive(false).idempotent(true).open_world(false);
    let text = json!({ "type": "string" });
    let refund = json!({
        "order_id": text,
        "amount_cents": { "type": "integer", "minimum": 1 },
        "currency": { "type": "string", "enum": ["EUR", "USD"] },
        "note": { "type": "string", "maxLength": NOTE_CHARS_MAX },
    });
    vec![
        Tool::new("read_order", "Read an order", schema(&json!({ "order_id": text }), &["order_id"]))
            .with_annotations(reads()),
        Tool::new("read_customer", "Read a customer", schema(&json!({ "customer_id": text }), &["customer_id"]))
            .with_annotations(reads()),
        // Without a key each call pays again, so the hint is "not idempotent".
        Tool::new(
            "refund_payment",
            "Pay back part or all of an order",
            schema(&refund, &["order_id", "amount_cents", "currency"]),
        )
        .with_annotations(
            ToolAnnotations::new().read_only(false).destructive(true).idempotent(false).open_world(false),
        ),
        Tool::new(
            "refund_status",
            "Say whether the refund of an idempotency key happened",
            schema(&json!({ "idempotency_key": text }), &["idempotency_key"]),
        )
        .with_annotations(reads()),
        Tool::new("cancel_refund", "Take a refund back", schema(&json!({ "refund_id": text }), &["refund_id"]))
            .with_annotations(
                ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(false),
            ),
    ]
}

fn schema(properties: &Value, required: &[&str]) -> JsonObject {
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    schema.as_object().cloned().unwrap_or_default()
}
