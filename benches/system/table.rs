//! What is printed: one line a metric, and whether its target is met.

use std::fmt::Write as _;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    Most(f64),
    Least(f64),
    /// Of the peer's figure in the same run.
    MostOfPeer(f64),
    /// Of the peer's figure in the same run.
    LeastOfPeer(f64),
}

/// One figure of ours, beside that of a peer.
#[derive(Debug)]
pub struct Row {
    metric: String,
    unit: &'static str,
    ours: f64,
    peer: Option<f64>,
    goals: Vec<Goal>,
    /// What must hold on any machine.
    bound: Option<Goal>,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Table {
    broken: Vec<String>,
}

impl Row {
    pub fn new(metric: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self { metric: metric.into(), unit, ours, peer: None, goals: Vec::new(), bound: None }
    }

    pub fn peer(mut self, peer: Option<f64>) -> Self {
        self.peer = peer;
        self
    }

    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// A figure that does not depend on the machine, and the most that it may be.
    pub fn bound(mut self, bound: f64) -> Self {
        self.bound = Some(Goal::Most(bound));
        self
    }

    /// The same, and the least that it may be.
    pub fn bound_least(mut self, bound: f64) -> Self {
        self.bound = Some(Goal::Least(bound));
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.filter(|peer| *peer > 0.0).map(|peer| self.ours / peer)
    }

    /// None without a peer to compare with.
    fn is_met(&self, goal: Goal) -> Option<bool> {
        Some(match goal {
            Goal::Most(most) => self.ours <= most,
            Goal::Least(least) => self.ours >= least,
            Goal::MostOfPeer(most) => self.ratio()? <= most,
            Goal::LeastOfPeer(least) => self.ratio()? >= least,
        })
    }

    fn verdict(&self) -> &'static str {
        let met: Option<Vec<bool>> = self.goals.iter().map(|goal| self.is_met(*goal)).collect();
        match met {
            Some(met) if met.is_empty() => "",
            Some(met) if met.iter().all(|met| *met) => "met",
            Some(_) => "NOT MET",
            None => "no peer",
        }
    }
}

impl Table {
    /// Begins a section.
    pub fn section(&self, name: &str) {
        println!("\n{name}");
        println!("  {:<58} {:>6} {:>10} {:>10} {:>6}  {:<16} met", "metric", "unit", "ours", "peer", "ratio", "target");
    }

    /// Says something about the figures.
    pub fn note(&self, text: &str) {
        println!("  - {text}");
    }

    /// Prints a figure.
    pub fn row(&mut self, row: Row) {
        let show = |figure: Option<f64>| figure.map_or("-".to_owned(), figure_of);
        let ratio = row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "  {:<58} {:>6} {:>10} {:>10} {:>6}  {:<16} {}",
            row.metric,
            row.unit,
            figure_of(row.ours),
            show(row.peer),
            ratio,
            goals_of(&row.goals),
            row.verdict()
        );
        if let Some(bound) = row.bound.filter(|bound| row.is_met(*bound) == Some(false)) {
            self.broken.push(format!(
                "{}: {} {}, not {}",
                row.metric,
                figure_of(row.ours),
                row.unit,
                goals_of(&[bound])
            ));
        }
    }

    /// What holds on any machine, and did not in this run.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }
}

fn goals_of(goals: &[Goal]) -> String {
    let mut text = String::new();
    for goal in goals {
        let separator = if text.is_empty() { "" } else { ", " };
        let (sign, figure, unit) = match *goal {
            Goal::Most(figure) => ("<= ", figure_of(figure), ""),
            Goal::Least(figure) => (">= ", figure_of(figure), ""),
            Goal::MostOfPeer(ratio) => ("<= ", ratio.to_string(), "x"),
            Goal::LeastOfPeer(ratio) => (">= ", ratio.to_string(), "x"),
        };
        write!(text, "{separator}{sign}{figure}{unit}").expect("a text takes it");
    }
    text
}

/// Three digits that count, and all before the point.
fn figure_of(figure: f64) -> String {
    let digits = match figure.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.digits$}")
}

/// The middle one.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// The figure below which this part of all figures lies.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
