//! Curves over time as a picture: SVG.
//!
//! **Lives here:** axes, one line a series, a legend, marked spans of time.
//! **Called by:** the test of a rolling restart.
//! **Must not know:** what the numbers mean.

use std::fmt::Write as _;

/// One series.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Seconds and values, in order. Where more than [`GAP`] is between two, the line is interrupted.
    pub points: Vec<(f64, f64)>,
}

/// A span of time that is marked, in the colour of one of the lines.
#[derive(Clone, Debug)]
pub struct Span {
    /// Which line.
    pub line: usize,
    /// What is written above it.
    pub name: String,
    /// Seconds.
    pub from: f64,
    /// Seconds.
    pub to: f64,
}

/// Seconds without a value that are a gap.
pub const GAP: f64 = 2.5;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 55.0;
const RIGHT: f64 = 15.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 45.0;
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#777777"];

/// Draws `lines` over the seconds from 0 to `seconds`.
#[must_use]
pub fn draw(title: &str, lines: &[Line], spans: &[Span], seconds: f64) -> String {
    let values = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
    let step = round_step(values.fold(1.0, f64::max) / 7.0);
    let top = values_top(lines, step);
    let x = |second: f64| LEFT + second / seconds * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{title}</text>\n"
    );
    let mut add = |text: String| writeln!(svg, "{text}").expect("a string takes everything");
    for span in spans {
        let (from, width, colour) =
            (x(span.from), x(span.to) - x(span.from), COLOURS[span.line % COLOURS.len()]);
        add(format!(
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\" \
             fill-opacity=\"0.13\"/>\n<text x=\"{from:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            HEIGHT - TOP - BOTTOM,
            TOP - 6.0,
            span.name
        ));
    }
    for value in ticks(step, top) {
        add(format!(
            "<path d=\"M{LEFT} {0:.1}H{1:.1}\" stroke=\"#ddd\"/>\n<text x=\"{2:.1}\" y=\"{3:.1}\" \
             text-anchor=\"end\">{value}</text>",
            y(value),
            WIDTH - RIGHT,
            LEFT - 8.0,
            y(value) + 4.0
        ));
    }
    for second in ticks(round_step(seconds / 10.0), seconds) {
        let at = x(second);
        add(format!(
            "<path d=\"M{at:.1} {0:.1}v5\" stroke=\"#000\"/>\n<text x=\"{at:.1}\" y=\"{1:.1}\" \
             text-anchor=\"middle\">{second} s</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 20.0
        ));
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path = path(&line.points, x, y);
        add(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
        let at = LEFT + 130.0 * f64::from(u32::try_from(number).unwrap_or(0));
        add(format!(
            "<path d=\"M{at:.1} 38h22\" stroke=\"{colour}\" stroke-width=\"3\"/>\n<text x=\"{:.1}\" y=\"42\">{}</text>",
            at + 28.0,
            line.name
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn path(points: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut before = f64::NEG_INFINITY;
    for (second, value) in points {
        let pen = if second - before > GAP { 'M' } else { 'L' };
        write!(path, "{pen}{:.1} {:.1}", x(*second), y(*value)).expect("a string takes everything");
        before = *second;
    }
    path
}

/// Returns the first of 1, 2, 5, 10, 20, … that is not less.
fn round_step(least: f64) -> f64 {
    let mut power = 1.0;
    loop {
        if let Some(step) = [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(|step| *step >= least)
        {
            return step;
        }
        power *= 10.0;
    }
}

fn values_top(lines: &[Line], step: f64) -> f64 {
    let most = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(1.0, f64::max);
    (most / step).ceil() * step
}

fn ticks(step: f64, most: f64) -> impl Iterator<Item = f64> {
    (0..).map(move |number: u32| f64::from(number) * step).take_while(move |tick| *tick <= most)
}
