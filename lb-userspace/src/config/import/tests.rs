//! Files as they are found, translated; what comes out is a valid configuration of ours.

use super::*;
use crate::{
    config::{Config, cluster::VipMode, text::Host},
    control::plan::{Forwarding, Protocol, Scheduler},
};

const HAPROXY: &str = include_str!("fixtures/haproxy.cfg");
const KEEPALIVED: &str = include_str!("fixtures/keepalived.conf");
const IPVS: &str = include_str!("fixtures/ipvs.rules");
const NGINX: &str = include_str!("fixtures/nginx.conf");

const ALL: [(Format, &str); 4] =
    [(Format::Haproxy, HAPROXY), (Format::Keepalived, KEEPALIVED), (Format::Ipvs, IPVS), (Format::Nginx, NGINX)];

fn valid(format: Format, text: &str) -> (Config, Imported) {
    let imported = import(format, text);
    match Config::parse("imported.toml", &imported.toml) {
        Ok(config) => (config, imported),
        Err(errors) => panic!("{format:?}: {errors}\n{}", imported.toml),
    }
}

/// The lines that were noted.
fn lines(imported: &Imported) -> Vec<usize> {
    let mut lines: Vec<usize> = imported.notes.iter().map(|note| note.line).collect();
    lines.dedup();
    lines
}

/// The numbers of lines of a text that begin so, or have that in them.
fn at(text: &str, needles: &[&str]) -> Vec<usize> {
    let line = |needle: &&str| {
        text.lines().position(|line| line.contains(*needle)).unwrap_or_else(|| panic!("no {needle:?}")) + 1
    };
    needles.iter().map(line).collect()
}

#[test]
fn haproxys_frontends_and_backends() {
    let (config, imported) = valid(Format::Haproxy, HAPROXY);
    let servers: Vec<&String> = config.proxy.virtual_servers.keys().collect();
    assert_eq!(servers, ["mysql", "sni", "www", "www-tls"], "{}", imported.toml);
    let pools: Vec<&String> = config.proxy.pools.keys().collect();
    assert_eq!(pools, ["api", "app", "mail", "mysql", "static"]);
    let app = &config.proxy.pools["app"];
    assert_eq!(app.nodes["app2"].max_connections, 500);
    assert_eq!((app.nodes["app1"].priority, app.nodes["old"].priority), (1, 0), "backups serve last");
    assert_eq!(app.monitors, ["http"]);
    assert_eq!(config.proxy.pools["api"].nodes["api1"].host, Host::Name("api1.internal".into()));
    for words in [
        r#"{ not = { client_address = ["10.0.0.0/8", "192.168.0.0/16"] } }"#,
        r#"{ host = ["api.example.com"] }"#,
        r#"scheduler = "weighted_least_connections""#,
        r#"persistence = { name = "SRV", type = "cookie" }"#,
        r#"server_names = { "*.mail.example.com" = "mail", "mail.example.com" = "mail" }"#,
        r#"set_header = { X-Client-Ip = "%{client_address}" }"#,
        r#"status = 301, to = "https://%{host}%{raw_url}""#,
        r#"timeouts = { connect = "5s", idle = "60s", reply = "60s" }"#,
        r#"delay = "3s""#,
    ] {
        assert!(imported.toml.contains(words), "{words}\n{}", imported.toml);
    }
    let expected = at(
        HAPROXY,
        &[
            "tune.ssl",
            "deny if bad_ua",
            "uuid()",
            "use_backend %[",
            "inspect-delay",
            "req_ssl_hello_type",
            "listen stats",
            "stats enable",
            "stats uri",
        ],
    );
    assert_eq!(lines(&imported), expected, "{:#?}", imported.notes);
}

#[test]
fn keepaliveds_instances_and_virtual_servers() {
    let (config, imported) = valid(Format::Keepalived, KEEPALIVED);
    let group = &config.vips["VI_1"];
    assert_eq!((group.mode, group.priority, group.failback), (VipMode::Failover, 150, false));
    assert_eq!(group.router.as_ref().map(|router| (router.id, router.virtual_mac)), Some((51, true)));
    let web = &config.virtual_servers["192.0.2.100-80-tcp"];
    assert_eq!((web.vips.clone(), web.protocol), (vec!["VI_1".to_owned()], Protocol::Tcp));
    let pool = &config.pools[&web.pool];
    assert_eq!((pool.forwarding, pool.scheduler), (Forwarding::Dsr, Scheduler::WeightedLeastConnections));
    assert_eq!((pool.nodes.len(), pool.nodes["n1"].weight, pool.failure_pool.is_some()), (3, 3, true));
    assert_eq!(config.virtual_servers["DNS"].protocol, Protocol::Udp);
    assert_eq!(config.virtual_servers.len(), 3, "a group with two ports is two");
    let expected = at(
        KEEPALIVED,
        &[
            "vrrp_script chk",
            "authentication {",
            "track_script {",
            "fwmark 3",
            "real_server 10.0.0.13",
            "lb_algo sed",
            "MISC_CHECK",
            "virtual_server fwmark",
        ],
    );
    assert_eq!(lines(&imported), expected, "{:#?}", imported.notes);
}

#[test]
fn services_of_ipvs() {
    let (config, imported) = valid(Format::Ipvs, IPVS);
    let pool = &config.pools["192.0.2.10-80-tcp"];
    assert_eq!((pool.forwarding, pool.nodes["n1"].weight, pool.nodes["n1"].port), (Forwarding::Dsr, 3, None));
    assert_eq!(pool.affinity.map(|affinity| affinity.prefix4), Some(24));
    let nat = &config.pools["192.0.2.10-443-tcp"];
    assert_eq!((nat.forwarding, nat.nodes["n1"].port), (Forwarding::Nat, Some(8443)));
    assert_eq!(config.virtual_servers["2001_db8__10-53-udp"].protocol, Protocol::Udp);
    // The interface, then sed, limits, the tunnel, the marks.
    assert_eq!(lines(&imported), [0, 5, 6, 8, 9, 10], "{:#?}", imported.notes);
}

#[test]
fn servers_and_locations_of_nginx() {
    let (config, imported) = valid(Format::Nginx, NGINX);
    let servers: Vec<&String> = config.proxy.virtual_servers.keys().collect();
    assert_eq!(servers, ["http-80", "https-443", "tcp-5432"], "{}", imported.toml);
    assert_eq!(config.proxy.certificates.keys().collect::<Vec<_>>(), ["example.com", "shop.example.com"]);
    for words in [
        r#"{ redirect = { status = 301, to = "https://%{host}%{raw_url}" } }"#,
        r#"when = { any = [{ host = ["shop.example.com"] }, { host = { suffix = ".shop.example.com" } }] }"#,
        r#"when = { path = { prefix = "/api/" } }"#,
        r#"rewrite_path = { regex = "^/api/", with = "/v1/" }"#,
        r#"set_header = { X-Shop = "100%" }"#,
        r#"max_body = "20MiB""#,
        r#"listen = ["0.0.0.0", "::"]"#,
        r#"scheduler = "least_connections""#,
    ] {
        assert!(imported.toml.contains(words), "{words}\n{}", imported.toml);
    }
    let expected =
        at(NGINX, &["unix:/run", "upstream sockets", "$remote_port", "root /srv", "proxy_timeout", "listen 53"]);
    let mut expected: Vec<usize> = expected;
    *expected.last_mut().unwrap() -= 1;
    expected.sort_unstable();
    assert_eq!(lines(&imported), expected, "{:#?}", imported.notes);
}

#[test]
fn what_was_not_translated_is_told_in_the_file_too() {
    for (format, text) in ALL {
        let imported = import(format, text);
        assert!(imported.toml.starts_with("# Not translated"), "{format:?}");
        for note in &imported.notes {
            assert!(imported.toml.contains(&format!("#   {note}\n")), "{format:?}: {note}");
        }
    }
}

#[test]
fn whatever_comes_in_a_valid_configuration_comes_out() {
    let hostile = [
        "",
        "\0",
        "frontend",
        "frontend \"\n[daemon]\n",
        "bind",
        "backend x\nserver\n",
        "-A -t",
        "-a -t 1.2.3.4:80 -r 1.2.3.4",
        "virtual_server {\nreal_server\n}",
        "server { listen; location }",
        "upstream u { server; }",
        "vrrp_instance {\nvirtual_ipaddress {\nx\n}\n}",
        "frontend f\n bind :80\n use_backend b if !\n",
        "}}}}{{{{",
        "http { server { listen 80; server_name '\"]\n[daemon]'; return 200 '%{x'; } }",
    ];
    let mut texts: Vec<(Format, String)> = Vec::new();
    for (format, text) in ALL {
        // Every truncation at a line, and every line alone.
        let lines: Vec<&str> = text.lines().collect();
        texts.extend((0..lines.len()).map(|end| (format, lines[..end].join("\n"))));
        texts.extend((0..lines.len()).map(|gone| {
            let rest: Vec<&str> =
                lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line).collect();
            (format, rest.join("\n"))
        }));
        texts.extend(hostile.iter().map(|text| (format, (*text).to_owned())));
    }
    for (format, text) in texts {
        let imported = import(format, &text);
        let read: toml::Table = imported.toml.parse().unwrap_or_else(|error| panic!("{error}: {}", imported.toml));
        assert!(!read.contains_key("daemon"), "{text}");
    }
}
