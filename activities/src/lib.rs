//! mandate activities
