//! Shows how far a restore is, and calls it off at Ctrl-C.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use outrider_restore::{Phase, RestoreProgress};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Without a terminal a line says how far it is after so much time.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Waits for the work, which tells how far it is. At Ctrl-C it is told to stop by `cancel`, and still waited for.
///
/// # Errors
/// When Ctrl-C cannot be listened for; then the work is not begun.
pub(super) async fn watched<Outcome>(
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(&watch::Sender<RestoreProgress>) -> Outcome,
) -> anyhow::Result<Outcome> {
    let progress = watch::Sender::new(RestoreProgress::default());
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut told = progress.subscribe();
    let mut shown = Shown::new();
    let mut work = std::pin::pin!(work(&progress));
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            _ = interrupted.recv() => {
                say("cancelling: what was written is being removed");
                cancel.cancel();
            }
            Ok(()) = told.changed() => {
                let progress = *told.borrow_and_update();
                shown.show(&progress);
            }
        }
    };
    shown.clear();
    Ok(outcome)
}

/// A bar on a terminal, and now and then a line elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    phase: Phase,
    said: Duration,
}

impl Shown {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Shown { bar, phase: Phase::Checking, said: Duration::ZERO }
    }

    fn show(&mut self, progress: &RestoreProgress) {
        let phase = match progress.phase {
            Phase::Checking => "checking",
            Phase::Copying => "copying",
            Phase::Syncing => "making durable",
            Phase::Done => "done",
        };
        let total = progress.bytes_total.max(progress.bytes);
        let seconds = progress.elapsed.as_secs_f64().max(0.001);
        let rate = (progress.bytes as f64 / seconds) as u64;
        let left = match progress.bytes_total.saturating_sub(progress.bytes).checked_div(rate) {
            Some(left) if progress.phase == Phase::Copying => {
                format!(", {} left", HumanDuration(Duration::from_secs(left)))
            }
            Some(_) | None => String::new(),
        };
        let rate = HumanBytes(rate);
        match &self.bar {
            Some(bar) => {
                bar.set_length(total.max(1));
                bar.set_position(progress.bytes);
                bar.set_prefix(phase);
                bar.set_message(format!("{rate}/s{left}"));
            }
            None if progress.phase != self.phase || progress.elapsed > self.said + LINE_EVERY => {
                let (done, all) = (HumanBytes(progress.bytes), HumanBytes(total));
                say(&format!("{phase}: {done} of {all}, {} files, {rate}/s{left}", progress.files));
                self.said = progress.elapsed;
            }
            None => {}
        }
        self.phase = progress.phase;
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// On standard error; without one there is still the exit status.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
