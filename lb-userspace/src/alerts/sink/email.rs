//! Mail: the client's half of SMTP (RFC 5321), with STARTTLS (RFC 3207) or TLS, and AUTH PLAIN (RFC 4954, RFC 4616).
//! What the server says is bounded; nothing of it but its code decides.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::{
    alerts::{
        Failure,
        base64::base64,
        net::{self, Local, Stream},
        notice::Notice,
    },
    config::alert::{Email, Encryption},
};

/// The longest reply that is read, all its lines together.
const MOST_REPLY: usize = 8 << 10;

/// Bytes of a line of base64 (RFC 2045 §6.8).
const LINE: usize = 76;

/// Bytes of a piece of a subject: its encoded word must fit 75 characters (RFC 2047 §2).
const WORD: usize = 36;

/// Sends a notice to all recipients.
pub(in crate::alerts) async fn send(
    email: &Email,
    password: &[u8],
    tls: Option<&TlsConnector>,
    notice: &Notice,
) -> Result<(), Failure> {
    let stream = net::connect(&email.server, Local::Allowed).await?;
    let no_tls = || Failure::never("there is no authority to verify the server's certificate by".to_owned());
    let mut dialogue: Dialogue<Box<dyn Stream>> = match email.encryption {
        Encryption::Tls => {
            let stream = net::secure(tls.ok_or_else(no_tls)?, &email.server, stream).await?;
            Dialogue { stream, unread: Vec::new() }
        }
        Encryption::None => Dialogue { stream: Box::new(stream), unread: Vec::new() },
        Encryption::Starttls => {
            let mut plain = Dialogue { stream, unread: Vec::new() };
            plain.expect(220).await?;
            let offered = plain.greet(&notice.machine).await?;
            if !offers(&offered, "STARTTLS") {
                return Err(Failure::again("the mail server offers no STARTTLS: nothing was said".to_owned()));
            }
            plain.say("STARTTLS", 220).await?;
            if !plain.unread.is_empty() {
                // What somebody put in before TLS must not count as said within (CVE-2011-0411).
                return Err(Failure::again("the mail server said more before TLS began".to_owned()));
            }
            let stream = net::secure(tls.ok_or_else(no_tls)?, &email.server, plain.stream).await?;
            Dialogue { stream, unread: Vec::new() }
        }
    };
    if email.encryption != Encryption::Starttls {
        dialogue.expect(220).await?;
    }
    let offered = dialogue.greet(&notice.machine).await?;
    deliver(&mut dialogue, email, password, &offered, notice).await
}

async fn deliver<S: Stream>(
    dialogue: &mut Dialogue<S>,
    email: &Email,
    password: &[u8],
    offered: &str,
    notice: &Notice,
) -> Result<(), Failure> {
    if let Some((user, _)) = &email.login {
        let methods = offered.lines().filter(|line| line.to_ascii_uppercase().starts_with("AUTH"));
        if !methods.into_iter().any(|line| line.to_ascii_uppercase().split([' ', '=']).any(|word| word == "PLAIN")) {
            return Err(Failure::never("the mail server does not take a password (AUTH PLAIN)".to_owned()));
        }
        let secret = [b"\0", user.as_bytes(), b"\0", password.trim_ascii_end()].concat();
        dialogue.say(&format!("AUTH PLAIN {}", base64(&secret)), 235).await?;
    }
    dialogue.say(&format!("MAIL FROM:<{}>", email.from), 250).await?;
    for to in &email.to {
        dialogue.say(&format!("RCPT TO:<{to}>"), 250).await?;
    }
    dialogue.say("DATA", 354).await?;
    dialogue.write(message(email, notice).as_bytes()).await?;
    dialogue.say(".", 250).await?;
    // The mail is the server's now, whatever it says to this.
    let _ = dialogue.write(b"QUIT\r\n").await;
    Ok(())
}

/// A connection, and what was read of it beyond the last reply.
struct Dialogue<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S: Stream> Dialogue<S> {
    /// EHLO: the extensions, a line each.
    async fn greet(&mut self, machine: &str) -> Result<String, Failure> {
        let is_plain = !machine.is_empty() && machine.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
        let who = if is_plain { machine } else { "localhost" };
        self.write(format!("EHLO {who}\r\n").as_bytes()).await?;
        self.expect(250).await
    }

    /// A command, and the code that its reply must have.
    async fn say(&mut self, command: &str, code: u16) -> Result<String, Failure> {
        self.write(format!("{command}\r\n").as_bytes()).await?;
        self.expect(code).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::again(format!("the mail server is gone: {error}"));
        self.stream.write_all(bytes).await.map_err(failed)?;
        self.stream.flush().await.map_err(failed)
    }

    /// The texts of a reply, a line each, without codes.
    async fn expect(&mut self, wanted: u16) -> Result<String, Failure> {
        let mut texts = String::new();
        let mut read = 0;
        loop {
            let line = self.line(&mut read).await?;
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let Some(code) = code else { return Err(Failure::again("it is no mail server".to_owned())) };
            texts.push_str(line.get(4..).unwrap_or_default());
            texts.push('\n');
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            if code == wanted || wanted == 250 && code == 251 {
                return Ok(texts);
            }
            let said: String = texts.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
            let why = format!("the mail server says {code} {said}");
            // RFC 5321 §4.2.1: 5yz is for ever.
            return Err(if code >= 500 { Failure::never(why) } else { Failure::again(why) });
        }
    }

    async fn line(&mut self, read: &mut usize) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            let mut buffer = [0; 1024];
            let length = self.stream.read(&mut buffer).await;
            let length = length.map_err(|error| Failure::again(format!("the mail server is gone: {error}")))?;
            *read += length;
            if length == 0 {
                return Err(Failure::again("the mail server closed the connection".to_owned()));
            }
            if *read > MOST_REPLY {
                return Err(Failure::again("the mail server says too much".to_owned()));
            }
            self.unread.extend_from_slice(&buffer[..length]);
        }
    }
}

fn offers(extensions: &str, extension: &str) -> bool {
    extensions.lines().any(|line| line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(extension)))
}

/// The mail (RFC 5322): its body is base64, so that no line of it can be taken for a command or its end.
fn message(email: &Email, notice: &Notice) -> String {
    let date = i64::try_from(notice.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let date = date.map_or_else(String::new, |date| date.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string());
    let domain = email.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let body = format!(
        "{}\n\nEvent:     {}\nSeverity:  {}\nObject:    {}\nTime:      {}\nMachine:   {}\n",
        notice.line(),
        notice.name(),
        notice.severity().word(),
        notice.object(),
        notice.time(),
        notice.machine,
    );
    let encoded = base64(body.as_bytes());
    let lines: Vec<&str> = encoded.as_bytes().chunks(LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let headers = [
        format!("From: <{}>", email.from),
        format!("To: {}", email.to.iter().map(|to| format!("<{to}>")).collect::<Vec<_>>().join(",\r\n ")),
        format!("Subject: {}", subject(&notice.title())),
        format!("Date: {date}"),
        format!("Message-ID: <{}.{}.{}@{domain}>", notice.at_ms, notice.number(), notice.state()),
        "MIME-Version: 1.0".to_owned(),
        "Content-Type: text/plain; charset=utf-8".to_owned(),
        "Content-Transfer-Encoding: base64".to_owned(),
        // RFC 3834: so that nobody answers it automatically.
        "Auto-Submitted: auto-generated".to_owned(),
    ];
    format!("{}\r\n\r\n{}\r\n", headers.join("\r\n"), lines.join("\r\n"))
}

/// A text as a header's value: in encoded words (RFC 2047), each on a line of its own, unless it is short and plain.
fn subject(text: &str) -> String {
    if text.len() <= 2 * WORD && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic() && byte != b'=') {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD));
        words.push(format!("=?utf-8?B?{}?=", base64(word.as_bytes())));
        rest = after;
    }
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alerts::notice::tests::notice,
        config::{
            alert::{Server, Trust},
            proxy::Host,
        },
        control::event::Name,
    };

    fn email() -> Email {
        Email {
            server: Server { host: Host::Name("mail".into()), port: 25 },
            encryption: Encryption::None,
            trust: Trust { ca: None },
            login: None,
            from: "lb@example.com".into(),
            to: vec!["a@example.com".into(), "b@example.com".into()],
        }
    }

    #[test]
    fn a_mail_is_of_short_lines_and_cannot_be_ended_from_within() {
        let text = format!("down\r\n.\r\nQUIT {}", "é".repeat(300));
        let mail = message(&email(), &notice(Name::NodeDown, &text));
        let lines: Vec<&str> = mail.split("\r\n").collect();
        assert!(lines.iter().all(|line| line.len() <= 78 && *line != "." && !line.contains('\n')), "{mail}");
        assert!(mail.contains("Subject: [lb lb1] fault: node_down web/n1\r\n"), "{mail}");
        assert!(mail.contains("To: <a@example.com>,\r\n <b@example.com>\r\n"), "{mail}");
        assert!(mail.contains("Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"), "{mail}");
    }

    #[test]
    fn subjects_that_are_not_plain_are_encoded() {
        assert_eq!(subject("plain"), "plain");
        assert_eq!(subject("né"), "=?utf-8?B?bsOp?=");
        let long = subject(&"é".repeat(100));
        assert!(long.split("\r\n ").all(|word| word.len() <= 75), "{long}");
        assert!(!subject("a\r\nBcc: x@example.com").contains("Bcc"));
    }

    #[test]
    fn extensions_are_whole_words() {
        assert!(offers("mail\nSIZE 1000\nstarttls\n", "STARTTLS"));
        assert!(!offers("mail\nXSTARTTLS\nSTARTTLSX\n", "STARTTLS"));
    }

    /// A server that says these, whatever it hears.
    async fn against(said: &[&str]) -> Result<(), Failure> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let talk = async {
            let mut server = server;
            let mut heard = vec![0; 4096];
            for line in said {
                server.write_all(line.as_bytes()).await.unwrap();
                if server.read(&mut heard).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        };
        let deliver = async {
            let mut dialogue = Dialogue { stream: client, unread: Vec::new() };
            dialogue.expect(220).await?;
            let offered = dialogue.greet("lb1").await?;
            let login = Email { login: Some(("u".into(), Default::default())), ..email() };
            deliver(&mut dialogue, &login, b"p\n", &offered, &notice(Name::NodeDown, "x")).await
        };
        tokio::join!(talk, deliver).1
    }

    #[tokio::test]
    async fn what_servers_say_decides_whether_it_is_tried_again() {
        let hello = "220 hi\r\n";
        let failure = against(&[hello, "250-mail\r\n250 SIZE 1\r\n"]).await.unwrap_err();
        assert!(!failure.again && failure.why.contains("AUTH PLAIN"), "{failure:?}");
        let failure = against(&[hello, "250 AUTH LOGIN PLAIN\r\n", "535 5.7.8 no\r\n"]).await.unwrap_err();
        assert!(!failure.again && failure.why.contains("535"), "{failure:?}");
        let failure = against(&[hello, "250 AUTH PLAIN\r\n", "235 ok\r\n", "451 later\x1b[31m\r\n"]).await.unwrap_err();
        assert!(failure.again && failure.why.contains("451 later [31m"), "{failure:?}");
        let failure = against(&["HTTP/1.1 400\r\n"]).await.unwrap_err();
        assert!(failure.again && failure.why.contains("no mail server"), "{failure:?}");
        let failure = against(&[&"220-x\r\n".repeat(2000)]).await.unwrap_err();
        assert!(failure.again, "{failure:?}");
    }
}
