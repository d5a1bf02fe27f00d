//! Effects, behind one governed path.

pub mod catalog;
pub mod clock;
pub mod governed;
pub mod models;
pub mod secrets;
pub mod store;
pub mod tools;
