//! The process that drills: `outrider verify --drill`, nice to everybody else. It ends when its standard input is closed, so
//! also when this agent is killed.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What is read of what it says.
const SAID_MAX: u64 = 1 << 20;
/// Of its complaints, what is shown.
const SHOWN_MAX: usize = 1000;

/// For the kernel to end what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server came up.
    Done {
        /// What came out, as JSON.
        report: Value,
    },
    /// It did not, or the drill could not be made, and why.
    Failed(String),
    /// It was told to end, and why.
    GivenUp(&'static str),
}

/// The process. Dropped, it is told to end.
pub(super) struct Child {
    stdin: Option<ChildStdin>,
    outcome: oneshot::Receiver<Outcome>,
    kill: CancellationToken,
}

impl Child {
    /// Begins with a scratch directory; what an earlier one left in it is removed.
    pub(super) fn begin(configuration: &Path, scratch: &Path) -> io::Result<Self> {
        Self::clear(scratch)?;
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe()?);
        command.args(["verify", "--drill", "--while-stdin", "--format", "json"]);
        command.arg("--config").arg(configuration).arg("--scratch").arg(scratch);
        Self::spawn(command)
    }

    /// Removes what is left in a scratch directory.
    pub(super) fn clear(scratch: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(scratch) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // With its server and their programs, which are killed together.
        command.process_group(0);
        let mut process = command.spawn()?;
        let stdin = process.stdin.take();
        let (said, complaints) = (process.stdout.take(), process.stderr.take());
        let (ended, outcome) = oneshot::channel();
        let kill = CancellationToken::new();
        let killed = kill.clone();
        tokio::spawn(async move {
            let running = async { tokio::join!(text(said), text(complaints), process.wait()) };
            match killed.run_until_cancelled(running).await {
                Some((said, complaints, status)) => {
                    let outcome = match status {
                        Ok(status) => judge(status, &said, &complaints),
                        Err(fault) => Outcome::Failed(fault.to_string()),
                    };
                    // Nobody waits for it when the agent ends.
                    let _ = ended.send(outcome);
                }
                None => {
                    let group = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
                    // Gone already is as good.
                    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
                    drop(process.kill().await);
                }
            }
        });
        Ok(Child { stdin, outcome, kill })
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or_else(|_| Outcome::Failed("the drill broke off".to_owned()))
    }

    /// Tells it to end, and waits until it has removed what it has made; kills it when that takes too long.
    pub(super) async fn give_up(mut self, why: &'static str, limit: Duration) -> Outcome {
        self.stdin = None;
        match timeout(limit, self.ended()).await {
            // It was done at that moment.
            Ok(done @ Outcome::Done { .. }) => done,
            Ok(Outcome::Failed(_) | Outcome::GivenUp(_)) => Outcome::GivenUp(why),
            Err(_) => {
                self.kill.cancel();
                // Unless the kernel does not let go of it.
                let _ = timeout(KILL_LIMIT, &mut self.outcome).await;
                Outcome::GivenUp(why)
            }
        }
    }

    /// Tells it to end and waits only a while: what it has made it removes also when this agent is gone.
    pub(super) async fn leave(mut self, limit: Duration) -> Outcome {
        self.stdin = None;
        // Nobody records any more how it ended.
        let _ = timeout(limit, self.ended()).await;
        Outcome::GivenUp("the agent ends")
    }
}

/// All of it, up to a limit; the rest is read and thrown away, so that the process never waits for us.
async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    // What could be read counts.
    let _ = (&mut stream).take(SAID_MAX).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What it said counts, not only its status: an archive with other faults can still bring the server back.
fn judge(status: ExitStatus, said: &str, complaints: &str) -> Outcome {
    let mut document: Value = serde_json::from_str(said).unwrap_or(Value::Null);
    match document.get_mut("drill").map(Value::take) {
        Some(report) if report["pages_checked"] != Value::Bool(false) => Outcome::Done { report },
        Some(_) | None => {
            let faults = document["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
            let faults: Vec<&str> = faults.iter().filter_map(Value::as_str).collect();
            let why = if faults.is_empty() { complaints.trim().to_owned() } else { faults.join("; ") };
            let shown: String = why.chars().take(SHOWN_MAX).collect();
            Outcome::Failed(format!("{status}: {shown}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::spawn(command).unwrap()
    }

    #[tokio::test]
    async fn what_it_says_is_the_outcome_also_where_the_archive_has_other_faults() {
        let done =
            shell(r#"echo '{"drill": {"backup": "x", "pages_checked": null}, "faults": ["a gap"]}'; exit 1"#);
        let Outcome::Done { report } = { done }.ended().await else { panic!("it was done") };
        assert_eq!(report["backup"], "x");
        let failed = { shell(r#"echo '{"faults": ["it does not come up"]}'; exit 1"#) }.ended().await;
        assert_eq!(failed, Outcome::Failed("exit status: 1: it does not come up".to_owned()));
        let refused = { shell("echo no archive >&2; exit 64") }.ended().await;
        assert_eq!(refused, Outcome::Failed("exit status: 64: no archive".to_owned()));
    }

    #[tokio::test]
    async fn one_that_is_given_up_ends_by_itself_and_removes_what_it_made() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let child = shell(&format!("cat; rmdir {}; exit 1", scratch.display()));
        let outcome = child.give_up("the agent ends", Duration::from_secs(60)).await;
        assert_eq!(outcome, Outcome::GivenUp("the agent ends"));
        assert!(!scratch.exists());
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let held = directory.path().join("held");
        let mut made = std::process::Command::new("mkfifo").arg(&held).spawn().unwrap();
        assert!(made.wait().unwrap().success());
        let child = shell(&format!("exec 3>{}; sleep 1000 & exec sleep 1000", held.display()));
        let (opened, begun) = oneshot::channel();
        let (closed, gone) = oneshot::channel();
        std::thread::spawn(move || {
            // Opens when they hold it, and ends when nobody does any more.
            let mut held = std::fs::File::open(held).unwrap();
            opened.send(()).unwrap();
            io::copy(&mut held, &mut io::sink()).unwrap();
            closed.send(()).unwrap();
        });
        begun.await.unwrap();
        let outcome = child.give_up("the volume is nearly full", Duration::ZERO).await;
        assert_eq!(outcome, Outcome::GivenUp("the volume is nearly full"));
        timeout(Duration::from_secs(60), gone).await.expect("both are killed").unwrap();
    }
}
