//! The curves of a run as an SVG: loss, rate, and each score, one above the other.

use crate::{
    error::{Error, ErrorKind, Result},
    tensor::write_atomically,
    train::record::{Record, short},
};
use plotters::{
    coord::Shift,
    prelude::{ChartBuilder, Circle, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, RGBColor, SVGBackend, WHITE},
    style::Color,
};
use std::{io::Write, ops::Range, path::Path};

const WIDTH: u32 = 720;

/// Of a panel.
const HEIGHT: u32 = 200;

const LINE: RGBColor = RGBColor(60, 100, 150);

/// The most points of a line: more than that are not seen, and make a large file.
const POINTS: usize = 500;

/// By step.
type Points = Vec<(f64, f64)>;

/// What was recorded of a run. 16 bytes a step for each of loss and rate.
#[derive(Default)]
pub(super) struct Curves {
    loss: Points,
    rate: Points,
    /// In the order in which they came first.
    scores: Vec<(String, Points)>,
}

impl Curves {
    pub(super) fn add(&mut self, record: &Record) {
        match record {
            Record::Step(step) => {
                self.loss.push((step.step as f64, step.loss));
                self.rate.push((step.step as f64, step.rate));
            }
            Record::Evaluation(evaluation) => {
                for (name, value) in evaluation.scores.iter().filter(|(_, value)| value.is_finite()) {
                    let point = (evaluation.step as f64, value);
                    match self.scores.iter_mut().find(|(held, _)| held == name) {
                        Some((_, points)) => points.push(point),
                        None => self.scores.push((name.to_string(), vec![point])),
                    }
                }
            }
        }
    }

    /// Draws them, if there are any.
    pub(super) fn draw(&self, path: &Path) -> Result<()> {
        if self.loss.is_empty() {
            return Ok(());
        }
        let svg = self.svg().map_err(|e| Error::new(ErrorKind::Io, "Terminal", format!("{}: {e}", path.display())))?;
        write_atomically("Terminal", path, |file| {
            file.write_all(svg.as_bytes()).map_err(|e| Error::io("Terminal", path, e))
        })
    }

    fn svg(&self) -> Result<String, Box<dyn std::error::Error>> {
        let mut svg = String::new();
        {
            let scores = self.scores.iter().map(|(name, points)| (name.as_str(), points, true));
            let panels: Vec<_> =
                [("loss", &self.loss, false), ("rate", &self.rate, false)].into_iter().chain(scores).collect();
            let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT * panels.len() as u32)).into_drawing_area();
            root.fill(&WHITE)?;
            let steps = 0.0..self.loss.last().map_or(1.0, |last| last.0);
            for (area, (name, points, dots)) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
                panel(area, name, &thinned(points), dots, steps.clone())?;
            }
            root.present()?;
        }
        Ok(svg)
    }
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    name: &str,
    points: &[(f64, f64)],
    dots: bool,
    steps: Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(name, ("sans-serif", 15).into_font())
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(steps, around(points))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|y| short(*y))
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), &LINE))?;
    if dots {
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 2, LINE.filled())))?;
    }
    Ok(())
}

/// A range with some room above and below.
fn around(points: &[(f64, f64)]) -> Range<f64> {
    let low = points.iter().fold(f64::INFINITY, |low, point| low.min(point.1));
    let high = points.iter().fold(f64::NEG_INFINITY, |high, point| high.max(point.1));
    let room = if high > low { 0.05 * (high - low) } else { low.abs().max(1e-12) };
    low - room..high + room
}

/// At most so many points, each the mean of neighbours.
fn thinned(points: &[(f64, f64)]) -> Points {
    let mean = |part: &[(f64, f64)]| {
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / part.len() as f64, sum.1 / part.len() as f64)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Evaluation, Scores, TrainingStep};

    #[test]
    fn a_panel_for_each_curve() {
        let mut curves = Curves::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.svg");
        curves.draw(&path).unwrap();
        assert!(!path.exists(), "there is nothing to draw yet");
        for step in 1..=2000u64 {
            let loss = 1.0 / step as f64;
            curves.add(&Record::Step(TrainingStep {
                step,
                epoch: 1,
                loss,
                rate: 1e-3,
                gradient_norm: 1.0,
                examples: 4,
                seconds: 0.0,
                waited: 0.0,
                examples_per_second: 1.0,
            }));
        }
        for step in [1000, 2000] {
            let scores = Scores::from([("accuracy & co", 0.5), ("nothing", f64::NAN)]);
            curves.add(&Record::Evaluation(Evaluation { step, epoch: 1, scores, best: false, seconds: 0.0 }));
        }
        curves.draw(&path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("accuracy &amp; co") && !svg.contains("nothing"));
        let lines = svg.lines().filter(|line| line.starts_with("<polyline") && line.contains("#3C6496"));
        assert_eq!((lines.count(), svg.matches("<circle").count()), (3, 2), "{svg}");
        assert!(svg.len() < 60_000, "{}", svg.len());
    }

    #[test]
    fn thinning_keeps_means() {
        let points: Points = (0..1001).map(|i| (i as f64, 2.0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.iter().all(|point| point.1 == 2.0) && thin[0].0 == 1.0);
        assert_eq!(thinned(&points[..3]), points[..3]);
        assert!(thinned(&[]).is_empty());
    }
}
