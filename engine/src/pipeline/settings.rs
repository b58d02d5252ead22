//! What a variant is set to: the seed, `[params]`, and the values that `[sweep]` and `[ablations]` lay over the file.

use super::params::reference;
use super::source::{Table, Value};
use super::value::plain;

/// A variant's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantSettings {
    /// The variant, `main` for the pipeline alone.
    pub variant: String,
    /// The seed, the parameters by name, then the other paths that the variant sets.
    pub settings: Vec<Setting>,
}

/// One value of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// `seed`, a parameter's name, or a path such as `rounds.sample.trace`.
    pub name: String,
    /// Its value.
    pub value: toml::Value,
    /// Whether `[sweep]` or `[ablations]` sets it.
    pub is_axis: bool,
}

impl VariantSettings {
    /// Of a document that the variant's `paths` are already laid over.
    pub(super) fn of(variant: &str, document: &Table, paths: &[(&str, &Value)]) -> Self {
        let table = |key: &str| document.get(key).and_then(|value| value.get_ref().as_table());
        let seed = table("pipeline").and_then(|pipeline| pipeline.get("seed"));
        let seed = seed.map_or(toml::Value::Integer(0), |seed| plain(seed.get_ref()));
        let is_axis = |prefix: &str, name: &str| {
            paths.iter().any(|(path, _)| *path == name || path.strip_prefix(prefix) == Some(name))
        };
        let mut settings =
            vec![Setting { name: "seed".to_owned(), value: seed.clone(), is_axis: is_axis("pipeline.", "seed") }];
        for (name, value) in table("params").into_iter().flatten() {
            let name = name.get_ref();
            let value = match reference(value.get_ref()) {
                Some("seed") => seed.clone(),
                _ => plain(value.get_ref()),
            };
            settings.push(Setting { name: name.to_string(), value, is_axis: is_axis("params.", name) });
        }
        for (path, value) in paths {
            let name = path.strip_prefix("params.").or(path.strip_prefix("pipeline.")).unwrap_or(path);
            match settings.iter_mut().find(|setting| setting.name == name) {
                // A path of an ablation may be one of the sweep's: the later value is the one that counts.
                Some(setting) => setting.value = plain(value.get_ref()),
                None => {
                    settings.push(Setting { name: name.to_owned(), value: plain(value.get_ref()), is_axis: true });
                }
            }
        }
        Self { variant: variant.to_owned(), settings }
    }
}
