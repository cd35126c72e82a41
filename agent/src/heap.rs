//! Keeps the heap of a long-running process small.

use std::time::Duration;

use tokio::time::sleep;

/// Interval at which freed memory is given back.
const INTERVAL: Duration = Duration::from_secs(60);

/// Makes all threads share one heap. The C library gives each thread that allocates one of its own, up to eight per core
/// (`M_ARENA_MAX` in mallopt(3)), and a MiB that shipping WAL or a backup has freed stays in each. Large blocks are mapped,
/// and given back anyway. Call it before there is another thread.
pub(crate) fn share() {
    system::share();
}

/// Gives free memory in the middle of the heap back to the system, now and then; the C library itself does so only at the
/// end. It takes less than a millisecond.
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
        // SAFETY: no pointers; it sets a number. If it is refused, the heaps stay as they were.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }

    pub(super) fn trim() {
        // SAFETY: no pointers; it takes the locks of the heap, as malloc(3) does.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Other C libraries have one heap, and no such call.
#[cfg(not(target_env = "gnu"))]
mod system {
    pub(super) fn share() {}

    pub(super) fn trim() {}
}
