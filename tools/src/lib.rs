//! The `drave` executable: nodes, logs and clusters from the command line.
//!
//! A library only so that the integration tests can use its parts; nothing else depends on it. One file
//! per command in `commands`; what they share is beside them. No protocol and no storage is implemented
//! here: the node is `drave`, the client is `drave-client`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod chaos;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod connect;
pub mod errors;
pub mod exit;
pub mod history;
pub mod lines;
pub mod node_side;
pub mod output;
pub mod panics;
pub mod record_format;
pub mod script;
pub mod sim;

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use crate::cli::bench::BenchCommand;
use crate::cli::member::{LeaderCommand, MemberCommand};
use crate::cli::wal::WalCommand;
use crate::cli::{Cli, Command, HistoryCommand, LogCommand};
use crate::errors::CliError;
use crate::exit::Exit;

/// Runs one command line, tells about a failure on standard error, and says how to end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are a success; a reader that went away is none
            // of our business.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
        }
    };
    match run(cli.command) {
        Ok(()) => Exit::Success,
        Err(error) => {
            let text = error.render(output::colour_on_stderr());
            // Without a standard error there is nobody to tell; the exit code remains.
            let _ = std::io::stderr().write_all(text.as_bytes());
            error.exit
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Format(arguments) => commands::format::run(arguments),
        Command::Start(arguments) => commands::start::run(arguments),
        Command::Log(LogCommand::Create(arguments)) => commands::log::create(&arguments),
        Command::Log(LogCommand::Ls(arguments)) => commands::log::list(&arguments),
        Command::Log(LogCommand::Describe(arguments)) => commands::describe::describe(&arguments),
        Command::Log(LogCommand::Fence(arguments)) => commands::fence::run(&arguments),
        Command::Log(LogCommand::Close(arguments)) => commands::ending::close(&arguments),
        Command::Log(LogCommand::SetRetention(arguments)) => {
            commands::describe::set_retention(&arguments)
        }
        Command::Log(LogCommand::SetQuota(arguments)) => commands::describe::set_quota(&arguments),
        Command::Log(LogCommand::Delete(arguments)) => commands::ending::delete(&arguments),
        Command::Explain(arguments) => commands::explain::run(&arguments),
        Command::AppendTogether(arguments) => commands::together::run(&arguments),
        Command::CheckTail(arguments) => commands::describe::check_tail(&arguments),
        Command::Log(LogCommand::Trim(arguments)) => commands::log::trim(&arguments),
        Command::Append(arguments) => commands::append::run(&arguments),
        Command::Read(arguments) => commands::read::run(&arguments),
        Command::Tail(arguments) => commands::tail::run(&arguments),
        Command::Status(arguments) => commands::status::run(&arguments),
        Command::Member(command) => member(&command),
        Command::Leader(LeaderCommand::Transfer(arguments)) => {
            commands::leader::transfer(&arguments)
        }
        Command::Dev(arguments) => commands::dev::run(arguments),
        Command::Demo(arguments) => commands::demo::run(arguments),
        Command::Chaos(arguments) => commands::chaos::run(arguments),
        Command::History(HistoryCommand::Check(arguments)) => commands::history::check(&arguments),
        Command::Sim(arguments) => commands::sim::run(&arguments),
        Command::Bench(BenchCommand::Wal(arguments)) => commands::bench::wal(&arguments),
        Command::Bench(BenchCommand::Append(arguments)) => commands::bench::append::run(&arguments),
        Command::Bench(BenchCommand::Stability(arguments)) => {
            commands::bench::stability::run(&arguments)
        }
        Command::Bench(BenchCommand::CatchUp(arguments)) => {
            commands::bench::catch_up::run(&arguments)
        }
        Command::Bench(BenchCommand::Growth(arguments)) => commands::bench::growth::run(&arguments),
        Command::Wal(WalCommand::Ls(arguments)) => commands::wal::ls(&arguments),
        Command::Wal(WalCommand::Dump(arguments)) => commands::wal::dump(&arguments),
        Command::Wal(WalCommand::Verify(arguments)) => commands::wal::verify(&arguments),
        Command::Wal(WalCommand::Tail(arguments)) => commands::wal::tail(&arguments),
        Command::Wal(WalCommand::Repair(arguments)) => commands::wal::repair(&arguments),
    }
}

fn member(command: &MemberCommand) -> Result<(), CliError> {
    match command {
        MemberCommand::List(arguments) => commands::member::list(arguments),
        MemberCommand::Add(arguments) => commands::member::add(arguments),
        MemberCommand::Promote(arguments) => commands::member::promote(arguments),
        MemberCommand::Remove(arguments) => commands::member::remove(arguments),
        MemberCommand::Replace(arguments) => commands::member::replace::run(arguments),
    }
}
