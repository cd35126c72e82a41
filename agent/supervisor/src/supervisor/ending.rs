//! How things end: children are reaped, what they leave behind is killed and waited for, and then it is reported. Last of
//! all the supervisor itself.

use super::Supervisor;
use crate::descendants::{self, Below, ToolMarks};
use crate::postmaster::{Death, Postmaster};
use crate::protocol::{Event, Exit, LastExit};
use crate::system::{self, Change, boottime_ns};
use crate::termination::{Alive, Next, Termination};
use crate::tool::RunningTool;

/// Interval between checks whether what was killed is gone.
const LOOK_AGAIN_NS: u64 = 5 * 1_000_000;
/// Buffers of final output that are read: more than a pipe holds, but not without end.
const LAST_READS: usize = 4;

impl Supervisor {
    /// Reaps every child that has ended, and reports the postmaster at once.
    pub(super) fn reap(&mut self) {
        while let Some((pid, change)) = system::next_change() {
            let exit = match change {
                Change::Ended(exit) => exit,
                Change::Frozen | Change::Thawed => {
                    self.stands_still(pid, change == Change::Frozen);
                    continue;
                }
            };
            if let Some(tool) = self.tool.as_mut().filter(|tool| tool.pid == pid) {
                tool.exit = Some(exit);
                continue;
            }
            let alive = self.postmaster.as_mut().filter(|it| it.pid == pid && it.death.is_none());
            if let Some(postmaster) = alive {
                let (expected, at_ns) = (postmaster.stopping, boottime_ns());
                postmaster.death = Some(Death { exit, at_ns });
                self.tell(Event::PostmasterDied { pid, exit, expected, at_ns });
                let how = if expected { "as told" } else { "by itself" };
                self.log.say(format_args!("postmaster {pid} died {how}: {}", describe(exit)));
            }
        }
    }

    /// A signal stopped a child, or continued it. Matters only for the postmaster.
    fn stands_still(&mut self, pid: i32, frozen: bool) {
        let Some(postmaster) = self.postmaster.as_mut().filter(|it| it.pid == pid) else { return };
        postmaster.frozen_ns = frozen.then(boottime_ns);
        let how = if frozen { "was stopped by a signal" } else { "goes on" };
        self.log.say(format_args!("postmaster {pid} {how}"));
    }

    /// SIGTERM or similar; the second time there is no handover.
    pub(super) fn begin_termination(&mut self, signal: i32) {
        let now_ns = boottime_ns();
        if let Some(termination) = &mut self.termination {
            termination.hurry(now_ns);
            return;
        }
        self.log.say(format_args!("told to end by signal {signal}"));
        self.termination = Some(Termination::new(now_ns, &self.options));
        let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.tell(Event::Terminating {
            handover_ms: milliseconds(self.options.handover_timeout.min(self.options.grace_period / 2)),
            grace_ms: milliseconds(self.options.grace_period),
        });
        // A clone or similar does not end within any grace period; one beside Postgres may be part of a handover.
        if self.postmaster.is_none()
            && let Some(tool) = &mut self.tool
        {
            tool.cancelled = true;
        }
    }

    /// Advances whatever is ending. True when the supervisor itself is to exit.
    pub(super) fn advance_endings(&mut self) -> bool {
        let leave = self.advance_termination();
        let now_ns = boottime_ns();
        let kill_postgres = self
            .postmaster
            .as_ref()
            .is_some_and(|it| it.death.is_some() || it.kill_at_ns.is_some_and(|at_ns| at_ns <= now_ns));
        let kill_tool = self.tool.as_ref().is_some_and(RunningTool::is_ending);
        self.look_again_ns = None;
        if kill_postgres || kill_tool {
            self.kill_remaining(kill_postgres, kill_tool);
            // What has ended may be all that the supervisor was still waiting for.
            return leave || self.advance_termination();
        }
        leave
    }

    fn kill_remaining(&mut self, kill_postgres: bool, kill_tool: bool) {
        self.look_again_ns = Some(boottime_ns().saturating_add(LOOK_AGAIN_NS));
        let below = match self.descendants() {
            Ok(below) => below,
            Err(error) => {
                // Their parents at least; and again soon.
                self.log.say(format_args!("cannot read /proc to find what is to be killed: {error}"));
                self.kill_parents(kill_postgres, kill_tool);
                return;
            }
        };
        if kill_postgres {
            kill_all(&below.postgres);
        }
        if kill_tool {
            kill_all(&below.tool);
        }
        // Most are gone before this returns; the rest are looked for again.
        self.reap();
        let Ok(below) = self.descendants() else { return };
        if kill_tool && below.tool.is_empty() {
            self.finish_tool();
        }
        if kill_postgres && below.postgres.is_empty() {
            self.finish_postmaster();
        }
        if self.postmaster.as_ref().is_none_or(|it| it.death.is_none() && it.kill_at_ns.is_none())
            && self.tool.as_ref().is_none_or(|tool| !tool.is_ending())
        {
            self.look_again_ns = None;
        }
    }

    fn descendants(&mut self) -> std::io::Result<Below> {
        let processes = descendants::processes()?;
        let us = std::process::id().cast_signed();
        let Some(tool) = &mut self.tool else {
            return Ok(descendants::below(&processes, us, &ToolMarks::default()));
        };
        let below = descendants::below(&processes, us, &tool.marks);
        // Only those that exist now: the number of one that is gone may be reused by a backend.
        tool.marks.seen = below.tool.iter().copied().collect();
        Ok(below)
    }

    fn kill_parents(&self, kill_postgres: bool, kill_tool: bool) {
        let postmaster = self.postmaster.as_ref().filter(|it| kill_postgres && it.death.is_none());
        let tool = self.tool.as_ref().filter(|it| kill_tool && it.exit.is_none());
        let pids: Vec<i32> = postmaster.map(|it| it.pid).into_iter().chain(tool.map(|it| it.pid)).collect();
        kill_all(&pids);
    }

    /// The postmaster is dead and `/proc` shows nothing of it any more.
    fn finish_postmaster(&mut self) {
        // A process that changed its parent while we read could have been missed. The kernel's own answer
        // cannot miss it; it counts the tool too, so it is only asked when there is none.
        if self.tool.is_none() && system::has_children() {
            return;
        }
        if self.postmaster.as_ref().is_none_or(|postmaster| postmaster.death.is_none()) {
            return;
        }
        for _ in 0..LAST_READS {
            self.read_postmaster_output();
        }
        let Some(mut postmaster) = self.postmaster.take() else { return };
        postmaster.output.rest().into_iter().for_each(|line| self.log_tail.push(line));
        let Postmaster { pid, stopping: expected, fencing, death: Some(death), .. } = postmaster else {
            return;
        };
        let (exit, at_ns) = (death.exit, boottime_ns());
        let took_ms = at_ns.saturating_sub(death.at_ns) / 1_000_000;
        self.last_exit = Some(LastExit { pid, exit, expected, fenced: fencing.is_some(), at_ns });
        self.log.say(format_args!("postmaster {pid} and all its descendants are gone"));
        self.tell(Event::PostmasterExited { pid, exit, expected, at_ns, took_ms });
        if let Some(fencing) = fencing {
            self.fuse.reset();
            let (term, deadline_ns) = (fencing.armed.term, fencing.armed.deadline_ns);
            let took_ms = at_ns.saturating_sub(fencing.since_ns) / 1_000_000;
            self.log.say(format_args!("fenced: term {term}, in {took_ms} ms"));
            self.tell(Event::Fenced { term, deadline_ns, at_ns, took_ms });
        }
    }

    /// The tool and what it started are gone.
    fn finish_tool(&mut self) {
        if self.tool.as_ref().is_none_or(|tool| tool.exit.is_none()) {
            return;
        }
        for _ in 0..LAST_READS {
            self.read_tool_output();
        }
        let Some(mut tool) = self.tool.take() else { return };
        let RunningTool { pid, exit: Some(exit), .. } = tool else { return };
        for line in tool.output.rest() {
            tool.tail.push(line.clone());
            self.tell(Event::ToolOutput { pid, line });
        }
        self.log.say(format_args!("{} ({pid}) ended: {}", tool.tool.program(), describe(exit)));
        self.tell(Event::ToolExited { pid, exit, tail: tool.tail.lines() });
    }

    /// Does what the supervisor's own end requires now. True when it is to exit.
    fn advance_termination(&mut self) -> bool {
        let alive = Alive {
            postmaster: self.postmaster.is_some(),
            tool: self.tool.is_some(),
            agent: self.connections.iter().any(|it| it.greeted && !it.closing && !it.is_over()),
        };
        let Some(termination) = &mut self.termination else { return false };
        let now_ns = boottime_ns();
        let next = termination.next(now_ns, alive);
        match next {
            Next::Wait => return false,
            Next::Leave => return true,
            Next::StopFast | Next::StopImmediate => {}
        }
        if let Some(tool) = &mut self.tool {
            tool.cancelled = true;
        }
        if let Some(postmaster) = &mut self.postmaster {
            self.log.say(format_args!("ending: {next:?} of postmaster {}", postmaster.pid));
            postmaster.stopping = true;
            if next == Next::StopImmediate {
                postmaster.take_down(now_ns.saturating_add(super::nanoseconds(self.options.kill_after)));
            } else if let Err(refusal) = postmaster.signal(libc::SIGINT, "fast stop") {
                self.log.say(refusal.message);
            }
        }
        false
    }
}

fn kill_all(pids: &[i32]) {
    for pid in pids {
        // One that is gone by now cannot be killed; all others are found by the next check.
        let _ = system::kill(*pid, libc::SIGKILL);
    }
}

fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("status {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    }
}
