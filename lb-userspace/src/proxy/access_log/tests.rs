//! Lines can be read back, files get them, and nobody waits.

mod allocations;

use std::{
    fs,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    thread,
    time::Instant,
};

use proptest::prelude::*;

use super::{time::TimeText, *};
use crate::proxy::facts::{
    TlsFacts,
    sample::{Request, Response},
};

fn entry<'a>(request: &'a Request, response: Option<&'a Response>) -> Entry<'a> {
    Entry {
        facts: request,
        response: response.map(|response| response as &dyn ResponseFacts),
        virtual_server: "web",
        pool: "app",
        node: "a",
        rule: "",
        reason: "",
        request_id: RequestId(0xabc),
        at: Duration::from_millis(1_795_262_229_123),
        status: 200,
        bytes_received: 5,
        bytes_sent: 1234,
        body_bytes_sent: 1000,
        timings: Timings {
            queue: Duration::ZERO,
            connect: Duration::from_micros(250),
            head: Duration::from_micros(1_500),
            total: Duration::from_micros(1_234_567),
        },
        retries: 1,
        ended: Ended::default(),
    }
}

fn line(format: &plan::Format, entry: &Entry<'_>) -> String {
    let mut time = TimeText::default();
    time.set(entry.at);
    let mut out = Vec::new();
    Format::compile(format).unwrap().write(entry, &time, &mut out);
    String::from_utf8(out).unwrap()
}

fn own(format: &str, entry: &Entry<'_>) -> String {
    line(&plan::Format::Own(format.to_owned()), entry)
}

#[test]
fn combined_is_what_tools_read() {
    let request = Request::get("/a?b=1").with("referer", "https://r/").with("user-agent", "curl \"8\"\n");
    let expected = "192.0.2.7 - - [21/Nov/2026:11:57:09 +0000] \"GET /a?b=1 HTTP/1.1\" 200 1000 \"https://r/\" \
                    \"curl \\x228\\x22\\x0a\"\n";
    assert_eq!(line(&plan::Format::Combined, &entry(&request, None)), expected);
    let nothing = Request { method: String::new(), url: String::new(), ..Request::default() };
    let expected = "192.0.2.7 - - [21/Nov/2026:11:57:09 +0000] \"-\" 200 1000 \"-\" \"-\"\n";
    assert_eq!(line(&plan::Format::Combined, &entry(&nothing, None)), expected);
}

#[test]
fn json_has_what_there_is() {
    let request = Request::get("/a?b=1");
    let text = line(&plan::Format::Json, &entry(&request, None));
    let expected = "{\"time\":\"2026-11-21T11:57:09.123Z\",\"request_id\":\"00000000000000000000000000000abc\",\
        \"virtual_server\":\"web\",\"client_address\":\"192.0.2.7\",\"method\":\"GET\",\"host\":\"example.org\",\
        \"url\":\"/a?b=1\",\"version\":\"1.1\",\"status\":200,\"bytes_received\":5,\"bytes_sent\":1234,\
        \"body_bytes_sent\":1000,\"pool\":\"app\",\"node\":\"a\",\"queue_ms\":0.000,\"connect_ms\":0.250,\
        \"head_ms\":1.500,\"total_ms\":1234.567,\"retries\":1,\"termination\":\"--\"}\n";
    assert_eq!(text, expected);
}

#[test]
fn own_formats_have_their_macros() {
    let tls = TlsFacts {
        version: "1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        server_name: Some("sni.example".to_owned()),
        resumed: true,
        ..TlsFacts::default()
    };
    let request = Request { tls: Some(tls), client: "2001:db8::1".parse().unwrap(), ..Request::get("/p?q=%22") };
    let request = request.with("cookie", "c=v").with("x", "h");
    let response = Response::new(502).with("server", "s p");
    let entry = Entry {
        rule: "r",
        reason: "early_close",
        status: 502,
        ended: Ended { by: By::Node, during: During::Head },
        ..entry(&request, Some(&response))
    };
    for (format, expected) in [
        ("%{client_address} %{local_address}:%{local_port}", "2001:db8::1 198.51.100.1:8080"),
        (
            "%{scheme} %{method} %{host} %{path} %{query} %{raw_url} %{version}",
            "https GET example.org /p q=%22 /p?q=%22 1.1",
        ),
        (
            "%{tls_version} %{tls_cipher} %{tls_server_name} %{tls_resumed}",
            "1.3 TLS_AES_128_GCM_SHA256 sni.example yes",
        ),
        ("%{tls_client_subject} %{tls_client_fingerprint}", "- -"),
        ("%{time} %{time_unix}", "2026-11-21T11:57:09.123Z 1795262229.123"),
        ("%{queue_ms}/%{connect_ms}/%{head_ms}/%{total_ms}", "0.000/0.250/1.500/1234.567"),
        (
            "%{virtual_server} %{pool} %{node} %{rule} %{reason} %{termination} %{retries}",
            "web app a r early_close SH 1",
        ),
        ("%{status} %{bytes_received} %{bytes_sent} %{body_bytes_sent}", "502 5 1234 1000"),
        ("%{header:x} %{cookie:c} %{parameter:q} %{response_header:server} %{header:none}", "h v \\x22 s p -"),
        ("literal\r\nstays one line", "literal  stays one line"),
    ] {
        assert_eq!(own(format, &entry), format!("{expected}\n"), "{format}");
    }
}

#[test]
fn each_end_has_its_letters() {
    let by = [By::Done, By::Client, By::ClientTimeout, By::Node, By::NodeTimeout, By::Refused, By::Answered, By::Limit];
    let by = by.into_iter().chain([By::NoNode, By::Killed, By::Internal]);
    let letters: Vec<_> = by.map(|by| Ended { by, during: During::Done }.letters()[0]).collect();
    assert_eq!(letters, b"-CcSsPLRDKI");
    let during = [During::Done, During::Request, During::Queue, During::Connect, During::Head, During::Data];
    assert_eq!(during.map(|during| Ended { by: By::Done, during }.letters()[1]), *b"-RQCHD");
}

proptest! {
    /// Whatever a client sends: one line, which a JSON parser reads back.
    #[test]
    fn json_lines_are_read_back(url in "(\\PC|[\\x00-\\x7f])*", agent in "(\\PC|[\\x00-\\x7f])*", host in "[ -~]*") {
        let request = Request { url: url.clone(), host: host.clone(), ..Request::default() }.with("user-agent", &agent);
        let text = line(&plan::Format::Json, &entry(&request, None));
        prop_assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (member, expected) in [("url", &url), ("user_agent", &agent), ("host", &host)] {
            let member = value.get(member).and_then(|value| value.as_str()).unwrap_or("");
            prop_assert_eq!(member, expected.as_str());
        }
    }

    /// A combined line splits at its quotes into what was logged.
    #[test]
    fn combined_lines_have_their_fields(agent in "(\\PC|[\\x00-\\x7f])+", referer in "(\\PC|[\\x00-\\x7f])+") {
        let request = Request::get("/").with("user-agent", &agent).with("referer", &referer);
        let text = line(&plan::Format::Combined, &entry(&request, None));
        prop_assert_eq!(text.matches('\n').count(), 1);
        prop_assert_eq!(text.split('"').count(), 7);
    }
}

#[test]
fn one_of_so_many_is_logged_and_every_error() {
    let writer = LogWriter::start().unwrap();
    let plan = plan::AccessLog { path: PathBuf::from("x"), format: plan::Format::Combined, sample: 10 };
    let log = AccessLog::compile(&plan, &writer).unwrap();
    let request = Request::get("/");
    let count = |status, by| {
        let ended = Ended { by, during: During::Done };
        (0..100).filter(|_| log.is_sampled(&Entry { status, ended, ..entry(&request, None) })).count()
    };
    assert_eq!(count(200, By::Done), 10);
    assert_eq!(count(302, By::Answered), 10);
    assert_eq!(count(404, By::Done), 100);
    assert_eq!(count(500, By::Done), 100);
    assert_eq!(count(200, By::Client), 100);
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::yield_now();
    }
}

fn log_of(writer: &LogWriter, path: &std::path::Path) -> AccessLog {
    let format = plan::Format::Own("%{raw_url}".to_owned());
    AccessLog::compile(&plan::AccessLog { path: path.to_owned(), format, sample: 1 }, writer).unwrap()
}

#[test]
fn lines_of_all_threads_reach_their_file_and_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let open =
        |path: &std::path::Path| OwnedFd::from(fs::File::options().append(true).create(true).open(path).unwrap());
    let writer = LogWriter::start().unwrap();
    writer.open(writer.sink(&path), open(&path));
    thread::scope(|scope| {
        for thread in 0..3 {
            let writer = &writer;
            let path = &path;
            scope.spawn(move || {
                let (log, own) = (log_of(writer, path), writer.thread());
                for n in 0..1000 {
                    log.log(&entry(&Request::get(&format!("/{thread}/{n}")), None), &own);
                }
            });
        }
    });
    let lines = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    wait("3000 lines", || lines(&path) == 3000);
    let text = fs::read_to_string(&path).unwrap();
    for thread in 0..3 {
        let own: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("/{thread}/"))).collect();
        let expected: Vec<_> = (0..1000).map(|n| format!("/{thread}/{n}")).collect();
        assert_eq!(own, expected, "in order");
    }
    // As logrotate does.
    let rotated = directory.path().join("access.log.1");
    fs::rename(&path, &rotated).unwrap();
    writer.open(writer.sink(&path), open(&path));
    let own = writer.thread();
    log_of(&writer, &path).log(&entry(&Request::get("/new"), None), &own);
    own.flush();
    wait("the new file", || lines(&path) == 1);
    assert_eq!((lines(&rotated), writer.dropped()), (3000, 0));
}

#[test]
fn a_full_pipe_holds_nobody_up_and_is_counted() {
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let pipe = OwnedFd::from(pipe);
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(pipe.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let writer = LogWriter::start().unwrap();
    let path = PathBuf::from("pipe");
    writer.open(writer.sink(&path), pipe);
    let (log, own) = (log_of(&writer, &path), writer.thread());
    let request = Request::get(&format!("/{}", "x".repeat(1000)));
    // 20 MB against a queue of 4 MiB and a pipe that nobody reads.
    let start = Instant::now();
    for _ in 0..20_000 {
        log.log(&entry(&request, None), &own);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "it waited");
    own.flush();
    wait("drops", || writer.dropped() > 10_000);
    // Read on: whole lines come again, none is torn but by the stop itself.
    let mut taken = [0; 65536];
    assert!(reader.read(&mut taken).unwrap() > 0);
}

#[test]
fn a_full_disk_is_counted_and_over_when_it_is() {
    let writer = LogWriter::start().unwrap();
    let path = PathBuf::from("full");
    let sink = writer.sink(&path);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    writer.open(sink, full.into());
    let (log, own) = (log_of(&writer, &path), writer.thread());
    for _ in 0..10 {
        log.log(&entry(&Request::get("/lost"), None), &own);
    }
    own.flush();
    wait("ten lost lines", || writer.dropped() == 10);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    writer.open(sink, fs::File::create(&file).unwrap().into());
    log.log(&entry(&Request::get("/kept"), None), &own);
    own.flush();
    wait("the line after", || fs::read_to_string(&file).unwrap() == "/kept\n");
    assert_eq!(writer.dropped(), 10);
}

#[test]
fn lines_without_a_file_are_counted() {
    let writer = LogWriter::start().unwrap();
    let (log, own) = (log_of(&writer, &PathBuf::from("none")), writer.thread());
    log.log(&entry(&Request::get("/"), None), &own);
    own.flush();
    wait("one lost line", || writer.dropped() == 1);
}

#[test]
fn files_that_no_plan_names_are_closed() {
    let writer = LogWriter::start().unwrap();
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let (path, other) = (PathBuf::from("gone"), PathBuf::from("stays"));
    let (sink, stays) = (writer.sink(&path), writer.sink(&other));
    writer.open(sink, pipe.into());
    let (log, own) = (log_of(&writer, &path), writer.thread());
    log.log(&entry(&Request::get("/last"), None), &own);
    own.flush();
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    writer.retain(&std::collections::BTreeSet::from([other.as_path()]));
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "the last writing end was closed");
    assert_eq!(writer.sink(&other), stays);
    assert!(![sink, stays].contains(&writer.sink(&path)), "a number is never used again");
}
