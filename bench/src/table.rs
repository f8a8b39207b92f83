//! The rows, and the statistics in them.

use std::time::Duration;

/// What was measured, beside its baseline.
pub struct Table {
    rows: Vec<[String; 5]>,
}

/// Times of one thing, sorted.
pub struct Times(Vec<Duration>);

impl Times {
    /// Measures `count` runs of `act`, which is told the number of the run.
    pub fn of(count: usize, mut act: impl FnMut(usize) -> Duration) -> Times {
        Times::from((0..count).map(&mut act).collect())
    }

    /// Times measured elsewhere.
    pub fn from(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// The time that the given share of all stays within.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.0.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index between 0 and last"
        )]
        let index = (last as f64 * share).ceil() as usize;
        self.0[index.min(last)]
    }

    /// Half are faster.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {} p99 {}", ms(self.median()), ms(self.quantile(0.99)))
    }
}

/// A time in milliseconds.
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Bytes in MiB.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1048576.0)
}

impl Table {
    /// No rows yet.
    pub fn new() -> Table {
        Table { rows: Vec::new() }
    }

    /// Adds a row, and shows it at once.
    pub fn row(&mut self, what: &str, goal: &str, suite: String, baseline: String, against: &str) {
        eprintln!("bench: {what}: {suite}; {against}: {baseline}; goal {goal}");
        self.rows.push([what.to_owned(), goal.to_owned(), suite, baseline, against.to_owned()]);
    }

    /// Prints all rows, as a Markdown table.
    pub fn print(&self) {
        println!("| what | goal | suite | baseline | the baseline is |");
        println!("|---|---|---|---|---|");
        for [what, goal, suite, baseline, against] in &self.rows {
            println!("| {what} | {goal} | {suite} | {baseline} | {against} |");
        }
    }
}

/// How much more the one takes than the other.
pub fn ratio(one: &Times, other: &Times) -> String {
    format!("{:.2} ×", one.median().as_secs_f64() / other.median().as_secs_f64())
}
