//! Verification of one chain.
