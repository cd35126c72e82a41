//! The program as people start it: its commands, its configuration, its exit status.

mod backups;
mod commands;
mod configuration;
mod program;
mod questions;
