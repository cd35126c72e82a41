//! The program as people start it: its commands, its configuration, its exit status.

mod commands;
mod configuration;
mod program;
mod questions;
