//! The literals of Python that barman writes into `backup.info`: texts, numbers, lists and tuples. Runs no Python.

use std::fmt::Write as _;

/// Deeper nesting is nothing that barman writes.
const DEPTH_MAX: usize = 16;

/// A value as `ast.literal_eval` would give it, as far as this program cares.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    /// `None`, and dictionaries, floats and booleans, of which nothing is needed here.
    Other,
    /// A whole number.
    Number(i128),
    /// A text.
    Text(String),
    /// A list or a tuple.
    Sequence(Vec<Literal>),
}

/// Reads one literal that fills the whole text; `None` when it is none.
pub(super) fn read(text: &str) -> Option<Literal> {
    let mut reader = Reader { rest: text };
    let value = reader.value(DEPTH_MAX)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

/// As Python's `repr` writes a text: in single quotes unless it has some and no double ones.
pub(super) fn print(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut printed = String::with_capacity(text.len() + 2);
    printed.push(quote);
    for character in text.chars() {
        let code = u32::from(character);
        let _ = match character {
            '\\' => write!(printed, "\\\\"),
            '\n' => write!(printed, "\\n"),
            '\r' => write!(printed, "\\r"),
            '\t' => write!(printed, "\\t"),
            _ if character == quote => write!(printed, "\\{quote}"),
            _ if is_printable(character) => write!(printed, "{character}"),
            _ if code < 0x100 => write!(printed, "\\x{code:02x}"),
            _ if code < 0x1_0000 => write!(printed, "\\u{code:04x}"),
            _ => write!(printed, "\\U{code:08x}"),
        };
    }
    printed.push(quote);
    printed
}

/// Nearly `str.isprintable`. Where it differs an escape stands for the same character, or the other way round.
fn is_printable(character: char) -> bool {
    character == ' '
        || !(character.is_control()
            || character.is_whitespace()
            || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(character, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..))
}

struct Reader<'text> {
    rest: &'text str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    fn value(&mut self, depth: usize) -> Option<Literal> {
        let depth = depth.checked_sub(1)?;
        self.skip_space();
        match self.rest.chars().next()? {
            '[' => self.sequence('[', "]", depth),
            '(' => self.sequence('(', ")", depth),
            '{' => self.dictionary(depth),
            '\'' | '"' => self.text().map(Literal::Text),
            'u' | 'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.next();
                self.text().map(Literal::Text)
            }
            _ => self.word(),
        }
    }

    fn sequence(&mut self, open: char, close: &str, depth: usize) -> Option<Literal> {
        self.next().filter(|first| *first == open)?;
        let mut items = Vec::new();
        loop {
            if self.take(close) {
                return Some(Literal::Sequence(items));
            }
            items.push(self.value(depth)?);
            if !self.take(",") {
                return self.take(close).then_some(Literal::Sequence(items));
            }
        }
    }

    fn dictionary(&mut self, depth: usize) -> Option<Literal> {
        self.next();
        loop {
            if self.take("}") {
                return Some(Literal::Other);
            }
            self.value(depth)?;
            if !self.take(":") {
                return None;
            }
            self.value(depth)?;
            if !self.take(",") {
                return self.take("}").then_some(Literal::Other);
            }
        }
    }

    fn word(&mut self) -> Option<Literal> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_');
        let end = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
        let (found, rest) = self.rest.split_at(end);
        self.rest = rest;
        if matches!(found, "None" | "True" | "False") {
            return Some(Literal::Other);
        }
        if let Ok(number) = found.parse() {
            return Some(Literal::Number(number));
        }
        found.parse::<f64>().ok().map(|_| Literal::Other)
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.next()?;
        let mut text = String::new();
        loop {
            match self.next()? {
                '\\' => self.escape(&mut text)?,
                end if end == quote => return Some(text),
                character => text.push(character),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let character = match self.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            same @ ('\\' | '\'' | '"') => same,
            // Python keeps the backslash of what is no escape.
            other => {
                text.push('\\');
                other
            }
        };
        text.push(character);
        Some(())
    }

    fn code(&mut self, digits: usize) -> Option<char> {
        let code = self.rest.get(..digits)?;
        let character = code.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(code)?;
        self.rest = &self.rest[digits..];
        char::from_u32(u32::from_str_radix(character, 16).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(text: String) {
            let printed = print(&text);
            prop_assert!(!printed.contains('\n'));
            prop_assert_eq!(read(&printed), Some(Literal::Text(text)));
        }

        #[test]
        fn anything_is_read_or_refused(text in "[\\[\\](){}'\"\\\\xu0-9a, :é-]{0,40}") {
            let _ = read(&text);
        }
    }

    #[test]
    fn texts_are_printed_as_python_does() {
        for (text, printed) in [
            ("a", "'a'"),
            ("tb's", "\"tb's\""),
            ("'\"", "'\\'\"'"),
            ("a\nb\\", "'a\\nb\\\\'"),
            ("ü\u{7f}\u{2028}\u{e000}", "'ü\\x7f\\u2028\\ue000'"),
        ] {
            assert_eq!(print(text), printed);
        }
    }

    #[test]
    fn other_values_are_read_as_far_as_they_matter() {
        let text = |text: &str| Literal::Text(text.to_owned());
        assert_eq!(
            read("[('ts1', 16400, \"/tb's\"), (u'b', -1, None),]"),
            Some(Literal::Sequence(vec![
                Literal::Sequence(vec![text("ts1"), Literal::Number(16400), text("/tb's")]),
                Literal::Sequence(vec![text("b"), Literal::Number(-1), Literal::Other]),
            ]))
        );
        assert_eq!(read("{'total_time': 1.5, 'x': [True]}"), Some(Literal::Other));
        for bad in ["", "'", "[", "(1", "{1}", "1 2", "x", "'\\x1'", "'\\ud800'", &"[".repeat(100_000)] {
            assert_eq!(read(bad), None, "{bad:.20}");
        }
    }
}
