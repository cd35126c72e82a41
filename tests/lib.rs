//! Nothing here: this package only carries the test targets beside this file.
