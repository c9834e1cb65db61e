//! Captures over the API.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Api;
use crate::control::{
    capture::{CaptureRequest, Packets},
    query::{CapturePath, QueryError},
};

/// Two pieces, when they are asked for by a port.
#[derive(Debug)]
pub(super) struct Captures;

impl CapturePath for Captures {
    fn capture(&self, request: &CaptureRequest) -> Result<Packets, QueryError> {
        let Some(port) = request.port else { return Err(QueryError::Conflict("a capture runs already".to_owned())) };
        let (pieces, packets) = mpsc::channel(1);
        std::thread::spawn(move || {
            for piece in ["to ", &port.to_string()] {
                std::thread::sleep(Duration::from_millis(10));
                pieces.blocking_send(piece.as_bytes().to_vec()).unwrap();
            }
        });
        Ok(packets)
    }
}

#[test]
fn a_capture_is_sent_while_it_is_made_and_written_to_the_audit_log() {
    let api = Api::start();
    let (status, kind, body) = api.request("GET", "/api/v1/capture?port=80&dropped=true", "");
    assert_eq!((status, kind.as_str()), (200, "application/x-pcapng"));
    // Chunked: a length, and so many bytes.
    assert!(body.contains("3\r\nto \r\n") && body.contains("2\r\n80\r\n"), "{body}");
    let audit = api.get("/api/v1/audit");
    let line = &audit["entries"][0];
    assert_eq!(line["what"], "GET /api/v1/capture", "{audit}");
    assert_eq!(line["after"], serde_json::json!({"port": 80, "dropped": true}), "{audit}");
}

#[test]
fn a_second_capture_is_told_so_and_mistakes_are_named() {
    let api = Api::start();
    let (status, detail) = api.refused("GET", "/api/v1/capture", "");
    assert_eq!((status, detail.as_str()), (409, "a capture runs already"));
    let (status, detail) = api.refused("GET", "/api/v1/capture?colour=red", "");
    assert!(status == 400 && detail.contains("colour"), "{status} {detail}");
}
