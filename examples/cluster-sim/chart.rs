//! A drawing of the results over the number of nodes.

use std::fmt::Write as _;

/// The results for one number of nodes.
pub(crate) struct Dot {
    nodes: f64,
    /// Mean, best and worst over the seeds.
    pub(crate) last: f64,
    best: f64,
    pub(crate) worst: f64,
    pub(crate) master: f64,
}

impl Dot {
    pub(crate) fn new(nodes: u64, runs: &[(f64, f64)]) -> Dot {
        let count = runs.len().max(1) as f64;
        Dot {
            nodes: nodes as f64,
            last: runs.iter().map(|(last, _)| last).sum::<f64>() / count,
            best: runs.iter().map(|(last, _)| *last).fold(f64::INFINITY, f64::min),
            worst: runs.iter().map(|(last, _)| *last).fold(0.0, f64::max),
            master: runs.iter().map(|(_, master)| master).sum::<f64>() / count,
        }
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;

/// Where things are drawn: nodes on a logarithmic axis, ratios from 1.
struct Axes {
    decades: f64,
    most: f64,
}

impl Axes {
    fn x(&self, nodes: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nodes.max(1.0).log10() / self.decades
    }

    fn y(&self, ratio: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (ratio - 1.0) / (self.most - 1.0)
    }
}

/// An SVG: the last node's time over S/B with its range, and the master's bytes over S.
pub(crate) fn draw(dots: &[Dot]) -> String {
    let nodes = dots.iter().map(|dot| dot.nodes).fold(10.0, f64::max);
    let highest = dots.iter().map(|dot| dot.worst.max(dot.master)).fold(1.2, f64::max);
    let axes = Axes { decades: nodes.log10().ceil(), most: (highest * 10.0).ceil() / 10.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>\n\
         text {{ fill: #444 }} .grid {{ stroke: #8884 }}\n\
         .last {{ stroke: #1f6fd0; fill: #1f6fd0 }} .master {{ stroke: #c25a00; fill: #c25a00 }}\n\
         .line {{ fill: none; stroke-width: 2 }}\n\
         @media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #ccc }} .last {{ stroke: #6db3ff; fill: #6db3ff }}\n\
         .master {{ stroke: #ffa35c; fill: #ffa35c }}\n\
         }}\n\
         </style>\n"
    );
    grid(&mut svg, &axes);
    line(&mut svg, &axes, "master", dots, |dot| dot.master);
    line(&mut svg, &axes, "last", dots, |dot| dot.last);
    for dot in dots {
        let (x, low, high) = (axes.x(dot.nodes), axes.y(dot.best), axes.y(dot.worst));
        let _ = writeln!(
            svg,
            "<path class=\"last\" d=\"M{x:.1} {low:.1}V{high:.1}M{:.1} {low:.1}h8M{:.1} {high:.1}h8\"/>",
            x - 4.0,
            x - 4.0,
        );
    }
    let texts = [
        ("last", "last node's time over S/B, with its range over the seeds", 20.0),
        ("master", "bytes that the master sent, over S", 38.0),
    ];
    for (class, text, y) in texts {
        let (swatch, text_x) = (LEFT + 10.0, LEFT + 28.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{swatch}\" y=\"{}\" width=\"10\" height=\"10\"/>",
            y - 10.0
        );
        let _ = writeln!(svg, "<text x=\"{text_x}\" y=\"{y}\">{text}</text>");
    }
    svg + "</svg>\n"
}

fn grid(svg: &mut String, axes: &Axes) {
    let steps = ((axes.most - 1.0) * 20.0).round() as u32;
    for step in 0..=steps {
        let ratio = 1.0 + f64::from(step) / 20.0;
        let y = axes.y(ratio);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>", WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ratio:.2}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    for decade in 0..=axes.decades as i32 {
        let x = axes.x(10f64.powi(decade));
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{}\"/>", HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM + 18.0,
            10u32.pow(decade as u32)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">nodes</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0
    );
}

fn line(svg: &mut String, axes: &Axes, class: &str, dots: &[Dot], ratio: impl Fn(&Dot) -> f64) {
    let places: Vec<(f64, f64)> =
        dots.iter().map(|dot| (axes.x(dot.nodes), axes.y(ratio(dot)))).collect();
    let points: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline class=\"line {class}\" style=\"fill:none\" points=\"{}\"/>",
        points.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
    }
}
