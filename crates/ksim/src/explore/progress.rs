//! A progress bar, on a terminal and nowhere else.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How many executions a worker makes between two reports.
pub(super) const REPORT_EVERY: u64 = 256;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `schedules` is the number that will be run, or `u64::MAX`.
    pub(super) fn new(shown: bool, schedules: u64, deadline: Option<Instant>) -> Self {
        if !shown || !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let (length, template) = match (schedules, deadline) {
            (u64::MAX, None) => (None, "{spinner} {human_pos} schedules, {per_sec}, {elapsed}, {msg}"),
            (u64::MAX, Some(_)) => (None, "{spinner} {human_pos} schedules, {per_sec}, {time_left} left, {msg}"),
            (_, None) => (Some(schedules), "{bar:30} {human_pos}/{human_len} schedules, {per_sec}, {eta} left, {msg}"),
            (_, Some(_)) => (
                Some(schedules),
                "{bar:30} {human_pos}/{human_len} schedules, {per_sec}, {eta} and at most {time_left} left, {msg}",
            ),
        };
        let time_left = move |_: &ProgressState, text: &mut dyn fmt::Write| {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
            // What cannot be shown is not missed.
            let _ = write!(text, "{}", HumanDuration(left));
        };
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid").with_key("time_left", time_left));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: Some(bar) }
    }

    /// So many more were made; so many of all differ, and so many ended early.
    pub(super) fn advance(&self, executions: u64, distinct: u64, allowed: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(executions);
            let early = if allowed > 0 { format!(", {allowed} ended early") } else { String::new() };
            bar.set_message(format!("{distinct} distinct{early}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
