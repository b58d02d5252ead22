//! One stage's table: which keys are ports, which are the engine's, and the rest as the kind's parameters.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::bad_rows::BadRows;
use super::document::{StageTable, unknown_key};
use super::parameter::Parameter;
use super::problems::Problems;
use super::resources::Resources;
use super::source::{Span, Table, Value, entries, span};
use super::value::{expect_string, expect_table, wrong_type};
use super::variants::MAIN;
use crate::Registry;
use crate::diagnostic::{instead, list, nearest};
use crate::registry::{CheckedStage, Kind, ParseError, RowShape, Work};
use crate::stage::{Port, PortType, Setup, variable};

/// The key that lets a stage lose every row.
pub(super) const ALLOW_EMPTY: &str = "allow_empty";

/// A stage as the file defines it, before it is connected.
pub(super) struct Definition {
    pub(super) name: String,
    /// Where its name stands.
    pub(super) at: Span,
    pub(super) variant: Vec<String>,
    pub(super) bad_rows: Option<BadRows>,
    pub(super) allow_empty: bool,
    pub(super) resources: Resources,
    pub(super) connections: Vec<Connection>,
    /// `None` if it has errors: then nothing is known of its outputs.
    pub(super) checked: Option<CheckedStage>,
}

/// A port with the reference that the file gives it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) port: String,
    pub(super) port_type: PortType,
    pub(super) reference: String,
    pub(super) at: Span,
}

/// Reads a stage's table.
pub(super) fn define<'a>(
    stage: &StageTable<'a>,
    seed: &Value<'a>,
    registry: &Registry,
    setup: &Setup,
    problems: &mut Problems<'a>,
) -> Definition {
    let mut definition = Definition {
        name: stage.name.clone(),
        at: stage.at,
        variant: vec![MAIN.to_owned()],
        bad_rows: None,
        allow_empty: false,
        resources: Resources::default(),
        connections: Vec::new(),
        checked: None,
    };
    let before = problems.errors();
    let Some(kind) = kind_of(stage, registry, problems) else { return definition };
    let ports = kind.ports();
    let known = registry.parameters(kind);
    let mut rest = Table::new();
    let mut bad_rows_at = None;
    for (key, at, value) in entries(&stage.keys) {
        if key == "kind" {
        } else if key == "variant" {
            definition.variant = variants(value, problems);
        } else if key == BadRows::KEY {
            definition.bad_rows = BadRows::read(value, problems);
            bad_rows_at = Some(at);
        } else if key == ALLOW_EMPTY {
            match value.get_ref() {
                DeValue::Boolean(allowed) => definition.allow_empty = *allowed,
                _ => wrong_type(key, "true or false", value, problems),
            }
        } else if key == "inputs" && kind.open_ports() {
            for (port, at, value) in expect_table(key, value, problems).map(entries).unwrap_or_default() {
                definition.check_port_name(port, at, problems);
                definition.connect(port, PortType::Any, value, problems);
            }
        } else if let Some(port) = ports.iter().find(|port| port.name == key) {
            definition.connect(port.name, port.port_type.clone(), value, problems);
        } else if let Some(parameter) = known.iter().find(|parameter| parameter.is_called(key)) {
            if let Some((message, help)) = parameter.refuses(value.get_ref()) {
                let problem = problems.error(span(value), message, "");
                problem.help.extend(help);
            }
            let name = &parameter.name;
            if key != name && stage.keys.contains_key(name.as_str()) {
                let message = format!("`{key}` is the former name of `{name}`, which is there too");
                problems.error(at, message, "").help(format!("leave out `{key}`"));
            }
            rest.insert(Spanned::new(at.start..at.end, name.clone().into()), value.clone());
        } else if Resources::KEYS.contains(&key) {
            definition.resources.read(key, value, problems);
        } else {
            unknown(key, at, kind, &ports, known, problems);
        }
    }
    missing(stage, &definition, kind, &ports, known, problems);
    definition.connections.sort_by(|a, b| a.port.cmp(&b.port));
    if problems.errors() > before {
        return definition;
    }
    if known.iter().any(|parameter| parameter.name == "seed") && !rest.contains_key("seed") {
        rest.insert(Spanned::new(seed.span(), "seed".into()), seed.clone());
    }
    definition.checked = parse(stage, kind, rest, setup, problems);
    let Some(checked) = definition.checked.clone() else { return definition };
    match (checked.work(), bad_rows_at) {
        (Work::Rows(work), _) => {
            let shape = work.shape();
            definition.read_rows(&shape);
            let port = shape.port;
            if !definition.connections.iter().any(|connection| connection.port == port) {
                let own = ports.iter().any(|known| known.name == port);
                let written =
                    if own { format!("{port} = \"…\"") } else { format!("inputs = {{ {port} = \"…\" }}") };
                let columns = list(shape.reads.fields().iter().map(|field| field.name()));
                let message = format!("`{}` has no `{port}`: the rows it works on", definition.name);
                let about = format!("a `{}` stage", kind.name());
                problems.error(stage.at, message, about).help(format!("add `{written}`: a stage with {columns}"));
            }
        }
        (Work::Table(_), Some(at)) => {
            let message = format!("`{}` is for stages that work row by row", BadRows::KEY);
            problems.error(at, message, format!("kind `{}` works on whole tables", kind.name()));
        }
        (Work::Table(_), None) => {}
    }
    definition
}

impl Definition {
    /// A port of the user's own naming has the rows: what is read of them is known now.
    fn read_rows(&mut self, shape: &RowShape) {
        for connection in self.connections.iter_mut().filter(|connection| connection.port == shape.port) {
            connection.port_type = PortType::Table(Some(Arc::clone(&shape.reads)));
        }
    }

    /// Programs find ports in variables of their environment, whose names have neither case nor hyphens.
    fn check_port_name(&self, port: &str, at: Span, problems: &mut Problems) {
        if let Some(other) = self.connections.iter().find(|other| variable(&other.port) == variable(port)) {
            let message =
                format!("ports `{}` and `{port}` have the same variable `TRACETUNE_IN_{}`", other.port, variable(port));
            problems.error(at, message, "").help("give one of them another name");
        }
    }

    fn connect(&mut self, port: &str, port_type: PortType, value: &Value, problems: &mut Problems) {
        let Some((reference, at)) = value.get_ref().as_str().map(|text| (text, span(value))) else {
            return wrong_type(port, "the name of a stage", value, problems);
        };
        self.connections.push(Connection { port: port.to_owned(), port_type, reference: reference.to_owned(), at });
    }
}

fn kind_of<'r>(stage: &StageTable, registry: &'r Registry, problems: &mut Problems) -> Option<&'r dyn Kind> {
    let all = || registry.iter().map(|kind| kind.name());
    let Some(value) = stage.keys.get("kind") else {
        let help = match stage.keys.keys().find_map(|key| nearest(key.get_ref(), ["kind"]).map(|_| key)) {
            Some(key) => format!("did you mean `kind` by `{}`?", key.get_ref()),
            None => format!("add `kind = \"…\"`; the kinds are {}", list(all())),
        };
        problems.error(stage.at, format!("stage `{}` has no `kind`", stage.name), "").help(help);
        return None;
    };
    let (name, at) = expect_string("kind", value, problems)?;
    let kind = registry.get(name);
    if kind.is_none() {
        let help = instead(name, all(), "the kinds are");
        problems.error(at, format!("there is no kind `{name}`"), "").help(help);
    }
    kind.map(|kind| &**kind)
}

fn variants(value: &Value, problems: &mut Problems) -> Vec<String> {
    match value.get_ref() {
        DeValue::String(label) => vec![label.to_string()],
        DeValue::Array(labels) => {
            let mut read: Vec<String> = Vec::with_capacity(labels.len());
            for label in labels {
                let Some((name, at)) = expect_string("variant", label, problems) else { continue };
                if read.iter().any(|known| known == name) {
                    problems.error(at, format!("label `{name}` is there twice"), "").help("leave it out");
                } else {
                    read.push(name.to_owned());
                }
            }
            read
        }
        _ => {
            wrong_type("variant", "a label or a list of labels", value, problems);
            Vec::new()
        }
    }
}

fn unknown(key: &str, at: Span, kind: &dyn Kind, ports: &[Port], parameters: &[Parameter], problems: &mut Problems) {
    let mut known: Vec<&str> = ports.iter().map(|port| port.name).collect();
    known.extend(parameters.iter().map(|parameter| parameter.name.as_str()));
    known.extend(["kind", "variant", ALLOW_EMPTY]);
    known.extend(Resources::KEYS);
    if kind.row().is_some() || kind.open_ports() {
        known.push(BadRows::KEY);
    }
    if kind.open_ports() {
        known.push("inputs");
    } else if key == "inputs" {
        let help = format!("connect a port by its name: `{} = \"…\"`", ports.first().map_or("rows", |port| port.name));
        problems.error(at, format!("kind `{}` has no key `inputs`", kind.name()), "").help(help);
        return;
    }
    unknown_key(key, at, &format!("kind `{}`", kind.name()), &known, problems);
}

fn missing(
    stage: &StageTable,
    definition: &Definition,
    kind: &dyn Kind,
    ports: &[Port],
    parameters: &[Parameter],
    problems: &mut Problems,
) {
    for port in ports.iter().filter(|port| !port.optional && !stage.keys.contains_key(port.name)) {
        let wanted = match &port.port_type {
            PortType::Model => "a stage that gives a model".to_owned(),
            PortType::Table(Some(columns)) if !columns.fields().is_empty() => {
                format!("a stage with {}", list(columns.fields().iter().map(|field| field.name())))
            }
            PortType::Folder => "a stage that gives a folder".to_owned(),
            PortType::Table(_) | PortType::Any => "a stage".to_owned(),
        };
        let help = format!("add `{} = \"…\"`: {wanted}", port.name);
        let message = format!("`{}` has no `{}`: {}", definition.name, port.name, port.about);
        problems.error(stage.at, message, format!("a `{}` stage", kind.name())).help(help);
    }
    for parameter in parameters.iter().filter(|parameter| parameter.required && parameter.name != "seed") {
        if !stage.keys.keys().any(|key| parameter.is_called(key.get_ref())) {
            let message = format!("`{}` does not say its `{}`", definition.name, parameter.name);
            let about = parameter.about.lines().next().unwrap_or_default();
            let help = format!("add `{} = …`, {}: {about}", parameter.name, parameter.expected());
            let help = help.trim_end_matches(": ").to_owned();
            problems.error(stage.at, message, format!("a `{}` stage", kind.name())).help(help);
        }
    }
}

fn parse<'a>(
    stage: &StageTable<'a>,
    kind: &dyn Kind,
    params: Table<'a>,
    setup: &Setup,
    problems: &mut Problems<'a>,
) -> Option<CheckedStage> {
    let places: Vec<(String, Span)> =
        params.iter().map(|(key, value)| (key.get_ref().clone().into_owned(), span(value))).collect();
    let place = |name: &str| places.iter().find(|(known, _)| known == name).map(|(_, at)| *at);
    let whole = stage.at.start..stage.at.end;
    let deserializer = ValueDeserializer::from(Spanned::new(whole.clone(), DeValue::Table(params)));
    match kind.parse(deserializer, setup) {
        Ok(checked) => {
            for warning in checked.warnings(setup) {
                let at = place(warning.param).unwrap_or(stage.at);
                let problem = problems.warning(at, format!("`{}`: {}", warning.param, warning.message), "");
                problem.help.extend(warning.help);
            }
            Some(checked)
        }
        Err(ParseError::Toml(error)) => {
            let at = error.span().map_or(stage.at, Span::from);
            let within =
                places.iter().find(|(_, place)| place.start <= at.start && at.end <= place.end && place.end > 0);
            let name = within.map_or(stage.name.as_str(), |(name, _)| name);
            problems.error(at, format!("`{name}`: {}", in_words(error.message())), "");
            None
        }
        Err(ParseError::Param(error)) => {
            let at = place(error.param).unwrap_or(stage.at);
            // "must be at least 0" goes on after the name; a whole sentence does not.
            let colon = if error.message.starts_with("must") { "" } else { ":" };
            let problem = problems.error(at, format!("`{}`{colon} {}", error.param, error.message), "");
            problem.help.extend(error.help);
            None
        }
    }
}

/// The parser's message, with words for the types of Rust in it.
fn in_words(message: &str) -> String {
    let Some((start, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let words = match expected {
        "usize" | "u64" => "an integer of at least 0".to_owned(),
        "u32" => format!("an integer from 0 to {}", u32::MAX),
        "u16" => format!("an integer from 0 to {}", u16::MAX),
        "u8" => format!("an integer from 0 to {}", u8::MAX),
        "i64" => "an integer".to_owned(),
        "i32" => format!("an integer from {} to {}", i32::MIN, i32::MAX),
        "f32" | "f64" => "a number".to_owned(),
        _ => return message.to_owned(),
    };
    format!("{start}expected {words}")
}
