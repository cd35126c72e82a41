//! A bed for real members: starts PostgreSQL with its agents, etcd and an object store on this machine, breaks them on
//! purpose, and keeps the books of a writer. Everything that it starts dies with it. Knows nothing of the agent's insides.

mod account;
mod client;
mod cluster;
mod etcd;
mod finish;
mod gate;
mod guard;
mod link;
mod member;
mod object_store;
mod oracle;
mod ports;
pub mod process;
mod programs;
mod seed;
mod wait;

pub use account::Account;
pub use client::{Connection, Endpoint};
pub use cluster::{Archive, Builder, Cluster, START_LIMIT};
pub use etcd::Etcd;
pub use finish::{PROGRAM_LIMIT, finish, last_lines};
pub use gate::Gate;
pub use guard::Guard;
pub use link::{Link, Passage};
pub use member::{Answer, Member, PASSWORD, lay_over};
pub use object_store::{ACCESS_KEY, BUCKET, ObjectStore, SECRET_KEY, Uploads};
pub use oracle::{Books, Options, Oracle, Overlap, Verdict, Watcher};
pub use ports::Port;
pub use programs::Programs;
pub use seed::Seed;
pub use wait::{fault_lasts, wait_until};
