//! tools/builtin
