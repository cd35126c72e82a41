//! A small file system for one test, that can be filled to the last byte; unmounted with it. Only root can mount one.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use outrider_bed::{PROGRAM_LIMIT, finish};

use super::postgres::other_user;

pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at a directory that it makes, for the user that PostgreSQL runs as. The test fails without the right to.
    pub(crate) fn mount(at: &Path, mebibytes: u32) -> Self {
        std::fs::create_dir(at).unwrap();
        let (user, group) = other_user().unwrap_or_default();
        let options = format!("size={mebibytes}m,uid={user},gid={group},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at);
        let mounted = finish(&mut mount, PROGRAM_LIMIT).unwrap();
        let fault = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "a small disk can only be mounted by root: {fault}");
        SmallDisk(at.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes until nothing goes in any more.
    pub(crate) fn fill(&self) {
        self.fill_but(0);
    }

    /// Leaves room for so many bytes and no more.
    pub(crate) fn fill_but(&self, bytes: u64) {
        let mut file = File::create(self.ballast()).unwrap();
        for block in [1 << 20, 4096, 1] {
            loop {
                match file.write(&vec![1; block]) {
                    Ok(_) => {}
                    Err(fault) if fault.kind() == ErrorKind::StorageFull => break,
                    Err(fault) => panic!("{fault}"),
                }
            }
        }
        let all = file.metadata().unwrap().len();
        file.set_len(all.checked_sub(bytes).expect("the disk has so much room")).unwrap();
    }

    /// There is room again.
    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: a file of a task that is being aborted may be open still.
        let _ = finish(Command::new("umount").arg("--lazy").arg(&self.0), PROGRAM_LIMIT);
    }
}
