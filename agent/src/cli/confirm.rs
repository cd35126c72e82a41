//! Asks for confirmation, after showing the members.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::anyhow;
use serde_json::Value;

use super::exit::{self, Refusal};
use super::format::Format;
use super::list;

/// Returns when it is confirmed, or when `sure`. `alone`: what cannot be confirmed without a terminal, and the option for it.
pub(super) fn confirm(cluster: &Value, question: &str, alone: &str, sure: bool) -> Result<(), Refusal> {
    if sure {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Refusal::Usage(format!("there is no terminal to confirm on; to {alone}")));
    }
    ask(&list::show(cluster, Format::Table)?, question)
}

/// The same with another text.
pub(super) fn meant(shown: &str, question: &str, alone: &str, sure: bool) -> Result<(), Refusal> {
    if sure {
        return exit::print(shown).map(drop);
    }
    if !io::stdin().is_terminal() {
        exit::print(shown)?;
        return Err(Refusal::Usage(format!("there is no terminal to confirm on; to {alone}")));
    }
    ask(shown, question)
}

fn ask(shown: &str, question: &str) -> Result<(), Refusal> {
    exit::print(shown)?;
    exit::print(question)?;
    io::stdout().flush().map_err(anyhow::Error::new)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(anyhow::Error::new)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(anyhow!("nothing was changed").into())
}
