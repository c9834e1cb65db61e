//! Data: whole, in order, in records of the right size, with its end told.

use std::io::{ErrorKind, IoSlice};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixtures::{Authority, catalogue, on_worker, setup, shake};
use crate::proxy::tls::TlsStream;

async fn pair() -> (TlsStream, TlsStream) {
    let authority = Authority::new("ca");
    let certificates = catalogue([("a", authority.ecdsa(&["a.test"]))]);
    let client = authority.client(|_| (), &certificates);
    let (accepted, connected) = shake(&setup(&certificates, |_| ()), &client, "a.test").await;
    (accepted.unwrap().0, connected.unwrap())
}

#[test]
fn bytes_arrive_whole_both_ways_whatever_the_sizes() {
    on_worker(async {
        let (mut server, mut client) = pair().await;
        for size in [1, 2, 4095, 4096, 8192, 16_383, 16_384, 16_385, 100_000, 1_000_003] {
            let sent: Vec<u8> = (0..size).map(|i: usize| u8::try_from(i % 251).unwrap()).collect();
            for (from, to) in [(&mut server, &mut client)].into_iter() {
                let mut got = vec![0; size];
                let (wrote, read) = tokio::join!(
                    async {
                        from.write_all(&sent).await?;
                        from.flush().await
                    },
                    to.read_exact(&mut got)
                );
                wrote.unwrap();
                read.unwrap();
                assert!(got == sent, "{size} bytes");
            }
            std::mem::swap(&mut server, &mut client);
        }
    });
}

#[test]
fn slices_go_into_one_record() {
    on_worker(async {
        let (mut server, mut client) = pair().await;
        let slices = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(b"and body")];
        assert_eq!(server.write_vectored(&slices).await.unwrap(), 13);
        server.flush().await.unwrap();
        let mut got = [0; 64];
        let count = client.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], b"head and body", "a read returns one record");
    });
}

#[test]
fn first_records_are_small_and_later_ones_full() {
    on_worker(async {
        let (mut server, mut client) = pair().await;
        for round in 0..2 {
            let (wrote, sizes) = tokio::join!(server.write_all(&[7; 60_000]), async {
                let mut sizes = Vec::new();
                let mut buffer = vec![0; 32_768];
                while sizes.iter().sum::<usize>() < 60_000 {
                    sizes.push(client.read(&mut buffer).await.unwrap());
                }
                sizes
            });
            wrote.unwrap();
            assert_eq!(sizes, [4096, 4096, 16_384, 16_384, 16_384, 2656], "round {round}");
            // A new request begins a new answer.
            client.write_all(b"again").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
        }
    });
}

#[test]
fn a_small_reader_gets_a_record_in_parts() {
    on_worker(async {
        let (mut server, mut client) = pair().await;
        server.write_all(b"0123456789").await.unwrap();
        let mut got = Vec::new();
        let mut part = [0; 3];
        while got.len() < 10 {
            let count = client.read(&mut part).await.unwrap();
            got.extend_from_slice(&part[..count]);
        }
        assert_eq!(got, b"0123456789");
        assert!(!client.holds_bytes());
    });
}

#[test]
fn the_end_is_told_by_close_notify_alone() {
    on_worker(async {
        let (mut server, mut client) = pair().await;
        server.write_all(b"whole").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!((got.as_slice(), client.peer_closed()), (&b"whole"[..], true));
        // Half-closed: the other direction goes on.
        client.write_all(b"still here").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        server.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "still here");
        assert_eq!(server.write_all(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);

        let (server, mut client) = pair().await;
        drop(server);
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!((error.kind(), client.peer_closed()), (ErrorKind::UnexpectedEof, false));
    });
}

#[test]
fn a_changed_record_ends_the_connection() {
    on_worker(async {
        let (mut server, client) = pair().await;
        // A record of the right form that nobody encrypted.
        let mut record = vec![23, 3, 3, 0, 20];
        record.extend(1..=20);
        rustix::net::send(client.socket(), &record, rustix::net::SendFlags::empty()).unwrap();
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(server.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::InvalidData, "and stays so");
        assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut alert = client;
        let error = alert.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("BadRecordMac"), "{error}");
    });
}
