//! Transcripts: messages that each name their parent, and the replies that models gave.
//!
//! A message's address covers its parent's address and so the whole conversation before it. Bounded: the cache of this
//! process holds at most [`CACHE_BYTES_MAX`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mandate_domain::{Address, AddressKey, Message, ModelReply};
use serde::Serialize;

use super::{
    Store, StoreError, Tx,
    engine::{either, query, query_as},
    rows::{PLAIN, from_json, locked, number, parse, plain, to_json},
};

/// Largest total of cached transcripts, in bytes of JSON and a flat amount a message.
const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a message costs beside its text.
const MESSAGE_BYTES: usize = 128;
/// Most cached transcripts. Their heads go into the query, so their number is bounded too.
const CACHED_MAX: usize = 256;

/// What a message's address is made over. The body is the exact text that is stored, so numbers that have no canonical
/// form do not stand in the way, and the stored row proves itself.
#[derive(Serialize)]
struct Addressed<'a> {
    parent: Option<&'a str>,
    message: &'a str,
}

fn message_address(key: &AddressKey, parent: Option<&str>, body: &str) -> Result<Address, StoreError> {
    Ok(key.address_of(&Addressed { parent, message: body })?)
}

impl Tx {
    /// Stores a message behind `parent`, or as the first one. The same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the parent is not there.
    pub async fn append_message(
        &mut self,
        tenant: &str,
        parent: Option<&Address>,
        message: &Message,
    ) -> Result<Address, StoreError> {
        let depth = match parent {
            None => 1,
            Some(parent) => self.depth(tenant, parent).await?.saturating_add(1),
        };
        let body = to_json(message)?;
        let key = self.tenant_key(tenant).await?;
        let address = message_address(&key, parent.map(Address::as_str), &body)?;
        query(
            "INSERT INTO messages (tenant, address, parent, depth, encoding, body) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(tenant)
        .bind(address.as_str())
        .bind(parent.map(Address::as_str))
        .bind(depth)
        .bind(PLAIN)
        .bind(body)
        .execute(&mut *self.db)
        .await?;
        Ok(address)
    }

    async fn depth(&mut self, tenant: &str, address: &Address) -> Result<i64, StoreError> {
        let row: Option<(i64,)> = query_as("SELECT depth FROM messages WHERE tenant = $1 AND address = $2")
            .bind(tenant)
            .bind(address.as_str())
            .fetch_optional(&mut *self.db)
            .await?;
        row.map(|(depth,)| depth).ok_or_else(|| StoreError::not_found(format_args!("message {address}")))
    }

    /// Records what the model answered in a turn. The same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`] when another reply stands for this turn.
    pub async fn record_reply(
        &mut self,
        turn: u32,
        before: &Address,
        append: &[Address],
        after: &Address,
        reply: &ModelReply,
    ) -> Result<(), StoreError> {
        let chain = self.chain()?;
        let (append, reply) = (to_json(append)?, to_json(reply)?);
        query(
            "INSERT INTO replies (chain, turn, transcript_before, appended, transcript_after, encoding, reply)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(chain)
        .bind(i64::from(turn))
        .bind(before.as_str())
        .bind(&append)
        .bind(after.as_str())
        .bind(PLAIN)
        .bind(&reply)
        .execute(&mut *self.db)
        .await?;
        let (same,): (bool,) = query_as(
            "SELECT transcript_before = $3 AND appended = $4 AND transcript_after = $5 AND reply = $6
             FROM replies WHERE chain = $1 AND turn = $2",
        )
        .bind(chain)
        .bind(i64::from(turn))
        .bind(before.as_str())
        .bind(append)
        .bind(after.as_str())
        .bind(reply)
        .fetch_one(&mut *self.db)
        .await?;
        if same { Ok(()) } else { Err(StoreError::KeyConflict { key: format!("m{turn}/reply") }) }
    }
}

type Columns = (String, Option<String>, i64, String, String);

impl Store {
    /// The conversation that ends with `head`, oldest message first. One query, which stops where a cached transcript
    /// begins.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the head is not there, [`StoreError::Corrupt`] when a message before it is missing
    /// or is not what its address says.
    pub async fn transcript(&self, tenant: &str, head: &Address) -> Result<Vec<Message>, StoreError> {
        let cache = &self.inner.transcripts;
        if let Some(cached) = cache.get(tenant, head) {
            return Ok(cached.messages.clone());
        }
        let known = cache.known(tenant);
        let rows: Vec<Columns> = query_as(either(
            "WITH RECURSIVE line (address, parent, depth, encoding, body) AS (
                 SELECT address, parent, depth, encoding, body FROM messages WHERE tenant = $1 AND address = $2
                 UNION ALL
                 SELECT m.address, m.parent, m.depth, m.encoding, m.body
                 FROM line JOIN messages m ON m.tenant = $1 AND m.address = line.parent AND m.depth = line.depth - 1
                 WHERE line.parent NOT IN (SELECT value FROM json_each($3))
             )
             SELECT address, parent, depth, encoding, body FROM line ORDER BY depth",
            "WITH RECURSIVE line (address, parent, depth, encoding, body) AS (
                 SELECT address, parent, depth, encoding, body FROM messages WHERE tenant = $1 AND address = $2
                 UNION ALL
                 SELECT m.address, m.parent, m.depth, m.encoding, m.body
                 FROM line JOIN messages m ON m.tenant = $1 AND m.address = line.parent AND m.depth = line.depth - 1
                 WHERE line.parent NOT IN (SELECT json_array_elements_text(CAST($3 AS JSON)))
             )
             SELECT address, parent, depth, encoding, body FROM line ORDER BY depth",
        ))
        .bind(tenant)
        .bind(head.as_str())
        .bind(to_json(&known.keys().collect::<Vec<_>>())?)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let Some((_, oldest_parent, ..)) = rows.first() else {
            return Err(StoreError::not_found(format_args!("message {head}")));
        };
        let ancestor = match oldest_parent {
            None => None,
            Some(parent) => {
                let address = parse("parent of a message", parent)?;
                let Some(cached) = known.get(&address) else {
                    return Err(StoreError::corrupt(format_args!("message {address} is missing")));
                };
                Some((address, cached))
            }
        };
        let key = self.address_key(tenant).await?;
        let transcript = extend(&key, ancestor.as_ref().map(|(_, cached)| cached.as_ref()), &rows)?;
        let messages = transcript.messages.clone();
        cache.put(tenant, head, ancestor.map(|(address, _)| address), transcript);
        Ok(messages)
    }
}

/// Checks the rows, oldest first, and puts them behind what is known already.
fn extend(key: &AddressKey, known: Option<&Transcript>, rows: &[Columns]) -> Result<Transcript, StoreError> {
    let mut transcript = known.cloned().unwrap_or_default();
    for (address, parent, depth, encoding, body) in rows {
        plain("message", encoding)?;
        let expected = transcript.messages.len().saturating_add(1);
        let fits = number::<usize>("depth of a message", *depth)? == expected
            && message_address(key, parent.as_deref(), body)?.as_str() == address;
        if !fits {
            return Err(StoreError::corrupt(format_args!("message {address} is not what its address says")));
        }
        transcript.messages.push(from_json("message", body)?);
        transcript.bytes = transcript.bytes.saturating_add(body.len()).saturating_add(MESSAGE_BYTES);
    }
    Ok(transcript)
}

#[derive(Default, Clone)]
struct Transcript {
    messages: Vec<Message>,
    bytes: usize,
}

/// Recently read transcripts, by tenant and head.
#[derive(Default)]
pub(super) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_head: HashMap<(String, Address), Entry>,
    bytes: usize,
    /// Counts uses: the entry with the smallest was not used for longest.
    clock: u64,
}

struct Entry {
    transcript: Arc<Transcript>,
    used: u64,
}

impl Cache {
    fn get(&self, tenant: &str, head: &Address) -> Option<Arc<Transcript>> {
        let mut entries = locked(&self.0);
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.by_head.get_mut(&(tenant.to_owned(), head.clone()))?;
        entry.used = now;
        Some(Arc::clone(&entry.transcript))
    }

    /// What is cached now. Held through the query, so that an ancestor cannot be dropped in between.
    fn known(&self, tenant: &str) -> HashMap<Address, Arc<Transcript>> {
        let entries = locked(&self.0);
        let of_tenant = entries.by_head.iter().filter(|((of, _), _)| of == tenant);
        of_tenant.map(|((_, head), entry)| (head.clone(), Arc::clone(&entry.transcript))).collect()
    }

    /// Takes a transcript in place of the ancestor that it continues, and drops the oldest ones beyond the bounds.
    fn put(&self, tenant: &str, head: &Address, ancestor: Option<Address>, transcript: Transcript) {
        let mut entries = locked(&self.0);
        if let Some(ancestor) = ancestor {
            entries.remove(&(tenant.to_owned(), ancestor));
        }
        entries.remove(&(tenant.to_owned(), head.clone()));
        if transcript.bytes > CACHE_BYTES_MAX {
            return;
        }
        entries.clock += 1;
        entries.bytes = entries.bytes.saturating_add(transcript.bytes);
        let entry = Entry { used: entries.clock, transcript: Arc::new(transcript) };
        entries.by_head.insert((tenant.to_owned(), head.clone()), entry);
        while entries.bytes > CACHE_BYTES_MAX || entries.by_head.len() > CACHED_MAX {
            let oldest = entries.by_head.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => entries.remove(&oldest),
                None => break,
            }
        }
    }
}

impl Entries {
    fn remove(&mut self, key: &(String, Address)) {
        if let Some(entry) = self.by_head.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.transcript.bytes);
        }
    }
}
