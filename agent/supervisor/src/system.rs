//! The system calls that std has no safe name for: signals, clock, timer, poll, children, peers. Decides nothing; every
//! call here is the one step that its name says.
#![expect(unsafe_code, reason = "std has no name for these calls, and the crate may use no other library")]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use crate::protocol::Exit;

/// Now, in nanoseconds of `CLOCK_BOOTTIME`: it only increases, and counts the time that the machine sleeps.
pub fn boottime_ns() -> u64 {
    // SAFETY: `timespec` is plain integers, for which zero is a value.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `time` is valid for writing; the kernel has had this clock since 2.6.39, so the call succeeds.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A timer of `CLOCK_BOOTTIME` to poll on. The timeout of `poll` itself would not count sleep.
pub(crate) struct Timer(File);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        own(fd).map(|fd| Self(File::from(fd)))
    }

    /// Fires at this moment, at once if it is past; never for `None`.
    pub(crate) fn set(&self, at_ns: Option<u64>) -> io::Result<()> {
        // SAFETY: `itimerspec` is plain integers, for which zero is a value; it means "never".
        let mut spec: libc::itimerspec = unsafe { mem::zeroed() };
        if let Some(at_ns) = at_ns {
            let at_ns = at_ns.max(1);
            spec.it_value.tv_sec = libc::time_t::try_from(at_ns / 1_000_000_000).unwrap_or(libc::time_t::MAX);
            spec.it_value.tv_nsec = (at_ns % 1_000_000_000) as libc::c_long;
        }
        // SAFETY: the descriptor is ours and open; `spec` is valid for reading; no old value is asked for.
        let result = unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const spec,
                ptr::null_mut(),
            )
        };
        check(result).map(drop)
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Blocks the signals that matter to the supervisor and gives them as a descriptor to poll on.
pub(crate) struct Signals(File);

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: `set` is initialised by sigemptyset before it is used; all pointers are to it.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                libc::sigaddset(&raw mut set, signal);
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()))?;
            own(libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))
        }
        .map(|fd| Self(File::from(fd)))
    }

    /// The next signal received, by number.
    pub(crate) fn next(&self) -> Option<i32> {
        // SAFETY: `signalfd_siginfo` is plain integers, for which zero is a value.
        let mut read: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `read` is valid for `size` bytes of writing.
        let got = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut read).cast(), size) };
        (usize::try_from(got) == Ok(size)).then(|| read.ssi_signo.cast_signed())
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits until one of the descriptors is ready, or a signal interrupts. `wait` false: only looks.
pub(crate) fn poll(fds: &mut [libc::pollfd], wait: bool) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one slice that we may write to.
    let result =
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, if wait { -1 } else { 0 }) };
    match check(result) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            fds.iter_mut().for_each(|fd| fd.revents = 0);
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Makes orphans below this process its children, so that none can escape.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// Files created by this process are for its user only.
pub(crate) fn keep_files_private() {
    // SAFETY: no pointers; it cannot fail.
    unsafe { libc::umask(0o077) };
}

/// What happened to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ended.
    Ended(Exit),
    /// A signal stopped it.
    Frozen,
    /// SIGCONT continued it.
    Thawed,
}

/// Reads the next change of a child's state, without waiting.
pub(crate) fn next_change() -> Option<(i32, Change)> {
    let mut status = 0;
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    // SAFETY: `status` is valid for writing.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, options) };
    if pid <= 0 {
        return None;
    }
    let change = if libc::WIFSTOPPED(status) {
        Change::Frozen
    } else if libc::WIFCONTINUED(status) {
        Change::Thawed
    } else if libc::WIFSIGNALED(status) {
        Change::Ended(Exit::Signal(libc::WTERMSIG(status)))
    } else {
        Change::Ended(Exit::Code(libc::WEXITSTATUS(status)))
    };
    Some((pid, change))
}

/// Whether this process has any child, including dead ones not yet reaped. As it is a subreaper, no child means no
/// descendant.
pub(crate) fn has_children() -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `siginfo_t` is valid as zeros and valid for writing.
    let result = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        libc::waitid(libc::P_ALL, 0, &raw mut info, options)
    };
    !check(result).is_err_and(|error| error.raw_os_error() == Some(libc::ECHILD))
}

/// Sends a signal to one process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not one of our processes"));
    }
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The user we run as.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: no pointers; it cannot fail.
    unsafe { libc::geteuid() }
}

/// The user of the process that made this connection.
pub(crate) fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` is valid for `length` bytes of writing, `length` for both.
    check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    })?;
    Ok(peer.uid)
}

/// Whether anybody listens on this socket. Does not wait: one too busy to accept us still listens.
pub(crate) fn somebody_listens(path: &Path) -> io::Result<bool> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let socket = own(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: `sockaddr_un` is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char;
    }
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is valid for `length` bytes of reading and ends with a zero.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) }) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(false),
            Some(libc::EAGAIN) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Makes reads on this descriptor return at once when there is nothing.
pub(crate) fn do_not_block(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is open as long as `fd` is borrowed.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// The user that a child runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    gid: u32,
    groups: Vec<libc::gid_t>,
}

/// This user with the groups that the system gives it; with only `gid` if the system does not know it.
pub(crate) fn identity(uid: u32, gid: u32) -> Identity {
    let mut buffer = vec![0; 16 * 1024];
    // SAFETY: `passwd` is pointers and integers, for which zero is a value.
    let mut entry: libc::passwd = unsafe { mem::zeroed() };
    let mut found = ptr::null_mut();
    // SAFETY: all pointers are valid for writing; the buffer's length is its own.
    let result =
        unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    if result != 0 || found.is_null() {
        return Identity { uid, gid, groups: vec![gid] };
    }
    let gid = entry.pw_gid;
    let mut groups = vec![0; 256];
    let mut count: libc::c_int = 256;
    // SAFETY: the name lives in `buffer`; `groups` has room for `count`, and the call keeps to it.
    if unsafe { libc::getgrouplist(entry.pw_name, gid, groups.as_mut_ptr(), &raw mut count) } < 0 {
        return Identity { uid, gid, groups: vec![gid] };
    }
    groups.truncate(usize::try_from(count).unwrap_or(0));
    Identity { uid, gid, groups }
}

/// Lets the command run in a session of its own, as `identity` if that is given, with private files, and
/// get `death_signal` when the supervisor dies.
pub(crate) fn prepare(command: &mut Command, identity: Option<Identity>, death_signal: i32) {
    let supervisor = std::process::id();
    let prepare = move || {
        // SAFETY: between fork and exec only calls that are safe in a signal handler are allowed. These
        // are; `groups` was allocated before. The mask is emptied as ours blocks what Postgres waits for.
        unsafe {
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))?;
            libc::umask(0o077);
            check(libc::setsid())?;
            if let Some(Identity { uid, gid, groups }) = &identity {
                check(libc::setgroups(groups.len(), groups.as_ptr()))?;
                check(libc::setgid(*gid))?;
                check(libc::setuid(*uid))?;
            }
            // After setuid, which clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, death_signal, 0, 0, 0))?;
            // The supervisor may have died before the line above.
            if libc::getppid().cast_unsigned() != supervisor {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure says above why it may run there.
    unsafe { command.pre_exec(prepare) };
}

/// Writes to the supervisor's error output; returns how much was taken.
pub(crate) fn write_error_output(bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice.
    let written = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a descriptor that a call has just given us belongs to nobody else.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
