//! Handshakes and data between our two sides over loopback TCP, and with other implementations.

mod authentication;
mod fixtures;
mod names;
mod offers;
mod robustness;
mod transfer;
