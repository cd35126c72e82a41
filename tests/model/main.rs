//! Every interleaving of two and three nodes with the shipped decision: what must hold, holds; what is broken on
//! purpose, is found. The world itself is in `tests/world`, and what it leaves out stands there.

mod holds;
mod jobs;
mod mutants;
mod recovers;
