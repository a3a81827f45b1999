//! Where output goes: data on standard output through a thread of its own, talk on standard error.
//!
//! A reader that is slow to take the data (a pager, a full pipe) must not stop the client's timers and
//! acknowledgements, so no command writes data on the thread that runs the client. Nothing here knows
//! what the data is.

use std::io::{self, IsTerminal, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use tokio::sync::mpsc;

use crate::errors::CliError;

/// Chunks that may wait for a slow reader of standard output.
const CHUNKS_WAITING_MAX: usize = 4;

/// A chunk is handed over when it has this many bytes.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Data on its way to standard output (or to another writer, in tests), in order.
///
/// Dropping it loses what was not [`flush`](Self::flush)ed; [`finish`](Self::finish) waits until
/// everything was written.
#[derive(Debug)]
pub struct DataOutput {
    chunk: Vec<u8>,
    sender: Option<mpsc::Sender<Vec<u8>>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl DataOutput {
    /// To standard output.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// To `target`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(mut target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(CHUNKS_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                while let Some(chunk) = chunks.blocking_recv() {
                    target.write_all(&chunk)?;
                    target.flush()?;
                }
                Ok(())
            })?;
        Ok(Self {
            chunk: Vec::with_capacity(CHUNK_BYTES),
            sender: Some(sender),
            writer: Some(writer),
        })
    }

    /// The chunk being filled; call [`settle`](Self::settle) after each record.
    pub fn chunk(&mut self) -> &mut Vec<u8> {
        &mut self.chunk
    }

    /// Hands the chunk over once it is full.
    ///
    /// # Errors
    /// [`CliError`] when the writer failed; see [`CliError::stdout`].
    pub async fn settle(&mut self) -> Result<(), CliError> {
        if self.chunk.len() < CHUNK_BYTES {
            Ok(())
        } else {
            self.flush().await
        }
    }

    /// Hands everything over. Waits while the reader is behind.
    ///
    /// # Errors
    /// [`CliError`] when the writer failed; see [`CliError::stdout`].
    pub async fn flush(&mut self) -> Result<(), CliError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        let sent = match &self.sender {
            Some(sender) => sender.send(chunk).await.is_ok(),
            None => false,
        };
        if sent {
            Ok(())
        } else {
            Err(CliError::stdout(&self.failure()))
        }
    }

    /// Writes everything and waits for it.
    ///
    /// # Errors
    /// [`CliError`] when the writer failed; see [`CliError::stdout`].
    pub async fn finish(mut self) -> Result<(), CliError> {
        self.flush().await?;
        self.sender = None;
        match self.join() {
            None | Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(CliError::stdout(&error)),
        }
    }

    fn join(&mut self) -> Option<io::Result<()>> {
        let writer = self.writer.take()?;
        Some(
            writer
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the output thread panicked"))),
        )
    }

    fn failure(&mut self) -> io::Error {
        self.sender = None;
        match self.join() {
            Some(Err(error)) => error,
            _ => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

/// The future's output if it is there already; the future can be awaited on.
pub async fn at_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// Whether text for people on standard error may be coloured.
#[must_use]
pub fn colour_on_stderr() -> bool {
    colour_allowed() && io::stderr().is_terminal()
}

/// Whether text for people on standard output may be coloured.
#[must_use]
pub fn colour_on_stdout() -> bool {
    colour_allowed() && io::stdout().is_terminal()
}

fn colour_allowed() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Paints words for a terminal, or leaves them as they are.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Whether escape codes are written.
    pub colour: bool,
}

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// What matters.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What does not.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// What is good.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What is bad.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }
}

/// A table without lines: columns two spaces apart, like `ps` and `df` print them.
#[must_use]
pub fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    table
}

/// The table's lines without spaces at their ends, each with its newline.
#[must_use]
pub fn render_table(mut table: Table) -> String {
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints `text` to standard output and waits until it is written.
///
/// # Errors
/// [`CliError`] when it cannot be written; see [`CliError::stdout`].
pub async fn print(text: &str) -> Result<(), CliError> {
    let mut output = DataOutput::stdout().map_err(|error| CliError::stdout(&error))?;
    output.chunk().extend_from_slice(text.as_bytes());
    output.finish().await
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with three digits or so: `870 us`, `1.9 ms`, `38 ms`, `1.20 s`.
#[must_use]
pub fn brief(duration: Duration) -> String {
    let us = duration.as_micros();
    match us {
        0..1_000 => format!("{us} us"),
        1_000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Units per second; 0 when no time passed.
#[must_use]
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::exit::Exit;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_arrives_in_order() {
        let shared = Shared::default();
        let mut output = DataOutput::to(shared.clone()).unwrap();
        let mut expected = Vec::new();
        for number in 0..50_000_u32 {
            let line = format!("{number}\n");
            expected.extend_from_slice(line.as_bytes());
            output.chunk().extend_from_slice(line.as_bytes());
            output.settle().await.unwrap();
        }
        output.finish().await.unwrap();
        assert!(*shared.0.lock().unwrap() == expected);
    }

    #[tokio::test]
    async fn a_failed_writer_is_told_with_its_reason() {
        for (kind, exit) in [
            (io::ErrorKind::BrokenPipe, Exit::Success),
            (io::ErrorKind::StorageFull, Exit::Failure),
        ] {
            let mut output = DataOutput::to(Refusing(kind)).unwrap();
            let error = loop {
                output.chunk().push(b'x');
                if let Err(error) = output.flush().await {
                    break error;
                }
            };
            assert_eq!(error.exit, exit);
            output.chunk().push(b'x');
            assert!(output.finish().await.is_err());
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(brief(Duration::from_micros(870)), "870 us");
        assert_eq!(brief(Duration::from_micros(1_940)), "1.9 ms");
        assert_eq!(brief(Duration::from_millis(38)), "38 ms");
        assert_eq!(brief(Duration::from_millis(1_204)), "1.20 s");
        assert!((per_second(10, Duration::from_secs(2)) - 5.0).abs() < 1e-9);
        assert!(per_second(10, Duration::ZERO) == 0.0);
    }
}
