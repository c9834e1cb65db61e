//! `lbctl`: see `lb::ctl`.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    lb::ctl::run(env::args_os())
}
