//! `drave leader transfer`: hands the lead to another voter.

use serde::Serialize;

use crate::cli::ResultFormat;
use crate::cli::member::LeaderTransferArgs;
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::print;

/// What is printed; the JSON keys are a promise.
#[derive(Debug, Serialize)]
struct View {
    leader_id: u64,
    term: u64,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`] when the other does not lead in the end, or that is unknown.
pub fn transfer(arguments: &LeaderTransferArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let done = client.transfer_leader(arguments.node_id).await;
        let leads = done.map_err(|error| {
            client_error("the lead was not handed over", &error)
                .with("to", format!("node {}", arguments.node_id))
                .next_if_unknown("`drave status` shows who leads; asking again is safe")
        })?;
        let view = View {
            leader_id: leads.leader_id,
            term: leads.term,
        };
        print(&render(&view, arguments.format)).await
    })
}

fn render(view: &View, format: ResultFormat) -> String {
    match format {
        ResultFormat::Table => format!("leader node {}  term {}\n", view.leader_id, view.term),
        ResultFormat::Json => {
            let mut text =
                serde_json::to_string_pretty(view).expect("plain fields into memory cannot fail");
            text.push('\n');
            text
        }
    }
}
