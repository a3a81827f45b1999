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
fn a_node_is_made_to_join_or_with_members_never_both() {
    let start = "drave format --data-dir d --cluster-id c --node-id 4";
    let Command::Format(arguments) = parse(&format!("{start} --join --address a:1")).unwrap()
    else {
        panic!("not format")
    };
    assert!(arguments.join && arguments.members.is_empty());
    assert_eq!(arguments.address.as_deref(), Some("a:1"));
    for (rest, kind) in [
        ("--join", ErrorKind::MissingRequiredArgument),
        (
            "--join --address a:1 --member 1=a:1",
            ErrorKind::ArgumentConflict,
        ),
        ("--address a:1 --member 1=a:1", ErrorKind::ArgumentConflict),
        ("--address a:1", ErrorKind::MissingRequiredArgument),
        ("--join --address a", ErrorKind::ValueValidation),
    ] {
        assert_eq!(refused(&format!("{start} {rest}")), kind, "{rest}");
    }
}

#[test]
fn members_and_the_lead() {
    let line = "drave member replace 2 4 a:1 --wait 2m --timeout 3s --format json";
    let Command::Member(member::MemberCommand::Replace(arguments)) = parse(line).unwrap() else {
        panic!("not member replace")
    };
    assert_eq!((arguments.old, arguments.new), (2, 4));
    assert_eq!(arguments.address, "a:1");
    assert_eq!(arguments.wait, Duration::from_secs(120));
    assert_eq!(arguments.connect.timeout, Some(Duration::from_secs(3)));
    let Command::Member(member::MemberCommand::Promote(arguments)) =
        parse("drave member promote 4").unwrap()
    else {
        panic!("not member promote")
    };
    assert_eq!(arguments.wait, Duration::from_secs(600));
    for (line, kind) in [
        ("drave member add 4", ErrorKind::MissingRequiredArgument),
        ("drave member add 4 a", ErrorKind::ValueValidation),
        ("drave member add x a:1", ErrorKind::ValueValidation),
        ("drave member add -1 a:1", ErrorKind::UnknownArgument),
        ("drave member promote", ErrorKind::MissingRequiredArgument),
        (
            "drave member promote 4 --wait 0s",
            ErrorKind::ValueValidation,
        ),
        ("drave member remove", ErrorKind::MissingRequiredArgument),
        ("drave member remove 1 2", ErrorKind::UnknownArgument),
        (
            "drave member replace 2 4",
            ErrorKind::MissingRequiredArgument,
        ),
        ("drave leader transfer", ErrorKind::MissingRequiredArgument),
        ("drave log trim orders", ErrorKind::MissingRequiredArgument),
        (
            "drave log trim orders --before x",
            ErrorKind::ValueValidation,
        ),
    ] {
        assert_eq!(refused(line), kind, "{line}");
    }
    for line in ["drave member", "drave leader"] {
        let kind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        assert_eq!(refused(line), kind, "{line}");
    }
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
