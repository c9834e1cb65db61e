//! What is needed beside the Rust toolchain, why, and the Debian package that brings it. Facts only; `apt` acts on them.

use std::path::Path;

use crate::run;

/// Something that must be there.
#[derive(Debug)]
pub(super) struct Need {
    /// How its presence is seen.
    pub(super) probe: Probe,
    /// Debian package.
    pub(super) package: &'static str,
    /// What we want it for.
    pub(super) why: &'static str,
}

/// How the presence of something is seen. Not by the package manager: what matters is that it is there, however it came.
#[derive(Debug)]
pub(super) enum Probe {
    /// A program in `PATH`.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl Need {
    pub(super) fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => run::find(name).is_some(),
            Probe::File(path) => Path::new(path).exists(),
        }
    }
}

const fn program(name: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { probe: Probe::Program(name), package, why }
}

const fn file(path: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { probe: Probe::File(path), package, why }
}

/// The LLVM that bpf-linker is built against: the major version that rustc emits.
pub(super) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// For building bpf-linker.
pub(super) const LINKER: [Need; 6] = [
    program("cc", "gcc", "links Rust programs"),
    file("/usr/include/stdlib.h", "libc6-dev", "links Rust programs"),
    file("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev", "bpf-linker turns LLVM bitcode into BPF"),
    file("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev", "part of LLVM that bpf-linker links"),
    file("/usr/include/zlib.h", "zlib1g-dev", "bpf-linker links it"),
    file("/usr/include/zstd.h", "libzstd-dev", "bpf-linker links it"),
];

/// For `bench l7`.
pub(super) const BENCH_L7: [Need; 7] = [
    program("haproxy", "haproxy", "a proxy to compare with"),
    program("nginx", "nginx", "a proxy to compare with, and the nodes"),
    file("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream", "nginx for generic TCP"),
    program("wrk", "wrk", "makes HTTP/1.1 load"),
    program("h2load", "nghttp2-client", "makes HTTP/2 load"),
    program("openssl", "openssl", "makes the certificate"),
    program("taskset", "util-linux", "pins proxies and load to cores"),
];

/// For `cargo xtask testssl`.
pub(super) const TESTSSL: [Need; 4] = [
    program("testssl", "testssl.sh", "looks at TLS"),
    program("nginx", "nginx", "the nodes"),
    program("openssl", "openssl", "makes the certificate"),
    program("taskset", "util-linux", "pins the proxy to a core"),
];

/// For the tests and the demonstration.
pub(super) const TEST: [Need; 32] = [
    program("ip", "iproute2", "network namespaces, interfaces, addresses"),
    program("nginx", "nginx", "real nodes"),
    program("curl", "curl", "a real client"),
    program("ping", "iputils-ping", "a real client"),
    program("iperf3", "iperf3", "streams"),
    program("tcpdump", "tcpdump", "looking at packets"),
    program("ethtool", "ethtool", "offloads of virtual interfaces"),
    program("bpftool", "bpftool", "maps that are not of lb"),
    program("nsenter", "util-linux", "running programs in namespaces"),
    program("mount", "mount", "the BPF file system"),
    program("openssl", "openssl", "makes certificates"),
    program("keepalived", "keepalived", "a VRRP router beside lb"),
    program("ucarp", "ucarp", "a CARP router beside lb"),
    file("/usr/lib/frr/zebra", "frr", "a BGP and VRRP router beside lb"),
    program("bird", "bird2", "a BGP router beside lb"),
    program("snmpd", "snmpd", "the master of lb's SNMP sub-agent"),
    program("snmpwalk", "snmp", "asks it"),
    program("snmptrapd", "snmptrapd", "takes alerts"),
    program("rsyslogd", "rsyslog", "takes alerts"),
    program("dnsmasq", "dnsmasq-base", "a name server, to be monitored"),
    file("/usr/lib/dovecot/imap", "dovecot-imapd", "a mail server, to be monitored"),
    file("/usr/lib/dovecot/pop3", "dovecot-pop3d", "a mail server, to be monitored"),
    program("redis-server", "redis-server", "a server of texts, to be monitored"),
    file("/usr/share/doc/python3-venv", "python3-venv", "servers of PyPI, to be monitored"),
    program("strace", "strace", "kills lbd at each system call of a change"),
    program("gunicorn", "gunicorn", "a real node of the L7 proxy"),
    program("node", "nodejs", "a real node of the L7 proxy"),
    program("wrk", "wrk", "a real client of the L7 proxy"),
    program("h2load", "nghttp2-client", "a real client of the L7 proxy"),
    program("chromium", "chromium", "a browser: a real client of the L7 proxy"),
    file("/usr/lib/python3/dist-packages/grpc/__init__.py", "python3-grpcio", "gRPC, both sides"),
    file("/usr/lib/python3/dist-packages/websockets/__init__.py", "python3-websockets", "WebSocket, both sides"),
];

/// For `verify`.
pub(super) const VERIFY: [Need; 3] = [
    program("strip", "binutils", "takes debugging information out of the program that loads them"),
    program("qemu-system-x86_64", "qemu-system-x86", "boots another kernel"),
    program("dpkg-deb", "dpkg", "unpacks that kernel"),
];

/// For `dist`.
pub(super) const DIST: [Need; 4] = [
    program("strip", "binutils", "takes debugging information out of programs"),
    program("dpkg-shlibdeps", "dpkg-dev", "finds what the programs depend on"),
    program("go-md2man", "go-md2man", "makes a manual page of docs/config.md"),
    program("gzip", "gzip", "compresses manual pages"),
];

/// For `dist --walk`.
pub(super) const WALK: [Need; 2] = [
    program("mmdebstrap", "mmdebstrap", "makes a clean Debian"),
    program("systemd-nspawn", "systemd-container", "runs it"),
];
