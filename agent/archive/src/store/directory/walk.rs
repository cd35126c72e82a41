//! Walks the files of a directory store: its listing, and what uploads left behind. Writes nothing but removals.

use std::collections::{BTreeSet, BinaryHeap};
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use super::{TEMPORARY, absent_is_none, upload};
use crate::store::{Listed, Page};

/// Keeps the smallest `limit` keys, so that memory does not grow with the archive.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Page> {
    let mut smallest: BinaryHeap<(String, u64)> = BinaryHeap::new();
    let mut more = false;
    walk(root, prefix, |key, name, entry| {
        if name.starts_with(TEMPORARY)
            || !key.starts_with(prefix)
            || after.is_some_and(|after| *key <= *after)
        {
            return Ok(());
        }
        let Some(found) = absent_is_none(entry.metadata())? else { return Ok(()) };
        smallest.push((key, found.len()));
        if smallest.len() > limit {
            smallest.pop();
            more = true;
        }
        Ok(())
    })?;
    let objects = smallest.into_sorted_vec().into_iter().map(|(key, size)| Listed { key, size }).collect();
    Ok(Page { objects, more })
}

/// Removes the parts of all uploads whose object would be under `prefix`. Returns how many uploads there were.
pub(super) fn sweep(root: &Path, prefix: &str) -> io::Result<usize> {
    let mut uploads = BTreeSet::new();
    walk(root, prefix, |key, name, entry| {
        let Some((id, object)) = upload::taken_apart(name) else { return Ok(()) };
        let above = key.strip_suffix(name).unwrap_or_default();
        if format!("{above}{object}").starts_with(prefix) {
            absent_is_none(fs::remove_file(entry.path()))?;
            uploads.insert(id.to_owned());
        }
        Ok(())
    })?;
    Ok(uploads.len())
}

/// Shows every file whose key may start with `prefix`, or has a neighbour that does, with its key and its name.
fn walk(
    root: &Path,
    prefix: &str,
    mut show: impl FnMut(String, &str, &DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    let mut waiting = vec![(root.to_owned(), String::new())];
    while let Some((directory, above)) = waiting.pop() {
        let Some(entries) = absent_is_none(fs::read_dir(&directory))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = format!("{above}{name}");
            if entry.file_type()?.is_dir() {
                let below = format!("{key}/");
                if below.starts_with(prefix) || prefix.starts_with(&below) {
                    waiting.push((entry.path(), below));
                }
            } else {
                show(key, &name, &entry)?;
            }
        }
    }
    Ok(())
}
