//! The binary `forebay`; everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay_gateway::cli::main()
}
