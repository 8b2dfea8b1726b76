//! A place to try everything without a data centre: an OpenStack-compatible cloud ([`cloud`]), and what stands in for
//! the inside of its servers ([`hollow`]).

pub mod cloud;
pub mod hollow;
