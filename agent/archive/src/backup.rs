//! Takes base backups. Knows no SQL and no lease; restores nothing.

mod index;

pub use index::{BackupIndex, INDEX, Inside, MANIFEST, Point, TarIndex};
