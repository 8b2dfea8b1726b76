//! The stock `kubectl` against the API over TLS. Without `kubectl` on the machine, each test says so and ends.

mod commands;
mod support;
