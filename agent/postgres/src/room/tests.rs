//! Room is made for new data.

mod making;
