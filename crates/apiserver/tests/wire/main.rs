//! The API over TLS: the listener, and the stock `kubectl` (without it on the machine, its tests say so and end).

mod commands;
mod faults;
mod sockets;
mod support;
