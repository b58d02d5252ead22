//! What makes a column of the layout `fields`: a field of the source, or templates over its fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracetune_engine::diagnostic::nearest;

/// A field's name, or one or several templates.
///
/// A text with a brace in it is a template, any other names a field; what stands in a list is a template even without a
/// brace, so that `split = ["test"]` is the text `test`. In a template
/// `{name}` is the value of the source's field `name`: a text as it is, any other value as a Python literal. `{name!r}`
/// is a Python literal always, so that a text comes in quotes. `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the name of a field, a template or a list of templates")]
pub(super) enum Mapping {
    /// A field's name, or a template.
    One(String),
    /// Templates: an item of the column each.
    List(Vec<String>),
}

impl Mapping {
    /// The field that it names, if it is one.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Self::One(text) if !text.contains(['{', '}']) => Some(text),
            _ => None,
        }
    }

    /// Its templates, if it is no field.
    pub(super) fn templates(&self) -> &[String] {
        match self {
            Self::One(_) if self.field().is_some() => &[],
            Self::One(template) => std::slice::from_ref(template),
            Self::List(templates) => templates,
        }
    }

    /// What is wrong with it whatever the source holds.
    pub(super) fn check(&self, column: &str, takes_list: bool) -> Result<(), String> {
        if matches!(self, Self::List(templates) if templates.len() > 1) && !takes_list {
            return Err(format!("`{column}` is one text, so it takes one template"));
        }
        if matches!(self, Self::List(templates) if templates.is_empty()) {
            return Err(format!("`{column}` has no template"));
        }
        let wrong = |problem: String| format!("template of `{column}`: {problem}");
        self.templates().iter().try_for_each(|template| parts(template).map(drop).map_err(wrong))
    }
}

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Field { name: &'a str, literal: bool },
}

/// Takes a template apart, or says what is wrong with it.
fn parts(template: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, after) = rest.split_at(at);
        parts.push(Part::Text(text));
        if let Some(after) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
            parts.push(Part::Text(&rest[at..=at]));
            rest = after;
            continue;
        }
        let end = after.find('}').filter(|_| after.starts_with('{'));
        let Some(end) = end else {
            let place = template.len() - after.len() + 1;
            return Err(format!("the brace at character {place} has no partner; write it twice for a brace"));
        };
        let inside = &after[1..end];
        let (name, literal) = inside.strip_suffix("!r").map_or((inside, false), |name| (name, true));
        if name.is_empty() || name.contains('{') {
            return Err(format!("`{{{inside}}}` names no field; write braces twice for braces"));
        }
        parts.push(Part::Field { name, literal });
        rest = &after[end + 1..];
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// A template with a row's values; the field that is wrong and how, if one is.
pub(super) fn filled(template: &str, row: &Map<String, Value>) -> Result<String, (String, String)> {
    let mut text = String::new();
    for part in parts(template).map_err(|problem| (String::new(), problem))? {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Field { name, literal } => match row.get(name) {
                Some(Value::String(value)) if !literal => text.push_str(&value.replace("\r\n", "\n")),
                Some(value) => text.push_str(&python_literal(value)),
                None => return Err((name.to_owned(), missing(name, row))),
            },
        }
    }
    Ok(text)
}

/// That a row has no field of this name, and what it has.
pub(super) fn missing(name: &str, row: &Map<String, Value>) -> String {
    let names: Vec<&str> = row.keys().map(String::as_str).collect();
    let near = nearest(name, names.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
    format!("is missing{}; the row has {}", near.unwrap_or_default(), names.join(", "))
}

/// A JSON value as Python writes it. JSON's texts are Python's too.
fn python_literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(python_literal).collect::<Vec<_>>().join(", ")),
        Value::Object(items) => {
            let item =
                |(key, item): (&String, &Value)| format!("{}: {}", Value::from(key.as_str()), python_literal(item));
            format!("{{{}}}", items.iter().map(item).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Map<String, Value> {
        let row =
            serde_json::json!({"input": "[1, 2], 'a'", "n": 3, "on": true, "none": null, "d": {"k": [1.5, "x\n"]}});
        row.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn texts_go_in_as_they_are_and_other_values_as_python_literals() {
        let row = row();
        let text = filled("assert f({input}) == {n} is {on} or {none}, {d}", &row);
        assert_eq!(text.unwrap(), "assert f([1, 2], 'a') == 3 is True or None, {\"k\": [1.5, \"x\\n\"]}");
    }

    #[test]
    fn a_conversion_puts_texts_in_quotes() {
        assert_eq!(filled("assert f({input!r}, {n!r})", &row()).unwrap(), "assert f(\"[1, 2], 'a'\", 3)");
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(filled("{{{n}: {{}}}}", &row()).unwrap(), "{3: {}}");
    }

    #[test]
    fn an_unknown_field_is_named_with_its_neighbour() {
        let (field, message) = filled("f({inputs})", &row()).unwrap_err();
        assert_eq!(field, "inputs");
        assert!(message.starts_with("is missing, did you mean `input`?; the row has "), "{message}");
    }

    #[test]
    fn braces_without_a_partner_are_refused() {
        let check = |template: &str| Mapping::One(template.to_owned()).check("tests", true).unwrap_err();
        assert_eq!(
            check("assert f({input"),
            "template of `tests`: the brace at character 10 has no partner; write it twice for a brace"
        );
        assert!(check("f({})").contains("`{}` names no field"));
    }
}
