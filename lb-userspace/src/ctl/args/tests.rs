//! The command line as it is typed.

use super::*;

fn parse_words(line: &str) -> Result<Arguments, clap::Error> {
    parse(line.split(' ').map(OsString::from))
}

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_command_of_the_help_parses() {
    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let help = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter_map(|line| line.trim().strip_prefix("lbctl "));
        found.extend(lines.map(|line| line.split("   ").next().unwrap().to_owned()));
        command.get_subcommands().for_each(|sub| examples(sub, found));
    }
    let mut found = Vec::new();
    examples(&command(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    for example in found {
        let plain = example.split(" | ").next().unwrap().split(" > ").next().unwrap();
        let plain = plain.split(" && ").next().unwrap().replace(" -> ", " ").replace('\'', "");
        parse_words(&format!("lbctl {plain}")).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn help_begins_with_examples() {
    let help = command().render_help().to_string();
    assert!(help.find("Examples:").unwrap() < help.find("Usage:").unwrap(), "{help}");
}

#[test]
fn mistakes_are_usage_errors_that_say_what_to_write() {
    let rows = [
        ("lbctl pool set web scheduler", "KEY=VALUE"),
        ("lbctl node drain web/n1 --for 5m --persist", "cannot be used with"),
        ("lbctl apply new.toml --confirm soon", "5m"),
        ("lbctl conn ls --protocol sctp", "tcp or udp"),
        ("lbctl map dump maglev", "--vs"),
        ("lbctl stats --watch --interval 1ms", "at least 100ms"),
        ("lbctl stats --interval fast", "500ms"),
        ("lbctl statsu", "status"),
    ];
    for (line, hint) in rows {
        let error = parse_words(line).unwrap_err();
        assert!(error.use_stderr() && error.to_string().contains(hint), "{line}: {error}");
    }
}

#[test]
fn a_node_filter_may_name_its_pool() {
    let Command::Conn(Conn::Ls(arguments)) = parse_words("lbctl conn ls --node web/n1").unwrap().command else {
        panic!("another command");
    };
    let filter = arguments.filter();
    assert_eq!((filter.pool.as_deref(), filter.node.as_deref()), (Some("web"), Some("n1")));
}
