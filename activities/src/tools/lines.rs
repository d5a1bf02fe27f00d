//! What goes over the pipes of an MCP server: one JSON-RPC message a line. The protocol's own library throws lines away
//! that are too long or no JSON, without a word, and their calls wait in vain; here each is one clear failure.
//!
//! A message over the limit is never held: its end is found while it is thrown away, and what it answers is told that it
//! was too large. What is no JSON-RPC ends the connection, as nothing after it can be trusted to be an answer.

use std::{
    io::{Error, ErrorKind},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rmcp::{
    RoleClient,
    model::JsonRpcMessage,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::Mutex,
};

use super::{
    send_by::{NothingSent, SendBy},
    skim::{Answers, Skim, Skimmed},
};

/// Code of the error that stands for an answer over the limit. Its data are a [`TooLarge`].
pub(super) const TOO_LARGE: i32 = -39_001;
/// So many times its limit is read of one message, at most: more comes from a server that does not stop.
const LIMITS_READ_MAX: u64 = 4;
/// Where the key of an effect stands in a message.
pub(super) const KEY_POINTER: &str = "/params/_meta/dev.mandate~1idempotency-key";
/// Most requests of a server that wait for it to read their answers.
const OWED_MAX: usize = 64;
/// How much of a line that is no message an error shows, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Why a connection was given up. Empty while it stands, or when the other side closed it.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenUp(Arc<OnceLock<Why>>);

/// Why this side could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    /// In words of ours.
    pub(super) reason: String,
    /// What the server wrote. Foreign text, which may hold content.
    pub(super) wrote: String,
}

impl From<String> for Why {
    fn from(reason: String) -> Self {
        Self { reason, wrote: String::new() }
    }
}

impl GivenUp {
    /// The reason.
    pub(super) fn why(&self) -> Option<&Why> {
        self.0.get()
    }

    fn because(&self, why: impl Into<Why>) {
        let _ = self.0.set(why.into());
    }
}

/// The two pipes of a server.
pub(super) struct Lines<R, W> {
    read: BufReader<R>,
    /// What there is of the line that is being read. Here, as reading may be cut off anywhere.
    line: Vec<u8>,
    /// A line that is over the limit and is thrown away.
    thrown_away: Option<Skim>,
    write: Arc<Mutex<Option<W>>>,
    limit: usize,
    /// Requests of the server whose answers are not written yet.
    owed: Arc<AtomicUsize>,
    send_by: SendBy,
    given_up: GivenUp,
}

/// What was read.
enum Read {
    /// A line is complete.
    Line,
    /// A line that was too long is at its end.
    Skimmed(Skimmed),
    /// The other side closed.
    End,
}

impl<R: AsyncRead + Send + Unpin, W> Lines<R, W> {
    /// Takes the pipes. Messages of more than `limit` bytes are not held.
    pub(super) fn new(read: R, write: W, limit: usize, send_by: SendBy, given_up: GivenUp) -> Self {
        let (read, write) = (BufReader::new(read), Arc::new(Mutex::new(Some(write))));
        let (line, owed) = (Vec::new(), Arc::default());
        Self { read, line, thrown_away: None, write, limit, owed, send_by, given_up }
    }

    /// Reads to the end of a line. May be cut off: between waiting and taking nothing is lost.
    async fn read(&mut self) -> Result<Read, String> {
        loop {
            let available =
                self.read.fill_buf().await.map_err(|error| format!("its output cannot be read: {error}"))?;
            if available.is_empty() {
                return Ok(Read::End);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let (part, taken) = available.split_at(end.unwrap_or(available.len()));
            let taken = part.len() + usize::from(!taken.is_empty());
            if self.thrown_away.is_none() && self.line.len().saturating_add(part.len()) > self.limit {
                let mut skim = Skim::default();
                skim.pass(&std::mem::take(&mut self.line));
                self.thrown_away = Some(skim);
            }
            match &mut self.thrown_away {
                Some(skim) => skim.pass(part),
                None => self.line.extend_from_slice(part),
            }
            self.read.consume(taken);
            let most = LIMITS_READ_MAX.saturating_mul(self.limit as u64);
            if self.thrown_away.as_ref().is_some_and(|skim| skim.bytes() > most) {
                return Err(format!("it wrote a message of more than {most} bytes"));
            }
            if end.is_some() {
                return Ok(self.thrown_away.take().map_or(Read::Line, |skim| Read::Skimmed(skim.end())));
            }
        }
    }

    /// The message of the line that was read. None: there is none in it.
    fn message(&mut self) -> Result<Option<RxJsonRpcMessage<RoleClient>>, Why> {
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii();
        if text.is_empty() {
            return Ok(None);
        }
        match serde_json::from_slice(text) {
            Ok(message) => Ok(Some(message)),
            // A notification of a kind that the library does not know, or a request that it cannot read.
            Err(_) if is_message(text) => Ok(None),
            Err(_) => Err(Why { reason: "it wrote a line that is no JSON-RPC message".to_owned(), wrote: shown(text) }),
        }
    }

    /// Counts what the server asks: each of its requests is answered, and answers that it does not read are held.
    fn bears(
        &self,
        message: Option<RxJsonRpcMessage<RoleClient>>,
    ) -> Result<Option<RxJsonRpcMessage<RoleClient>>, Why> {
        let asks = matches!(message, Some(JsonRpcMessage::Request(_)));
        if asks && self.owed.fetch_add(1, Ordering::SeqCst) >= OWED_MAX {
            return Err(format!("it asked {OWED_MAX} times without reading an answer").into());
        }
        Ok(message)
    }
}

/// Writes a line, and counts what was written if it is cut off.
async fn write_counted<W: AsyncWrite + Unpin>(write: &mut W, line: &[u8], written: &mut usize) -> Result<(), Error> {
    let mut write = pin!(write);
    while let Some(rest) = line.get(*written..).filter(|rest| !rest.is_empty()) {
        match write.write(rest).await? {
            0 => return Err(ErrorKind::WriteZero.into()),
            more => *written += more,
        }
    }
    write.flush().await
}

/// Whether nothing was sent of a message, by the error that sending it came to.
pub(super) fn nothing_was_sent(error: &Error) -> Option<String> {
    let refused = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NothingSent>);
    (refused || error.kind() == ErrorKind::NotConnected).then(|| error.to_string())
}

/// Whether a line that could not be read is a message all the same, and answers nothing.
fn is_message(text: &[u8]) -> bool {
    serde_json::from_slice::<Value>(text).is_ok_and(|value| value.get("method").is_some_and(Value::is_string))
}

/// The beginning of foreign text, on one line.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..SHOWN_CHARS_MAX * 4).unwrap_or(text)).into_owned();
    text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect()
}

/// What stands for an answer that was over the limit.
fn too_large(skimmed: &Skimmed, limit: usize) -> Option<RxJsonRpcMessage<RoleClient>> {
    let Skimmed { id, bytes, answers } = skimmed;
    let is_error = *answers == Answers::Error;
    let message = json!({
        "jsonrpc": "2.0",
        "id": id.as_ref()?,
        "error": {
            "code": TOO_LARGE,
            "message": "the answer is too large",
            "data": { "bytes": bytes, "limit": limit, "is_error": is_error },
        },
    });
    serde_json::from_value(message).ok()
}

impl<R, W> Transport<RoleClient> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let (write, send_by, given_up) = (Arc::clone(&self.write), self.send_by.clone(), self.given_up.clone());
        let owed =
            matches!(message, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_)).then(|| Arc::clone(&self.owed));
        async move {
            let message = serde_json::to_value(&message)?;
            let line = format!("{message}\n").into_bytes();
            let mut held = write.lock().await;
            let write = held.as_mut().ok_or_else(|| Error::new(ErrorKind::NotConnected, "it is closed"))?;
            let Some(key) = message.pointer(KEY_POINTER).and_then(Value::as_str) else {
                write.write_all(&line).await?;
                write.flush().await?;
                if let Some(owed) = owed {
                    owed.fetch_sub(1, Ordering::SeqCst);
                }
                return Ok(());
            };
            // It has waited for its turn: only now it is known whether it may still go out.
            let left = send_by.time_left(key).map_err(|nothing| Error::new(ErrorKind::TimedOut, nothing))?;
            let mut written = 0;
            let writing = tokio::time::timeout(left, write_counted(write, &line, &mut written)).await;
            match writing {
                Ok(done) => done,
                Err(_) if written == 0 => Err(Error::new(ErrorKind::TimedOut, NothingSent::Late)),
                Err(_) => {
                    // Half a line is performed by nobody, and what comes next would stand behind it.
                    given_up.because("it did not read a call in time".to_owned());
                    held.take();
                    Err(Error::new(ErrorKind::TimedOut, "a part of it was written in time"))
                }
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let message = match self.read().await {
                Ok(Read::Line) => self.message(),
                Ok(Read::Skimmed(skimmed)) => Ok(too_large(&skimmed, self.limit)),
                Ok(Read::End) => return None,
                Err(reason) => Err(reason.into()),
            };
            match message.and_then(|message| self.bears(message)) {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(why) => {
                    self.given_up.because(why);
                    return None;
                }
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        drop(self.write.lock().await.take());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::tools::Stop;

    const LIMIT: usize = 200;

    fn reading(text: &str) -> (Lines<&[u8], Vec<u8>>, GivenUp) {
        let given_up = GivenUp::default();
        (Lines::new(text.as_bytes(), Vec::new(), LIMIT, SendBy::default(), given_up.clone()), given_up)
    }

    fn answer(id: u32, text: &str) -> String {
        json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [{ "type": "text", "text": text }] } }).to_string()
    }

    /// The messages of a text as JSON, and why no more came.
    async fn check(text: &str, messages: &[Value], reason: Option<&str>) {
        let (mut lines, given_up) = reading(text);
        for expected in messages {
            let message = serde_json::to_value(lines.receive().await.unwrap()).unwrap();
            assert_eq!(&message["id"], &expected["id"], "{message}");
            assert_eq!(message.get("error"), expected.get("error"), "{message}");
        }
        assert!(lines.receive().await.is_none());
        let why = given_up.why().map(|why| match why.wrote.as_str() {
            "" => why.reason.clone(),
            wrote => format!("{}: `{wrote}`", why.reason),
        });
        assert_eq!(why.as_deref(), reason, "{text}");
    }

    fn left_out(id: u32, bytes: usize, is_error: bool) -> Value {
        let data = json!({ "bytes": bytes, "limit": LIMIT, "is_error": is_error });
        json!({ "id": id, "error": { "code": TOO_LARGE, "message": "the answer is too large", "data": data } })
    }

    #[tokio::test]
    async fn an_answer_over_the_limit_is_thrown_away_and_its_call_is_told() {
        let (small, large) = (answer(1, "a"), answer(2, &"x".repeat(500)));
        let text = format!("{small}\n\n{large}\r\n{}\n", answer(3, "b"));
        let expected = [json!({ "id": 1 }), left_out(2, large.len() + 1, false), json!({ "id": 3 })];
        check(&text, &expected, None).await;
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_connection_and_is_shown() {
        let junk = format!("{}\nTrace`back\u{1b}[31m\n{}\n", answer(1, "a"), answer(2, "b"));
        let reason = "it wrote a line that is no JSON-RPC message: `Trace back [31m`";
        check(&junk, &[json!({ "id": 1 })], Some(reason)).await;
        for no_message in ["[1]", "{}", "\"text\"", r#"{"jsonrpc":"2.0","id":1,"resu"#] {
            let reason = format!("it wrote a line that is no JSON-RPC message: `{no_message}`");
            check(&format!("{no_message}\n"), &[], Some(&reason)).await;
        }
    }

    #[tokio::test]
    async fn a_message_without_end_ends_the_connection() {
        check(&"x".repeat(LIMIT * 5), &[], Some("it wrote a message of more than 800 bytes")).await;
    }

    #[tokio::test]
    async fn a_server_that_asks_and_does_not_read_is_given_up() {
        let ping = |id: usize| format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }));
        let pings: String = (0..=OWED_MAX).map(ping).collect();
        let (mut lines, given_up) = reading(&pings);
        for _ in 0..OWED_MAX {
            lines.receive().await.unwrap();
        }
        assert!(lines.receive().await.is_none());
        assert_eq!(given_up.why().unwrap().reason, "it asked 64 times without reading an answer");

        let (mut lines, _) = reading(&pings);
        let answer = json!({ "jsonrpc": "2.0", "id": 0, "result": {} });
        for _ in 0..=OWED_MAX {
            lines.receive().await.unwrap();
            lines.send(serde_json::from_value(answer.clone()).unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_notification_that_nobody_knows_is_passed_over() {
        let unknown = r#"{"jsonrpc":"2.0","method":"notifications/weather","params":{"sun":true}}"#;
        // The library has a place for it, and nobody looks there.
        check(&format!("{unknown}\n{}\n", answer(1, "a")), &[json!({}), json!({ "id": 1 })], None).await;
    }

    fn call(key: &str, bytes: usize) -> TxJsonRpcMessage<RoleClient> {
        let arguments = json!({ "text": "x".repeat(bytes) });
        let meta = json!({ "dev.mandate/idempotency-key": key });
        let params = json!({ "name": "pay", "arguments": arguments, "_meta": meta });
        serde_json::from_value(json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params })).unwrap()
    }

    #[tokio::test]
    async fn a_call_that_got_its_turn_too_late_is_not_written() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (send_by, given_up) = (SendBy::default(), GivenUp::default());
        let mut lines = Lines::new(tokio::io::empty(), ours, LIMIT, send_by.clone(), given_up.clone());
        let error = lines.send(call("a", 1)).await.unwrap_err();
        assert!(nothing_was_sent(&error).is_some_and(|why| why.contains("the claim ran out")), "{error:?}");
        let stopped =
            send_by.let_out("b", Instant::now() + Duration::from_mins(1), &Stop::when(std::future::ready(())));
        let error = lines.send(call("b", 1)).await.unwrap_err();
        assert!(nothing_was_sent(&error).is_some_and(|why| why.contains("it was to stop")), "{error:?}");
        drop((stopped, lines));
        let mut written = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut { theirs }, &mut written).await.unwrap();
        assert_eq!((written.as_str(), given_up.why()), ("", None));
    }

    #[tokio::test]
    async fn a_call_of_which_a_part_was_written_in_time_ends_the_connection() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (send_by, given_up) = (SendBy::default(), GivenUp::default());
        let mut lines = Lines::new(tokio::io::empty(), ours, LIMIT, send_by.clone(), given_up.clone());
        let _until = send_by.let_out("a", Instant::now() + Duration::from_millis(200), &Stop::default());
        let error = lines.send(call("a", 1_000)).await.unwrap_err();
        assert_eq!(nothing_was_sent(&error), None, "{error:?}");
        assert_eq!(given_up.why().unwrap().reason, "it did not read a call in time");
        let next = lines.send(call("b", 1)).await.unwrap_err();
        assert!(nothing_was_sent(&next).is_some(), "{next:?}");
    }
}
