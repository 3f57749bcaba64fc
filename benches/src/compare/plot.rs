//! The same medians as bars: each scenario's relative to HAProxy's, longer is dearer.

use std::fmt::Write;

use super::proxies::{PROXIES, Proxy};
use super::result::Results;
use super::scenario::SCENARIOS;

const BAR: f64 = 12.0;
const LEFT: f64 = 430.0;
/// Of a bar as long as HAProxy's.
const ONE: f64 = 120.0;
/// Longer bars are cut off there, with their figure.
const MOST: f64 = 4.0;

/// An SVG document. A scenario without a figure of HAProxy is left out; where more is better the ratio is turned round.
pub fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 40.0;
    for scenario in &SCENARIOS {
        let Some(reference) = results.median(scenario.name, Proxy::Haproxy.name()) else { continue };
        let what = escaped(scenario.what);
        let _ = writeln!(body, r#"<text x="10" y="{:.0}" font-weight="bold">{what}</text>"#, y + BAR - 2.0);
        for (proxy, colour) in PROXIES.iter().zip(COLOURS) {
            let Some(median) = results.median(scenario.name, proxy.name()) else { continue };
            let ratio = if scenario.unit.more_is_better() { reference / median } else { median / reference };
            let (name, width) = (proxy.name(), ratio.min(MOST) * ONE);
            let cut = if ratio > MOST { " …" } else { "" };
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y:.0}" width="{width:.1}" height="{:.0}" fill="{colour}"/><text x="{:.0}" y="{:.0}">{ratio:.2}{cut} {name}</text>"#,
                BAR - 2.0,
                LEFT + width + 4.0,
                y + BAR - 3.0,
            );
            y += BAR;
        }
        y += BAR;
    }
    let width = LEFT + MOST * ONE + 160.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{y:.0}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">Cost relative to HAProxy (1.00); shorter is better</text>\n\
         {body}<line x1=\"{one}\" x2=\"{one}\" y1=\"30\" y2=\"{y:.0}\" stroke=\"black\" stroke-dasharray=\"2 3\"/>\n</svg>\n",
        one = LEFT + ONE,
    )
}

const COLOURS: [&str; PROXIES.len()] =
    ["#d1495b", "#e58a97", "#c98a1b", "#e3c07d", "#2e6f95", "#7fb2d0", "#3a9b5c", "#6b4fa0", "#ab98cf"];

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
