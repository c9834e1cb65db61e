//! Recent.
