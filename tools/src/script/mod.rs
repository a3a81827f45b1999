//! Text scripts over real Raft cores: the protocol's corner cases, one scenario a file.
//!
//! A script decides everything: which timer fires, which message arrives and when, which part of which
//! disk is flushed, who crashes. Nothing happens by itself. After every input the node's own invariants
//! are checked, after every command those of the cluster (`oracle`). One handler per command
//! (`commands`), one per expectation (`expect`); docs/scripts.md describes both.
//!
//! Does not test: replica, log files, real clocks, real network. Those are the simulator's.

mod arguments;
mod commands;
mod disk;
mod dump;
mod expect;
mod fault;
mod oracle;
mod pool;
mod scenarios;
mod world;

use crate::panics::caught;

use arguments::Arguments;
use fault::Fault;
use world::World;

pub use fault::Failure;
pub use scenarios::{SCENARIOS, Scenario};

/// Runs every scenario; the first that fails ends it.
///
/// # Errors
/// What failed, where, and how the nodes stood.
pub fn run_all() -> Result<(), Box<Failure>> {
    SCENARIOS
        .iter()
        .try_for_each(|scenario| run(&scenario.file(), scenario.text))
}

/// Runs one script. `file` is for messages only.
///
/// # Errors
/// What failed, where, and how the nodes stood.
pub fn run(file: &str, text: &str) -> Result<(), Box<Failure>> {
    let mut world = World::new();
    let mut runner = Runner {
        file,
        refusal: None,
        line: 1,
        command: String::new(),
    };
    let story = text.lines().next().unwrap_or_default();
    if !story.starts_with("# ") {
        let fault = Fault::script("the first line tells the story: # ...");
        return Err(runner.failure(&world, fault));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(fault) = runner.unexpected_refusal(line) {
            return Err(runner.failure(&world, fault));
        }
        runner.line = number;
        line.clone_into(&mut runner.command);
        // A core that finds safety gone stops its node by a panic.
        let result = caught(|| runner.step(&mut world, line)).unwrap_or_else(|panic| {
            Err(Fault::invariant(format!(
                "the core stopped the node: {panic}"
            )))
        });
        if let Err(fault) = result {
            return Err(runner.failure(&world, fault));
        }
    }
    match runner.unexpected_refusal("") {
        Ok(()) => Ok(()),
        Err(fault) => Err(runner.failure(&world, fault)),
    }
}

/// `stops "contradicts" deliver 1->2 append#3`: the command makes a core stop its node, with this
/// text. What is left of the world is of no use; no command may follow.
fn expect_stop(world: &mut World, arguments: &mut Arguments) -> Result<(), Fault> {
    let expected = arguments.word("a part of the text")?;
    let found = match caught(|| commands::run(world, arguments)) {
        Ok(Ok(())) => "the node goes on".to_owned(),
        Ok(Err(fault)) => return Err(fault),
        Err(panic) => panic,
    };
    if found.contains(&expected) {
        return Ok(());
    }
    Err(Fault::Expectation {
        expected: format!("the node stops with {expected:?}"),
        found,
    })
}

/// Where in a script one is.
struct Runner<'a> {
    file: &'a str,
    line: usize,
    command: String,
    /// The last command was refused with this, and nobody has expected it yet.
    refusal: Option<String>,
}

impl Runner<'_> {
    fn step(&mut self, world: &mut World, line: &str) -> Result<(), Fault> {
        let mut arguments = Arguments::parse(line)?;
        if arguments.peek() == Some("expect") {
            arguments.take();
            if arguments.keyword("error") {
                return self.expect_error(&mut arguments);
            }
            return expect::run(world, &mut arguments);
        }
        if arguments.peek() == Some("stops") {
            arguments.take();
            return expect_stop(world, &mut arguments);
        }
        match commands::run(world, &mut arguments) {
            Err(Fault::Refused(text)) => self.refusal = Some(text),
            result => result?,
        }
        world.check_cluster()
    }

    fn expect_error(&mut self, arguments: &mut Arguments) -> Result<(), Fault> {
        let expected = arguments.word("a part of the error's text")?;
        arguments.end()?;
        let found = self.refusal.take().unwrap_or_else(|| "no error".to_owned());
        if found.contains(&expected) {
            return Ok(());
        }
        Err(Fault::Expectation {
            expected: format!("an error with {expected:?}"),
            found,
        })
    }

    fn unexpected_refusal(&mut self, next: &str) -> Result<(), Fault> {
        if next.starts_with("expect error") {
            return Ok(());
        }
        match self.refusal.take() {
            None => Ok(()),
            Some(found) => Err(Fault::Expectation {
                expected: "no error".to_owned(),
                found,
            }),
        }
    }

    fn failure(&self, world: &World, fault: Fault) -> Box<Failure> {
        let (expected, found) = match fault {
            Fault::Script(text) => ("a script that makes sense".to_owned(), text),
            Fault::Refused(text) => ("no error".to_owned(), text),
            Fault::Expectation { expected, found } => (expected, found),
            Fault::Invariant(text) => ("what always holds".to_owned(), text),
        };
        Box::new(Failure {
            file: self.file.to_owned(),
            line: self.line,
            command: self.command.clone(),
            expected,
            found,
            dump: dump::dump(world),
        })
    }
}
