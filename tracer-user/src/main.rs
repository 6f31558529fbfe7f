//! Arguments to verb, errors to exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracer_user::cli::main(std::env::args_os())
}
