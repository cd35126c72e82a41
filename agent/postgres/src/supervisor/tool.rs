//! Runs one of Postgres' programs through the supervisor and waits for its end.

use outrider_supervisor::protocol::{Answer, Command, Event, Exit, Tool};
use tokio::sync::broadcast::error::RecvError;
use tracing::info;

use super::{News, Supervisor};
use crate::error::Error;

/// A program that ended well.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Every line it wrote, as far as they could be kept up with.
    pub(crate) output: Vec<String>,
}

/// More lines than this are not kept.
const OUTPUT_MAX: usize = 1000;

impl Supervisor {
    /// Runs the program to its end. What it writes is logged when `shown`.
    pub(crate) async fn run_tool(
        &self,
        tool: Tool,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        shown: bool,
    ) -> Result<Run, Error> {
        let name = tool.program();
        let mut news = self.news();
        let command = Command::RunTool { tool, arguments, environment };
        let Answer::Started { pid } = self.ask("run one of Postgres' programs", command).await? else {
            return Err(Error::ToolUnknown { tool: name });
        };
        let mut run = Run::default();
        loop {
            match news.recv().await {
                Ok(News::Event(Event::ToolOutput { pid: of, line })) if of == pid => {
                    if shown {
                        info!(tool = name, "{line}");
                    }
                    if run.output.len() < OUTPUT_MAX {
                        run.output.push(line);
                    }
                }
                Ok(News::Event(Event::ToolExited { pid: of, exit, tail })) if of == pid => {
                    return if exit == Exit::Code(0) {
                        Ok(run)
                    } else {
                        Err(Error::Tool { tool: name, exit, tail })
                    };
                }
                Ok(News::LineBroke) | Err(RecvError::Closed) => {
                    return Err(Error::ToolUnknown { tool: name });
                }
                Ok(News::Event(_)) | Err(RecvError::Lagged(_)) => {}
            }
        }
    }
}
