//! The text format of Prometheus (version 0.0.4): families of samples with a help line and a type each.

use std::fmt::Write as _;

/// The content type of a page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics that is being written. All names get the prefix `kiln_`.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    name: String,
}

impl Page {
    /// Begins a family whose samples only grow. Its name ends with `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> &mut Self {
        self.family(name, "counter", help)
    }

    /// Begins a family whose samples go up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> &mut Self {
        self.family(name, "gauge", help)
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        self.name = format!("kiln_{name}");
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {} {help}\n# TYPE {} {kind}", self.name, self.name);
        self
    }

    /// Adds a sample to the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        let labels = written(labels);
        let _ = writeln!(self.text, "{}{labels} {}", self.name, value.into().0);
        self
    }

    /// Adds a family with the buckets of one histogram.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        histogram: &super::Histogram<N>,
    ) {
        self.histograms(name, help).buckets(&[], histogram);
    }

    /// Begins a family of histograms.
    pub(super) fn histograms(&mut self, name: &str, help: &str) -> &mut Self {
        self.family(name, "histogram", help)
    }

    /// Adds the buckets of a histogram to the family.
    pub(super) fn buckets<const N: usize>(
        &mut self,
        labels: &[(&str, &str)],
        histogram: &super::Histogram<N>,
    ) -> &mut Self {
        let (buckets, count, sum) = histogram.read();
        let name = self.name.clone();
        let mut bucket = |bound: &str, count: u64| {
            let labels = written(&[labels, &[("le", bound)]].concat());
            let _ = writeln!(self.text, "{name}_bucket{labels} {count}");
        };
        for (bound, count) in buckets {
            bucket(&bound.to_string(), count);
        }
        bucket("+Inf", count);
        let labels = written(labels);
        let _ = writeln!(self.text, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}");
        self
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A number as the format writes it.
#[derive(Debug)]
pub(super) struct Value(String);

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self(value.to_string())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self(value.to_string())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self(value.to_string())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(u8::from(value).to_string())
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_help_line_and_a_type_for_each_family() {
        let mut page = Page::default();
        page.counter("boots_total", "Boots.\nBy outcome.")
            .sample(&[("outcome", "healthy")], 3_u64)
            .sample(&[("outcome", "a\"b\\c\n")], 0_u64);
        page.gauge("ready", "Whether.").sample(&[], true);
        assert_eq!(
            page.finish(),
            "# HELP kiln_boots_total Boots.\\nBy outcome.\n# TYPE kiln_boots_total counter\n\
             kiln_boots_total{outcome=\"healthy\"} 3\n\
             kiln_boots_total{outcome=\"a\\\"b\\\\c\\n\"} 0\n\
             # HELP kiln_ready Whether.\n# TYPE kiln_ready gauge\nkiln_ready 1\n"
        );
    }
}
