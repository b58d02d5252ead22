//! Why a stage is cached, stale or new: a diff of two lists of key parts, in words.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::cache::Listing;

/// Why a node is in the state it is in. Shown, it reads ``verify@2 is stale: `timeout_s` changed (2 => 5)``.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The node's id.
    pub node: String,
    /// What differs from the last time; nothing for a node that is cached.
    pub causes: Vec<Cause>,
}

/// One thing that differs from the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// The pipeline never ran this stage in this store.
    New,
    /// The engine makes keys another way now.
    KeyFormat {
        /// The format's version then.
        old: String,
        /// And now.
        new: String,
    },
    /// The stage is of another kind now.
    Kind {
        /// The kind then.
        old: String,
        /// And now.
        new: String,
    },
    /// The kind gives other results now.
    KindVersion {
        /// The kind.
        kind: String,
        /// Its version then.
        old: String,
        /// And now.
        new: String,
    },
    /// A parameter changed.
    Param {
        /// Its name.
        name: String,
        /// Its value then, as JSON.
        old: String,
        /// And now.
        new: String,
    },
    /// A port has other content now.
    Input {
        /// The port.
        port: String,
        /// The node that it is connected to, and the output's name.
        from: String,
        /// The content's digest then; `None` if the port was not connected.
        old: Option<String>,
        /// And now; `None` if it is not connected any more.
        new: Option<String>,
    },
    /// Something the kind declares of the world changed: an interpreter, a file.
    Environment {
        /// What.
        name: String,
        /// Then; `None` if it was not declared.
        old: Option<String>,
        /// And now; `None` if it is not declared any more.
        new: Option<String>,
        /// Of a folder, the files that make the difference; none where it is not known what the folder held.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        files: Vec<FileChange>,
    },
    /// The same key was computed before, but its record is gone from the store.
    RecordLost,
    /// The same key was computed before, but an object is gone from the store or was damaged.
    OutputLost {
        /// The output's name.
        output: String,
    },
    /// Stages before it will run; it runs too unless they give the same content again.
    InputUncertain {
        /// The port.
        port: String,
        /// The node that will or may run.
        from: String,
    },
    /// No row of the last time had the values that name this one.
    NewRow {
        /// The columns and values: `id=42`.
        name: String,
    },
    /// The loop's metric ends it before this round.
    LoopStopped {
        /// The loop.
        name: String,
    },
    /// The key can't be computed.
    NoKey {
        /// Why.
        error: String,
    },
}

/// How a file of a folder differs from the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path from the folder.
    pub path: String,
    /// What happened to it.
    pub change: Change,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It has other bytes.
    Changed,
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
}

impl FileChange {
    /// The files by which two listings of a folder differ.
    pub(super) fn between(old: &Listing, new: &Listing) -> Vec<Self> {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let change = |name: &String| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => (old != new).then_some(Change::Changed),
            (None, _) => Some(Change::Added),
            (_, None) => Some(Change::Removed),
        };
        names.into_iter().filter_map(|name| Some(Self { path: name.clone(), change: change(name)? })).collect()
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.change {
            Change::Changed => write!(f, "`{path}` changed"),
            Change::Added => write!(f, "`{path}` was added"),
            Change::Removed => write!(f, "`{path}` was removed"),
        }
    }
}

/// Files of a folder that are named; the others are counted.
const NAMED_FILES: usize = 3;

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match self.causes.as_slice() {
            [] => return write!(f, "{node} is cached: nothing that it depends on changed"),
            [Cause::New] => return write!(f, "{node} is new"),
            [Cause::LoopStopped { .. }] => write!(f, "{node} is skipped: ")?,
            [Cause::NoKey { error }] => return write!(f, "{node} can't be cached: {error}"),
            causes if causes.iter().all(|cause| matches!(cause, Cause::InputUncertain { .. })) => {
                write!(f, "{node} runs unless its input stays the same: ")?;
            }
            _ => write!(f, "{node} is stale: ")?,
        }
        for (index, cause) in self.causes.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{cause}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => write!(f, "it never ran here"),
            Self::KeyFormat { old, new } => write!(f, "the key format changed ({old} => {new})"),
            Self::Kind { old, new } => write!(f, "its kind changed (`{old}` => `{new}`)"),
            Self::KindVersion { kind, old, new } => write!(f, "kind `{kind}` changed (version {old} => {new})"),
            Self::Param { name, old, new } => write!(f, "`{name}` changed ({old} => {new})"),
            Self::Input { port, from, old: Some(old), new: Some(new) } => {
                write!(f, "input `{port}` changed ({from}: {} => {})", short(old), short(new))
            }
            Self::Input { port, old: None, .. } => write!(f, "input `{port}` was connected"),
            Self::Input { port, .. } => write!(f, "input `{port}` is not connected any more"),
            Self::Environment { name, files, .. } if !files.is_empty() => {
                let mut words: Vec<String> = files.iter().take(NAMED_FILES).map(ToString::to_string).collect();
                if files.len() > NAMED_FILES {
                    words.push(format!("and {} more", files.len() - NAMED_FILES));
                }
                write!(f, "{name} changed ({})", words.join(", "))
            }
            Self::Environment { name, old: Some(old), new: Some(new), .. } => {
                write!(f, "{name} changed ({} => {})", short(old), short(new))
            }
            Self::Environment { name, old: None, new, .. } => {
                write!(f, "it now depends on {name} ({})", short(new.as_deref().unwrap_or_default()))
            }
            Self::Environment { name, .. } => write!(f, "it does not depend on {name} any more"),
            Self::RecordLost => write!(f, "its record is gone from the cache"),
            Self::OutputLost { output } => write!(f, "its output `{output}` is gone from the cache"),
            Self::InputUncertain { port, from } => write!(f, "`{from}` (input `{port}`) runs"),
            Self::NewRow { name } => write!(f, "there was no row with {name}"),
            Self::LoopStopped { name } => write!(f, "loop `{name}` stops before this round"),
            Self::NoKey { error } => write!(f, "{error}"),
        }
    }
}

/// Digests are cut to twelve digits, other values are shown whole.
fn short(value: &str) -> &str {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &value[..12] } else { value }
}
