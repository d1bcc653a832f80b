//! Integration tests: one module a scenario, one binary, so that the crate is linked once.
