//! What the end of a key says of an object's compression, and reading by it. Reads no store.

use std::io::{self, Read};

use super::Format;
use super::unpack::reader;

/// The name of a file in the archive, and how it was compressed by the end of its key.
pub fn split_suffix(file: &str) -> (&str, Format) {
    let compressed = |format: &Format| *format != Format::Plain && file.ends_with(format.suffix());
    let format = Format::ALL.into_iter().find(compressed).unwrap_or(Format::Plain);
    (&file[..file.len() - format.suffix().len()], format)
}

/// What an object was before it was compressed, by the end of its key. An error ends what is cut off or damaged.
pub fn unpacked<'a>(key: &str, stored: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    reader(split_suffix(key).1, stored)
}

/// What a small object was before it was compressed.
pub(crate) fn unpack_small(key: &str, bytes: &[u8], max: u64) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let read = unpacked(key, bytes).and_then(|reader| reader.take(max + 1).read_to_end(&mut plain));
    read.map_err(|fault| format!("{key} cannot be unpacked: {fault}"))?;
    if plain.len() as u64 > max {
        return Err(format!("{key} has more than {max} bytes"));
    }
    Ok(plain)
}
