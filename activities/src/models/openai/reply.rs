//! From the body of a Chat Completions answer to our reply. It fails closed: an answer without usage would be free.

use mandate_domain::{Arguments, ModelReply, ProposedCall, Usage};
use serde_json::Value;

use super::request::WireNames;
use crate::{catalog::Price, models::ModelError};

/// Reads the answer of a successful request.
pub(super) fn read(body: &[u8], names: &WireNames, price: Option<Price>) -> Result<ModelReply, ModelError> {
    let body: Value = serde_json::from_slice(body).map_err(|_| protocol("the answer is not JSON"))?;
    if body.get("error").is_some_and(|error| !error.is_null()) {
        return Err(protocol("an error came with a status of success"));
    }
    let choice = body.pointer("/choices/0").ok_or_else(|| protocol("the answer has no choices"))?;
    let message = choice.get("message").ok_or_else(|| protocol("the choice has no message"))?;
    let finish = choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
    if finish == "content_filter" || message.get("refusal").is_some_and(|refusal| !refusal.is_null()) {
        return Err(refused("the model or its filter declines to answer"));
    }
    let text = text(message.get("content"))?;
    let calls = calls(message.get("tool_calls"), names)?;
    if calls.is_empty() && finish == "length" {
        return Err(refused("the answer was cut at the configured longest answer"));
    }
    if calls.is_empty() && text.is_none() {
        return Err(protocol("the answer has neither text nor calls"));
    }
    Ok(ModelReply {
        text,
        calls,
        usage: usage(body.get("usage"), price)?,
        model: body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
        response_id: body.get("id").and_then(Value::as_str).map(str::to_owned),
    })
}

fn protocol(reason: &str) -> ModelError {
    ModelError::Protocol { reason: reason.to_owned() }
}

fn refused(reason: &str) -> ModelError {
    ModelError::Refused { reason: reason.to_owned() }
}

fn text(content: Option<&Value>) -> Result<Option<String>, ModelError> {
    let text = match content {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return Err(protocol("the content is neither text nor parts"));
        }
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn calls(calls: Option<&Value>, names: &WireNames) -> Result<Vec<ProposedCall>, ModelError> {
    let calls = match calls {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(calls) => calls.as_array().ok_or_else(|| protocol("`tool_calls` is not a list"))?,
    };
    calls.iter().map(|call| read_call(call, names)).collect()
}

fn read_call(call: &Value, names: &WireNames) -> Result<ProposedCall, ModelError> {
    let name = call.pointer("/function/name").and_then(Value::as_str).ok_or_else(|| protocol("a call has no name"))?;
    let arguments = match call.pointer("/function/arguments") {
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(arguments) => Arguments::Object(arguments),
            Err(_) => Arguments::Malformed(text.clone()),
        },
        Some(Value::Object(arguments)) => Arguments::Object(arguments.clone()),
        other => Arguments::Malformed(other.map(ToString::to_string).unwrap_or_default()),
    };
    Ok(ProposedCall {
        // A name that was not offered comes back as the model wrote it; the governed path refuses it.
        tool: names.ours(name).unwrap_or(name).to_owned(),
        arguments,
        provider_id: call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned),
    })
}

fn usage(usage: Option<&Value>, price: Option<Price>) -> Result<Usage, ModelError> {
    let usage = usage.ok_or_else(|| protocol("the answer states no usage"))?;
    let count = |at: &str| usage.pointer(at).filter(|count| !count.is_null());
    let whole = |count: &Value| count.as_u64().ok_or_else(|| protocol("the usage is not a whole number"));
    let stated = |at: &str| count(at).ok_or_else(|| protocol("the usage is incomplete")).and_then(whole);
    let part = |at: &str| count(at).map_or(Ok(0), whole);
    let (input_tokens, output_tokens) = (stated("/prompt_tokens")?, stated("/completion_tokens")?);
    Ok(Usage {
        input_tokens,
        output_tokens,
        cached_input_tokens: part("/prompt_tokens_details/cached_tokens")?,
        reasoning_tokens: part("/completion_tokens_details/reasoning_tokens")?,
        cost_micros: price.map_or(0, |price| cost(price, input_tokens, output_tokens)),
    })
}

// Rounded up: a budget must not be undercut by many small calls.
fn cost(price: Price, input_tokens: u64, output_tokens: u64) -> u64 {
    let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
    let total = of(input_tokens, price.input_micros_per_million)
        .saturating_add(of(output_tokens, price.output_micros_per_million));
    u64::try_from(total.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
