//! Owns the postmaster and holds the fuse. Knows nothing of the DCS and of who ought to be primary.

pub mod protocol;
