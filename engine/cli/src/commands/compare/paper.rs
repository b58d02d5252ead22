//! `tracetune compare --paper`

use serde_json::json;
use tracetune_engine::cache::Store;
use tracetune_engine::compare::{Comparison, Flips, Side};
use tracetune_engine::runs::MetricLine;

use super::{Args, Captioned, cell, points, print, print_notes, written};
use crate::session::Session;
use crate::ui::helped;
use crate::{Here, Paper, PaperTable, exit};

/// The paper's tables with a row a side below, and the set-ups side by side.
pub(super) fn beside(comparison: &Comparison, store: &Store, args: &Args, session: &Session) -> anyhow::Result<u8> {
    let Some(paper) = session.app.paper else {
        return Err(helped("no paper's figures come with this program", "leave out `--paper`"));
    };
    let conditions: Vec<&str> = paper.tables.iter().filter_map(|table| table.condition).collect();
    let tables: Vec<Beside> =
        paper.tables.iter().filter_map(|table| Beside::new(table, comparison, &conditions)).collect();
    let setup = setup_beside(&paper, comparison, store)?;
    if session.ui.json {
        let tables: Vec<serde_json::Value> = tables.iter().map(Beside::json).collect();
        session.ui.answer_json(&json!({"source": paper.source, "tables": tables, "setup": setup}));
        return Ok(exit::DONE);
    }
    let header = ["what", "paper", "this run"].map(str::to_owned).to_vec();
    let setup = Captioned { caption: "What is different about the set-up".to_owned(), header, rows: setup };
    let figures = tables.into_iter().map(|beside| beside.captioned(paper.source));
    print(&figures.chain([setup]).collect::<Vec<_>>(), args.markdown, session);
    print_notes(comparison, args.markdown, session);
    Ok(exit::DONE)
}

/// How the figures were measured: a row a part, there and here.
fn setup_beside(paper: &Paper, comparison: &Comparison, store: &Store) -> anyhow::Result<Vec<Vec<String>>> {
    let last = &comparison.sides[comparison.sides.len() - 1];
    let mut setup = Vec::new();
    for part in paper.setup {
        let mut values = Vec::new();
        match part.here {
            Here::Params(params) => {
                for (kind, param) in params {
                    values.extend(last.settings_of(store, kind, param)?.iter().map(written));
                }
            }
            Here::Rounds => {
                values.push(comparison.sides.iter().map(|side| side.round).max().unwrap_or_default().to_string());
            }
            Here::Always(text) => values.push(text.to_owned()),
        }
        setup.push(vec![part.what.to_owned(), part.there.to_owned(), values.join(", ")]);
    }
    Ok(setup)
}

/// What a stage of a side has for a table.
struct Ours<'a> {
    side: &'a Side,
    split: &'a str,
    stage: &'a str,
    /// A figure per column.
    figures: Vec<Option<&'a MetricLine>>,
}

/// A published table and what the sides have for it.
struct Beside<'a> {
    table: &'a PaperTable,
    ours: Vec<Ours<'a>>,
    gains: Vec<(&'a Side, &'a Flips)>,
}

impl<'a> Beside<'a> {
    /// `None` if the table has a condition that no side was evaluated under. `conditions` are those of all tables.
    fn new(table: &'a PaperTable, comparison: &'a Comparison, conditions: &[&str]) -> Option<Self> {
        let mut ours = Vec::new();
        for side in &comparison.sides {
            for (split, stage) in side.scored() {
                let figure = |k: &i32| side.figure(split, stage, &table.named(&format!("pass@{k}")));
                let figures: Vec<_> = table.ks.iter().map(figure).collect();
                if figures.iter().any(Option::is_some) {
                    ours.push(Ours { side, split, stage, figures });
                }
            }
        }
        if table.condition.is_some() && ours.is_empty() {
            return None;
        }
        let condition_of = |flips: &Flips| {
            conditions.iter().copied().find(|condition| flips.split.ends_with(&format!(" ({condition})")))
        };
        let here = comparison.flips.iter().filter(|flips| condition_of(flips) == table.condition);
        let gains = here.map(|flips| (&comparison.sides[flips.side], flips)).collect();
        Some(Self { table, ours, gains })
    }

    fn captioned(&self, source: &str) -> Captioned {
        let published = |(name, values): &(&str, &[f64])| {
            let values = values.iter().map(|value| format!("{value:.1}"));
            std::iter::once((*name).to_owned()).chain(values).collect::<Vec<String>>()
        };
        let PaperTable { caption, ks, rows: there, gain, .. } = self.table;
        let mut rows: Vec<Vec<String>> = there.iter().map(published).collect();
        let signed = gain.1.iter().map(|value| format!("{value:+.1}"));
        rows.push(std::iter::once(gain.0.to_owned()).chain(signed).collect());
        for ours in &self.ours {
            let Ours { side, split, stage, figures } = ours;
            let cells = figures.iter().map(|figure| figure.map_or("-".to_owned(), |figure| cell(figure, true)));
            let is_same = |other: &&Ours| std::ptr::eq(other.side, *side) && other.split == *split;
            let by_stage = self.ours.iter().filter(is_same).count() > 1;
            let stage = if by_stage { format!(", {stage}") } else { String::new() };
            let name = format!("{} round {}, {split}{stage}", side.variant, side.round);
            rows.push(std::iter::once(name).chain(cells).collect());
        }
        for (side, flips) in &self.gains {
            let what = if flips.metric == "pass@1" { String::new() } else { format!(" in {}", flips.metric) };
            let name = format!("gain{what} of {} round {}, {}", side.variant, side.round, flips.split);
            let empty = ks.iter().skip(1).map(|_| String::new());
            rows.push([name, points(flips)].into_iter().chain(empty).collect());
        }
        let columns = ks.iter().map(|k| format!(">pass@{k}"));
        let header = std::iter::once("in per cent".to_owned()).chain(columns).collect();
        Captioned { caption: format!("{source}: {caption}, in per cent"), header, rows }
    }

    fn json(&self) -> serde_json::Value {
        let published = |(name, values): &(&str, &[f64])| json!({"name": name, "values": values});
        let ours = self.ours.iter().map(|Ours { side, split, stage, figures }| {
            let values: Vec<Option<f64>> = figures.iter().map(|figure| figure.map(|figure| figure.value)).collect();
            json!({"side": side.name(), "split": split, "stage": stage, "values": values})
        });
        json!({
            "caption": self.table.caption,
            "k": self.table.ks,
            "paper": self.table.rows.iter().chain([&self.table.gain]).map(published).collect::<Vec<_>>(),
            "ours": ours.collect::<Vec<_>>(),
        })
    }
}
