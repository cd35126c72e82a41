//! The tests of the retention; no product code.

mod plans;
