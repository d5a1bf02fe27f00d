//! The end of what a tool server wrote to standard error. It is read all the time, or a chatty server blocks; only its
//! end is kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is kept.
const KEPT_BYTES: usize = 2048;

/// How much is read at once: a server that floods it must not be slowed down.
const READ_BYTES: usize = 64 * 1024;

/// How the supervisor says that a signal ended the program.
const ENDED_BY: &str = "mandate sandbox-exec: the program was ended by SIG";

/// The last 2 KiB.
#[derive(Debug, Clone, Default)]
pub(super) struct StderrTail(Arc<Mutex<VecDeque<u8>>>);

impl StderrTail {
    /// Reads to the end.
    pub(super) async fn drain(self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            self.keep(buffer.get(..count).unwrap_or_default());
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.get(bytes.len().saturating_sub(KEPT_BYTES)..).unwrap_or_default();
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..excess);
    }

    /// What the supervisor said of the program's end: words of ours, which hold none of the server's content.
    pub(super) fn of_the_supervisor(&self) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut said = text.lines().filter_map(|line| line.strip_prefix(ENDED_BY));
        let said = said.next_back()?;
        Some(format!("ended by SIG{}", said.chars().filter(|c| !c.is_control()).take(200).collect::<String>()))
    }

    /// What is kept, on one line and without control characters. Foreign text.
    pub(super) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let plain: String =
            String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        plain.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_is_kept() {
        let tail = StderrTail::default();
        let text = format!("{}\u{1b}[31mlast\nwords\n", "x".repeat(10_000));
        tail.clone().drain(text.as_bytes()).await;
        assert!(tail.text().ends_with("x [31mlast words"), "{}", tail.text());
        assert!(tail.text().len() <= KEPT_BYTES);
    }
}
