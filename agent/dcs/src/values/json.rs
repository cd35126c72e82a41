//! JSON as Python's `json.dumps(value, separators=(',', ':'))` writes it, which is what Patroni stores.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// The value on one line: no spaces, everything outside ASCII as `\uXXXX`, keys in the value's own order.
///
/// For a value that JSON cannot hold, such as a map whose keys are not strings; all values of this crate can.
/// For a value that JSON cannot hold, such as a map whose keys are no strings; the values of this crate all can.
#[must_use]
pub fn compact_json<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, AsciiFormatter);
    value
        .serialize(&mut serializer)
        .expect("the values kept in the DCS are JSON objects, and memory takes every write");
    String::from_utf8(bytes).expect("the formatter writes ASCII only")
}

/// serde_json's compact form, with Python's `ensure_ascii`.
struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn letters_outside_ascii_are_escaped_as_python_does() {
        assert_eq!(
            compact_json(&json!({"a": "zürich \u{1f418}\n"})),
            r#"{"a":"z\u00fcrich \ud83d\udc18\n"}"#
        );
    }

    #[test]
    fn keys_keep_their_order() {
        let text = r#"{"z":1,"a":[true,null,"x"],"m":{}}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(compact_json(&value), text);
    }
}
