//! The REST API against a DCS in memory and without a Postgres: codes, texts, limits, and the outcome of a switchover.

mod admission;
mod archive;
mod backups;
mod limits;
mod metrics;
mod requests;
mod rollbacks;
mod stage;
mod verdicts;
