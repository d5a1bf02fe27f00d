//! An approver changes the arguments of a call: the call ends, and a revision of it with the new arguments is judged
//! afresh, as if the model had proposed it. Nobody has approved the revision by making it.

use mandate_domain::{
    Arguments, EffectId, RecordBody, RefusalKind, Review, ToolCallId, ToolDefinition, tool::arguments::ArgumentsSchema,
};
use serde_json::{Map, Value};

use super::{
    Admitted, Governed,
    call_tool::{arguments_address, refusal},
    review_approval::Decided,
};
use crate::{
    failure::ActivityFailure,
    guards::{Guard, on},
    store::{RequestRow, Tx},
};

/// How often the arguments of one call may be changed.
const REVISIONS_MAX: u32 = 8;

impl Governed {
    /// Why the arguments that an approver sends cannot be put in place of the model's, if so. The words name no value:
    /// they stand in the audit log.
    pub(super) fn refuse_edit(
        run: &Admitted,
        row: &RequestRow,
        tool: &ToolDefinition,
        arguments: &Map<String, Value>,
    ) -> Result<Option<String>, ActivityFailure> {
        if row.call.undo {
            return Ok(Some("the arguments of an undo follow from the call that it undoes".to_owned()));
        }
        if row.call.revision >= REVISIONS_MAX {
            return Ok(Some(format!("the arguments of this call were changed {} times already", REVISIONS_MAX - 1)));
        }
        if arguments_address(run, &Arguments::Object(arguments.clone())) == row.arguments {
            return Ok(Some(
                "the changed arguments are the ones that are asked about; approve without them".to_owned(),
            ));
        }
        let fits = ArgumentsSchema::compile(&tool.input_schema)?.check(arguments).is_ok();
        Ok((!fits && on(Guard::EditFits))
            .then(|| format!("the changed arguments do not fit the schema of `{}`", tool.name)))
    }

    pub(super) async fn revise(
        &self,
        tx: &mut Tx,
        run: &Admitted,
        row: &RequestRow,
        decided: &Decided<'_>,
        arguments: &Map<String, Value>,
    ) -> Result<Review, ActivityFailure> {
        let (call, by) = (row.call, &decided.signed.by);
        let revision = call.revised();
        tx.withdraw_requests(call).await?;
        tx.put_revision(revision, &row.id, by, arguments).await?;
        let reason = format!("an approver changed its arguments; `{revision}` is decided about in its place.");
        self.end_refused(tx, run, call, refusal(RefusalKind::Revised, reason)).await?;
        let body = RecordBody::CallRevised {
            effect: EffectId::Tool(revision),
            replaces: EffectId::Tool(call),
            input: arguments_address(run, &Arguments::Object(arguments.clone())),
            request: row.id.clone(),
            by: by.clone(),
        };
        self.append(tx, run, format!("{revision}/revised"), body).await?;
        Ok(Review::Revised { call: revision })
    }

    /// The arguments of a recorded call or of its revision; none where there are none that are an object.
    pub(super) async fn arguments_of(
        &self,
        run: &Admitted,
        call: ToolCallId,
    ) -> Result<Option<Map<String, Value>>, ActivityFailure> {
        if let Some(undone) = call.undoes() {
            let undo = self.undo_of(run, undone).await?;
            return Ok(match undo.map(|undo| undo.arguments) {
                Some(Arguments::Object(arguments)) => Some(arguments),
                Some(Arguments::Malformed(_)) | None => None,
            });
        }
        if call.revision > 1 {
            return Ok(self.store.revision(&run.chain, call).await?.map(|row| row.arguments));
        }
        Ok(match self.proposed(run, call).await?.map(|proposed| proposed.arguments) {
            Some(Arguments::Object(arguments)) => Some(arguments),
            Some(Arguments::Malformed(_)) | None => None,
        })
    }
}
