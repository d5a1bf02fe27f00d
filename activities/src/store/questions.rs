//! Questions that wait for a person's answer: an agent's, of which a call asks one, and those of a tool's server, which may
//! ask again when it is answered.

use mandate_domain::{Address, QuestionId, ToolCallId};
use serde::Serialize;

use super::{
    StoreError, Tx,
    engine::{query, query_as},
    rows::{PLAIN, column, number, parse, plain},
};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionRow {
    /// Its id.
    pub id: QuestionId,
    /// Its ordinal in the run, from 1.
    pub ordinal: u32,
    /// The call that asks.
    pub call: ToolCallId,
    /// Until when it can be answered, in milliseconds since 1970-01-01 UTC.
    pub expires_ms: u64,
    /// What is asked, as it may be shown.
    pub asked: String,
    /// Where it stands.
    pub state: QuestionState,
    /// What the call's server asks for, as JSON; nothing where the agent asks.
    pub server: Option<String>,
    /// What people said to the server.
    pub answer: Option<String>,
}

/// A question to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewQuestion<'a> {
    /// The call that asks.
    pub call: ToolCallId,
    /// Address of what is asked.
    pub input: &'a Address,
    /// What is asked, as it may be shown.
    pub asked: &'a str,
    /// Until when it can be answered, in milliseconds since 1970-01-01 UTC.
    pub expires_ms: u64,
    /// What the call's server asks for, as JSON; nothing where the agent asks.
    pub server: Option<&'a str>,
}

/// Where a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionState {
    /// It waits.
    Open,
    /// Somebody answered.
    Answered,
    /// Nobody answered in time.
    Expired,
    /// The run ended.
    Withdrawn,
}

impl QuestionState {
    const ALL: [Self; 4] = [Self::Open, Self::Answered, Self::Expired, Self::Withdrawn];

    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Answered => "answered",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// What the digest in a question's id is made over.
#[derive(Serialize)]
struct Asked<'a> {
    run: String,
    call: ToolCallId,
    question: &'a Address,
    expires_ms: u64,
}

type Columns = (String, i64, String, i64, String, String, String, Option<String>, Option<String>);

/// The statement that finds the question of a run with this value in a column. A macro, as statements are fixed texts.
macro_rules! where_is {
    ($column:literal) => {
        concat!(
            "SELECT question, ordinal, call, expires_ms, encoding, asked, state, server, answer FROM questions
             WHERE chain = $1 AND ",
            $column,
            " = $2 ORDER BY ordinal DESC LIMIT 1"
        )
    };
}

impl Tx {
    /// Makes the question of a call. One that was made before is given back: an agent's in any case, a server's while it
    /// waits.
    ///
    /// # Errors
    /// [`StoreError`] of the database or the tenant's key; [`StoreError::NotFound`] for a run that is not open.
    pub async fn make_question(
        &mut self,
        NewQuestion { call, input, asked, expires_ms, server }: NewQuestion<'_>,
    ) -> Result<QuestionRow, StoreError> {
        if let Some(row) = self.question_of_call(call).await?
            && (server.is_none() || row.state == QuestionState::Open)
        {
            return Ok(row);
        }
        let (chain, tenant) = (self.chain()?, self.tenant()?.to_owned());
        let digested = Asked { run: self.run().to_string(), call, question: input, expires_ms };
        let digest = self.tenant_key(&tenant).await?.address_of(&digested)?;
        let (ordinal,): (i64,) =
            query_as("UPDATE runs SET questions_made = questions_made + 1 WHERE chain = $1 RETURNING questions_made")
                .bind(chain)
                .fetch_one(&mut *self.db)
                .await?;
        let id = QuestionId::new(number("ordinal of a question", ordinal)?, &digest);
        query(
            "INSERT INTO questions (chain, question, ordinal, call, expires_ms, encoding, asked, state, server)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8)",
        )
        .bind(chain)
        .bind(id.as_str())
        .bind(ordinal)
        .bind(call.to_string())
        .bind(column(expires_ms))
        .bind(PLAIN)
        .bind(asked)
        .bind(server)
        .execute(&mut *self.db)
        .await?;
        self.question(&id).await?.ok_or_else(|| StoreError::not_found(format_args!("question `{id}`")))
    }

    /// A question of this run.
    ///
    /// # Errors
    /// [`StoreError`] of the database or of a row that cannot be read.
    pub async fn question(&mut self, id: &QuestionId) -> Result<Option<QuestionRow>, StoreError> {
        let row: Option<Columns> =
            query_as(where_is!("question")).bind(self.chain()?).bind(id.as_str()).fetch_optional(&mut *self.db).await?;
        row.map(read).transpose()
    }

    /// The question that a call asks, the last one where its server asked more.
    ///
    /// # Errors
    /// As [`Tx::question`].
    pub async fn question_of_call(&mut self, call: ToolCallId) -> Result<Option<QuestionRow>, StoreError> {
        let row: Option<Columns> = query_as(where_is!("call"))
            .bind(self.chain()?)
            .bind(call.to_string())
            .fetch_optional(&mut *self.db)
            .await?;
        row.map(read).transpose()
    }

    /// How many questions a call has asked.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn questions_of_call(&mut self, call: ToolCallId) -> Result<u32, StoreError> {
        let (count,): (i64,) = query_as("SELECT count(*) FROM questions WHERE chain = $1 AND call = $2")
            .bind(self.chain()?)
            .bind(call.to_string())
            .fetch_one(&mut *self.db)
            .await?;
        number("number of questions", count)
    }

    /// The question of this number.
    ///
    /// # Errors
    /// As [`Tx::question`].
    pub async fn question_by_ordinal(&mut self, ordinal: u32) -> Result<Option<QuestionRow>, StoreError> {
        let row: Option<Columns> = query_as(where_is!("ordinal"))
            .bind(self.chain()?)
            .bind(i64::from(ordinal))
            .fetch_optional(&mut *self.db)
            .await?;
        row.map(read).transpose()
    }

    /// Moves a question.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown question.
    pub async fn set_question_state(&mut self, id: &QuestionId, state: QuestionState) -> Result<(), StoreError> {
        let done = query("UPDATE questions SET state = $3 WHERE chain = $1 AND question = $2")
            .bind(self.chain()?)
            .bind(id.as_str())
            .bind(state.as_str())
            .execute(&mut *self.db)
            .await?;
        if done > 0 { Ok(()) } else { Err(StoreError::not_found(format_args!("question `{id}`"))) }
    }

    /// Keeps what people said to a server's question, for the call that is made again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown question.
    pub async fn answer_server(&mut self, id: &QuestionId, answer: &str) -> Result<(), StoreError> {
        let done = query("UPDATE questions SET state = 'answered', answer = $3 WHERE chain = $1 AND question = $2")
            .bind(self.chain()?)
            .bind(id.as_str())
            .bind(answer)
            .execute(&mut *self.db)
            .await?;
        if done > 0 { Ok(()) } else { Err(StoreError::not_found(format_args!("question `{id}`"))) }
    }
}

fn read(
    (id, ordinal, call, expires_ms, encoding, asked, state, server, answer): Columns,
) -> Result<QuestionRow, StoreError> {
    plain("question", &encoding)?;
    let known = QuestionState::ALL.into_iter().find(|known| known.as_str() == state);
    Ok(QuestionRow {
        id: parse("question id", &id)?,
        ordinal: number("ordinal of a question", ordinal)?,
        call: parse("call of a question", &call)?,
        expires_ms: number("time of a question", expires_ms)?,
        asked,
        state: known.ok_or_else(|| StoreError::corrupt(format_args!("state of a question: {state}")))?,
        server,
        answer,
    })
}
