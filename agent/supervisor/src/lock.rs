//! Keeps a second supervisor away from a data directory, for as long as the process lives.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::system;

/// The lock; released when dropped, and by the kernel when the process ends, however it ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `.<name>.supervisor.lock` beside the data directory. Not beside the socket, as two supervisors
    /// with two sockets must not share a directory; and not inside, as the directory may not exist yet and
    /// is moved aside when a member is cloned anew.
    ///
    /// # Errors
    /// [`Error::Locked`] when another supervisor has it, [`Error::Lock`] when it cannot be taken at all.
    pub(crate) fn take(data_directory: &Path, owner: Option<u32>) -> Result<Self, Error> {
        let path = lock_path(data_directory)?;
        let failed = |source| Error::Lock { path: path.clone(), source };
        // Never through a symbolic link: we may be root in another user's directory.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path, data_directory: data_directory.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // So that a supervisor running as the owner next time can open it.
        if let Some(owner) = owner.filter(|_| system::effective_uid() == 0) {
            chown(&path, Some(owner), None).map_err(failed)?;
        }
        Ok(Self { _file: file })
    }
}

fn lock_path(data_directory: &Path) -> Result<PathBuf, Error> {
    let (Some(parent), Some(name)) = (data_directory.parent(), data_directory.file_name()) else {
        return Err(Error::DataDirectoryUnnamed { path: data_directory.to_owned() });
    };
    let mut file = OsString::from(".");
    file.push(name);
    file.push(".supervisor.lock");
    Ok(parent.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_on_the_same_data_directory_is_refused_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let data_directory = parent.path().join("data");
        let first = Lock::take(&data_directory, None).unwrap();
        assert!(matches!(Lock::take(&data_directory, None), Err(Error::Locked { .. })));
        drop(first);
        assert!(Lock::take(&data_directory, None).is_ok());
    }

    #[test]
    fn the_root_directory_cannot_be_a_data_directory() {
        assert!(matches!(Lock::take(Path::new("/"), None), Err(Error::DataDirectoryUnnamed { .. })));
    }
}
