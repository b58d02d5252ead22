//! `params.parquet`: what each variant of a run was set to, one value per row, to be joined to the figures by run and
//! variant.

use std::collections::BTreeMap;

use crate::pipeline::{MAIN, Node, Pipeline, VariantSettings};

crate::record! {
    /// A row of `params.parquet`.
    #[derive(serde::Serialize)]
    pub struct ParamLine {
        /// The run.
        pub run: String,
        /// The label that the figures of `metrics.parquet` have in their column `variant`.
        pub variant: String,
        /// The stage that has the parameter, in its last round; `None` for the seed, for `[params]` and for the paths that a
        /// sweep or an ablation sets.
        pub stage: Option<String>,
        /// The parameter's name, or the path.
        pub name: String,
        /// Its value; anything but a string as JSON.
        pub value: String,
        /// The value as a number, if it is one.
        pub number: Option<f64>,
        /// Whether `[sweep]` or `[ablations]` sets it.
        pub axis: bool,
    }
}

/// The name in `parts` that a label is of: `samples=4` for `samples=4/control`. Labels that the file itself gives are
/// parts of one pipeline.
pub(crate) fn part_of<'p>(parts: &'p [String], label: &str) -> &'p str {
    let is_it =
        |name: &&String| label.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    parts.iter().filter(is_it).map(String::as_str).max_by_key(|name| name.len()).unwrap_or(MAIN)
}

/// The rows of a run: for each label the settings of its variant, then the parameters of its stages.
pub(super) fn param_lines(run: &str, pipeline: &Pipeline, labels: &[String]) -> Vec<ParamLine> {
    let mut stages: BTreeMap<(&str, &str), &Node> = BTreeMap::new();
    for node in &pipeline.nodes {
        for label in &node.variant {
            stages.insert((label, &node.stage), node);
        }
    }
    let mut lines = Vec::new();
    for label in labels {
        let line = |stage: Option<&str>, name: &str, value: &serde_json::Value, axis: bool| ParamLine {
            run: run.to_owned(),
            variant: label.clone(),
            stage: stage.map(str::to_owned),
            name: name.to_owned(),
            value: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            number: value.as_f64(),
            axis,
        };
        let part = part_of(&pipeline.variants, label);
        let is_it = |settings: &&VariantSettings| settings.variant == part;
        for setting in pipeline.settings.iter().find(is_it).into_iter().flat_map(|settings| &settings.settings) {
            let value = serde_json::to_value(&setting.value).unwrap_or_default();
            lines.push(line(None, &setting.name, &value, setting.is_axis));
        }
        let own = stages.range((label.as_str(), "")..).take_while(|((of, _), _)| of == label);
        for ((_, stage), node) in own {
            for (name, value) in node.stage_kind.params().as_object().into_iter().flatten() {
                lines.push(line(Some(stage), name, value, false));
            }
        }
    }
    lines
}
