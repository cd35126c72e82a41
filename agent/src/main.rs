//! Outrider: high availability for PostgreSQL as a sidecar. The program's start; the commands are in `cli`.

mod config;

fn main() {}
