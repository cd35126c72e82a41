//! Real clusters on this machine, broken on purpose: what users are promised, end to end. Each test has a cluster of its
//! own, and an oracle that writes all the time and says at the end what was lost.
#![expect(clippy::unwrap_used, reason = "a test ends where it meets what it did not expect")]

mod access;
mod adoption;
mod agent;
mod archive;
mod archive_gap;
mod backup;
mod backup_killed;
mod bare_start;
mod bootstrap;
mod bootstrap_killed;
mod by_hand;
mod by_request;
mod commands;
mod dcs;
mod dcs_lost;
mod failover;
mod hangs;
mod held;
mod hostile_settings;
mod kept;
mod lets_go;
mod parameters;
mod partition;
mod raised;
mod refusals;
mod rejoin;
mod replay;
mod restart;
mod restore_elsewhere;
mod restore_killed;
mod rollback;
mod short_stop;
mod slots;
mod sockets;
mod startup;
mod story;
mod switchover;
mod tablespaces;
mod tls;
mod ttl;
mod twins;
