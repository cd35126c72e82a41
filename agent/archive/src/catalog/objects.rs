//! Reading listings and small objects whole, by bounded pieces. Knows nothing of what is in them.

use std::io::{self, Read};

use crate::Format;
use crate::compression;
use outrider_store::{self as store, Store};

/// Objects in one page of a listing.
const PAGE: usize = 1000;

/// Calls `each` with the key and the stored bytes of every object below `prefix`, in the order of the keys.
pub(crate) async fn each_object(
    store: &dyn Store,
    prefix: &str,
    mut each: impl FnMut(&str, u64),
) -> Result<(), store::Error> {
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE).await?;
        page.objects.iter().for_each(|object| each(&object.key, object.size));
        match page.objects.into_iter().next_back() {
            Some(last) if page.more => after = Some(last.key),
            Some(_) | None => return Ok(()),
        }
    }
}

/// The name of a file in the archive, and how it was compressed by the end of its key.
pub(crate) fn split_suffix(file: &str) -> (&str, Format) {
    let compressed = |format: &Format| *format != Format::Plain && file.ends_with(format.suffix());
    let format = Format::ALL.into_iter().find(compressed).unwrap_or(Format::Plain);
    (&file[..file.len() - format.suffix().len()], format)
}

/// The bytes of an object as stored; `None` when it is not there, and why not when it has more than `max`.
pub(crate) async fn read_small(
    store: &dyn Store,
    key: &str,
    max: u64,
) -> Result<Option<Result<Vec<u8>, String>>, store::Error> {
    let Some(mut download) = store.get(key).await? else { return Ok(None) };
    let mut bytes = Vec::new();
    while let Some(piece) = download.body.next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > max {
            return Ok(Some(Err(format!("{key} has more than {max} bytes"))));
        }
    }
    Ok(Some(Ok(bytes)))
}

/// What an object was before it was compressed, by the end of its key. An error ends what is cut off or damaged.
pub(crate) fn unpacked<'a>(key: &str, stored: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    compression::reader(split_suffix(key).1, stored)
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
