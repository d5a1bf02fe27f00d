//! models/scripted
