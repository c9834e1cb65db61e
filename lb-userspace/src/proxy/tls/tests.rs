//! Handshakes and data between our two sides over loopback TCP, and with other implementations.

mod fixtures;
mod transfer;
