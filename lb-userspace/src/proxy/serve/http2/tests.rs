//! HTTP/2 through the proxy on loopback: frame by frame as RFC 9113 and RFC 7541 have them, floods, gRPC, both sides.

mod conformance;
mod counted;
mod curl;
mod exchanges;
mod floods;
mod wire;
