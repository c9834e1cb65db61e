//! Servers that speak first: the greeting is read, leave is taken, and the answer to that is awaited, so that a server that
//! greets and then does nothing is not taken for a sound one.

use std::net::SocketAddr;

use super::{
    machine::Outcome,
    probe::{self, Verdict, failed},
    tcp::{self, Dialogue},
    tls::Client,
};
use crate::control::probe::Greeting;

/// Reads and takes leave.
pub(super) async fn check(address: SocketAddr, greeting: Greeting, tls: Option<&Client>) -> Verdict {
    let io = tcp::open(address, tls, &address.ip().to_string()).await?;
    let mut dialogue = Dialogue::new(io);
    let (look, greeted, leave, left): (Look, &[&str], &[u8], &[&str]) = match greeting {
        Greeting::Smtp | Greeting::Ftp => (reply, &["220"], b"QUIT\r\n", &["221"]),
        Greeting::Pop3 => (line, &["+OK"], b"QUIT\r\n", &["+OK"]),
        Greeting::Imap => (line, &["* OK", "* PREAUTH"], b"lb LOGOUT\r\n", &["lb OK", "* BYE"]),
    };
    match dialogue.until("a greeting", look).await? {
        Some(said) => begins(&said, greeted, "greeting")?,
        None => return dialogue.closed("a greeting"),
    }
    dialogue.send(leave).await?;
    match dialogue.until("an answer to the leave-taking", look).await {
        Ok(Some(said)) => begins(&said, left, "answer to the leave-taking"),
        // Some close at once, and some abruptly: they have heard it.
        Ok(None) => Ok(()),
        Err(Outcome::Failed(why)) if why == "connection reset" => Ok(()),
        Err(outcome) => Err(outcome),
    }
}

/// Finds what is to be judged, and where it ends.
type Look = fn(&[u8]) -> Option<(usize, Vec<u8>)>;

fn begins(said: &[u8], wanted: &[&str], what: &str) -> Verdict {
    let fits =
        |wanted: &&str| said.get(..wanted.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(wanted.as_bytes()));
    if wanted.iter().any(fits) {
        return Ok(());
    }
    failed(format!("the {what} is {}", probe::repeat(said)))
}

/// The first line.
fn line(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((end + 1, bytes[..end].to_vec()))
}

/// The last line of a reply of one or several (RFC 5321 §4.2.1, RFC 959 §4.2): the others have a `-` behind the code, or,
/// with FTP, anything.
fn reply(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut start = 0;
    let mut code: Option<Vec<u8>> = None;
    loop {
        let (length, said) = line(&bytes[start..])?;
        start += length;
        let begins_by_code = said.len() >= 3 && said[..3].iter().all(u8::is_ascii_digit);
        let continues = match &code {
            None => begins_by_code && said.get(3) == Some(&b'-'),
            Some(code) => !(said.starts_with(code) && said.get(3) != Some(&b'-')),
        };
        if !continues {
            return Some((start, said));
        }
        code.get_or_insert_with(|| said[..3].to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_the_code_stands_alone() {
        for (text, end, last) in [
            ("220 hello\r\nmore", 11, "220 hello\r"),
            ("220-one\r\n220-two\r\n220 three\r\n", 29, "220 three\r"),
            ("220-one\n anything\n221 not yet\n220\n", 34, "220"),
            ("554 go away\r\n", 13, "554 go away\r"),
            ("garbage\n", 8, "garbage"),
            ("\n", 1, ""),
        ] {
            assert_eq!(reply(text.as_bytes()), Some((end, last.as_bytes().to_vec())), "{text:?}");
            for cut in 0..end {
                assert_eq!(reply(&text.as_bytes()[..cut]), None, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn greetings_are_judged_by_their_beginning() {
        assert_eq!(begins(b"* ok ready", &["* OK", "* PREAUTH"], "greeting"), Ok(()));
        let wrong = begins(b"* BYE full", &["* OK"], "greeting");
        assert_eq!(wrong, Err(Outcome::Failed("the greeting is \"* BYE full\"".into())));
        assert!(begins(b"+O", &["+OK"], "greeting").is_err());
    }
}
