//! The tools: their schemas, their annotations, and what each does with the ledger.
//!
//! The schemas are written by hand: the registry states the same text, and a generated one carries `format` and `$defs`
//! that say nothing more.

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject,
        ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
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

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct Refunds {
    pub(crate) ledger: Ledger,
    pub(crate) delay_before: Duration,
    pub(crate) delay: Duration,
    pub(crate) delay_read: Duration,
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
            "refund_payment" => self.refund_payment(arguments, key).await,
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

    async fn refund_payment(&self, arguments: Value, key: Option<&str>) -> anyhow::Result<CallToolResult> {
        self.ledger.log_call("refund_payment", key).await?;
        let refund: Refund = parse(arguments)?;
        anyhow::ensure!(refund.amount_cents >= 1, "`amount_cents` is less than 1");
        let note_chars = refund.note.as_deref().unwrap_or_default().chars().count();
        anyhow::ensure!(note_chars <= NOTE_CHARS_MAX, "`note` is longer than {NOTE_CHARS_MAX} characters");
        tokio::time::sleep(self.delay_before).await;
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
