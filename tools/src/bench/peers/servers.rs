//! The servers of another system, as a script of `benches/peers` starts them.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Three servers that run until this is dropped.
#[derive(Debug)]
pub struct PeerServers {
    script: Child,
    input: Option<ChildStdin>,
    /// What the program calls itself.
    pub version: String,
    /// HOST:PORT each.
    pub endpoints: Vec<String>,
    /// Process ids.
    pub process_ids: Vec<u32>,
}

impl PeerServers {
    /// Runs `script` with its files below `directory`, until the servers serve.
    ///
    /// # Errors
    /// What the script wrote to its standard error is there for people; this says that it ended early, or said
    /// something else than it should.
    pub fn start(script: &Path, directory: &Path) -> io::Result<Self> {
        let mut child = Command::new(script)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().expect("it is piped");
        let mut servers = Self {
            input: child.stdin.take(),
            script: child,
            version: String::new(),
            endpoints: Vec::new(),
            process_ids: Vec::new(),
        };
        for line in BufReader::new(output).lines() {
            let line = line?;
            let (word, value) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "version" => value.clone_into(&mut servers.version),
                "endpoints" => servers.endpoints = value.split(',').map(str::to_owned).collect(),
                "pids" => {
                    let ids = value.split(',').map(str::parse).collect::<Result<_, _>>();
                    servers.process_ids = ids.map_err(|_| unexpected(&line))?;
                }
                "ready" => return Ok(servers),
                _ => return Err(unexpected(&line)),
            }
        }
        Err(io::Error::other(format!("{} ended", script.display())))
    }
}

impl Drop for PeerServers {
    fn drop(&mut self) {
        // The script stops its servers when its input ends.
        self.input = None;
        let _ = self.script.wait();
    }
}

fn unexpected(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected line: {line}"),
    )
}
