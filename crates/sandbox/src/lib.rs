//! A place to try everything without a data centre: an OpenStack-compatible cloud ([`cloud`]).

pub mod cloud;
