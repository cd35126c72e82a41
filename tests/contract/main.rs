//! Contract tests: the stand-ins behave as the real services do. One suite for each instrument.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod archive;
mod dcs;
