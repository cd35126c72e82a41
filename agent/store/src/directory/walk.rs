//! Walks the files of a directory store: for its listing, and for leftovers of uploads. Only reads, apart from removals.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use super::{TEMPORARY, absent_is_none, upload};
use crate::{Listed, Page};

/// Visits the keys in order, skipping whole directories before `after`, and stops when the page is full: so a tree is
/// walked once, however many pages its listing has.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Page> {
    let mut page = Page::default();
    let wanted = Wanted { prefix, after: after.unwrap_or_default(), limit };
    wanted.list(root, "", &mut page)?;
    Ok(page)
}

/// What belongs on a page.
struct Wanted<'a> {
    prefix: &'a str,
    after: &'a str,
    limit: usize,
}

impl Wanted<'_> {
    /// Adds the content of a directory, whose keys begin with `above`; nothing once the page is full.
    fn list(&self, directory: &Path, above: &str, page: &mut Page) -> io::Result<()> {
        let Some(entries) = absent_is_none(fs::read_dir(directory))? else { return Ok(()) };
        // By their keys: a directory's content sorts where its name with a slash does.
        let mut found: Vec<(String, DirEntry)> = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_directory = entry.file_type()?.is_dir();
            let key = format!("{above}{name}{}", if is_directory { "/" } else { "" });
            let wanted = match is_directory {
                true => self.may_hold(&key),
                false => {
                    !name.starts_with(TEMPORARY) && key.starts_with(self.prefix) && key.as_str() > self.after
                }
            };
            if wanted {
                found.push((key, entry));
            }
        }
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, entry) in found {
            if page.more {
                break;
            }
            if key.ends_with('/') {
                self.list(&entry.path(), &key, page)?;
            } else if let Some(metadata) = absent_is_none(entry.metadata())? {
                if page.objects.len() == self.limit {
                    page.more = true;
                } else {
                    page.objects.push(Listed { key, size: metadata.len() });
                }
            }
        }
        Ok(())
    }

    /// Whether a key that begins like this may be wanted.
    fn may_hold(&self, above: &str) -> bool {
        let in_prefix = above.starts_with(self.prefix) || self.prefix.starts_with(above);
        // All keys in a directory are longer than its own: if it sorts before `after`, so do they, unless `after` is in it.
        in_prefix && (above > self.after || self.after.starts_with(above))
    }
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

/// Reports every file whose key may start with `prefix`, or has a neighbour that does, with its key and name.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// All keys below a prefix, page by page.
    fn all(root: &Path, prefix: &str, limit: usize) -> Vec<String> {
        let (mut keys, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = list(root, prefix, after.as_deref(), limit).unwrap();
            assert!(page.objects.len() <= limit);
            keys.extend(page.objects.into_iter().map(|object| object.key));
            after = keys.last().cloned();
            if !page.more {
                return keys;
            }
        }
    }

    #[test]
    fn pages_of_any_length_have_every_key_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        // A dot and a minus sort before the slash, digits after it.
        let mut keys = ["a", "a-b", "a.b/c", "a/b", "a/b.c", "a/c/d/e", "a/c0", "a0/x", "b/a", "b/b", "c"]
            .map(String::from);
        fs::create_dir_all(root.join("empty/er")).unwrap();
        for key in keys.iter().filter(|key| *key != "a") {
            fs::create_dir_all(root.join(key).parent().unwrap()).unwrap();
            fs::write(root.join(key), "x").unwrap();
        }
        fs::write(root.join("a/.outrider-x.tmp"), "x").unwrap();
        keys.sort_unstable();
        let keys: Vec<String> = keys.into_iter().filter(|key| key != "a").collect();
        for limit in 1..12 {
            assert_eq!(all(root, "", limit), keys, "{limit}");
            for prefix in ["a", "a/", "a/c", "a/c/", "b/", "nothing"] {
                let wanted: Vec<String> =
                    keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect();
                assert_eq!(all(root, prefix, limit), wanted, "{prefix} {limit}");
            }
        }
    }

    #[test]
    fn what_lies_before_a_page_is_not_gone_through_again() {
        let wanted = |after: &'static str| Wanted { prefix: "s/wals/", after, limit: 1000 };
        let after = wanted("s/wals/0000000100000004/000000010000000400000007.gz");
        assert!(!after.may_hold("s/wals/0000000100000003/") && after.may_hold("s/wals/0000000100000004/"));
        assert!(
            after.may_hold("s/wals/0000000100000005/") && after.may_hold("s/") && !after.may_hold("s/base/")
        );
    }
}
