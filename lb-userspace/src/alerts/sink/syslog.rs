//! Messages to a syslog server: RFC 5424 over UDP (RFC 5426) and TCP with the length in front (RFC 6587 §3.4.1); to this
//! machine's own as its C library would write them.

use std::{path::Path, process};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket, UnixDatagram},
};

use crate::{
    alerts::{
        Failure,
        net::{self, Local},
        notice::Notice,
    },
    config::alert::{Facility, Syslog, SyslogTo},
    control::event::Severity,
};

/// The longest message, in bytes: what every receiver should take (RFC 5424 §6.1).
const MOST: usize = 2048;

/// The name of our structured data: its number is the one that RFC 5612 keeps for examples, as we have none of our own.
const DATA: &str = "lb@32473";

pub(in crate::alerts) async fn send(syslog: &Syslog, notice: &Notice) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::again(error.to_string());
    match &syslog.to {
        SyslogTo::Udp(server) => {
            let mut last = None;
            let message = message(syslog.facility, notice);
            for address in net::resolve(server, Local::Allowed).await? {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await.map_err(failed)?;
                match socket.send_to(message.as_bytes(), address).await {
                    Ok(_) => return Ok(()),
                    Err(error) => last = Some(format!("{address}: {error}")),
                }
            }
            Err(Failure::again(last.unwrap_or_default()))
        }
        SyslogTo::Tcp(server) => {
            let stream = net::connect(server, Local::Allowed).await?;
            let message = message(syslog.facility, notice);
            write(stream, &format!("{} {message}", message.len())).await.map_err(failed)
        }
        SyslogTo::Unix(path) => {
            let sent = to_unix(path, &local(syslog.facility, notice)).await;
            sent.map_err(|error| Failure::again(format!("{}: {error}", path.display())))
        }
    }
}

async fn write(mut stream: TcpStream, framed: &str) -> std::io::Result<()> {
    stream.write_all(framed.as_bytes()).await?;
    // Until all of it is handed over: an error that comes later is not seen, as in every use of this protocol.
    stream.shutdown().await
}

async fn to_unix(path: &Path, message: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.send(message.as_bytes()).await.map(drop)
}

/// RFC 5424.
fn message(facility: Facility, notice: &Notice) -> String {
    let value = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
    // Names are printable US-ASCII without spaces (§6.2.4), or "-".
    let plain: String = notice.machine.chars().filter(char::is_ascii_graphic).take(255).collect();
    let machine = if plain.is_empty() { "-" } else { &plain };
    let message = format!(
        "<{}>1 {} {machine} lbd {} {} [{DATA} state=\"{}\" severity=\"{}\" object=\"{}\" number=\"{}\"] {}",
        priority(facility, notice),
        notice.time(),
        process::id(),
        notice.name(),
        notice.state(),
        notice.severity().word(),
        value(notice.object()),
        notice.number(),
        notice.line(),
    );
    cut(message)
}

/// As `syslog(3)` writes it to `/dev/log`.
fn local(facility: Facility, notice: &Notice) -> String {
    let stamp = i64::try_from(notice.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let zoned = stamp.map(|stamp| stamp.to_zoned(jiff::tz::TimeZone::system()));
    let time = zoned.map_or_else(String::new, |time| time.strftime("%b %e %H:%M:%S").to_string());
    let (priority, line) = (priority(facility, notice), notice.line());
    cut(format!("<{priority}>{time} lbd[{}]: {} {}: {line}", process::id(), notice.state(), notice.name()))
}

/// RFC 5424 §6.2.1: 8 × facility + severity.
fn priority(facility: Facility, notice: &Notice) -> u8 {
    let severity = match notice.severity() {
        Severity::Critical => 2,
        Severity::Warning => 4,
        Severity::Info => 6,
    };
    facility.number() * 8 + severity
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MOST));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{alerts::notice::tests::notice, control::event::Name};

    #[test]
    fn a_message_reads_as_rfc_5424_says() {
        let notice = notice(Name::NodeDown, "node web/n1 is down");
        let (pid, text) = (process::id(), message(Facility::Daemon, &notice));
        let expected = format!(
            "<28>1 2023-11-14T22:13:20.123Z lb1 lbd {pid} node_down [lb@32473 state=\"fault\" severity=\"warning\" \
             object=\"web/n1\" number=\"7\"] node web/n1 is down"
        );
        assert_eq!(text, expected);
        let text = local(Facility::Local7, &notice);
        assert!(
            text.starts_with("<188>Nov 1")
                && text.ends_with(&format!(" lbd[{pid}]: fault node_down: node web/n1 is down"))
        );
    }

    #[test]
    fn structured_data_cannot_be_left_and_messages_are_bounded() {
        let entry = crate::control::event::Entry {
            object: "a\"]\\".into(),
            number: 1,
            at_ms: 0,
            name: Name::RuleEvent,
            severity: Severity::Info,
            text: "é".repeat(5000),
        };
        let notice = Notice {
            subject: crate::alerts::notice::Subject::Event(std::sync::Arc::new(entry), None),
            ..notice(Name::NodeDown, "")
        };
        let text = message(Facility::Daemon, &notice);
        assert!(text.contains(r#"object="a\"\]\\""#), "{text}");
        assert!(text.len() <= MOST && text.len() > MOST - 4);
    }
}
