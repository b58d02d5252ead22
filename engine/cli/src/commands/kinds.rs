//! `tracetune kinds`

use arrow::datatypes::SchemaRef;
use serde_json::json;
use tracetune_engine::diagnostic::instead;
use tracetune_engine::pipeline::{Parameter, column_type, parameters, stage_keys};
use tracetune_engine::registry::Kind;
use tracetune_engine::stage::PortType;

use crate::exit;
use crate::session::Session;
use crate::ui::table::{Words, cut};
use crate::ui::{helped, style};

/// List the kinds of stages, or show one with its ports and parameters
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  tracetune kinds\n  tracetune kinds sample")]
pub(crate) struct Args {
    /// The kind
    name: Option<String>,
}

/// Prints the kinds. JSON: `{kinds: [{name, version, about}]}`, or one kind with ports, parameters and columns.
pub(crate) fn kinds(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let registry = &session.app.registry;
    let Some(name) = &args.name else {
        if session.ui.json {
            let kinds: Vec<_> = registry.iter().map(|kind| summary(&**kind)).collect();
            session.ui.answer_json(&json!({"kinds": kinds}));
            return Ok(exit::DONE);
        }
        let mut words = Words::new(["kind", "does"]);
        for kind in registry.iter() {
            words.row([kind.name(), kind.about()]);
        }
        session.ui.answer(words.text(session.ui.width()));
        session.ui.story(style::dim("\ntracetune kinds NAME shows one with its ports and parameters"));
        return Ok(exit::DONE);
    };
    let Some(kind) = registry.get(name) else {
        let names = || registry.iter().map(|kind| kind.name());
        let help = instead(name, names(), "the kinds are");
        return Err(helped(format!("there is no kind `{name}`"), help));
    };
    if session.ui.json {
        session.ui.answer_json(&whole(&**kind));
    } else {
        session.ui.answer(text(&**kind, &session.app.columns, session.ui.width()));
    }
    Ok(exit::DONE)
}

fn summary(kind: &dyn Kind) -> serde_json::Value {
    json!({"name": kind.name(), "version": kind.version(), "about": kind.about()})
}

fn whole(kind: &dyn Kind) -> serde_json::Value {
    let columns = |schema: &SchemaRef| -> Vec<serde_json::Value> {
        schema
            .fields()
            .iter()
            .map(|field| json!({"name": field.name(), "type": column_type(field.data_type())}))
            .collect()
    };
    let ports: Vec<_> = kind
        .ports()
        .iter()
        .map(|port| {
            json!({
                "name": port.name,
                "takes": takes(&port.port_type),
                "columns": match &port.port_type { PortType::Table(Some(schema)) => columns(schema), _ => Vec::new() },
                "optional": port.optional,
                "about": port.about,
            })
        })
        .collect();
    let row = kind.row();
    json!({
        "name": kind.name(),
        "version": kind.version(),
        "about": kind.about(),
        "ports": ports,
        "open_ports": kind.open_ports(),
        "parameters": parameters(kind),
        "stage_keys": stage_keys(kind),
        "guide": kind.guide(),
        "adds": row.map(|row| columns(&row.adds)),
    })
}

fn takes(port_type: &PortType) -> &'static str {
    match port_type {
        PortType::Table(_) => "table",
        PortType::Model => "model",
        PortType::Folder => "folder",
        PortType::Any => "any",
    }
}

fn text(kind: &dyn Kind, meanings: &[(&str, &str)], width: usize) -> String {
    let mut text = format!("{} (version {})\n{}\n", style::heading(kind.name()), kind.version(), kind.about());
    let ports = kind.ports();
    if !ports.is_empty() || kind.open_ports() {
        text.push_str(&format!("\n{}\n", style::heading("inputs")));
    }
    for port in &ports {
        let optional = if port.optional { ", optional" } else { "" };
        text.push_str(&format!("  {} ({}{optional}): {}\n", port.name, takes(&port.port_type), port.about));
        if let PortType::Table(Some(schema)) = &port.port_type {
            columns(&mut text, schema, 6, meanings, width);
        }
    }
    if kind.open_ports() {
        text.push_str(
            "  inputs = { NAME = \"stage\", … }: tables, models and folders of stages under names of your own\n",
        );
    }
    let parameters = parameters(kind);
    if !parameters.is_empty() {
        text.push_str(&format!("\n{}\n", style::heading("parameters")));
    }
    for parameter in &parameters {
        describe(&mut text, parameter, 2, width);
    }
    text.push_str(&format!("\n{}\n", style::heading("keys of every stage")));
    let is_own = |name: &String| parameters.iter().any(|parameter| parameter.name == *name);
    for (name, schema) in stage_keys(kind).into_iter().filter(|(name, _)| !is_own(name)) {
        let about = schema["description"].as_str().unwrap_or_default();
        text.push_str(&format!("  {}\n{}\n", style::heading(&name), wrapped(about, 6, width)));
    }
    if let Some(row) = kind.row() {
        text.push_str(&format!("\n{}\n", style::heading("adds")));
        columns(&mut text, &row.adds, 2, meanings, width);
    }
    if !kind.guide().is_empty() {
        text.push_str(&format!("\n{}\n", style::heading("guide")));
        kind.guide().lines().for_each(|line| text.push_str(&format!("{}\n", wrapped(line, 2, width))));
    }
    text.trim_end().to_owned()
}

/// A parameter, what it takes and means; then its keys, if it is a table of some keys.
fn describe(text: &mut String, parameter: &Parameter, indent: usize, width: usize) {
    let name = style::heading(&parameter.name);
    text.push_str(&format!("{:indent$}{name} {}\n", "", described(parameter)));
    if !parameter.about.is_empty() {
        let about = parameter.about.split_whitespace().collect::<Vec<_>>().join(" ");
        text.push_str(&format!("{}\n", wrapped(&about, indent + 4, width)));
    }
    parameter.fields.iter().for_each(|field| describe(text, field, indent + 4, width));
}

/// A line a column: name, type, meaning.
fn columns(text: &mut String, schema: &SchemaRef, indent: usize, meanings: &[(&str, &str)], width: usize) {
    let longest = schema.fields().iter().map(|field| field.name().len()).max().unwrap_or_default();
    let widest = schema.fields().iter().map(|field| column_type(field.data_type()).len()).max().unwrap_or_default();
    for field in schema.fields() {
        let about = meanings.iter().find(|(name, _)| name == field.name()).map(|(_, about)| *about);
        let about = about.map(|about| format!("  {about}")).unwrap_or_default();
        let line =
            format!("{:indent$}{:longest$}  {:widest$}{about}", "", field.name(), column_type(field.data_type()));
        text.push_str(&format!("{}\n", cut(line.trim_end(), width)));
    }
}

/// `= 0.8: a number of at least 0`.
fn described(parameter: &Parameter) -> String {
    match &parameter.default {
        _ if parameter.name == "seed" => format!("= the pipeline's: {}", parameter.expected()),
        Some(serde_json::Value::Null) | None if !parameter.required => format!("(optional): {}", parameter.expected()),
        Some(default) => format!("= {default}: {}", parameter.expected()),
        None => format!("(must be given): {}", parameter.expected()),
    }
}

fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.len() - 1;
        if !lines[line].is_empty() && indent + lines[line].chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !lines[line].is_empty() {
                lines[line].push(' ');
            }
            lines[line].push_str(word);
        }
    }
    lines.iter().map(|line| format!("{:indent$}{line}", "")).collect::<Vec<_>>().join("\n")
}
