//! What the log says of an error, and that it says the same thing once: not in every round.

use std::fmt::Write as _;

/// An error and all its causes, in one line.
pub(crate) fn causes(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut next = fault.source();
    while let Some(cause) = next {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// What was logged last about one thing.
#[derive(Debug, Default)]
pub(crate) struct LastLogged(Option<String>);

impl LastLogged {
    /// Whether `text` differs from the last message; it becomes the last one.
    pub(crate) fn is_news(&mut self, text: &str) -> bool {
        let news = self.0.as_deref() != Some(text);
        if news {
            self.0 = Some(text.to_owned());
        }
        news
    }

    /// Forgets it: the same text would be news again.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_no_news_until_it_was_over() {
        let mut last_logged = LastLogged::default();
        assert!(last_logged.is_news("down") && !last_logged.is_news("down") && last_logged.is_news("up"));
        last_logged.forget();
        assert!(last_logged.is_news("up"));
    }
}
