//! What a function reads and adds, and the code that its results depend on: read from its source, never by running it.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracetune_engine::diagnostic::{instead, list};
use tracetune_engine::stage::{Environment, ParamError, Setup, StageError};

use super::interpreter::Interpreter;
use super::{Params, STATE};
use crate::command::declared;

const SCRIPT: &str = include_str!("analyze.py");

/// Another script asks another question.
static QUESTION: LazyLock<String> = LazyLock::new(|| blake3::hash(SCRIPT.as_bytes()).to_string());

/// A function as its source says it is.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) interpreter: Interpreter,
    pub(super) is_table: bool,
    pub(super) answer: Answer,
    /// The digest of all files that it was read from, as they were then.
    state: String,
    /// What the store is to remember: files, questions and their answers.
    facts: Vec<(PathBuf, String, String)>,
}

/// What `analyze.py` answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) module: String,
    pub(super) name: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) any_keyword: bool,
    pub(super) any_position: bool,
    is_async: bool,
    pub(super) is_table: bool,
    pub(super) adds: Vec<(String, String)>,
    pub(super) many: bool,
    no_adds: Option<Wrong>,
    /// `setup`: module and name.
    pub(super) set_up: Option<(String, String)>,
    /// Where the project's modules are looked for.
    pub(super) path: Vec<PathBuf>,
    /// Where all modules are looked for.
    search: Vec<PathBuf>,
    /// The digest of the syntax trees.
    tree: String,
    pub(super) files: BTreeMap<PathBuf, SourceFile>,
    versions: BTreeMap<String, String>,
    /// Modules that are none of the project's, unless a file of their name appears.
    absent: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SourceFile {
    pub(super) sha256: String,
    /// Inode, size and time of its last change (ns) when it was read.
    stat: (u64, u64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) kind: ParameterKind,
    pub(super) default: bool,
    /// The annotation's full name, or nothing.
    #[serde(rename = "type")]
    pub(super) annotation: String,
}

impl Parameter {
    /// Whether its annotation is of what an input is given as.
    fn may_be_an_input(&self) -> bool {
        let last = self.annotation.rsplit('.').next().unwrap_or_default();
        matches!(last, "Path" | "PathLike" | "DataFrame" | "LazyFrame" | "Table")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ParameterKind {
    /// May be given by its place.
    Column,
    /// Stands after `*`.
    Keyword,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wrong {
    message: String,
    help: Option<String>,
    #[serde(default)]
    of_setup: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answered {
    Wrong { error: Wrong },
    Answer(Box<Answer>),
}

/// Reads the function; remembers what it read for as long as no file changes that it read.
pub(super) fn read(params: &Params, setup: &Setup) -> Result<Arc<Function>, ParamError> {
    static KNOWN: Mutex<Option<HashMap<String, Arc<Function>>>> = Mutex::new(None);
    let wrong = |param, message: String, help| ParamError { param, message, help };
    let machine = |error: StageError| match error {
        StageError::Environment { message, help } => wrong("function", message, help),
        error => wrong("function", error.to_string(), None),
    };
    let interpreter = Interpreter::find(&params.python, setup).map_err(machine)?;
    let set_up = params.setup.as_ref().map(|set_up| match params.function.rsplit_once(':') {
        Some((place, _)) if !set_up.contains(':') => format!("{place}:{set_up}"),
        _ => set_up.clone(),
    });
    let request = serde_json::json!({ "function": params.function, "setup": set_up, "root": setup.root });
    let request = request.to_string();
    let python = (&interpreter.executable, interpreter.identity());
    let question = format!("{} {python:?} {request}", *QUESTION);
    let remembered = format!("{question} {}", params.outputs.is_empty());
    if let Some(known) =
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&remembered).cloned()
        && known.answer.state(setup).is_some_and(|state| state == known.state)
    {
        return Ok(known);
    }
    // The first answer says which files count; the next question names their digests, and is answered from the store as
    // long as they are the same.
    let anchor = anchor(&params.function, setup.root);
    let ask = || interpreter.answer(SCRIPT, &request, setup.root);
    let mut state = String::new();
    for _ in 0..8 {
        let mut is_new = false;
        let mut ask = || {
            is_new = true;
            ask()
        };
        let text = match &anchor {
            Some(anchor) => setup.fact(anchor, &format!("{question} {state}"), &mut ask),
            None => ask(),
        };
        let text = text.map_err(machine)?;
        let answer = match serde_json::from_str(&text) {
            Ok(Answered::Answer(answer)) => *answer,
            Ok(Answered::Wrong { error }) if is_new => {
                let param = if error.of_setup { "setup" } else { "function" };
                return Err(wrong(param, error.message, error.help));
            }
            // A file may have come meanwhile: the question is asked once more.
            Ok(Answered::Wrong { .. }) => {
                state.push('?');
                continue;
            }
            Err(error) => return Err(wrong("function", format!("can't be read: {error}"), None)),
        };
        let now = answer.state(setup).unwrap_or_default();
        let is_settled = now == state || (is_new && answer.is_current());
        if is_settled && !now.is_empty() {
            let questions = [format!("{question} "), format!("{question} {now}")];
            let facts = anchor
                .iter()
                .flat_map(|anchor| questions.iter().map(|one| (anchor.clone(), one.clone(), text.clone())));
            let facts = facts.chain(interpreter.fact.clone()).collect();
            let is_table = answer.is_table || !params.outputs.is_empty();
            let function = Arc::new(Function { is_table, interpreter, answer, state: now, facts });
            KNOWN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_default()
                .insert(remembered, Arc::clone(&function));
            return Ok(function);
        }
        state = now;
    }
    Err(wrong("function", "its files change while they are read".to_owned(), Some("try again".to_owned())))
}

/// The file that remembers what was read of a function.
fn anchor(function: &str, root: &Path) -> Option<PathBuf> {
    let (place, _) = function.rsplit_once(':')?;
    let path =
        root.join(if place.ends_with(".py") { place.to_owned() } else { format!("{}.py", place.replace('.', "/")) });
    let package = path.with_extension("").join("__init__.py");
    [path, package].into_iter().find(|path| path.is_file())
}

impl Answer {
    /// A digest of all that the answer depends on, as it is now; nothing if a file is gone.
    fn state(&self, setup: &Setup) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        for path in self.files.keys() {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(setup.digest_file(path).ok()?.as_bytes());
        }
        for folder in &self.search {
            for name in &self.absent {
                let module = folder.join(name);
                let is_there = module.exists() || module.with_extension("py").exists();
                hasher.update(&[u8::from(is_there)]);
            }
            // Installing a package changes its folder.
            let changed = std::fs::metadata(folder).map(|found| (found.mtime(), found.mtime_nsec())).ok();
            if !self.path.contains(folder) {
                hasher.update(format!("{} {changed:?}", folder.display()).as_bytes());
            }
        }
        Some(hasher.finalize().to_string())
    }

    /// Whether the files are those that it was made of.
    fn is_current(&self) -> bool {
        self.files.iter().all(|(path, file)| {
            std::fs::metadata(path).is_ok_and(|found| {
                (found.ino(), found.len(), found.mtime() * 1_000_000_000 + found.mtime_nsec()) == file.stat
            })
        })
    }
}

/// The part of the key that stands for the code.
pub(super) fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
    let function = params.function();
    // This also watches the files: an edit while the stage runs is noticed.
    if function.answer.state(setup).is_none_or(|state| state != function.state) {
        let message = format!("the code of `{}` has changed since it was read", params.function);
        return Err(StageError::environment(message, "run again"));
    }
    for (file, question, answer) in &function.facts {
        setup.fact(file, question, || Ok(answer.clone()))?;
    }
    let mut environment = vec![
        ("python".to_owned(), function.interpreter.identity()),
        (format!("code {}", params.function), function.answer.tree.clone()),
    ];
    environment.extend(function.answer.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
    Ok(environment)
}

impl Function {
    /// The columns that it reads and the parameters they go to; `None` where they are handed over by name.
    pub(super) fn reads(&self, params: &Params) -> Vec<String> {
        match &params.reads {
            Some(reads) => reads.clone(),
            None => {
                let columns = self.answer.parameters.iter().filter(|one| one.kind == ParameterKind::Column);
                columns.map(|one| one.name.clone()).filter(|name| !params.params.contains_key(name)).collect()
            }
        }
    }

    /// Whether columns are handed over by name.
    pub(super) fn takes_names(&self, params: &Params) -> bool {
        let columns = self.answer.parameters.iter().filter(|one| one.kind == ParameterKind::Column).count();
        params.reads.as_ref().is_some_and(|reads| reads.len() > columns && !self.answer.any_position)
    }

    /// The columns that it adds, with their types.
    pub(super) fn adds(&self, params: &Params) -> Vec<(String, String)> {
        if params.adds.is_empty() {
            return self.answer.adds.clone();
        }
        params.adds.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect()
    }

    /// Whether what it returns is the value of its one column.
    pub(super) fn is_single(&self, params: &Params) -> bool {
        let own = &self.answer.adds;
        if params.adds.is_empty() { own.len() == 1 && own[0].0 == self.answer.name } else { params.adds.len() == 1 }
    }
}

/// That the parameters fit the function.
pub(super) fn check(params: &Params, function: &Function) -> Result<(), ParamError> {
    let answer = &function.answer;
    let wrong = |param, message: String, help: Option<String>| Err(ParamError { param, message, help });
    if answer.is_async {
        let help = "call it by `asyncio.run` in a plain function".to_owned();
        return wrong("function", format!("`{}` is `async`", answer.name), Some(help));
    }
    let names = || answer.parameters.iter().map(|one| one.name.as_str());
    let takes = |name: &str| answer.any_keyword || names().any(|known| known == name);
    // A set-up function may take what the function itself does not.
    if let Some(name) = params.params.keys().find(|name| params.setup.is_none() && !takes(name)) {
        let help = instead(name, names(), "its parameters are");
        return wrong("params", format!("the function has no parameter `{name}`"), Some(help));
    }
    if params.setup.is_some() && !takes(STATE) {
        let help = "write `def f(text, *, state): …`".to_owned();
        return wrong("setup", "the function has no keyword-only parameter `state`".to_owned(), Some(help));
    }
    let given = |name: &str| params.params.contains_key(name) || (params.setup.is_some() && name == STATE);
    let lacks = |one: &&Parameter| {
        one.kind == ParameterKind::Keyword && !one.default && !given(&one.name) && !one.may_be_an_input()
    };
    if let Some(missing) = answer.parameters.iter().find(lacks) {
        let name = &missing.name;
        let help = match name.as_str() {
            STATE => "name the function that makes it: `setup = \"load\"`".to_owned(),
            _ => format!(
                "add it: `params = {{ {name} = … }}`; an input of that name is annotated as what it is, e.g. `pathlib.Path`"
            ),
        };
        return wrong("params", format!("the function's keyword `{name}` is not given"), Some(help));
    }
    let not_filled = declared(&params.outputs)
        .into_iter()
        .find(|output| output.is_folder() && !answer.parameters.iter().any(|one| one.name == output.name));
    if let Some(output) = not_filled {
        let help = format!("it gets the folder's path: `def {}(…, {}: pathlib.Path)`", answer.name, output.name);
        let message = format!("the function has no parameter `{}`, the folder that it is to fill", output.name);
        return wrong("outputs", message, Some(help));
    }
    if function.is_table {
        return match (&params.reads, params.adds.is_empty()) {
            (None, true) => Ok(()),
            (Some(_), _) => wrong("reads", "is for functions of rows".to_owned(), None),
            (_, false) => wrong("adds", "is for functions of rows".to_owned(), None),
        };
    }
    if let (true, Some(error)) = (params.adds.is_empty(), &answer.no_adds) {
        return wrong("function", error.message.clone(), error.help.clone());
    }
    if let Some((name, _)) = function.adds(params).iter().find(|(name, _)| name.starts_with('_')) {
        let help = Some("names that begin with `_` are tracetune's own: name the column in `adds`".to_owned());
        return wrong("adds", format!("adds `{name}`"), help);
    }
    let columns: Vec<&Parameter> = answer.parameters.iter().filter(|one| one.kind == ParameterKind::Column).collect();
    if let Some(reads) = &params.reads {
        let needed = columns.iter().filter(|one| !one.default && !params.params.contains_key(&one.name)).count();
        let too_many = reads.len() > columns.len() && !answer.any_position && !answer.any_keyword;
        if reads.len() < needed || too_many {
            let message = format!(
                "names {} columns for the parameters {}",
                reads.len(),
                list(columns.iter().map(|one| &one.name))
            );
            return wrong("reads", message, None);
        }
    }
    if function.reads(params).is_empty() {
        let help = Some("its parameters before `*` are the columns that it reads; or set `reads`".to_owned());
        return wrong("function", format!("`{}` reads no column", answer.name), help);
    }
    Ok(())
}
