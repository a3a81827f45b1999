//! One child process: start, signal, wait with a deadline, never left behind.
//!
//! Waiting goes through a pidfd, so that it costs no polling. Nothing here knows what the process does.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// A child process; killed and reaped when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    pidfd: OwnedFd,
}

impl NodeProcess {
    /// Starts `command`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::watch(command.spawn()?)
    }

    /// Takes over a child that was started elsewhere.
    ///
    /// # Errors
    /// When the system refuses; the child is killed then.
    pub fn watch(mut child: Child) -> io::Result<Self> {
        // The child is ours and not reaped, so the number cannot mean another process.
        match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal; one that has ended does not mind.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills it with SIGKILL and reaps it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.child.wait()
    }

    /// Waits until it ended, for at most `timeout`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// SIGTERM, and SIGKILL when it does not end within `timeout`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        match self.wait(timeout)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // Nobody is left to tell: a process that cannot be killed has ended already.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::*;

    fn spawn(script: &str) -> NodeProcess {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        NodeProcess::spawn(&mut command).unwrap()
    }

    #[test]
    fn the_exit_status_arrives() {
        let mut process = spawn("exit 7");
        let status = process.wait(Duration::from_secs(30)).unwrap().unwrap();
        assert_eq!(status.code(), Some(7));
        process.signal(Signal::TERM).unwrap();
    }

    #[test]
    fn waiting_ends_at_its_deadline() {
        let mut process = spawn("read line");
        assert!(process.wait(Duration::from_millis(20)).unwrap().is_none());
        assert_eq!(process.kill().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' TERM; echo ready; read line; read line"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = NodeProcess::spawn(&mut command).unwrap();
        let mut ready = [0; 6];
        let stdout = process.child.stdout.as_mut().unwrap();
        io::Read::read_exact(stdout, &mut ready).unwrap();
        assert_eq!(
            process.stop(Duration::from_millis(50)).unwrap().signal(),
            Some(9)
        );
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let process = spawn("read line");
        let path = format!("/proc/{}", process.id());
        assert!(std::path::Path::new(&path).exists());
        drop(process);
        assert!(!std::path::Path::new(&path).exists());
    }
}
