//! Whether what flows along each edge is what the stage at its end reads.

use std::collections::{BTreeMap, HashSet};

use arrow::datatypes::{DataType, SchemaRef};

use super::definition::Connection;
use super::document::LoopTable;
use super::problems::Problems;
use super::source::Span;
use super::unroll::{Graph, Origin};
use super::{BadRows, NodeIndex};
use crate::Registry;
use crate::diagnostic::{list, nearest};
use crate::registry::{Stage, Work};
use crate::stage::{BadRow, Output, PortType};
use crate::table::{Record, append_columns, is_optional, readable_as};

/// Each node's outputs; `None` where they can't be known because of an error elsewhere.
pub(super) type Outputs = Vec<Option<Vec<Output>>>;

/// Checks all edges, in the nodes' order.
pub(super) fn check(graph: &Graph, order: &[NodeIndex], registry: &Registry, problems: &mut Problems) -> Outputs {
    let mut outputs: Outputs = vec![None; graph.nodes.len()];
    let mut mismatches = Vec::new();
    for &node in order {
        let before = mismatches.len();
        let mut tables: BTreeMap<String, Option<SchemaRef>> = BTreeMap::new();
        let mut known = true;
        for (connection, origin) in &graph.nodes[node].inputs {
            match output_of(graph, &outputs, connection, origin, problems) {
                Some(output) => {
                    if let Some(mismatch) = mismatch(&connection.port_type, &output.port_type) {
                        mismatches.push(Mismatch { node, connection, origin, kind: mismatch, output: output.clone() });
                    } else if let PortType::Table(schema) = &output.port_type {
                        tables.insert(connection.port.clone(), schema.clone());
                    }
                }
                None => known = false,
            }
        }
        let definition = graph.definition(node);
        known &= mismatches.len() == before && graph.nodes[node].inputs.len() == definition.connections.len();
        if let Some(checked) = definition.checked.as_ref().filter(|_| known) {
            outputs[node] = Some(with_bad_rows(checked.as_ref(), definition.bad_rows, &tables));
        }
    }
    // Told at the end, when it is known what every stage has: one of them may be what was meant.
    let mut told = HashSet::new();
    for mismatch in mismatches {
        if told.insert((mismatch.connection.at, mismatch.connection.port.clone())) {
            mismatch.tell(graph, &outputs, registry, problems);
        }
    }
    outputs
}

/// What a stage gives, with the rows that failed if some may.
fn with_bad_rows(
    stage: &dyn Stage,
    bad_rows: Option<BadRows>,
    tables: &BTreeMap<String, Option<SchemaRef>>,
) -> Vec<Output> {
    let mut outputs = stage.outputs(tables);
    if let (Work::Rows(work), Some(_)) = (stage.work(), bad_rows) {
        let rows = tables.get(work.shape().port).cloned().flatten();
        let schema = rows.map(|rows| append_columns(&rows, &BadRow::schema()));
        outputs.push(Output::new(BadRows::OUTPUT, PortType::Table(schema)));
    }
    outputs
}

/// Checks that the metrics a loop watches can come from one of its stages.
pub(super) fn check_metrics(
    graph: &Graph,
    index: usize,
    outer: &LoopTable,
    outputs: &Outputs,
    problems: &mut Problems,
) {
    let nodes = graph.loops[index].stages.values().flatten();
    let gives = |node: &NodeIndex| match &outputs[*node] {
        Some(outputs) => outputs.iter().any(|output| output.name == "metrics"),
        None => true,
    };
    if nodes.into_iter().any(gives) {
        return;
    }
    let watched: [Option<Span>; 2] = [outer.stop.as_ref().map(|(_, at)| *at), outer.select.as_ref().map(|(_, at)| *at)];
    for at in watched.into_iter().flatten() {
        let message = format!("no stage of loop `{}` gives metrics", outer.name);
        problems.error(at, message, "").help("add a stage with an output `metrics` to the loop, e.g. kind `evaluate`");
    }
}

/// The output that a connection means.
fn output_of<'o>(
    graph: &Graph,
    outputs: &'o Outputs,
    connection: &Connection,
    origin: &Origin,
    problems: &mut Problems,
) -> Option<&'o Output> {
    let source = graph.definition(origin.sample());
    let all = outputs[origin.sample()].as_ref()?;
    let Some(wanted) = &origin.output else { return all.first() };
    let found = all.iter().find(|output| output.name == wanted.as_str());
    if found.is_none() {
        let help = match nearest(wanted, all.iter().map(|output| &*output.name)) {
            Some(near) => format!("did you mean `{}.{near}`?", source.name),
            None if all.len() == 1 => format!("its only output is `{}`", all[0].name),
            None => format!("its outputs are {}", list(all.iter().map(|output| &*output.name))),
        };
        problems.error(connection.at, format!("`{}` has no output `{wanted}`", source.name), "").help(help);
    }
    found
}

/// An edge along which the wrong thing flows.
struct Mismatch<'g> {
    node: NodeIndex,
    connection: &'g Connection,
    origin: &'g Origin,
    kind: MismatchKind,
    output: Output,
}

enum MismatchKind {
    /// A model where a table is read, or the other way.
    Type,
    /// Columns that are read and are not there.
    Missing(Vec<String>),
    /// A column of another type: its name, the type there is, the type that is read.
    ColumnType(String, DataType, DataType),
}

fn mismatch(wanted: &PortType, given: &PortType) -> Option<MismatchKind> {
    match (wanted, given) {
        (PortType::Any, _)
        | (PortType::Model, PortType::Model)
        | (PortType::Folder, PortType::Folder | PortType::Model)
        | (PortType::Table(None), PortType::Table(_)) => None,
        (PortType::Table(Some(_)), PortType::Table(None)) => None,
        (PortType::Table(Some(wanted)), PortType::Table(Some(given))) => {
            let lacks = |name: &String| given.field_with_name(name).is_err();
            let needed = wanted.fields().iter().filter(|field| !is_optional(field));
            let missing: Vec<String> = needed.map(|field| field.name().clone()).filter(|name| lacks(name)).collect();
            if !missing.is_empty() {
                return Some(MismatchKind::Missing(missing));
            }
            wanted.fields().iter().find_map(|field| {
                let found = given.field_with_name(field.name()).ok()?.data_type();
                let unreadable = !readable_as(found, field.data_type());
                unreadable
                    .then(|| MismatchKind::ColumnType(field.name().clone(), found.clone(), field.data_type().clone()))
            })
        }
        _ => Some(MismatchKind::Type),
    }
}

impl Mismatch<'_> {
    fn tell(&self, graph: &Graph, outputs: &Outputs, registry: &Registry, problems: &mut Problems) {
        let reader = &graph.definition(self.node).name;
        let source = graph.definition(self.origin.sample());
        let port = &self.connection.port;
        let name = match &self.origin.output {
            Some(output) => format!("{}.{output}", source.name),
            None => source.name.clone(),
        };
        let kind = source.checked.as_ref().map_or("", |checked| checked.kind().name());
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let there = problems.at(source.at, format!("{article} `{kind}` stage"));
        let columns = match &self.output.port_type {
            PortType::Table(Some(schema)) => Some(schema),
            _ => None,
        };
        let has = columns.map(|schema| format!("has {}", list(schema.fields().iter().map(|field| field.name()))));
        let (message, label) = match &self.kind {
            MismatchKind::Missing(missing) => {
                let noun = if missing.len() == 1 { "column" } else { "columns" };
                let message = format!("`{reader}` reads {noun} {}, which `{name}` does not have", list(missing));
                (message, has.unwrap_or_default())
            }
            MismatchKind::ColumnType(column, found, wanted) => {
                let message = format!(
                    "`{reader}` reads column `{column}` as {}, and `{name}` has another type",
                    column_type(wanted)
                );
                (message, format!("has it as {}", column_type(found)))
            }
            MismatchKind::Type => {
                let (wanted, given) = (in_words(&self.connection.port_type), in_words(&self.output.port_type));
                (format!("`{reader}` needs {wanted} at `{port}`, and `{name}` is {given}"), format!("is {given}"))
            }
        };
        let help = self.alternative(graph, outputs).or_else(|| match &self.kind {
            MismatchKind::Missing(missing) => kinds_with(missing, registry),
            _ => None,
        });
        problems.error(self.connection.at, message, label).label(there).help.extend(help);
    }

    /// A stage that could stand at the port instead.
    fn alternative(&self, graph: &Graph, outputs: &Outputs) -> Option<String> {
        let users = users_of(self.node, graph);
        let port = &self.connection.port;
        for (target, known) in outputs.iter().enumerate().filter(|(target, _)| !users.contains(target)) {
            for (place, output) in known.iter().flatten().enumerate() {
                if mismatch(&self.connection.port_type, &output.port_type).is_some()
                    || output.port_type == PortType::Table(None)
                {
                    continue;
                }
                let Some(reference) = graph.reference(self.node, target) else { continue };
                let reference = if place == 0 { reference } else { format!("{reference}.{}", output.name) };
                let what = match &self.kind {
                    MismatchKind::Missing(missing) if missing.len() > 1 => "has them",
                    MismatchKind::Missing(_) | MismatchKind::ColumnType(..) => "has it",
                    MismatchKind::Type => "",
                };
                let what =
                    if what.is_empty() { format!("is {}", in_words(&output.port_type)) } else { what.to_owned() };
                return Some(format!("`{reference}` {what}: write `{port} = \"{reference}\"`"));
            }
        }
        None
    }
}

fn in_words(port_type: &PortType) -> &'static str {
    match port_type {
        PortType::Model => "a model",
        PortType::Folder => "a folder",
        PortType::Table(_) => "a table",
        PortType::Any => "an output",
    }
}

/// The kinds that would add missing columns.
fn kinds_with(missing: &[String], registry: &Registry) -> Option<String> {
    let adds = |name: &String| {
        let kinds = registry.iter().filter(|kind| kind.row().is_some_and(|row| row.adds.field_with_name(name).is_ok()));
        kinds.map(|kind| kind.name()).collect::<Vec<_>>()
    };
    let name = missing.first()?;
    let kinds = adds(name);
    let noun = if kinds.len() == 1 { "kind" } else { "kinds" };
    let them = if missing.len() == 1 { "it" } else { "them all" };
    (!kinds.is_empty()).then(|| format!("no stage has {them}; {noun} {} would add `{name}`", list(kinds)))
}

/// The node and all that need it, directly or not.
fn users_of(node: NodeIndex, graph: &Graph) -> HashSet<NodeIndex> {
    let mut users: Vec<Vec<NodeIndex>> = vec![Vec::new(); graph.nodes.len()];
    for (index, draft) in graph.nodes.iter().enumerate() {
        for source in draft.inputs.iter().flat_map(|(_, origin)| &origin.nodes) {
            users[*source].push(index);
        }
    }
    let mut found = HashSet::from([node]);
    let mut queue = vec![node];
    while let Some(next) = queue.pop() {
        queue.extend(users[next].iter().filter(|&&user| found.insert(user)));
    }
    found
}

/// An Arrow type for people: `string`, `list of int32`.
pub fn column_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => format!("list of {}", column_type(item.data_type())),
        DataType::Boolean => "bool".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
