//! What a path outside the store names: a file, the files of a folder, or those that a glob matches.
//!
//! Left out of a folder, as they are made by looking at it or have no part in what a stage reads: `.git`, `__pycache__`,
//! `*.pyc`, the store's folder, and what a `.tracetuneignore` (in the syntax of `.gitignore`) in the folder or one below
//! it says. A `.gitignore` has no say: data is often kept out of git, and is read all the same.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;
use rayon::prelude::*;

use super::Digest;
use super::watched::Stamp;

/// A file may change twice within the file system's time step: one that was changed just now is not trusted. Times of servers
/// and of simple file systems have steps of up to two seconds; those of a local one are the kernel's, some milliseconds.
const YOUNGEST: Duration = Duration::from_secs(2);
const YOUNGEST_LOCAL: Duration = Duration::from_millis(100);

/// Local file systems whose times are the kernel's, by the number that statfs(2) gives: Btrfs, ext2 to 4, F2FS, overlayfs,
/// tmpfs, XFS.
#[cfg(target_os = "linux")]
const LOCAL: [u32; 6] = [0x9123_683e, 0xef53, 0xf2f5_2010, 0x794c_7630, 0x0102_1994, 0x5846_5342];

/// How old a file must be to be trusted, by the file system that it lies on.
fn youngest(path: &Path) -> Duration {
    #[cfg(target_os = "linux")]
    if rustix::fs::statfs(path).is_ok_and(|found| LOCAL.contains(&(found.f_type as u32))) {
        return YOUNGEST_LOCAL;
    }
    let _ = path;
    YOUNGEST
}

/// Names that are left out of every folder.
const IGNORED: [&str; 2] = [".git", "__pycache__"];
/// The names of files with further rules.
const IGNORE_FILE: &str = ".tracetuneignore";

/// The files at a path: one, or those of a folder and its folders, sorted by their path from it.
pub(super) struct Files {
    /// Where the names of several files begin; `None` for one file.
    folder: Option<PathBuf>,
    pub(super) files: Vec<Found>,
}

/// What a folder held: paths from it, and the digests of the files.
pub(crate) type Listing = BTreeMap<String, Digest>;

/// A file, or a link that leads nowhere.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    /// What a link that leads nowhere says.
    link: Option<PathBuf>,
}

impl Found {
    /// # Errors
    /// There is nothing, or nothing that has bytes to read: a pipe would be waited for, a device may never end.
    fn at(path: PathBuf) -> io::Result<Self> {
        match std::fs::metadata(&path) {
            Ok(metadata) => {
                check_readable(&path, &metadata)?;
                Ok(Self { path, metadata, link: None })
            }
            Err(error) => match std::fs::read_link(&path) {
                Ok(link) => Ok(Self { metadata: std::fs::symlink_metadata(&path)?, path, link: Some(link) }),
                Err(_) => Err(error),
            },
        }
    }

    fn digest(&self) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        match &self.link {
            Some(link) => _ = hasher.update(b"link to ").update(link.as_os_str().as_bytes()),
            None => _ = hasher.update_mmap_rayon(&self.path)?,
        }
        Ok(hasher.finalize().into())
    }
}

fn check_readable(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let file_type = metadata.file_type();
    let what = match () {
        () if file_type.is_file() => return Ok(()),
        () if file_type.is_fifo() => "a named pipe",
        () if file_type.is_socket() => "a socket",
        () if file_type.is_dir() => "a folder",
        () => "a device",
    };
    let message = format!("`{}` is {what}: a key is made of files", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

impl Files {
    /// # Errors
    /// Nothing is there, or something that can't be read; links that lead round in a circle.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Self::below(path, |_| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match Pattern::of(path)? {
                Some(pattern) => {
                    let found = Self::below(&pattern.folder, |path| pattern.matcher.is_match(path))?;
                    if found.files.is_empty() {
                        return Err(io::Error::new(io::ErrorKind::NotFound, "the pattern matches no file"));
                    }
                    Ok(found)
                }
                None => Ok(Self { folder: None, files: vec![Found::at(path.to_owned()).map_err(|_| error)?] }),
            },
            _ => Ok(Self { folder: None, files: vec![Found::at(path.to_owned())?] }),
        }
    }

    /// The files of a folder whose path from it is wanted.
    fn below(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut walk = WalkBuilder::new(folder);
        walk.standard_filters(false).add_custom_ignore_filename(IGNORE_FILE).parents(false).follow_links(true);
        walk.filter_entry(|entry| entry.depth() == 0 || !is_ignored(entry.path()));
        for entry in walk.build() {
            let entry = match entry {
                Ok(entry) => entry,
                // A link that leads nowhere is an entry all the same.
                Err(error) => match broken_link(&error) {
                    Some(path) => {
                        if is_wanted(path.strip_prefix(folder).unwrap_or(&path)) {
                            files.push(Found::at(path)?);
                        }
                        continue;
                    }
                    None => return Err(io::Error::other(error)),
                },
            };
            let path = entry.path();
            if let Some(error) = entry.error() {
                return Err(io::Error::other(error.clone()));
            }
            if entry.file_type().is_some_and(|kind| kind.is_dir())
                || !is_wanted(path.strip_prefix(folder).unwrap_or(path))
            {
                continue;
            }
            files.push(Found::at(path.to_owned())?);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { folder: Some(folder.to_owned()), files })
    }

    /// Whether it is one file, not several.
    pub(super) fn is_one(&self) -> bool {
        self.folder.is_none()
    }

    /// Changes whenever the file system says that a file did.
    pub(super) fn identity(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for Found { path, metadata, .. } in &self.files {
            hasher.update(path.as_os_str().as_bytes());
            Stamp::from(metadata).add_to(&mut hasher);
        }
        hasher.finalize().into()
    }

    /// Over the bytes of the file; for several, over their paths and digests.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        if self.is_one() {
            return self.files[0].digest();
        }
        let mut hasher = blake3::Hasher::new();
        for (name, digest) in self.digests()? {
            let name = name.as_os_str().as_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&digest.0);
        }
        Ok(hasher.finalize().into())
    }

    /// The files of a folder by their path from it, each with the digest of its bytes; nothing for one file.
    pub(super) fn listing(&self) -> io::Result<Listing> {
        Ok(self.digests()?.into_iter().map(|(name, digest)| (name.to_string_lossy().into_owned(), digest)).collect())
    }

    /// Of several files: their paths from the folder, in order, and the digests of their bytes.
    fn digests(&self) -> io::Result<Vec<(&Path, Digest)>> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let names = self.files.iter().map(|file| file.path.strip_prefix(folder).unwrap_or(&file.path));
        let digests = self.files.par_iter().map(Found::digest).collect::<io::Result<Vec<Digest>>>()?;
        Ok(names.zip(digests).collect())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.metadata.len()).sum()
    }

    /// Whether a further change of any file would show in its times.
    pub(super) fn are_old(&self) -> bool {
        let now = SystemTime::now();
        // Of its entry, which is as old as its bytes or younger: a time of change can be set, that of the entry can't.
        let age = |found: &Found| {
            let changed = Duration::new(found.metadata.ctime().try_into().ok()?, found.metadata.ctime_nsec() as u32);
            now.duration_since(SystemTime::UNIX_EPOCH + changed).ok()
        };
        // The file systems are asked of young files alone: there are few.
        self.files.iter().all(|found| age(found).is_some_and(|age| age > YOUNGEST || age > youngest(&found.path)))
    }
}

/// That a path names what a key can be made of.
///
/// # Errors
/// As [`Files::at`].
pub(crate) fn check_files(path: &Path) -> io::Result<()> {
    Files::at(path).map(|_| ())
}

/// The paths of the files that a path names.
///
/// # Errors
/// As [`Files::at`].
pub(crate) fn list_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(Files::at(path)?.files.into_iter().map(|found| found.path).collect())
}

fn is_ignored(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    IGNORED.iter().any(|ignored| name == *ignored)
        || path.extension().is_some_and(|ending| ending == "pyc")
        // A store, wherever it lies: see `Store::open`.
        || path.join("actions").is_dir() && path.join("objects").is_dir()
}

/// The link that leads nowhere, if that is the error.
fn broken_link(error: &ignore::Error) -> Option<PathBuf> {
    match error {
        ignore::Error::WithDepth { err, .. } => broken_link(err),
        ignore::Error::WithPath { path, err }
            if err.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) =>
        {
            path.is_symlink().then(|| path.clone())
        }
        _ => None,
    }
}

/// A glob: the folder above its first wildcard, and what the paths below it must match.
struct Pattern {
    folder: PathBuf,
    matcher: GlobMatcher,
}

impl Pattern {
    /// `None` for a path without wildcards.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let is_wild = |part: &Component| part.as_os_str().as_bytes().iter().any(|byte| b"*?[{".contains(byte));
        let parts: Vec<Component> = path.components().collect();
        let Some(first) = parts.iter().position(is_wild) else { return Ok(None) };
        let below: PathBuf = parts[first..].iter().collect();
        let glob = GlobBuilder::new(&below.to_string_lossy()).literal_separator(true).build();
        let glob = glob.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        Ok(Some(Self { folder: parts[..first].iter().collect(), matcher: glob.compile_matcher() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, and the digest of what is at a path below it.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(names: &[&str]) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            names.iter().for_each(|name| folder.write(name, name));
            folder
        }
        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        fn digest(&self, path: &str) -> io::Result<Digest> {
            Files::at(&self.0.path().join(path))?.digest()
        }
    }

    #[test]
    fn what_looking_at_a_folder_makes_is_no_part_of_it() {
        let folder = Folder::with(&["a.py", ".env"]);
        let before = folder.digest("").unwrap();
        for name in [
            "__pycache__/a.cpython-311.pyc",
            "sub/__pycache__/b",
            ".git/HEAD",
            "a.pyc",
            ".tracetune/objects/ab/abcd",
            ".tracetune/actions/ab/abcd.json",
        ] {
            folder.write(name, "noise");
        }
        assert_eq!(folder.digest("").unwrap(), before);
        folder.write(".env", "another");
        assert_ne!(folder.digest("").unwrap(), before, "hidden files count");
    }

    #[test]
    fn a_file_of_rules_leaves_files_out_and_gitignore_does_not() {
        let folder = Folder::with(&["a.py", "data.parquet"]);
        folder.write(".gitignore", "*.parquet");
        let whole = folder.digest("").unwrap();
        folder.write("data.parquet", "other bytes");
        assert_ne!(folder.digest("").unwrap(), whole);
        folder.write(".tracetuneignore", "*.log\n/out/");
        let before = folder.digest("").unwrap();
        folder.write("x.log", "1");
        folder.write("out/y", "1");
        assert_eq!(folder.digest("").unwrap(), before);
        folder.write("sub/out/y", "1");
        assert_ne!(folder.digest("").unwrap(), before);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_what_it_says() {
        let folder = Folder::with(&["a"]);
        let without = folder.digest("").unwrap();
        let link = |target: &str| {
            let path = folder.0.path().join("link");
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(target, path).unwrap();
            folder.digest("").unwrap()
        };
        let (one, other) = (link("nowhere"), link("elsewhere"));
        assert!(without != one && one != other && other != without);
        assert!(folder.digest("link").is_ok(), "by itself as well");
    }

    #[test]
    fn the_files_behind_a_link_to_a_folder_count_and_a_circle_is_an_error() {
        let outside = Folder::with(&["deep/x"]);
        let folder = Folder::with(&["a"]);
        std::os::unix::fs::symlink(outside.0.path(), folder.0.path().join("link")).unwrap();
        let before = folder.digest("").unwrap();
        outside.write("deep/x", "other");
        assert_ne!(folder.digest("").unwrap(), before);
        std::os::unix::fs::symlink(folder.0.path(), folder.0.path().join("round")).unwrap();
        assert!(folder.digest("").unwrap_err().to_string().contains("loop"));
    }

    #[test]
    fn a_pipe_is_refused_instead_of_waited_for() {
        let folder = Folder::with(&["a"]);
        let pipe = folder.0.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in ["", "pipe"] {
            let error = folder.digest(path).unwrap_err().to_string();
            assert!(error.ends_with("pipe` is a named pipe: a key is made of files"), "{error}");
        }
        assert!(Files::at(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_glob_is_the_names_and_bytes_of_what_it_matches() {
        let folder = Folder::with(&["scripts/a.py", "scripts/deep/b.py", "scripts/c.txt"]);
        let before = folder.digest("scripts/**/*.py").unwrap();
        folder.write("scripts/c.txt", "other");
        assert_eq!(folder.digest("scripts/**/*.py").unwrap(), before);
        folder.write("scripts/deep/d.py", "");
        assert_ne!(folder.digest("scripts/**/*.py").unwrap(), before);
        assert_ne!(folder.digest("scripts/*.py").unwrap(), before, "one star is one folder");
        assert_eq!(folder.digest("*.rs").unwrap_err().to_string(), "the pattern matches no file");
        folder.write("odd[1].py", "a file's own name is no pattern");
        assert!(folder.digest("odd[1].py").is_ok());
    }
}
