//! Keeps the heap of a process that runs for years small.

use std::time::Duration;

use tokio::time::sleep;

/// What hard work leaves behind stays for so long at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// One heap for all threads. The C library gives each thread that allocates one of its own, up to eight for each core
/// (`M_ARENA_MAX` in mallopt(3)), and a MiB of what the shipping of WAL or a backup has freed stays in each. What is large
/// is mapped, and given back anyway. To be called before there is another thread.
pub(crate) fn share() {
    system::share();
}

/// Gives back to the system, now and then, what is free in the middle; the C library does so by itself only at the end.
/// It takes less than a millisecond.
pub(crate) async fn keep_small() {
    loop {
        sleep(INTERVAL).await;
        system::trim();
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrapper")]
mod system {
    pub(super) fn share() {
        // SAFETY: no pointers; it sets a number. Where it refuses, the heaps are as they were.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }

    pub(super) fn trim() {
        // SAFETY: no pointers; it takes the locks of the heap, as malloc(3) does.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Other C libraries have one heap, and nothing like it.
#[cfg(not(target_env = "gnu"))]
mod system {
    pub(super) fn share() {}

    pub(super) fn trim() {}
}
