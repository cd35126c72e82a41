//! YAML as people wrote it: a scalar that YAML would turn into another text (`0640`, `1e3`, `no`) stays as written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// The document, with texts, numbers and booleans as written.
///
/// # Errors
/// When it is not YAML.
pub(super) fn read(text: &str) -> Result<Value, serde_saphyr::Error> {
    let document: Spanned<Node> = serde_saphyr::from_str(text)?;
    Ok(as_written(document, text))
}

/// A value as YAML understands it, with its position and those of the values within it.
enum Node {
    /// A number or a boolean. It has no quotes, or YAML would take it for a text.
    Inferred(Value),
    Text(String),
    Null,
    List(Vec<Spanned<Node>>),
    Section(Vec<(String, Spanned<Node>)>),
}

/// Keeps the value that YAML found only where it reads exactly as written.
fn as_written(node: Spanned<Node>, text: &str) -> Value {
    match node.value {
        Node::Null => Value::Null,
        Node::Text(text) => Value::String(text),
        Node::List(items) => items.into_iter().map(|item| as_written(item, text)).collect(),
        Node::Section(entries) => {
            let entries = entries.into_iter().map(|(key, node)| (key, as_written(node, text)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Node::Inferred(value) => {
            // For an alias, the position of its anchor.
            let span = node.defined.span();
            let bounds = span.byte_offset().zip(span.byte_len());
            let written = bounds.and_then(|(begin, length)| {
                let (begin, length) = (usize::try_from(begin).ok()?, usize::try_from(length).ok()?);
                text.get(begin..begin.checked_add(length)?).map(str::trim)
            });
            let understood = value.to_string();
            match written {
                Some(written) if !written.is_empty() && understood != written => {
                    Value::String(written.to_owned())
                }
                Some(_) | None => value,
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a boolean, a list or a section")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Inferred(Value::Bool(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Inferred(Value::from(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Inferred(Value::from(number)))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Node, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("this number is not finite"))?;
        Ok(Node::Inferred(Value::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Spanned<Node>)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Spanned<Node>>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!("{key} is given twice")));
            }
            entries.push((key, value));
        }
        Ok(Node::Section(entries))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_yaml_would_change_stays_as_it_was_written() {
        let text = "mode: 0640\nname: 007\nscope: 1e3 # a comment\nlocale: no\nversion: 1.10\nhex: 0x1F\nthousand: 1_000\n\
                    answer: True\nlist: [010, off, 5, 1.5, true]\nquoted: \"0640\"\nnothing: ~\nempty:\n007: key\n\
                    umlaut: ä\nafter: 08\nanchor: &a 0777\nalias: *a\nblock: |\n  0640\nlarge: 123456789012345678901234567890\n";
        assert_eq!(
            read(text).unwrap(),
            json!({
                "mode": "0640", "name": "007", "scope": "1e3", "locale": "no", "version": "1.10", "hex": "0x1F",
                "thousand": "1_000", "answer": "True", "list": ["010", "off", 5, 1.5, true], "quoted": "0640",
                "nothing": null, "empty": null, "007": "key", "umlaut": "ä", "after": "08", "anchor": "0777",
                "alias": "0777", "block": "0640\n", "large": "123456789012345678901234567890"
            })
        );
        assert!(read("a: 1\na: 2\n").is_err());
        assert!(read("a: [\n").is_err());
        assert!(
            read("a: .inf\n").is_ok_and(|read| read == json!({"a": ".inf"})) || read("a: .inf\n").is_err()
        );
    }
}
