//! What people said beside their decisions: arguments that they put in place of the model's, further instructions, and
//! which signatures and tokens were used.

use mandate_domain::{Address, Digest, PersonId, RequestId, RunChain, ToolCallId};
use serde_json::{Map, Value};

use super::{
    Store, StoreError, Tx,
    engine::{query, query_as},
    rows::{PLAIN, from_json, number, parse, plain, to_json},
};

/// A call whose arguments an approver changed.
#[derive(Debug, Clone, PartialEq)]
pub struct RevisionRow {
    /// Who changed them.
    pub editor: PersonId,
    /// The request whose decision changed them.
    pub request: RequestId,
    /// The new arguments.
    pub arguments: Map<String, Value>,
}

/// A further instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionRow {
    /// Its number in the run.
    pub ordinal: u32,
    /// Address of what it says.
    pub content: Address,
    /// Who gave it.
    pub said_by: PersonId,
    /// The turn at which the model read it.
    pub turn: Option<u32>,
}

type RevisionColumns = (String, String, String, String);

impl Store {
    /// A revision of a call, as it was committed.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn revision(&self, run: &RunChain, call: ToolCallId) -> Result<Option<RevisionRow>, StoreError> {
        let row: Option<RevisionColumns> = query_as(
            "SELECT request, editor, encoding, arguments FROM revisions JOIN chains ON chains.id = revisions.chain
             WHERE chains.workflow_id = $1 AND chains.first_run_id = $2 AND call = $3",
        )
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .bind(call.to_string())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        row.map(read_revision).transpose()
    }
}

impl Tx {
    /// Puts a revision of a call there. The same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`] when another stands for this id.
    pub async fn put_revision(
        &mut self,
        call: ToolCallId,
        request: &RequestId,
        editor: &PersonId,
        arguments: &Map<String, Value>,
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO revisions (chain, call, request, editor, encoding, arguments) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(self.chain()?)
        .bind(call.to_string())
        .bind(request.as_str())
        .bind(editor.as_str())
        .bind(PLAIN)
        .bind(to_json(arguments)?)
        .execute(&mut *self.db)
        .await?;
        let stands = self.revision(call).await?;
        if stands.is_some_and(|row| row.arguments == *arguments && row.editor == *editor) {
            return Ok(());
        }
        Err(StoreError::KeyConflict { key: format!("revision {call}") })
    }

    /// A revision of a call.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn revision(&mut self, call: ToolCallId) -> Result<Option<RevisionRow>, StoreError> {
        let row: Option<RevisionColumns> =
            query_as("SELECT request, editor, encoding, arguments FROM revisions WHERE chain = $1 AND call = $2")
                .bind(self.chain()?)
                .bind(call.to_string())
                .fetch_optional(&mut *self.db)
                .await?;
        row.map(read_revision).transpose()
    }

    /// The last revision of a call: the one that has its result.
    ///
    /// # Errors
    /// As [`Tx::revision`].
    pub async fn last_revision(&mut self, mut call: ToolCallId) -> Result<ToolCallId, StoreError> {
        while self.revision(call.revised()).await?.is_some() {
            call = call.revised();
        }
        Ok(call)
    }

    /// Takes in a further instruction. The same one under its number again changes nothing; another one under a number that
    /// was given out before, behind a reset, stands behind all that there are.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn accept_instruction(
        &mut self,
        ordinal: u32,
        content: &Address,
        said_by: &PersonId,
    ) -> Result<(), StoreError> {
        let chain = self.chain()?;
        let stands: Option<(String, String)> =
            query_as("SELECT content, said_by FROM instructions WHERE chain = $1 AND ordinal = $2")
                .bind(chain)
                .bind(i64::from(ordinal))
                .fetch_optional(&mut *self.db)
                .await?;
        let ordinal = match stands {
            Some((known, by)) if known == content.as_str() && by == said_by.as_str() => return Ok(()),
            None => i64::from(ordinal),
            Some(_) => {
                let last = "SELECT coalesce(max(ordinal), 0) + 1 FROM instructions WHERE chain = $1";
                let (next,): (i64,) = query_as(last).bind(chain).fetch_one(&mut *self.db).await?;
                next
            }
        };
        query("INSERT INTO instructions (chain, ordinal, content, said_by) VALUES ($1, $2, $3, $4)")
            .bind(chain)
            .bind(ordinal)
            .bind(content.as_str())
            .bind(said_by.as_str())
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }

    /// Gives the accepted instructions with these contents to the model at a turn, each once, and answers them in that
    /// order; none if one of them was never accepted or was read at another turn.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn deliver_instructions(
        &mut self,
        turn: u32,
        contents: &[Address],
    ) -> Result<Option<Vec<InstructionRow>>, StoreError> {
        if contents.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let rows: Vec<(i64, String, String, Option<i64>)> = query_as(
            "SELECT ordinal, content, said_by, turn FROM instructions
             WHERE chain = $1 AND (turn IS NULL OR turn = $2) ORDER BY ordinal",
        )
        .bind(self.chain()?)
        .bind(i64::from(turn))
        .fetch_all(&mut *self.db)
        .await?;
        let mut free = rows.into_iter().map(read_instruction).collect::<Result<Vec<_>, _>>()?;
        let mut delivered = Vec::with_capacity(contents.len());
        for content in contents {
            let Some(position) = free.iter().position(|row| row.content == *content) else { return Ok(None) };
            delivered.push(free.remove(position));
        }
        for row in &delivered {
            query("UPDATE instructions SET turn = $3 WHERE chain = $1 AND ordinal = $2")
                .bind(self.chain()?)
                .bind(i64::from(row.ordinal))
                .bind(i64::from(turn))
                .execute(&mut *self.db)
                .await?;
        }
        Ok(Some(delivered))
    }

    /// Uses a signature or token for a record of this run. Whether it may be: the same record again may, any other not.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn use_proof(&mut self, digest: &Digest, record_key: &str) -> Result<bool, StoreError> {
        let run = self.run().clone();
        query(
            "INSERT INTO used_proofs (digest, workflow_id, first_run_id, record_key) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
        )
        .bind(digest.as_str())
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .bind(record_key)
        .execute(&mut *self.db)
        .await?;
        let (same,): (bool,) = query_as(
            "SELECT workflow_id = $2 AND first_run_id = $3 AND record_key = $4 FROM used_proofs WHERE digest = $1",
        )
        .bind(digest.as_str())
        .bind(&run.workflow_id)
        .bind(&run.first_run_id)
        .bind(record_key)
        .fetch_one(&mut *self.db)
        .await?;
        Ok(same)
    }
}

fn read_revision((request, editor, encoding, arguments): RevisionColumns) -> Result<RevisionRow, StoreError> {
    plain("revision of a call", &encoding)?;
    Ok(RevisionRow {
        request: parse("request of a revision", &request)?,
        editor: parse("editor of a revision", &editor)?,
        arguments: from_json("arguments of a revision", &arguments)?,
    })
}

fn read_instruction(
    (ordinal, content, said_by, turn): (i64, String, String, Option<i64>),
) -> Result<InstructionRow, StoreError> {
    Ok(InstructionRow {
        ordinal: number("ordinal of an instruction", ordinal)?,
        content: parse("content of an instruction", &content)?,
        said_by: parse("sender of an instruction", &said_by)?,
        turn: turn.map(|turn| number("turn of an instruction", turn)).transpose()?,
    })
}
