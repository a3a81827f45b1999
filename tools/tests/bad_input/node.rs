//! The node under attack: started as any other, and looked at from outside after every abuse.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use drave_batch::wire::ErrorCode;
use drave_client::{Client, ReadLimits};
use drave_tools::cli::Io;
use drave_tools::cluster::{Cluster, ClusterOptions};
use tokio::runtime::Builder;

use crate::common::{DRAVE, LIMIT, TestCluster};
use crate::wire::Raw;

/// What the resident memory of a node may grow by over all that one test does to it. Most of it is what
/// an honest client may cause as well: receive buffers, send queues, mapped segments.
const GROWTH_KIB_MAX: u64 = 32 << 10;

/// How long a node under abuse, or just after it, may keep an honest client waiting.
const HONEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at something that tells nobody when it changes.
const PAUSE: Duration = Duration::from_millis(10);

/// The handshake timeout of every node here.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(300);

/// The log that honest records go to.
const HONEST_LOG: &str = "honest";

/// One node, node 1 of its cluster, with the marks that it is measured against.
pub(crate) struct Victim {
    pub(crate) test: TestCluster,
    pid: u32,
    resident_kib: u64,
    honest_count: u64,
}

impl Victim {
    /// A cluster of one node.
    pub(crate) fn start() -> Self {
        Self::start_on(Io::Auto)
    }

    /// A cluster of one node on this I/O engine.
    pub(crate) fn start_on(io: Io) -> Self {
        Self::start_as(1, io, "", |_| DRAVE.to_owned())
    }

    /// A cluster of three; node 1 is the one that is abused.
    pub(crate) fn start_in_three() -> Self {
        Self::start_as(3, Io::Auto, "", |_| DRAVE.to_owned())
    }

    /// A cluster of one node that may have 64 files open. `limits` are more lines of that section of its
    /// configuration.
    pub(crate) fn start_with_few_files(io: Io, limits: &str) -> Self {
        let victim = Self::start_as(1, io, limits, |dir| {
            let program = dir.join("few-files").into_os_string();
            let program = program.into_string().unwrap();
            write_program(&program, r#"ulimit -n 64; exec "$0" "$@""#);
            program
        });
        let limits = fs::read_to_string(format!("/proc/{}/limits", victim.pid)).unwrap();
        let open_files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let numbers: Vec<&str> = open_files.unwrap().split_whitespace().skip(3).collect();
        assert_eq!(numbers[..2], ["64", "64"], "{limits}");
        victim
    }

    fn start_as(
        node_count: u64,
        io: Io,
        limits: &str,
        program: impl FnOnce(&Path) -> String,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("drave.toml");
        let timeout_ms = HANDSHAKE_TIMEOUT.as_millis();
        let text = format!(
            "[wal]\nsegment_bytes = \"8MiB\"\n[limits]\nhandshake_timeout = \"{timeout_ms}ms\"\n{limits}\n"
        );
        fs::write(&config, text).unwrap();
        let options = ClusterOptions {
            node_count,
            io,
            config: Some(config),
            cluster_id: "test".to_owned(),
            ..ClusterOptions::new(program(dir.path()), dir.path().join("cluster"))
        };
        let mut cluster = Cluster::prepare(options).unwrap();
        cluster.start_all().unwrap();
        let client = Client::builder()
            .endpoints(cluster.endpoints())
            .request_timeout(LIMIT);
        let mut test = TestCluster {
            client: client.build().unwrap(),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            cluster,
            dir,
        };
        test.leader();
        let pid = test.cluster.pid(1).unwrap();
        let mut victim = Self {
            test,
            pid,
            resident_kib: 0,
            honest_count: 0,
        };
        victim.serves_honest_clients();
        victim.resident_kib = victim.resident_now_kib();
        victim
    }

    pub(crate) fn address(&self) -> &str {
        self.test.cluster.address(1)
    }

    /// A new connection without a word on it.
    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// A new connection after a client's handshake.
    pub(crate) fn connect_client(&self) -> Raw {
        let mut raw = self.connect();
        raw.shake_hands();
        raw
    }

    /// The number of a log of this name, which is made if it is not there.
    pub(crate) fn log_id(&self, name: &str) -> u64 {
        let info = self.test.client.create_log(name, true);
        self.test.runtime.block_on(info).unwrap().log_id
    }

    /// The term of node 1 as it tells it.
    pub(crate) fn term(&self) -> u64 {
        let status = self.test.runtime.block_on(self.test.client.status());
        let status = status.unwrap();
        let node = status.nodes.iter().find(|node| node.node_id == Some(1));
        node.unwrap().term.unwrap()
    }

    /// The same process serves honest clients, and its memory is within its bound.
    #[track_caller]
    pub(crate) fn is_sound(&mut self) {
        let ended = self.test.cluster.take_ended().unwrap();
        assert!(ended.is_empty(), "the node ended: {ended:?}");
        assert_eq!(self.test.cluster.pid(1), Some(self.pid));
        self.serves_honest_clients();
        // Connections that were closed a moment ago may still be on their way out.
        let bound_kib = self.resident_kib + GROWTH_KIB_MAX;
        let deadline = Instant::now() + HONEST_TIMEOUT;
        let mut resident_kib = self.resident_now_kib();
        while resident_kib > bound_kib && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            resident_kib = self.resident_now_kib();
        }
        eprintln!(
            "resident: {} KiB before, {resident_kib} KiB now",
            self.resident_kib
        );
        assert!(
            resident_kib <= bound_kib,
            "resident memory grew from {} to {resident_kib} KiB",
            self.resident_kib
        );
    }

    /// A client that was never there before appends a record and reads it back.
    #[track_caller]
    fn serves_honest_clients(&mut self) {
        let client = Client::builder()
            .endpoints(self.test.cluster.endpoints())
            .cluster_id("test")
            .request_timeout(HONEST_TIMEOUT);
        let client = client.build().unwrap();
        let record = format!("honest record {}", self.honest_count);
        self.honest_count += 1;
        let served = self.test.runtime.block_on(async {
            client.create_log(HONEST_LOG, true).await?;
            let log = client.log(HONEST_LOG).await?;
            let ack = log.append(&record).await?;
            let chunk = log.read(ack.first_seq, ReadLimits::default()).await?;
            Ok::<_, drave_client::ClientError>((ack, chunk))
        });
        let (ack, chunk) = match served {
            Ok(served) => served,
            Err(error) => panic!("an honest client is not served: {error}\n{error:?}"),
        };
        // A retry keeps its record single, so the seqs count the records.
        assert_eq!(ack.first_seq + 1, self.honest_count);
        let payloads: Vec<&[u8]> = chunk.records.iter().map(|r| &r.payload[..]).collect();
        assert_eq!(payloads, [record.as_bytes()]);
    }

    fn resident_now_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.unwrap().split_whitespace().nth(1);
        number.unwrap().parse().unwrap()
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.test.cluster.log_path(1)
    }

    /// Bytes in the node's log so far, to look behind.
    pub(crate) fn log_mark(&self) -> usize {
        usize::try_from(fs::metadata(self.log_path()).unwrap().len()).unwrap()
    }

    /// Waits for a line in the node's log, behind `mark`, that names `code`.
    #[track_caller]
    pub(crate) fn log_names(&self, mark: usize, code: ErrorCode) {
        self.log_says(mark, &format!("code={code}"));
    }

    /// Waits for a line in the node's log, behind `mark`, with `part` in it.
    #[track_caller]
    pub(crate) fn log_says(&self, mark: usize, part: &str) {
        let deadline = Instant::now() + HONEST_TIMEOUT;
        loop {
            let log = fs::read(self.log_path()).unwrap();
            let log = String::from_utf8_lossy(&log[mark..]);
            if log.lines().any(|line| line.contains(part)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no line with {part:?} in the node's log:\n{log}"
            );
            std::thread::sleep(PAUSE);
        }
    }
}

/// Writes a program that runs `script` with [`DRAVE`] as its name. A shell writes the file: if it were
/// open for writing in this process, another test's child could inherit it, and starting it would fail.
fn write_program(path: &str, script: &str) {
    let script = format!("#!/bin/sh\nset -- '{DRAVE}' \"$@\"\nexec /bin/sh -c '{script}' \"$@\"\n");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"cat > "$0" && chmod 755 "$0""#, path]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}
