//! Arguments about requests of the L7 proxy: which ended ones are listed, and which one is thought of.

use std::{net::IpAddr, time::Duration};

use clap::Args;

use crate::control::proxy::{recent::Filter, trace::UrlTraceRequest};

/// Which requests: with `--l7` only.
#[derive(Debug, Default, Args)]
pub struct RequestArguments {
    /// Requests of the L7 proxy that ended lately, newest first
    #[arg(long)]
    pub l7: bool,
    /// With this status, a range of them (500-599), or a class (5xx)
    #[arg(long, value_name = "STATUS", value_parser = statuses, requires = "l7")]
    status: Option<(u16, u16)>,
    /// Whose URL contains this
    #[arg(long, value_name = "TEXT", requires = "l7")]
    path: Option<String>,
    /// For this host
    #[arg(long, value_name = "HOST", requires = "l7")]
    host: Option<String>,
    /// That this rule matched last
    #[arg(long, value_name = "RULE", requires = "l7")]
    rule: Option<String>,
    /// That took longer than this
    #[arg(long, value_name = "TIME", value_parser = time, requires = "l7")]
    slower_than: Option<Duration>,
    /// That ended before their time
    #[arg(long, requires = "l7")]
    failed: bool,
    /// The one of this id, as logs have it
    #[arg(long, value_name = "ID", requires = "l7")]
    id: Option<String>,
}

impl RequestArguments {
    /// Adds what these ask for to a filter.
    pub(super) fn onto(self, filter: Filter) -> Filter {
        Filter {
            min_status: self.status.map(|(from, _)| from),
            max_status: self.status.map(|(_, to)| to),
            url: self.path,
            host: self.host,
            rule: self.rule,
            min_total_us: self.slower_than.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            failed: self.failed.then_some(true),
            request_id: self.id,
            ..filter
        }
    }
}

/// What is said of a traced URL beside itself.
#[derive(Debug, Default, Args)]
pub struct UrlArguments {
    /// URL: the method; without it GET
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// URL: a header field, as 'Name: value'; may be repeated
    #[arg(long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(String, String)>,
    /// URL: the client's address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// URL: the virtual server, when the URL does not say which
    #[arg(long, value_name = "NAME")]
    vs: Option<String>,
}

impl UrlArguments {
    /// The request to lbd.
    #[must_use]
    pub fn request(self, url: String) -> UrlTraceRequest {
        let Self { method, headers, client, vs } = self;
        UrlTraceRequest { url, method, headers, client, virtual_server: vs }
    }
}

/// `404`, `500-599`, `5xx`.
fn statuses(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|status| *status < 1000);
    let range = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => number(class).filter(|class| *class < 10).map(|class| (class * 100, class * 100 + 99)),
        (None, Some((from, to))) => number(from).zip(number(to)),
        (None, None) => number(text).map(|status| (status, status)),
    };
    range.filter(|(from, to)| from <= to).ok_or_else(|| "say 404, 500-599 or 5xx".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "say a time like 500ms or 2s".to_owned())?;
    Duration::try_from(span).map_err(|_| "a time is not negative".to_owned())
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| "write it as 'Name: value'".to_owned())?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_in_three_ways() {
        assert_eq!(["404", "500-599", "5xx"].map(statuses), [Ok((404, 404)), Ok((500, 599)), Ok((500, 599))]);
        for wrong in ["x", "600-500", "xx", "10xx", "1000"] {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }
}
