//! `drave log fence`: takes a log over from whoever wrote to it before.

use crate::cli::log::LogFenceArgs;
use crate::connect::{self, TIMEOUT_DEFAULT, client_error};
use crate::errors::CliError;
use crate::output::print;

/// Runs the command.
///
/// # Errors
/// [`CliError`], also when there is no such log or it has a higher token.
pub fn run(arguments: &LogFenceArgs) -> Result<(), CliError> {
    connect::runtime()?.block_on(async {
        let client = connect::client(&arguments.connect, TIMEOUT_DEFAULT)?;
        let fenced = async {
            let log = client.log(&arguments.name).await?;
            match arguments.token {
                Some(token) => log.fence_at(token).await,
                None => log.fence().await,
            }
        };
        let log = fenced.await.map_err(|error| {
            client_error("cannot fence the log", &error)
                .with("log", &arguments.name)
                .next_if_unknown("fence it again: the token printed then is the one that holds")
        })?;
        eprintln!("log {} is fenced, its token is", log.name());
        print(&format!("{}\n", log.fence_token())).await
    })
}
