//! What the programs of a stage wrote to their standard output and error, kept in the run's folder.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cache::CacheError;

/// A file that several programs of one stage append to. Of one that grows beyond a limit the beginning and the end are kept,
/// whatever a program writes: the end in parts, of which the last two stay, each named by the place where it begins.
#[derive(Debug, Default)]
pub struct StageLog {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    /// Opened by the first write.
    part: Mutex<Option<Part>>,
}

#[derive(Debug)]
struct Part {
    file: File,
    /// How many bytes were written before it.
    begin: u64,
    length: u64,
}

impl StageLog {
    /// Bytes of the beginning.
    const HEAD: u64 = 32 << 20;
    /// Bytes of each later part.
    const PART: u64 = 16 << 20;

    /// A log of nothing.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn new(run_folder: &Path, node: &str) -> Self {
        Self { path: Some(path_of(run_folder, node)), part: Mutex::default() }
    }

    /// Appends bytes as they are.
    ///
    /// # Errors
    /// The run's folder can't be written.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut slot = self.part.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut part = match slot.take() {
            Some(part) => part,
            None => last_part(path)?,
        };
        let limit = if part.begin == 0 { Self::HEAD } else { Self::PART };
        if part.length >= limit {
            part = open_part(path, part.begin + part.length)?;
            let later: Vec<_> = parts(path)?.into_iter().filter(|(begin, _)| *begin > 0).collect();
            for (_, path) in &later[..later.len().saturating_sub(2)] {
                std::fs::remove_file(path)?;
            }
        }
        part.file.write_all(bytes)?;
        part.length += bytes.len() as u64;
        *slot = Some(part);
        Ok(())
    }
}

fn path_of(run_folder: &Path, node: &str) -> PathBuf {
    run_folder.join("logs").join(format!("{}.log", node.replace('/', "_")))
}

/// The part that an earlier attempt of the stage left off in, or the first.
fn last_part(path: &Path) -> io::Result<Part> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    open_part(path, parts(path)?.last().map_or(0, |(begin, _)| *begin))
}

fn open_part(path: &Path, begin: u64) -> io::Result<Part> {
    let path = if begin == 0 { path.to_owned() } else { path.with_extension(format!("log.{begin}")) };
    let file = File::options().create(true).append(true).open(path)?;
    Ok(Part { begin, length: file.metadata()?.len(), file })
}

/// The parts that there are, in their order, with the place where each begins.
fn parts(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(rest) = path.file_name().and_then(|file| file.to_str()?.strip_prefix(name)) else { continue };
        let begin = if rest.is_empty() { Some(0) } else { rest.strip_prefix('.').and_then(|place| place.parse().ok()) };
        found.extend(begin.map(|begin| (begin, path)));
    }
    found.sort();
    Ok(found)
}

/// Copies what a stage's programs wrote in a run, from a place on, with a line where something is left out. Gives the place
/// where the next copy goes on, or `None` if they wrote nothing.
///
/// # Errors
/// It can't be read or written.
pub fn copy_log(run_folder: &Path, node: &str, from: u64, to: &mut dyn Write) -> Result<Option<u64>, CacheError> {
    let path = path_of(run_folder, node);
    let parts = parts(&path).map_err(CacheError::io("read", &path))?;
    let (is_empty, mut place) = (parts.is_empty(), from);
    for (begin, path) in parts {
        let copied = copy_part(&path, begin, place, to).map_err(CacheError::io("copy", &path))?;
        place = place.max(copied);
    }
    Ok((!is_empty).then_some(place))
}

/// Gives the place that it came to.
fn copy_part(path: &Path, begin: u64, from: u64, to: &mut dyn Write) -> io::Result<u64> {
    let mut file = match File::open(path) {
        // A program that still writes has made room.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from),
        file => file?,
    };
    if begin > from {
        writeln!(to, "\n… {} bytes are left out here …", begin - from)?;
    }
    let place = from.max(begin);
    file.seek(SeekFrom::Start(place - begin))?;
    Ok(place + io::copy(&mut file, to)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(folder: &Path, node: &str) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        copy_log(folder, node, 0, &mut text).unwrap().map(|_| text)
    }

    #[test]
    fn of_a_long_log_the_beginning_and_the_end_are_kept_and_the_gap_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = StageLog::new(folder.path(), "a@1");
        log.write(b"the beginning\n").unwrap();
        let block = vec![b'x'; 8 << 20];
        for _ in 0..20 {
            log.write(&block).unwrap();
        }
        log.write(b"the end").unwrap();
        let text = text_of(folder.path(), "a@1").unwrap();
        assert!(text.starts_with(b"the beginning\n") && text.ends_with(b"the end"));
        assert!(text.len() as u64 <= StageLog::HEAD + 2 * StageLog::PART + 3 * block.len() as u64, "{}", text.len());
        let gap = String::from_utf8(text.into_iter().filter(|byte| *byte != b'x').collect()).unwrap();
        let left_out: usize =
            gap.lines().find_map(|line| line.strip_prefix("… ")?.split(' ').next()?.parse().ok()).unwrap();
        assert!(left_out > 0 && left_out.is_multiple_of(block.len()), "{gap}");
    }

    #[test]
    fn a_second_attempt_goes_on_where_the_first_ended() {
        let folder = tempfile::tempdir().unwrap();
        StageLog::new(folder.path(), "a").write(b"one\n").unwrap();
        StageLog::new(folder.path(), "a").write(b"two\n").unwrap();
        assert_eq!(text_of(folder.path(), "a").unwrap(), b"one\ntwo\n");
        assert!(text_of(folder.path(), "b").is_none());
    }

    #[test]
    fn a_copy_goes_on_from_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let log = StageLog::new(folder.path(), "a");
        log.write(b"one\n").unwrap();
        let mut text = Vec::new();
        let place = copy_log(folder.path(), "a", 0, &mut text).unwrap().unwrap();
        log.write(b"two\n").unwrap();
        copy_log(folder.path(), "a", place, &mut text).unwrap();
        assert_eq!(text, b"one\ntwo\n");
    }
}
