//! `drave format`: makes a data directory with a fresh identity.

use drave::store::FormatRequest;

use crate::cli::FormatArgs;
use crate::errors::CliError;
use crate::node_side;

/// Runs the command.
///
/// # Errors
/// [`CliError`]; a directory that was not empty is left as it was.
pub fn run(arguments: FormatArgs) -> Result<(), CliError> {
    let request = FormatRequest {
        data_dir: arguments.data_dir,
        cluster_id: arguments.cluster_id,
        node_id: arguments.node_id,
        // A node that joins names itself alone.
        members: match arguments.address {
            Some(address) => vec![(arguments.node_id, address)],
            None => arguments.members,
        },
        join: arguments.join,
    };
    let identity = node_side::format(&request)?;
    eprintln!(
        "formatted {}: node {} of cluster {}, incarnation {:032x}",
        request.data_dir.display(),
        identity.node_id,
        identity.cluster_id,
        identity.incarnation
    );
    eprintln!(
        "next: drave start --data-dir {}",
        request.data_dir.display()
    );
    if request.join {
        eprintln!(
            "then: drave member add {} {}   (or: drave member replace OLD {0} {1})",
            identity.node_id, identity.address
        );
    }
    Ok(())
}
