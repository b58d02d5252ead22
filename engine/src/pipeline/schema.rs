//! JSON Schema of pipeline files, for editors.

use serde_json::{Map, Value as Json, json};

use super::BadRows;
use super::definition::ALLOW_EMPTY;
use super::document::{LOOP_KEYS, PIPELINE_KEYS};
use super::parameter::FORMER_NAME;
use super::resources::Resources;
use crate::Registry;
use crate::registry::Kind;

/// The schema of every pipeline that these kinds can make.
pub fn schema(registry: &Registry) -> Json {
    let mut definitions = Map::new();
    let mut kinds = Vec::new();
    for kind in registry.iter() {
        let name = format!("{}.stage", kind.name());
        kinds.push(json!({"$ref": format!("#/$defs/{name}")}));
        let stage = stage(&**kind, &mut definitions);
        definitions.insert(name, stage);
    }
    definitions.insert(
        "stage".into(),
        json!({
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": registry.iter().map(|kind| kind.name()).collect::<Vec<_>>()}},
            "oneOf": kinds,
        }),
    );
    // A file that extends another one changes some keys of a stage, and does not repeat its kind.
    definitions.insert("change".into(), json!({"type": "object", "not": {"required": ["kind"]}}));
    definitions.insert("loop".into(), outer_loop());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tracetune pipeline",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "extends": {"type": "string", "description": "Another pipeline file, from this one's folder: this one is laid over it."},
            "pipeline": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    PIPELINE_KEYS[0]: {"type": "string", "description": "What runs are listed under; by default the file's name."},
                    PIPELINE_KEYS[1]: {"type": "integer", "minimum": 0, "default": 0, "description": "The seed of every stage that does not give its own."},
                },
            },
            "params": {
                "type": "object",
                "description": "Values for `\"$name\"` anywhere below; `--set name=value` replaces them.",
            },
            "stages": stages(),
            "loop": {"type": "object", "additionalProperties": {"$ref": "#/$defs/loop"}},
            "sweep": sweep(),
            "ablations": {
                "type": "object",
                "description": "Variants by name, for `run --ablations`: paths as for `--set`, and their values.",
                "additionalProperties": {"type": "object"},
            },
        },
        "$defs": definitions,
    })
}

fn stages() -> Json {
    json!({"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/stage"}, {"$ref": "#/$defs/change"}]}})
}

fn sweep() -> Json {
    let number = json!({"type": "number"});
    json!({
        "type": "object",
        "description": "Variants for `run --sweep`: every combination of the axes, or a list, or random draws. An axis is a path as for `--set`.",
        "properties": {
            "list": {"type": "array", "items": {"type": "object"}, "description": "The points, instead of axes."},
            "draws": {
                "description": "Draws points at random instead of making every combination.",
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {
                        "type": "object",
                        "additionalProperties": false,
                        "required": ["count"],
                        "properties": {"count": {"type": "integer", "minimum": 1}, "seed": {"type": "integer", "minimum": 0, "default": 0}},
                    },
                ],
            },
        },
        "additionalProperties": {
            "anyOf": [
                {"type": "array", "minItems": 1},
                {
                    "type": "object",
                    "description": "A range, for random draws.",
                    "additionalProperties": false,
                    "required": ["from", "to"],
                    "properties": {"from": number, "to": number, "scale": {"enum": ["linear", "log"], "default": "linear"}},
                },
            ],
        },
    })
}

fn outer_loop() -> Json {
    let reference = json!({"type": "string"});
    let [times, carry, stop, select, stages, first] = LOOP_KEYS;
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            times: parameter(json!({"type": "integer", "minimum": 1, "description": "How many rounds there are at most."})),
            carry: {
                "type": "object",
                "description": "Values that go from round to round.",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["start", "next"],
                    "properties": {"start": reference, "next": reference},
                },
            },
            stop: {
                "type": "object",
                "description": "Ends the loop when a metric has stopped growing.",
                "additionalProperties": false,
                "required": ["metric"],
                "properties": {
                    "metric": {"type": "string", "description": "Split and metric, e.g. `dev.pass@1`."},
                    "patience": parameter(json!({"type": "integer", "minimum": 1, "default": 1, "description": "Rounds without a new maximum."})),
                },
            },
            select: {"type": "string", "description": "The metric that makes a round the best: `LOOP.best.STAGE`."},
            stages: self::stages(),
            first: {
                "type": "object",
                "description": "What stages have otherwise in the first round.",
                "additionalProperties": {"$ref": "#/$defs/change"},
            },
        },
    })
}

fn stage(kind: &dyn Kind, definitions: &mut Map<String, Json>) -> Json {
    let name = kind.name();
    let mut schema = kind.schema().to_value();
    move_references(&mut schema, name);
    if let Some(Json::Object(own)) = schema.get_mut("$defs").map(Json::take) {
        definitions.extend(own.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
    }
    let mut required = vec![json!("kind")];
    let mut properties = Map::new();
    properties.insert("kind".into(), json!({"const": name, "description": kind.about()}));
    properties.extend(stage_keys(kind));
    if kind.open_ports() {
        properties.insert(
            "inputs".into(),
            json!({
                "type": "object",
                "description": "Tables, models and folders by a name of your own: each value is a stage.",
                "additionalProperties": {"type": "string"},
            }),
        );
    }
    for port in kind.ports() {
        properties.insert(
            port.name.into(),
            json!({"type": "string", "description": format!("The stage with {}.", port.about)}),
        );
        if !port.optional {
            required.push(json!(port.name));
        }
    }
    if let Some(Json::Object(own)) = schema.get_mut("properties").map(Json::take) {
        for (key, mut value) in own {
            let former = value.as_object_mut().and_then(|value| value.remove(FORMER_NAME));
            let value = parameter(value);
            if let Some(former) = former.as_ref().and_then(Json::as_str) {
                let mut value = value.clone();
                value["description"] = json!(format!("The former name of `{key}`."));
                value["deprecated"] = json!(true);
                properties.insert(former.to_owned(), value);
            }
            properties.insert(key, value);
        }
    }
    let own = schema.get("required").and_then(Json::as_array).into_iter().flatten();
    required.extend(own.filter(|key| *key != "seed").cloned());
    json!({
        "type": "object",
        "description": kind.about(),
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// The keys that a stage may have beside its kind's parameters, with their JSON Schemas.
pub fn stage_keys(kind: &dyn Kind) -> Map<String, Json> {
    let mut keys = Map::new();
    keys.insert(
        "variant".into(),
        json!({
            "description": "The label of the stage's metrics, or a list of labels; `main` by default.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        }),
    );
    keys.insert(
        ALLOW_EMPTY.into(),
        parameter(json!({
            "type": "boolean",
            "default": false,
            "description": "Whether the stage may lose every row. Unless it may, a stage that is given rows and returns none fails, and so does a source without rows.",
        })),
    );
    keys.extend(Resources::schema().into_iter().map(|(key, schema)| (key, parameter(schema))));
    if kind.row().is_some() || kind.open_ports() {
        keys.insert(
            BadRows::KEY.into(),
            json!({
                "description": "How many rows may fail (a number, or a share as in \"1%\") before the stage does: they stand in the stage's output `bad`.",
                "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9.]+ *%$"}],
            }),
        );
    }
    keys
}

/// Lets `"$name"` stand for a value, and for the values in it.
fn parameter(mut schema: Json) -> Json {
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key).filter(|inner| inner.is_object()) {
            *inner = parameter(inner.take());
        }
    }
    if let Some(Json::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(|inner| *inner = parameter(inner.take()));
    }
    if let Some(default) = schema.get("default").and_then(|default| shortest(&schema, default)) {
        schema["default"] = default;
    }
    let takes_strings = schema.get("type").is_some_and(|name| name == "string") && schema.get("enum").is_none();
    if takes_strings {
        return schema;
    }
    let mut outer = Map::new();
    if let Some(object) = schema.as_object_mut() {
        for key in ["description", "default"] {
            outer.extend(object.remove(key).map(|value| (key.to_owned(), value)));
        }
    }
    outer.insert("anyOf".into(), json!([schema, {"type": "string", "pattern": "^\\$[A-Za-z_][A-Za-z0-9_-]*$"}]));
    Json::Object(outer)
}

/// A default of 32 bits with the digits that its author wrote: 0.8, and not 0.800000011920929.
pub(super) fn shortest(schema: &Json, default: &Json) -> Option<Json> {
    let short = (default.as_f64().filter(|_| schema["format"] == "float")? as f32).to_string();
    short.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number)
}

/// `#/$defs/X` of a kind is `#/$defs/KIND.X` of the file.
fn move_references(schema: &mut Json, kind: &str) {
    match schema {
        Json::Object(object) => {
            if let Some(Json::String(target)) = object.get_mut("$ref") {
                *target = target.replace("#/$defs/", &format!("#/$defs/{kind}."));
            }
            object.values_mut().for_each(|value| move_references(value, kind));
        }
        Json::Array(items) => items.iter_mut().for_each(|value| move_references(value, kind)),
        _ => {}
    }
}
