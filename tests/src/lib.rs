//! mandate tests
