//! The verdicts of the threat model's HTTP table as raw bytes, named after its rows.
//!
//! Every case is read whole, cut off at every length, and byte by byte: a part is incomplete or has the verdict of the
//! whole, and what is read in pieces is what is read at once.

mod bodies;
mod requests;
mod responses;
mod roundtrip;
