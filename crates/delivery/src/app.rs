//! What becomes of an App, step by step. Everything here is a pure function of what was read.

pub mod values;
