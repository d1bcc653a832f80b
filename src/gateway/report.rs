//! Telling the supervisor how it goes: that the loop comes round, and what the gateway does when that changes.

use std::time::Duration;

use tokio::time::{Instant as TokioInstant, sleep_until};

use super::Shell;
use super::supervisor::{News, Supervisor};
use crate::limits::STATUS_BYTES_MAX;

/// What the supervisor was told, and when it is to hear more.
pub(super) struct Report {
    uplink: Option<&'static str>,
    state_warning: Option<String>,
    interval: Option<Duration>,
    alive_at: TokioInstant,
}

impl Report {
    /// Nothing is told yet.
    pub fn new(supervisor: &impl Supervisor, now: TokioInstant) -> Self {
        Self { uplink: None, state_warning: None, interval: supervisor.alive_interval(), alive_at: now }
    }

    /// Tells what is new in this round of the loop. That it comes round is told from here and nowhere else, so that a
    /// loop that hangs is a gateway that is silent.
    pub fn round(&mut self, shell: &Shell, supervisor: &mut impl Supervisor) {
        let now = shell.start + shell.start.elapsed();
        if let Some(interval) = self.interval.filter(|_| now >= self.alive_at) {
            supervisor.tell(News::Alive);
            self.alive_at = now + interval;
        }
        let uplink = Some(shell.core.uplink_state());
        if self.uplink != uplink || self.state_warning.as_ref() != shell.state_warning() {
            (self.uplink, self.state_warning) = (uplink, shell.state_warning().cloned());
            supervisor.tell(News::Status(&shell.status_line()));
        }
    }

    /// Tells that a reload is over, well or not.
    pub fn reloaded(&mut self, supervisor: &mut impl Supervisor) {
        self.uplink = None;
        supervisor.tell(News::Ready);
    }

    /// Waits until the loop is to come round for the supervisor's sake.
    pub async fn due(&self) {
        match self.interval {
            Some(_) => sleep_until(self.alive_at).await,
            None => std::future::pending().await,
        }
    }
}

/// What a gateway does, in a line; `notes` are what a person should look at.
pub(super) fn status_line(service: &str, uplink: &str, last_error: Option<&str>, notes: &[String]) -> String {
    let mut line = format!("{service}: {uplink}");
    if let Some(error) = last_error.filter(|_| uplink != "connected") {
        line += &format!(" ({error})");
    }
    for note in notes {
        line += &format!("; {note}");
    }
    // The protocol to the service manager has a setting in each line.
    line = line.replace(char::is_control, " ");
    let ends = line.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = ends.take_while(|&end| end <= STATUS_BYTES_MAX).last().unwrap_or(0);
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_a_person_should_know() {
        let line = |uplink, notes: &[String]| status_line("push.example.net", uplink, Some("refused"), notes);
        assert_eq!(line("connected", &[]), "push.example.net: connected");
        assert_eq!(line("waiting", &[]), "push.example.net: waiting (refused)");
        let notes = ["state damaged".to_owned(), "configuration not reloaded".to_owned()];
        assert_eq!(line("connected", &notes), "push.example.net: connected; state damaged; configuration not reloaded");
    }

    #[test]
    fn the_line_is_one_line_and_bounded() {
        let note = ["a\nMAINPID=1\r\u{85}".to_owned()];
        assert_eq!(status_line("s", "idle", None, &note), "s: idle; a MAINPID=1  ");
        let long = ["ü".repeat(STATUS_BYTES_MAX)];
        let line = status_line("s", "idle", None, &long);
        assert!(line.len() <= STATUS_BYTES_MAX && line.len() >= STATUS_BYTES_MAX - 1 && line.ends_with('ü'));
    }
}
