//! Memory for a whole segment, which the system gets back as soon as it is no longer needed.

/// More than the largest size (32 MiB, `DEFAULT_MMAP_THRESHOLD_MAX` in mallopt(3)) from which the C library can learn
/// to keep freed memory for later. An agent that packs nothing would hold on to a segment's worth and more.
const KEPT_MAX: usize = 33 << 20;

/// `length` zeros. Memory that is not written takes no room.
pub(crate) fn buffer(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.max(KEPT_MAX)];
    bytes.truncate(length);
    bytes
}
