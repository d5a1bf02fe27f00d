//! Reads past a JSON-RPC message that is too large to be held, and keeps the little that its call must be told: which
//! call it answers, whether it reports an error, and how large it is. Nothing is checked but what that needs.

use serde_json::Value;

/// Longest id and longest name of a field that are kept, in bytes.
const KEPT_BYTES_MAX: usize = 128;

/// What a message that was passed over answers. What comes later here outweighs what comes before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answers {
    /// Nothing that is known of.
    #[default]
    Nothing,
    /// Its call returned.
    Result,
    /// It reports an error, of the protocol or of the tool.
    Error,
    /// It is a request or a notification itself.
    Asks,
}

/// What is known of a message that was passed over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Skimmed {
    /// The id of the call that it answers.
    pub(super) id: Option<Value>,
    /// Its size.
    pub(super) bytes: u64,
    /// What it answers.
    pub(super) answers: Answers,
}

/// A message that is passed over, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Skim {
    bytes: u64,
    depth: u32,
    in_text: bool,
    escaped: bool,
    /// The text or the bare word that was read last, cut.
    word: Vec<u8>,
    /// The field whose value is read, at the first and at the second level.
    fields: [Vec<u8>; 2],
    /// Behind a colon: what comes is a value.
    in_value: bool,
    id: Option<Value>,
    answers: Answers,
}

impl Skim {
    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Passes over a part of the message.
    pub(super) fn pass(&mut self, part: &[u8]) {
        self.bytes = self.bytes.saturating_add(part.len() as u64);
        for byte in part {
            if self.in_text { self.text(*byte) } else { self.structure(*byte) }
        }
    }

    /// The message is at its end.
    pub(super) fn end(mut self) -> Skimmed {
        self.value_ends();
        let id = match self.answers {
            Answers::Result | Answers::Error => self.id,
            Answers::Nothing | Answers::Asks => None,
        };
        Skimmed { id, bytes: self.bytes, answers: self.answers }
    }

    fn text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_text = false,
            _ => {}
        }
        self.keep(byte);
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_text = true;
                self.word.clear();
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.value_begins();
                self.depth = self.depth.saturating_add(1);
                self.in_value = false;
                self.word.clear();
            }
            b'}' | b']' => {
                self.value_ends();
                self.depth = self.depth.saturating_sub(1);
            }
            b':' => {
                let name = std::mem::take(&mut self.word);
                if let Some(field) = self.level().and_then(|level| self.fields.get_mut(level)) {
                    *field = name;
                }
                self.in_value = true;
            }
            b',' => self.value_ends(),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth <= 2 && self.word.len() < KEPT_BYTES_MAX {
            self.word.push(byte);
        }
    }

    /// Levels that are looked at are counted from zero: the message, and the object in one of its fields.
    fn level(&self) -> Option<usize> {
        usize::try_from(self.depth).ok()?.checked_sub(1)
    }

    fn field(&self, level: usize) -> &[u8] {
        self.fields.get(level).map(Vec::as_slice).unwrap_or_default()
    }

    fn value_begins(&mut self) {
        if self.depth == 1 && self.in_value {
            match self.field(0) {
                br#""result""# => self.found(Answers::Result),
                br#""error""# => self.found(Answers::Error),
                _ => {}
            }
        }
    }

    /// A text, number or word is complete.
    fn value_ends(&mut self) {
        if !std::mem::take(&mut self.in_value) {
            self.word.clear();
            return;
        }
        let word = std::mem::take(&mut self.word);
        match (self.depth, self.field(0), self.field(1)) {
            (1, br#""id""#, _) => self.id = serde_json::from_slice(&word).ok(),
            (1, br#""method""#, _) => self.found(Answers::Asks),
            (2, br#""result""#, br#""isError""#) if word == b"true" => self.found(Answers::Error),
            _ => {}
        }
    }

    fn found(&mut self, answers: Answers) {
        self.answers = self.answers.max(answers);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "a table reads better")]
    fn check(message: &str, id: Option<Value>, answers: Answers) {
        for size in [1, 7, message.len()] {
            let mut skim = Skim::default();
            message.as_bytes().chunks(size).for_each(|part| skim.pass(part));
            let expected = Skimmed { id: id.clone(), bytes: message.len() as u64, answers };
            assert_eq!(skim.end(), expected, "{message} in parts of {size}");
        }
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        check(r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#, Some(json!(7)), Answers::Result);
        check(r#"{ "result" : {"a":[1,{"id":9}]} , "id" : "x-1" }"#, Some(json!("x-1")), Answers::Result);
        check(r#"{"result":{"id":3,"text":"\"id\":4,}"},"id":8}"#, Some(json!(8)), Answers::Result);
    }

    #[test]
    fn an_error_is_told_from_a_result() {
        check(r#"{"id":1,"error":{"code":1,"message":"no"}}"#, Some(json!(1)), Answers::Error);
        check(r#"{"id":1,"result":{"isError":true,"content":[]}}"#, Some(json!(1)), Answers::Error);
        check(r#"{"id":1,"result":{"content":[{"isError":true}],"isError": false}}"#, Some(json!(1)), Answers::Result);
        check(r#"{"id":1,"result":{"content":[],"isError":true}}"#, Some(json!(1)), Answers::Error);
    }

    #[test]
    fn what_answers_nothing_has_no_id() {
        check(r#"{"id":1,"method":"ping","params":{}}"#, None, Answers::Asks);
        check(r#"{"method":"notifications/message","params":{"data":"x"}}"#, None, Answers::Asks);
        check("xxxx", None, Answers::Nothing);
        check(r#"{"id":{"a":1},"result":{}}"#, None, Answers::Result);
    }

    #[test]
    fn an_id_that_is_cut_is_none() {
        let long = format!(r#"{{"id":"{}","result":{{}}}}"#, "x".repeat(KEPT_BYTES_MAX));
        check(&long, None, Answers::Result);
    }
}
