//! Jobs of members that are played.

mod backup;
