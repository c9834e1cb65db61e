//! RFC 7541's examples, and what is written read again.

use super::*;

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, BadBlock> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn lines(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (name, value) = line.split_once("= ").unwrap();
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(|text| line(text.trim())).collect()
}

#[test]
fn requests_of_appendix_c_3_and_c_4() {
    let plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let coded = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    let expected = [
        ":method= GET\n:scheme= http\n:path= /\n:authority= www.example.com",
        ":method= GET\n:scheme= http\n:path= /\n:authority= www.example.com\ncache-control= no-cache",
        ":method= GET\n:scheme= https\n:path= /index.html\n:authority= www.example.com\ncustom-key= custom-value",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::default();
        for (block, expected) in blocks.iter().zip(expected) {
            assert_eq!(decoded(&mut decoder, &hex(block)).unwrap(), lines(expected));
        }
    }
}

#[test]
fn responses_of_appendix_c_6_put_entries_out() {
    let mut decoder = Decoder::default();
    // The examples have a table of 256 bytes.
    decoder.table.set_most(256);
    let blocks = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ];
    let expected = [
        ":status= 302\ncache-control= private\ndate= Mon, 21 Oct 2013 20:13:21 GMT\nlocation= https://www.example.com",
        ":status= 307\ncache-control= private\ndate= Mon, 21 Oct 2013 20:13:21 GMT\nlocation= https://www.example.com",
        ":status= 200\ncache-control= private\ndate= Mon, 21 Oct 2013 20:13:22 GMT\nlocation= https://www.example.com\ncontent-encoding= gzip\nset-cookie= foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];
    for (block, expected) in blocks.iter().zip(expected) {
        assert_eq!(decoded(&mut decoder, &hex(block)).unwrap(), lines(expected));
    }
}

#[test]
fn what_is_written_is_read_again_and_what_repeats_becomes_an_index() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut lengths = Vec::new();
    for round in 0..40 {
        let unique = format!("\"{round}\"");
        let list = [
            ("Server", "nginx", Keep::Yes),
            ("X-Unknown", "a value of some length", Keep::Yes),
            ("ETag", unique.as_str(), Keep::No),
            ("Set-Cookie", "a=b", Keep::Never),
            ("X-Unique", unique.as_str(), Keep::Yes),
        ];
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.status(&mut block, if round % 2 == 0 { 200 } else { 503 });
        for (name, value, keep) in list {
            encoder.field(
                &mut block,
                static_index(&name.to_ascii_lowercase()),
                name.as_bytes(),
                value.as_bytes(),
                keep,
            );
        }
        let mut expected = vec![(":status".to_owned(), if round % 2 == 0 { "200" } else { "503" }.to_owned())];
        expected.extend(list.map(|(name, value, _)| (name.to_ascii_lowercase(), value.to_owned())));
        assert_eq!(decoded(&mut decoder, &block).unwrap(), expected, "round {round}");
        lengths.push(block.len());
    }
    assert!(lengths[38] + 30 < lengths[0], "{lengths:?}");
}

#[test]
fn tables_stay_alike_when_entries_go_and_sizes_change() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    for round in 0..500_u32 {
        match round {
            100 => encoder.set_table_size(64),
            200 => encoder.set_table_size(0),
            300 => encoder.set_table_size(1 << 30),
            // Down and up between two blocks: both are told.
            400 => [0, 4096].into_iter().for_each(|size| encoder.set_table_size(size)),
            _ => {}
        }
        let value = format!("{:>100}", round / 2 % 60);
        let mut block = Vec::new();
        encoder.begin(&mut block);
        encoder.field(&mut block, 0, b"x-test", value.as_bytes(), Keep::Yes);
        encoder.field(&mut block, 33, b"Date", b"now", Keep::Yes);
        let expected = [("x-test".to_owned(), value), ("date".to_owned(), "now".to_owned())];
        assert_eq!(decoded(&mut decoder, &block).unwrap(), expected, "round {round}");
        assert_eq!(encoder.table.most(), decoder.table.most(), "round {round}");
    }
}

#[test]
fn no_cut_of_a_block_is_a_panic_and_bytes_at_random_neither() {
    let block = hex(
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    );
    for length in 0..block.len() {
        let _ = decoded(&mut Decoder::default(), &block[..length]);
    }
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..24)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let _ = decoded(&mut Decoder::default(), &bytes);
    }
}
