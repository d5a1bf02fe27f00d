//! What is known of a call that nobody can tell the outcome of: what a person needs to look it up where it may have
//! happened.

use mandate_domain::{EffectId, ToolCallId, ToolReach, render};

use super::{Admitted, Governed, SEND_WITHIN, permit::idempotency_key};
use crate::{failure::ActivityFailure, store::Tx};

impl Governed {
    /// Where it was sent, when, how often and under which key, in half a sentence; nothing where nothing was begun. A
    /// question to people was sent nowhere.
    pub(super) async fn known_of(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        call: ToolCallId,
    ) -> Result<String, ActivityFailure> {
        let effect = EffectId::Tool(call);
        let Some(row) = tx.effect(effect).await? else { return Ok(String::new()) };
        let tool = run.row.tools.iter().find(|tool| tool.name.as_str() == row.target);
        let Some(tool) = tool.filter(|tool| tool.reach.builtin().is_none()) else { return Ok(String::new()) };
        let place = match &tool.reach {
            ToolReach::Mcp { server, tool } => format!("to `{server}` as `{tool}`"),
            ToolReach::Http(request) => format!("to `{}` as `{} {}`", request.server, request.method, request.path),
            ToolReach::Builtin { .. } => String::new(),
        };
        let mut times = Vec::new();
        for epoch in 1..=row.epoch {
            let claimed = tx.recorded_at(&format!("{effect}/intent/{epoch}")).await?;
            times.extend(claimed.map(|micros| format!("epoch {epoch} from {} (UTC)", render::utc(micros / 1000))));
        }
        let (within, times) = (SEND_WITHIN.as_secs(), times.join(", "));
        let key = tool.key_as_sent(idempotency_key(&run.chain, effect));
        Ok(format!(
            "if it was sent, then {place}, {times}, within {within} seconds, under the key `{key}`, last by `{}`",
            row.holder
        ))
    }
}
