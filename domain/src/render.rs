//! Rendering for people.
