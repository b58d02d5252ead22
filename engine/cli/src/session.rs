//! What every command works with: the kinds, the screen, the store.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tracetune_engine::cache::Store;
use tracetune_engine::pipeline::{Overrides, Pipeline, project_root};

use crate::App;
use crate::args::Global;
use crate::exit;
use crate::ui::{Reported, Ui, helped};

/// The folder in the project's root that holds the store unless another one is given.
pub(crate) const STORE_FOLDER: &str = ".tracetune";

/// What every command works with.
pub(crate) struct Session<'a> {
    pub(crate) app: &'a App,
    pub(crate) ui: Ui,
    pub(crate) global: &'a Global,
}

impl Session<'_> {
    /// Loads a pipeline and prints its warnings; or prints everything that is wrong with it.
    pub(crate) fn pipeline(&self, file: &Path, overrides: &Overrides) -> anyhow::Result<Pipeline> {
        match Pipeline::load(file, &self.app.registry, overrides) {
            Ok(pipeline) => {
                self.ui.diagnostics(&pipeline.warnings);
                Ok(pipeline)
            }
            Err(problems) => {
                self.ui.wrong_pipeline(&problems);
                Err(Reported(exit::WRONG).into())
            }
        }
    }

    /// The store of a project.
    pub(crate) fn store(&self, root: &Path) -> anyhow::Result<Store> {
        let folder = self.store_folder(root);
        Store::open_with(&folder, self.global.locks)
            .with_context(|| format!("can't open the store `{}`", folder.display()))
    }

    /// The store of the project that the working directory is in.
    pub(crate) fn store_here(&self) -> anyhow::Result<Store> {
        let root = project_root(Path::new("pipeline.toml"));
        let folder = self.store_folder(&root);
        if !folder.is_dir() {
            let help = "run a pipeline first, go to its project, or name the store with `--store`";
            return Err(helped(format!("there is no store at `{}`", folder.display()), help));
        }
        self.store(&root)
    }

    /// Where the store is, whether it exists or not.
    pub(crate) fn store_folder(&self, root: &Path) -> PathBuf {
        self.global.store.clone().unwrap_or_else(|| root.join(STORE_FOLDER))
    }
}
