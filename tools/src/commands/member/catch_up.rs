//! Waits until a learner has caught up, and shows how far it is.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use drave_batch::wire::ErrorCode;
use drave_client::{Client, Member, MemberRole, Members};
use indicatif::{ProgressBar, ProgressStyle};

use super::{members, view};
use crate::errors::CliError;
use crate::exit::Exit;
use crate::output::thousands;

/// How often the members are asked for; the leader tells nobody when a node has caught up.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Between two lines where there is no terminal to write over.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// One line that changes on a terminal, else a line now and then.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last: Option<(Instant, String)>,
}

impl Progress {
    /// Nothing is shown yet.
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg}");
            bar.set_style(style.expect("the template is constant"));
            bar
        });
        Self { bar, last: None }
    }

    fn show(&mut self, line: String, is_last: bool) {
        if let Some(bar) = self.bar.take_if(|_| is_last) {
            // The last word stays on the terminal, and what is said from then on.
            bar.finish_and_clear();
        }
        if let Some(bar) = &self.bar {
            bar.set_message(line);
            bar.tick();
            return;
        }
        let now = Instant::now();
        let due = self.last.as_ref().is_none_or(|(shown_at, shown)| {
            *shown != line && (is_last || now >= *shown_at + LINE_INTERVAL)
        });
        if due {
            eprintln!("{line}");
            self.last = Some((now, line));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(members: &Members, member: &Member) -> String {
    let state = if view::is_silent(members, member) {
        "not heard of"
    } else if member.is_caught_up {
        "caught up"
    } else {
        "catching up"
    };
    format!(
        "node {}: match {}, lag {}, {state}",
        member.node_id,
        thousands(member.match_index),
        thousands(member.lag_entries),
    )
}

/// Waits until `node_id` may be promoted or votes already; gives the members as they are then.
///
/// # Errors
/// [`CliError`] at the deadline, without a leader, or when it is no member.
pub(super) async fn catch_up(
    client: &Client,
    node_id: u64,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<Members, CliError> {
    loop {
        let listed = members(client).await?;
        let Some(member) = listed.member(node_id) else {
            return Err(CliError::new(Exit::NotFound, "the node is not a member")
                .code(ErrorCode::MemberUnknown)
                .with("node", node_id)
                .effect("nothing was changed")
                .next("drave member list shows the members; drave member add makes new ones"));
        };
        let is_voter = member.role == Some(MemberRole::Voter);
        // One that had caught up and is silent now would be one more failure as a voter.
        let done = is_voter || member.is_caught_up && !view::is_silent(&listed, member);
        let shown = line(&listed, member);
        if !is_voter {
            progress.show(shown.clone(), done);
        }
        if done {
            return Ok(listed);
        }
        if Instant::now() >= deadline {
            let summary = format!("node {node_id} has not caught up in time");
            return Err(CliError::new(Exit::Unavailable, summary)
                .code(ErrorCode::NotCaughtUp)
                .why(shown)
                .effect("it stays a learner, and goes on catching up")
                .next("run the same command again, with a longer --wait"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
