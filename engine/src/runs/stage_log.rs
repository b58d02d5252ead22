//! What the programs of a stage wrote to their standard output and error, kept in the run's folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cache::CacheError;

/// A file that several programs of one stage append to. One that grows beyond a limit is put aside once, so that the last
/// megabytes are there whatever a program writes.
#[derive(Debug, Default)]
pub struct StageLog {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    /// Made by the first write.
    file: Mutex<Option<(File, u64)>>,
}

impl StageLog {
    /// Bytes of a file.
    const LIMIT: u64 = 64 << 20;

    /// A log of nothing.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn new(run_folder: &Path, node: &str) -> Self {
        Self { path: Some(path_of(run_folder, node)), file: Mutex::default() }
    }

    /// Appends bytes as they are.
    ///
    /// # Errors
    /// The run's folder can't be written.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, written)) = &*file
            && *written >= Self::LIMIT
        {
            std::fs::rename(path, former(path))?;
            *file = None;
        }
        if file.is_none() {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            *file = Some((File::options().create(true).append(true).open(path)?, 0));
        }
        if let Some((file, written)) = &mut *file {
            file.write_all(bytes)?;
            *written += bytes.len() as u64;
        }
        Ok(())
    }
}

fn path_of(run_folder: &Path, node: &str) -> PathBuf {
    run_folder.join("logs").join(format!("{}.log", node.replace('/', "_")))
}

/// What was put aside.
fn former(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Copies what a stage's programs wrote in a run; gives whether they wrote anything.
///
/// # Errors
/// It can't be read or written.
pub fn copy_log(run_folder: &Path, node: &str, to: &mut dyn Write) -> Result<bool, CacheError> {
    let path = path_of(run_folder, node);
    let mut found = false;
    for path in [former(&path), path] {
        match File::open(&path) {
            Ok(mut file) => {
                found = true;
                io::copy(&mut file, to).map_err(CacheError::io("copy", path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CacheError::io("read", path)(error)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_megabytes_of_a_long_log_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = StageLog::new(folder.path(), "a@1");
        let block = vec![b'x'; 8 << 20];
        for _ in 0..20 {
            log.write(&block).unwrap();
        }
        log.write(b"the end").unwrap();
        let mut text = Vec::new();
        assert!(copy_log(folder.path(), "a@1", &mut text).unwrap());
        assert!(text.ends_with(b"the end") && text.len() as u64 > StageLog::LIMIT);
        assert!(text.len() as u64 <= 2 * StageLog::LIMIT + block.len() as u64, "{}", text.len());
        assert!(!copy_log(folder.path(), "b", &mut text).unwrap());
    }
}
