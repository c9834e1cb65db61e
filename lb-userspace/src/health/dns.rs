//! DNS: one query over UDP, over TCP when the answer was cut (RFC 1035 §4.2, RFC 7766).

use std::{net::SocketAddr, str::FromStr};

use hickory_resolver::proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

use super::{
    machine::Outcome,
    probe::{self, Verdict, failed},
    tcp::{self, Dialogue},
    udp,
};
use crate::control::probe::{self as wanted, Dns};

/// Room for an answer over UDP, in bytes.
const MOST_ANSWER: usize = 4096;
/// Answers to other questions (late ones, forged ones) that are passed over.
const MOST_STRAY: usize = 64;
/// TC, in the third byte (RFC 1035 §4.1.1).
const TRUNCATED: u8 = 2;

/// Asks, and judges the answer.
pub(super) async fn check(address: SocketAddr, dns: &Dns) -> Verdict {
    let query = query(dns)?;
    let question = query.to_vec().map_err(|error| Outcome::Untested(format!("no query can be made: {error}")))?;
    let answer = match over_udp(address, &question, &query).await? {
        Some(answer) => answer,
        None => over_tcp(address, &question, &query).await?,
    };
    judge(dns, &answer)
}

fn query(dns: &Dns) -> Result<Message, Outcome> {
    let name = Name::from_str(&dns.name);
    let mut name = name.map_err(|error| Outcome::Untested(format!("{:?} cannot be asked for: {error}", dns.name)))?;
    name.set_fqdn(true);
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record(dns.record)));
    Ok(message)
}

/// `None`: the answer was cut.
async fn over_udp(address: SocketAddr, question: &[u8], query: &Message) -> Result<Option<Message>, Outcome> {
    let socket = udp::open(address).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MOST_ANSWER];
    for _ in 0..MOST_STRAY {
        let length = socket.recv(&mut buffer).await?;
        let bytes = &buffer[..length];
        // Whoever does not know the number has not seen the question.
        if bytes.get(..2) == Some(&query.metadata.id.to_be_bytes()) {
            let cut = bytes.get(2).is_some_and(|flags| flags & TRUNCATED != 0);
            return if cut { Ok(None) } else { read(bytes, query).map(Some) };
        }
    }
    failed(format!("sent {MOST_STRAY} answers to other questions"))
}

async fn over_tcp(address: SocketAddr, question: &[u8], query: &Message) -> Result<Message, Outcome> {
    let mut dialogue = Dialogue::new(tcp::open(address, None, "").await?);
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX).to_be_bytes();
    dialogue.send(&[&length, question].concat()).await?;
    let framed = |bytes: &[u8]| {
        let length = usize::from(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
        Some((2 + length, bytes.get(2..2 + length)?.to_vec()))
    };
    match dialogue.until("an answer over TCP", framed).await? {
        Some(bytes) => read(&bytes, query),
        None => dialogue.closed("an answer over TCP"),
    }
}

fn read(bytes: &[u8], query: &Message) -> Result<Message, Outcome> {
    let answer = match Message::from_vec(bytes) {
        Ok(answer) => answer,
        Err(error) => return failed(format!("the answer is no DNS message: {error}")),
    };
    let belongs = answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        // Some leave the question out of a refusal.
        && (answer.queries.is_empty() || answer.queries == query.queries);
    if belongs { Ok(answer) } else { failed("the answer does not belong to the question") }
}

fn judge(dns: &Dns, answer: &Message) -> Verdict {
    let code = answer.metadata.response_code;
    if code != rcode(dns.rcode) {
        return failed(format!("response code {code}"));
    }
    let Some(wanted) = &dns.answer else { return Ok(()) };
    let of_type = answer.answers.iter().filter(|answer| answer.record_type() == record(dns.record));
    let values: Vec<String> = of_type.map(|answer| normal(&value(&answer.data))).collect();
    if values.contains(&normal(wanted)) {
        return Ok(());
    }
    if values.is_empty() {
        return failed("no such record in the answer");
    }
    failed(format!("the answer is {}", probe::repeat(values.join(", ").as_bytes())))
}

/// As `dig +short` prints it, but for quotes.
fn value(data: &RData) -> String {
    data.to_string().replace('"', "")
}

/// Names are alike whatever their case, and with or without the last dot (RFC 1035 §2.3.3).
fn normal(value: &str) -> String {
    value.trim().trim_end_matches('.').to_ascii_lowercase()
}

fn record(record: wanted::RecordType) -> RecordType {
    match record {
        wanted::RecordType::A => RecordType::A,
        wanted::RecordType::Aaaa => RecordType::AAAA,
        wanted::RecordType::Cname => RecordType::CNAME,
        wanted::RecordType::Mx => RecordType::MX,
        wanted::RecordType::Ns => RecordType::NS,
        wanted::RecordType::Ptr => RecordType::PTR,
        wanted::RecordType::Soa => RecordType::SOA,
        wanted::RecordType::Srv => RecordType::SRV,
        wanted::RecordType::Txt => RecordType::TXT,
    }
}

fn rcode(rcode: wanted::ResponseCode) -> ResponseCode {
    match rcode {
        wanted::ResponseCode::NoError => ResponseCode::NoError,
        wanted::ResponseCode::NxDomain => ResponseCode::NXDomain,
        wanted::ResponseCode::Refused => ResponseCode::Refused,
    }
}
