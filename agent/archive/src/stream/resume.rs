//! What of a segment was streamed before the program started: the chunks in the archive that join without a hole.

use super::chunk::{ChunkError, Range, Source};

/// Objects of one answer.
const PAGE: usize = 1000;

/// What is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resumed {
    /// All before this offset is there.
    pub(super) stored: u64,
    /// Requests to the store that it took.
    pub(super) requests: u64,
}

/// Looks up where to go on with a segment of which `flushed` bytes are. The last of the chunks that are there must hold
/// what this server has: whoever wrote something else before wrote something else there too.
pub(super) async fn resume(source: &Source, flushed: u64) -> Result<Resumed, ChunkError> {
    let prefix = source.layout.stream(Some(source.segment));
    let (mut joined, mut last, mut requests) = (0, None, 0);
    let mut after: Option<String> = None;
    loop {
        let page = source.store.list(&prefix, after.as_deref(), PAGE).await.map_err(ChunkError::Store)?;
        requests += 1;
        for object in &page.objects {
            let Some(range) = object.key.strip_prefix(&prefix).and_then(parse) else { continue };
            if range.from <= joined && range.to > joined {
                (joined, last) = (range.to, Some(range));
            }
        }
        after = page.objects.last().map(|object| object.key.clone());
        if !page.more || after.is_none() {
            break;
        }
    }
    let Some(last) = last else { return Ok(Resumed { stored: 0, requests }) };
    if joined > flushed {
        return Err(ChunkError::Conflict(format!(
            "{}/{prefix} holds {joined} bytes of the segment and this server has flushed {flushed}: another one wrote it",
            source.store.url()
        )));
    }
    source.compare(last).await?;
    Ok(Resumed { stored: joined, requests: requests + 1 })
}

/// `00000000-000001F0.gz`.
fn parse(name: &str) -> Option<Range> {
    let (from, to) = name.strip_suffix(".gz")?.split_once('-')?;
    let offset = |digits: &str| {
        let plain = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if plain { u64::from_str_radix(digits, 16).ok() } else { None }
    };
    let range = Range { from: offset(from)?, to: offset(to)? };
    (range.from < range.to).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_chunks_are_read() {
        assert_eq!(parse("00000000-000001F0.gz"), Some(Range { from: 0, to: 0x1F0 }));
        for name in
            ["", "00000000-000001F0", "0-1.gz", "00000001-00000001.gz", "+0000000-00000001.gz", "x.gz"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
