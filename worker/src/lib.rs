//! mandate worker
