//! A bench as one HTML file: figures, and a histogram of each measurement as inline SVG. No scripts, nothing from elsewhere.

use std::fmt::Write;

use super::report::{Report, Run, Under, nanoseconds};
use super::rows;
use super::samples::Samples;

const BARS: usize = 100;
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 120.0;
/// Along the axis, besides the first.
const LABELS: usize = 5;
/// Below the bars, for the axis.
const AXIS: f64 = 18.0;

const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.1em;margin:2em 0 0}h2 code{font-size:1em}table{border-collapse:collapse}\
td,th{padding:.1em .8em .1em 0;text-align:right;font-variant-numeric:tabular-nums}td:first-child,th:first-child\
{text-align:left}svg{width:100%;height:auto;display:block;margin-top:.5em}svg text{font-size:11px;fill:#555}\
dt{font-weight:bold}dd{margin:0 0 .3em 1em}.slotpass{fill:#2c6fbb;color:#2c6fbb}\
.floor{fill:#8a8a8a;color:#8a8a8a}.qemu{fill:#d9822b;color:#d9822b}\
rect.slotpass,rect.floor,rect.qemu{fill-opacity:.65}p.what{margin:0;color:#555}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn class(under: Under) -> &'static str {
    match under {
        Under::Slotpass => "slotpass",
        Under::Floor => "floor",
        Under::Qemu => "qemu",
    }
}

/// The samples of the measurement at `at` of slotpass' under each; the floor's where it is a single thing.
fn beside<'a>(report: &'a Report, own: &Run, at: usize) -> Vec<(&'a Run, &'a Samples)> {
    let of_run = |run: &'a Run| {
        let samples = match run.under {
            Under::Floor => match rows::find(&own.measurements.get(at)?.name)?.floor {
                [single] => run.samples(single)?,
                _ => return None,
            },
            _ => run.beside(own, at)?.cycles.as_ref()?,
        };
        Some((run, samples))
    };
    report.runs.iter().filter_map(of_run).collect()
}

/// The whole file.
pub fn page(report: &Report) -> String {
    let own = report.run(Under::Slotpass);
    let function = own.and_then(|run| run.function.as_deref()).unwrap_or("no function");
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>slotpass bench: {0}</title>\
         <style>{STYLE}</style></head><body>\n<h1>slotpass bench: {0}</h1>\n",
        escaped(function)
    );
    page += &environment(report);
    for (own, at) in own.into_iter().flat_map(|own| (0..own.measurements.len()).map(move |at| (own, at))) {
        let Some(measurement) = own.measurements.get(at) else { continue };
        let what = rows::find(&measurement.name).map_or("", |row| row.what);
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "<h2><code>{}</code></h2><p class=\"what\">{}</p>",
            escaped(&measurement.name),
            escaped(what)
        );
        match &measurement.absent {
            Some(why) => {
                let _ = writeln!(page, "<p>absent: {}</p>", escaped(why));
            }
            None => {
                let samples = beside(report, own, at);
                page += &histogram(&samples);
                page += &figures(&samples);
            }
        }
    }
    page += "</body></html>\n";
    page
}

fn environment(report: &Report) -> String {
    let here = &report.environment;
    let mut text = "<dl>".to_owned();
    let mut entry = |name: &str, value: &str| {
        let _ = write!(text, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
    };
    entry("slotpass", &report.slotpass);
    for (name, value) in
        [("Processor", &here.processor), ("Kernel", &here.kernel), ("Governor", &here.governor)]
    {
        entry(name, value.as_deref().unwrap_or("not told"));
    }
    for (name, values) in [("Mitigations", &here.mitigations), ("KVM", &here.kvm)] {
        let values: Vec<String> = values.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        entry(name, &values.join("; "));
    }
    text + "</dl>\n"
}

fn figures(samples: &[(&Run, &Samples)]) -> String {
    let mut text = "<table><tr><th>cycles (ns)</th>".to_owned();
    for name in ["min", "p50", "p99", "p99.9", "max", "samples"] {
        let _ = write!(text, "<th>{name}</th>");
    }
    text += "</tr>";
    for (run, samples) in samples {
        // The square is the legend.
        let under = run.under;
        let _ =
            write!(text, "<tr><td><span class=\"{}\">\u{25a0}</span> {}</td>", class(under), under.name());
        for figure in samples.quantiles().each() {
            let _ = write!(text, "<td>{figure} ({})</td>", nanoseconds(figure, run.cycles_per_microsecond));
        }
        let _ = write!(text, "<td>{}</td></tr>", samples.count());
    }
    text + "</table>\n"
}

/// Bars over cycles, each so many per cent wider than the one before, since some samples take many times as long as others. They
/// reach to the largest of the 99th percentiles, the rest is in the last. A bar is as high as its part of its run's samples.
fn histogram(samples: &[(&Run, &Samples)]) -> String {
    let quantiles: Vec<_> = samples.iter().map(|(_, samples)| samples.quantiles()).collect();
    let scale = Scale::new(
        quantiles.iter().map(|q| q.min).min().unwrap_or(0),
        quantiles.iter().map(|q| q.p99).max().unwrap_or(0),
    );
    let parts: Vec<Vec<f64>> = samples.iter().map(|(_, samples)| scale.parts(samples)).collect();
    let highest = parts.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    let bar = WIDTH / BARS as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", HEIGHT + AXIS);
    for ((run, _), parts) in samples.iter().zip(&parts) {
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| **part > 0.0) {
            // A single sample can be seen.
            let height = (part / highest * HEIGHT).max(1.0);
            let _ = write!(
                svg,
                "<rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{}, from \
                 {:.0} cycles{}: {:.1} %</title></rect>",
                class(run.under),
                at as f64 * bar,
                HEIGHT - height,
                bar - 0.5,
                run.under.name(),
                scale.start(at).ceil(),
                if at + 1 == BARS { " on" } else { "" },
                part * 100.0
            );
        }
    }
    let _ = write!(svg, "<line x1=\"0\" x2=\"{WIDTH}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\" stroke=\"#999\"/>");
    for label in 0..=LABELS {
        let (x, anchor) = match label {
            0 => (0.0, "start"),
            LABELS => (WIDTH, "end"),
            _ => (WIDTH * label as f64 / LABELS as f64, "middle"),
        };
        let cycles = scale.start(label * BARS / LABELS);
        let _ = write!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{cycles:.0}</text>",
            HEIGHT + AXIS - 4.0
        );
    }
    svg + "</svg>\n"
}

/// Which bar a sample is in.
struct Scale {
    first: f64,
    /// Each bar's start by that of the one before.
    step: f64,
}

impl Scale {
    /// From one to the other, but not so fine that bars are narrower than a thousandth.
    fn new(first: u64, last: u64) -> Scale {
        let first = (first as f64).max(1.0);
        let step = (last as f64 / first).max(1.0).powf(1.0 / BARS as f64);
        Scale { first, step: step.max(1.001) }
    }

    /// Cycles with which a bar starts.
    fn start(&self, bar: usize) -> f64 {
        self.first * self.step.powf(bar as f64)
    }

    /// The part of the samples that each bar has.
    fn parts(&self, samples: &Samples) -> Vec<f64> {
        let mut bars = vec![0.0; BARS];
        let total = samples.count() as f64;
        for &(value, count) in samples.runs() {
            let at = ((value as f64).max(self.first) / self.first).ln() / self.step.ln();
            // Values at a start may come out just below it.
            if let Some(bar) = bars.get_mut(((at + 1e-6) as usize).min(BARS - 1)) {
                *bar += count as f64 / total;
            }
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use super::super::printed::Printed;
    use super::*;

    fn run(under: Under, text: &str) -> Run {
        Run::of(under, Some("a & b".to_owned()), &[Printed::read(text).unwrap()]).unwrap()
    }

    #[test]
    fn every_sample_is_in_a_bar() {
        for (words, first, last, filled) in [
            // A step of 1.1220 makes ten times as much in twenty bars.
            ("10 100*2 999999 1000000", 10, 1_000_000, vec![(0, 1), (20, 2), (99, 2)]),
            // The rest is in the last bar.
            ("10 18446744073709551615", 10, 1_000_000, vec![(0, 1), (99, 1)]),
            ("5*8", 5, 5, vec![(0, 8)]),
            ("0 1", 0, 1, vec![(0, 2)]),
        ] {
            let samples = Samples::parse(words).unwrap();
            let bars = Scale::new(first, last).parts(&samples);
            let total = samples.count() as f64;
            let seen = bars.iter().enumerate().filter(|(_, part)| **part > 0.0);
            let seen: Vec<_> = seen.map(|(at, part)| (at, (part * total).round() as u64)).collect();
            assert_eq!(seen, filled, "{words}");
        }
    }

    #[test]
    fn a_page_has_what_was_measured_and_needs_nothing_else() {
        let own = "bench-rate 1000\nbench pio-read cycles 1000*9 5000\nbench msix-read absent <none>\n";
        let runs = vec![
            run(Under::Slotpass, own),
            run(Under::Floor, "bench-rate 1000\nbench pio-read cycles 18446744073709551615\n"),
        ];
        let page = page(&Report::new("1.0", runs));
        assert_eq!(page.matches("<svg ").count(), 1);
        assert!(
            page.contains("<title>slotpass bench: a &amp; b</title>")
                && page.contains("absent: &lt;none&gt;")
        );
        assert!(page.contains("rect class=\"slotpass\"") && page.contains("rect class=\"floor\""), "{page}");
        for foreign in ["<script", "http:", "https:", "src=", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn what_was_measured_twice_has_its_own_figures() {
        let text = "bench-rate 1000\nbench pio-read cycles 1111\nbench pio-read cycles 2222\n";
        let page = page(&Report::new("1.0", vec![run(Under::Slotpass, text)]));
        assert_eq!(
            (page.matches("<td>1111 (").count(), page.matches("<td>2222 (").count()),
            (5, 5),
            "{page}"
        );
    }
}
