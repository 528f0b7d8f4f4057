//! The page: one file without scripts, fonts or pictures from elsewhere. All text is escaped.

use std::fmt::Write as _;

use serde_json::Value;

use crate::check::{Checked, Run};
use crate::evidence::Evidence;

/// So many items of evidence are shown of each run.
const SHOWN: usize = 50;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}\
th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #8884}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.verdict{font-size:1.15rem;padding:.6rem 1rem;border-left:.4rem solid #888;background:#8881}\
.bad{border-color:#c33}.good{border-color:#2a2}\
svg{width:100%;height:3rem;display:block}code{font-size:.9em}";

/// The whole page.
pub(super) fn page(checked: &Checked, comparison: Option<&Value>) -> String {
    let mut body = String::new();
    match comparison {
        Some(comparison) => compared(&mut body, comparison),
        None => summary(&mut body, checked),
    }
    for run in &checked.runs {
        section(&mut body, run);
    }
    let document = checked.document();
    let head = serde_json::to_value(document).unwrap_or_default();
    let word = |name: &str| escape(head[name].as_str().unwrap_or("?"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>walbanger report</title>\n<style>{STYLE}</style>\n<h1>walbanger report</h1>\n\
         {body}<p><small>walbanger {}, SQLite {}, kernel {}</small></p>\n</html>\n",
        word("walbanger"),
        word("sqlite"),
        word("kernel"),
    )
}

fn summary(body: &mut String, checked: &Checked) {
    let total: u64 = checked.runs.iter().map(|run| run.evidence_total).sum();
    let (class, words) = match total {
        0 => ("good", "No evidence.".to_owned()),
        1 => ("bad", "1 piece of evidence.".to_owned()),
        total => ("bad", format!("{total} pieces of evidence.")),
    };
    let _ = writeln!(body, "<p class=\"verdict {class}\">{words}</p>");
}

/// The verdict and the arms of a comparison.
fn compared(body: &mut String, comparison: &Value) {
    let text = |value: &Value| escape(value.as_str().unwrap_or("-"));
    let class = match comparison["verdict"].as_str() {
        Some("not-reproduced") => "good",
        Some("reproduced" | "clean-arm-fails") => "bad",
        _ => "",
    };
    let _ = writeln!(
        body,
        "<p class=\"verdict {class}\"><b>{}</b>: {}</p>",
        text(&comparison["verdict"]),
        text(&comparison["because"]),
    );
    if let Some(broken) = comparison["broken_guarantees"].as_array().filter(|all| !all.is_empty()) {
        let names: Vec<_> =
            broken.iter().map(|name| format!("<code>{}</code>", text(name))).collect();
        let _ = writeln!(body, "<p>Broken guarantees: {}</p>", names.join(", "));
    }
    body.push_str(
        "<table>\n<tr><th>arm<th>plan<th class=n>trials<th class=n>with evidence\
         <th class=n>first evidence<th class=n>commits/s<th class=n>acked<th class=n>lost\n",
    );
    for arm in comparison["arms"].as_array().into_iter().flatten() {
        let flags = arm["flags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let flags: Vec<_> = flags.map(|flag| format!("<code>{}</code>", escape(flag))).collect();
        let number = |name: &str| match &arm[name] {
            Value::Number(number) => number.as_f64().map_or_else(String::new, short),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            body,
            "<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td \
             class=n>{}<td class=n>{}",
            text(&arm["name"]),
            flags.join(" "),
            number("trials"),
            number("trials_with_evidence"),
            number("first_evidence_median"),
            number("commits_per_second"),
            number("acked"),
            number("lost"),
        );
    }
    body.push_str("</table>\n");
}

/// A count as it is, anything else with two digits.
fn short(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// One run: what was done, when the evidence came, and what it is.
fn section(body: &mut String, run: &Run) {
    let _ = writeln!(body, "<h2>{}</h2>", escape(&run.name));
    let database = run.database.as_ref().map_or_else(String::new, |database| {
        format!(
            "; {} of them in the database, {} lost, integrity {}",
            database.present,
            database.lost,
            escape(&database.integrity)
        )
    });
    let _ = writeln!(
        body,
        "<p>{} histories, {} commits acknowledged in {:.1} s{database}.</p>",
        run.histories.len(),
        run.commits,
        run.seconds
    );
    if run.evidence_total > 0 {
        timeline(body, run);
        evidence(body, run);
        if let Some(database) = &run.database {
            for line in database.beside.lines() {
                let _ = writeln!(body, "<p><code>{}</code></p>", escape(&line));
            }
        }
    }
    for note in &run.notes {
        let _ = writeln!(body, "<p>Note: {}.</p>", escape(note));
    }
}

/// When the evidence came, from the first start to the end.
fn timeline(body: &mut String, run: &Run) {
    let length = run.evidence.iter().map(|one| one.at).fold(run.seconds.max(0.001), f64::max);
    let _ = write!(
        body,
        "<svg viewBox=\"0 0 1000 48\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"when the evidence came\"><rect y=\"23\" width=\"1000\" height=\"2\" \
         fill=\"#888\"/>"
    );
    for one in run.evidence.iter().take(SHOWN) {
        let _ = write!(
            body,
            "<rect x=\"{:.1}\" y=\"8\" width=\"3\" height=\"32\" fill=\"#c33\"><title>{}</title>\
             </rect>",
            one.at / length * 997.0,
            escape(&one.to_string())
        );
    }
    let _ = writeln!(body, "</svg>\n<p><small>0 s to {length:.3} s</small></p>");
}

fn evidence(body: &mut String, run: &Run) {
    body.push_str("<table>\n<tr><th class=n>at<th>kind<th>who<th>what\n");
    for one in run.evidence.iter().take(SHOWN) {
        let Evidence { at, kind, replica, worker, message, .. } = one;
        let code = one.code.map_or_else(String::new, |code| {
            format!(" {code} {}", escape(one.name.as_deref().unwrap_or_default()))
        });
        let transaction =
            one.transaction.map_or_else(String::new, |number| format!(", transaction {number}"));
        let transient =
            if one.transient == Some(true) { " (the file itself is intact)" } else { "" };
        let _ = writeln!(
            body,
            "<tr><td class=n>{at:.3} s<td>{kind}{code}<td>replica {}, worker {worker}{transaction}\
             <td>{}{transient}",
            escape(replica.as_str()),
            escape(message)
        );
    }
    body.push_str("</table>\n");
    if run.evidence_total > SHOWN as u64 {
        let counts: Vec<_> =
            run.kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        let _ = writeln!(body, "<p>In all: {}.</p>", counts.join(", "));
    }
}

/// Text as HTML shows it as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escape("<b a='1' c=\"2\">&é"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;é");
        let comparison = serde_json::json!({
            "verdict": "<script>", "because": "a & b", "broken_guarantees": ["<i>"],
            "arms": [{"name": "<u>", "flags": ["--x=\"<\""], "trials": 3, "first_evidence_median": 0.25}],
        });
        let page = page(&Checked { runs: Vec::new() }, Some(&comparison));
        for bad in ["<script", "<i>", "<u>", "\"<\"", "a & b"] {
            assert!(!page.contains(bad), "{bad}: {page}");
        }
        assert!(page.contains("<td class=n>3<td class=n>-<td class=n>0.25"), "{page}");
    }
}
