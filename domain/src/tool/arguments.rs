//! Checking arguments against a schema.
