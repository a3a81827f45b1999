//! The `drave` executable; everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    drave_tools::main(std::env::args_os()).into()
}
