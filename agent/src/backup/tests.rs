//! The keeper with members that are played.

mod keeper;
