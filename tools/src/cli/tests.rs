use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

fn refused(line: &str) -> ErrorKind {
    match parse(line) {
        Ok(command) => panic!("{line} was taken as {command:?}"),
        Err(error) => error.kind(),
    }
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_teaches() {
    let help = Cli::command().render_long_help().to_string();
    for part in ["Examples:", "drave demo", "NO_COLOR", "Exit codes:", "130"] {
        assert!(help.contains(part), "{part}");
    }
    for name in ["format", "start", "append", "read", "tail", "status", "dev"] {
        let mut command = Cli::command();
        let sub = command.find_subcommand_mut(name).unwrap();
        assert!(
            sub.render_long_help().to_string().contains("Examples:"),
            "{name}"
        );
    }
}

#[test]
fn members_are_numbers_with_addresses() {
    let line = "drave format --data-dir d --cluster-id c --node-id 1 --member 1=a:1 --member 2=[::1]:65535";
    let Command::Format(arguments) = parse(line).unwrap() else {
        panic!("not format")
    };
    assert_eq!(
        arguments.members,
        [(1, "a:1".to_owned()), (2, "[::1]:65535".to_owned())]
    );
    for bad in [
        "",
        "1",
        "x=a:1",
        "1=a",
        "1=:1",
        "1=a:0",
        "1=a:65536",
        "1=a:x",
    ] {
        let line = [
            "drave",
            "format",
            "--data-dir",
            "d",
            "--cluster-id",
            "c",
            "--node-id",
            "1",
            "--member",
            bad,
        ];
        let error = Cli::try_parse_from(line).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{bad:?}");
    }
    assert_eq!(
        refused("drave format --data-dir d --cluster-id c --node-id 1"),
        ErrorKind::MissingRequiredArgument
    );
}

#[test]
fn endpoints_are_a_list() {
    let line = "drave status --endpoints a:1,b:2 --endpoints c:3";
    let Command::Status(arguments) = parse(line).unwrap() else {
        panic!("not status")
    };
    assert_eq!(arguments.connect.endpoints, ["a:1", "b:2", "c:3"]);
    assert_eq!(
        refused("drave status --endpoints a:1,b"),
        ErrorKind::ValueValidation
    );
    assert_eq!(
        refused("drave status --endpoints a:1,,b:2"),
        ErrorKind::ValueValidation
    );
}

#[test]
fn appends_have_bounds() {
    let Command::Append(arguments) = parse("drave append x").unwrap() else {
        panic!("not append")
    };
    assert_eq!(
        (arguments.batch, arguments.in_flight, arguments.summary),
        (None, 64, false)
    );
    for bad in [
        "--batch 0",
        "--batch 65537",
        "--batch x",
        "--in-flight 0",
        "--in-flight 1025",
        "--timeout 0s",
        "--timeout 5",
    ] {
        assert_eq!(
            refused(&format!("drave append x {bad}")),
            ErrorKind::ValueValidation,
            "{bad}"
        );
    }
    assert_eq!(refused("drave append"), ErrorKind::MissingRequiredArgument);
    assert_eq!(
        refused("drave append x --format json"),
        ErrorKind::MissingRequiredArgument
    );
}

#[test]
fn other_refusals() {
    assert_eq!(
        refused("drave tail x --from 1 --last 2"),
        ErrorKind::ArgumentConflict
    );
    assert_eq!(
        refused("drave read x --from -1"),
        ErrorKind::UnknownArgument
    );
    assert_eq!(
        refused("drave read x --format xml"),
        ErrorKind::InvalidValue
    );
    assert_eq!(refused("drave dev --nodes 2"), ErrorKind::ValueValidation);
    assert_eq!(refused("drave frobnicate"), ErrorKind::InvalidSubcommand);
    assert_eq!(
        refused("drave log"),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    assert_eq!(
        refused("drave"),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
}
