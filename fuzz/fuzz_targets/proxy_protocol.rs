//! PROXY headers: parts are incomplete or refused as the whole is; what is read and written anew is read the same.
#![no_main]

use lb_fuzz::proxy::proxy_protocol::{Facts, MAX_V1, MAX_V2, parse, write_v1, write_v2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    for length in 0..input.len().min(600) {
        match (parse(&input[..length]), whole) {
            (Ok(None), Ok(Some(header))) => assert!(length < header.length),
            (Ok(None), _) => {}
            (part, whole) => assert_eq!(part, whole, "at {length}"),
        }
    }
    if whole == Ok(None) {
        assert!(input.len() < 16 + MAX_V2, "it must know by then");
    }
    let Ok(Some(header)) = whole else { return };
    assert!(header.length <= input.len() && header.length <= MAX_V1.max(16 + MAX_V2));
    let tlvs = header.tlvs;
    let facts = Facts { alpn: tlvs.alpn(), authority: tlvs.authority(), tls: tlvs.tls() };
    let mut out = Vec::new();
    write_v2(&mut out, header.addresses, &facts);
    let again = parse(&out).expect("ours is valid").expect("and complete");
    assert_eq!(again.length, out.len());
    let Some((source, destination)) = header.addresses else { return assert_eq!(again.addresses, None) };
    let (source_again, destination_again) = again.addresses.expect("they were written");
    assert_eq!(source_again.ip().to_canonical(), source.ip().to_canonical());
    assert_eq!(destination_again.ip().to_canonical(), destination.ip().to_canonical());
    assert_eq!((source_again.port(), destination_again.port()), (source.port(), destination.port()));
    let mut line = Vec::new();
    write_v1(&mut line, source, destination);
    assert!(line.len() <= MAX_V1);
    assert_eq!(parse(&line).expect("valid").expect("complete").addresses, again.addresses);
});
