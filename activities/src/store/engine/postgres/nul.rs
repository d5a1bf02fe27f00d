//! Texts that PostgreSQL does not take: its `TEXT` holds every character but U+0000, and people, models and tools may
//! say that too.
//!
//! The last code point, U+10FFFF, which is no character, introduces what stands for it. Different texts stay different,
//! so keys and comparisons hold, and almost every text is written as it is.

const MARK: char = '\u{10FFFF}';

/// A text as it is written to the database.
pub(super) fn written(text: String) -> String {
    if !text.contains(['\0', MARK]) {
        return text;
    }
    let mut written = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\0' => written.extend([MARK, '0']),
            MARK => written.extend([MARK, MARK]),
            other => written.push(other),
        }
    }
    written
}

/// The text that was written.
pub(super) fn read(written: String) -> String {
    if !written.contains(MARK) {
        return written;
    }
    let mut text = String::with_capacity(written.len());
    let mut characters = written.chars();
    while let Some(character) = characters.next() {
        if character != MARK {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('0') => text.push('\0'),
            Some(other) => text.push(other),
            None => text.push(MARK),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_different_texts_stay_different() {
        let parts = ["", "a", "0", "\0", "\u{10FFFF}"];
        let mut seen = std::collections::BTreeMap::new();
        for first in parts {
            for second in parts {
                for third in parts {
                    let text = [first, second, third].concat();
                    let stored = written(text.clone());
                    assert!(!stored.contains('\0'));
                    assert_eq!(read(stored.clone()), text);
                    assert_eq!(seen.entry(stored).or_insert_with(|| text.clone()), &text);
                }
            }
        }
        assert_eq!(written("plain ünïcode".to_owned()), "plain ünïcode");
    }
}
