//! What a kind's JSON Schema says about each of its parameters: for checking, and for `tracetune kinds`.

use serde::Serialize;
use serde_json::{Map, Value as Json};
use toml::de::DeValue;

use super::schema::shortest;
use super::value::described;
use crate::registry::Kind;

/// One parameter of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    /// The key in the TOML file.
    pub name: String,
    /// A key that it had before and may still be given by: the schema's [`FORMER_NAME`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_name: Option<String>,
    /// The JSON types it may have: `integer`, `number`, `string`, `boolean`, `array`, `object`. Empty: not said.
    pub types: Vec<String>,
    /// The words it may be, if it is one of a few.
    pub choices: Vec<String>,
    /// The least value.
    pub minimum: Option<f64>,
    /// The greatest value.
    pub maximum: Option<f64>,
    /// Whether the file must give it.
    pub required: bool,
    /// What it is when the file does not give it.
    pub default: Option<Json>,
    /// Its documentation.
    pub about: String,
    /// The keys of a table that has certain keys only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Parameter>,
}

/// Where a property's schema says under which name older files have it: `#[schemars(extend("x-former-name" = "…"))]`.
pub(super) const FORMER_NAME: &str = "x-former-name";

/// The parameters of a kind, those that must be given first, then by name.
pub fn parameters(kind: &dyn Kind) -> Vec<Parameter> {
    let schema = kind.schema().to_value();
    of_properties(&schema, &schema, 0)
}

/// What an object's schema says of its properties.
fn of_properties(schema: &Json, root: &Json, depth: usize) -> Vec<Parameter> {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let properties = schema["properties"].as_object();
    let mut parameters: Vec<Parameter> = properties
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let mut parameter = Parameter {
                name: name.clone(),
                former_name: property.get(FORMER_NAME).and_then(Json::as_str).map(str::to_owned),
                types: Vec::new(),
                choices: Vec::new(),
                minimum: None,
                maximum: None,
                required: required.contains(&name.as_str()),
                default: property
                    .get("default")
                    .map(|default| shortest(property, default).unwrap_or_else(|| default.clone())),
                about: property["description"].as_str().unwrap_or_default().to_owned(),
                fields: Vec::new(),
            };
            parameter.learn(property, root, depth);
            parameter
        })
        .collect();
    parameters.sort_by_key(|parameter| !parameter.required);
    parameters
}

impl Parameter {
    /// Collects types, choices, range and fields from a schema and those it refers to.
    fn learn(&mut self, schema: &Json, root: &Json, depth: usize) {
        let Some(object) = schema.as_object().filter(|_| depth < 8) else { return };
        let target = object.get("$ref").and_then(Json::as_str).and_then(|path| path.strip_prefix('#'));
        if let Some(target) = target.and_then(|path| root.pointer(path)) {
            self.learn(target, root, depth + 1);
        }
        match object.get("type") {
            Some(Json::String(name)) => self.add_type(name),
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).for_each(|name| self.add_type(name)),
            _ => {}
        }
        let words = object.get("enum").and_then(Json::as_array).into_iter().flatten();
        self.choices.extend(words.chain(object.get("const")).filter_map(Json::as_str).map(str::to_owned));
        self.minimum = self.minimum.or(number(object, "minimum"));
        self.maximum = self.maximum.or(number(object, "maximum"));
        if self.fields.is_empty() && object.contains_key("properties") {
            self.fields = of_properties(schema, root, depth + 1);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for option in object.get(key).and_then(Json::as_array).into_iter().flatten() {
                self.learn(option, root, depth + 1);
            }
        }
    }

    fn add_type(&mut self, name: &str) {
        if name != "null" && !self.types.iter().any(|known| known == name) {
            self.types.push(name.to_owned());
        }
    }

    /// Whether the key is its name, or was.
    pub(super) fn is_called(&self, key: &str) -> bool {
        self.name == key || self.former_name.as_deref() == Some(key)
    }

    /// The unit that the name ends in, for people.
    pub fn unit(&self) -> Option<&'static str> {
        let (_, suffix) = self.name.rsplit_once('_')?;
        match suffix {
            "s" => Some("seconds"),
            "ms" => Some("milliseconds"),
            "bytes" => Some("bytes"),
            "tokens" => Some("tokens"),
            _ => None,
        }
    }

    /// What it takes, for people: "an integer from 1 to 8, in seconds".
    pub fn expected(&self) -> String {
        if !self.choices.is_empty() && self.types.iter().all(|name| name == "string") {
            let words: Vec<String> = self.choices.iter().map(|word| format!("\"{word}\"")).collect();
            return format!("one of {}", words.join(", "));
        }
        let types: Vec<&str> = self
            .types
            .iter()
            .map(|name| match name.as_str() {
                "integer" => "an integer",
                "number" => "a number",
                "string" => "a string",
                "boolean" => "true or false",
                "array" => "an array",
                "object" => "a table",
                other => other,
            })
            .collect();
        let range = match (self.minimum, self.maximum) {
            (Some(least), Some(most)) => format!(" from {least} to {most}"),
            (Some(least), None) => format!(" of at least {least}"),
            (None, Some(most)) => format!(" of at most {most}"),
            (None, None) => String::new(),
        };
        let unit = self.unit().map(|unit| format!(", in {unit}")).unwrap_or_default();
        format!("{}{range}{unit}", if types.is_empty() { "a value".to_owned() } else { types.join(" or ") })
    }

    /// Why `value` can't be this parameter's, if the schema says so, and what to write instead.
    pub(super) fn refuses(&self, value: &DeValue) -> Option<(String, Option<String>)> {
        let wrong =
            |help| Some((format!("`{}` must be {}, found {}", self.name, self.expected(), described(value)), help));
        let fits = |name: &String| match (name.as_str(), value) {
            ("integer", DeValue::Integer(_))
            | ("number", DeValue::Integer(_) | DeValue::Float(_))
            | ("string", DeValue::String(_) | DeValue::Datetime(_))
            | ("boolean", DeValue::Boolean(_))
            | ("array", DeValue::Array(_))
            | ("object", DeValue::Table(_)) => true,
            (name, _) => !["integer", "number", "string", "boolean", "array", "object"].contains(&name),
        };
        if !self.types.is_empty() && !self.types.iter().any(fits) {
            return wrong(self.conversion(value));
        }
        if let (DeValue::String(word), false) = (value, self.choices.is_empty()) {
            let words = self.choices.iter().map(String::as_str);
            if self.types.iter().all(|name| name == "string")
                && !self.choices.iter().any(|choice| choice == word.as_ref())
            {
                return wrong(
                    crate::diagnostic::nearest(word, words).map(|near| format!("did you mean `\"{near}\"`?")),
                );
            }
        }
        let amount: Option<f64> = match value {
            DeValue::Integer(_) => super::value::integer(value).map(|number| number as f64),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let out = |amount: f64| {
            self.minimum.is_some_and(|least| amount < least) || self.maximum.is_some_and(|most| amount > most)
        };
        if amount.is_some_and(out) { wrong(None) } else { None }
    }

    /// What was probably meant: `"2s"` for a number of seconds, `"4"` for a number, `3` for a list.
    fn conversion(&self, value: &DeValue) -> Option<String> {
        let takes = |name: &str| self.types.iter().any(|known| known == name);
        match value {
            DeValue::String(text) if takes("integer") || takes("number") => {
                let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit()).trim();
                let amount: f64 = digits.parse().ok()?;
                let scale = scale(text[digits.len()..].trim(), self.unit())?;
                Some(format!("write `{} = {}`", self.name, amount * scale))
            }
            DeValue::Float(number) if takes("integer") => {
                let whole: f64 = number.as_str().parse().ok()?;
                (whole.fract() == 0.0).then(|| format!("write `{} = {whole}`", self.name))
            }
            DeValue::String(text) if takes("boolean") && ["true", "false"].contains(&text.as_ref()) => {
                Some(format!("write `{} = {text}`, without quotes", self.name))
            }
            DeValue::String(text) if takes("array") => Some(format!("write `{} = [\"{text}\"]`", self.name)),
            _ => None,
        }
    }
}

/// How many of `unit` one `word` is.
fn scale(word: &str, unit: Option<&str>) -> Option<f64> {
    let time = |seconds: f64| match unit {
        Some("seconds") => Some(seconds),
        Some("milliseconds") => Some(seconds * 1e3),
        _ => None,
    };
    let bytes = |bytes: f64| (unit == Some("bytes")).then_some(bytes);
    match word.to_lowercase().as_str() {
        "" => Some(1.0),
        "s" | "sec" | "seconds" => time(1.0),
        "ms" => time(1e-3),
        "m" | "min" => time(60.0),
        "h" => time(3600.0),
        "b" => bytes(1.0),
        "k" | "kb" | "kib" => bytes(1024.0),
        "mb" | "mib" => bytes(1024.0 * 1024.0),
        "g" | "gb" | "gib" => bytes(1024.0 * 1024.0 * 1024.0),
        _ => None,
    }
}

fn number(object: &Map<String, Json>, key: &str) -> Option<f64> {
    object.get(key).and_then(Json::as_f64)
}
