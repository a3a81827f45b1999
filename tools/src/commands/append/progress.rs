//! The bar on a terminal while appending.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or nothing.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { bar: None }
    }

    /// Shows records acknowledged and their rate on standard error, also while nothing happens.
    #[must_use]
    pub fn bar() -> Self {
        let bar = ProgressBar::new_spinner();
        let style = "{spinner} {human_pos} records acknowledged  {per_sec}  {elapsed}{msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar: Some(bar) }
    }

    /// Tells of more records.
    pub fn acknowledged(&self, records: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(records);
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
