//! A second wall behind Landlock and the filters: the fork servers see a root folder with Python's library and nothing
//! else, no network and no one's shared memory.
//!
//! In it stands the only folder that a job may write ([`SCRATCH`]), a file system in memory for each fork server, which
//! goes with it and counts as its control group's memory. The server empties it between jobs.
//!
//! Root needs nothing for it; other users need a user namespace, in which they may do all of it, and which not every
//! machine lets them make. Root can also have the servers belong to nobody.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, mkdirat, open, statvfs, symlinkat};
use rustix::io::{Errno, write};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::{Gid, Uid, chdir, getegid, geteuid, pivot_root};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};

use super::walls::Raise;

/// The user and the group that own nothing.
const NOBODY: u32 = 65534;
/// What the new root folder is mounted over: there on each machine, and nothing that is to be read.
const PLACE: &CStr = c"/proc";
/// The jobs' folder, and what is mounted there. The path is a new one, so that no installation of Python lies below it.
pub(super) const SCRATCH: &str = "/job";
const SCRATCH_FLAGS: MountFlags = SEALED.union(MountFlags::NOEXEC).union(MountFlags::NOATIME);
/// Files and folders that a job can make.
const SCRATCH_FILES: u32 = 4096;
const SEALED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Namespaces of its own for a process, and a root folder in which only `readable` is to be seen, and a folder to write
/// of `scratch_bytes`, unless they are 0.
///
/// # Errors
/// The reason why it can't be had, where that is known beforehand.
pub(super) fn separate(readable: &[PathBuf], scratch_bytes: u64) -> Result<(String, Raise), String> {
    let folder = RootFolder::plan(readable, scratch_bytes).map_err(|error| error.to_string())?;
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    let words = "a root folder with Python's library alone, no network, no shared memory of others";
    if may(CapabilitySet::SYS_ADMIN) {
        let raise = move || -> io::Result<()> {
            unshare(flags)?;
            Ok(folder.enter(|path, place| mount_bind(path, place))?)
        };
        return Ok((words.to_owned(), Box::new(raise)));
    }
    if geteuid().is_root() {
        return Err("root lacks CAP_SYS_ADMIN here".to_owned());
    }
    let maps = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("{NOBODY} {} 1", geteuid().as_raw())),
        (c"/proc/self/gid_map", format!("{NOBODY} {} 1", getegid().as_raw())),
    ];
    let raise = move || -> io::Result<()> {
        unshare(flags | UnshareFlags::NEWUSER)?;
        for (file, text) in &maps {
            write(open(*file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?, text.as_bytes())?;
        }
        // What is mounted below a folder can't be uncovered by those who could not have mounted it.
        Ok(folder.enter(|path, place| mount_bind_recursive(path, place))?)
    };
    Ok((format!("a user namespace, {words}"), Box::new(raise)))
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "the call that makes namespaces")]
    // SAFETY: what may not be unshared by a thread alone is the table of open files, which is not among the flags.
    unsafe {
        unshare_unsafe(flags)
    }
}

/// How to make a root folder with some files and folders of this machine, without allocating anything.
struct RootFolder(Vec<Step>);

/// Paths are below `PLACE`, but for those that are shown.
enum Step {
    Folder(CString),
    File(CString),
    /// What it leads to, and where it is.
    Link(CString, CString),
    /// Shows a file or a folder of this machine at a place, read-only.
    Show(CString, CString, MountFlags),
    /// A file system in memory, and its options.
    Scratch(CString, CString),
}

impl RootFolder {
    fn plan(readable: &[PathBuf], scratch_bytes: u64) -> io::Result<Self> {
        let mut plan = Plan::default();
        let mut real: Vec<PathBuf> = readable.iter().filter_map(|path| path.canonicalize().ok()).collect();
        real.sort();
        for path in &real {
            plan.show(path)?;
        }
        // `/lib` is a link on many machines. A link below another link would lead out of the new root: there is none.
        for path in readable.iter().filter(|path| path.is_symlink()) {
            if path.parent().is_some_and(|parent| parent.canonicalize().is_ok_and(|real| real == *parent)) {
                plan.link(path)?;
            }
        }
        if scratch_bytes > 0 {
            plan.scratch(scratch_bytes)?;
        }
        Ok(Self(plan.steps))
    }

    /// Makes it the calling process's.
    fn enter(&self, bind: impl Fn(&CStr, &CStr) -> Result<(), Errno>) -> Result<(), Errno> {
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount(c"tracetune", PLACE, c"tmpfs", SEALED, c"mode=755,size=1m,nr_inodes=4096")?;
        for step in &self.0 {
            match step {
                Step::Folder(path) => mkdirat(CWD, path.as_c_str(), Mode::from_raw_mode(0o755))?,
                Step::File(path) => drop(open(path.as_c_str(), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?),
                Step::Link(target, path) => symlinkat(target.as_c_str(), CWD, path.as_c_str())?,
                Step::Show(path, place, flags) => {
                    bind(path, place)?;
                    mount_remount(place.as_c_str(), *flags, c"")?;
                }
                Step::Scratch(place, options) => {
                    mount(c"tracetune", place.as_c_str(), c"tmpfs", SCRATCH_FLAGS, options.as_c_str())?;
                }
            }
        }
        mount_remount(PLACE, SEALED | MountFlags::RDONLY, c"")?;
        chdir(PLACE)?;
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        chdir(c"/")
    }
}

#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    made: BTreeSet<PathBuf>,
    shown: Vec<PathBuf>,
}

impl Plan {
    fn is_shown(&self, path: &Path) -> bool {
        self.shown.iter().any(|shown| path.starts_with(shown))
    }

    fn folders_above(&mut self, path: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        above.reverse();
        for folder in above {
            if self.made.insert(folder.to_owned()) {
                self.steps.push(Step::Folder(inside(folder)?));
            }
        }
        Ok(())
    }

    fn show(&mut self, path: &Path) -> io::Result<()> {
        if self.is_shown(path) {
            return Ok(());
        }
        self.folders_above(path)?;
        let place = inside(path)?;
        self.steps.push(if path.is_dir() { Step::Folder(place.clone()) } else { Step::File(place.clone()) });
        // What the machine forbids here stays forbidden.
        let own = statvfs(path)?.f_flag;
        let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
        flags.set(MountFlags::NOEXEC, own.contains(StatVfsMountFlags::NOEXEC));
        flags.set(MountFlags::NODEV, own.contains(StatVfsMountFlags::NODEV) || !path.starts_with("/dev"));
        self.steps.push(Step::Show(text(path)?, place, flags));
        self.made.insert(path.to_owned());
        self.shown.push(path.to_owned());
        Ok(())
    }

    fn scratch(&mut self, bytes: u64) -> io::Result<()> {
        let path = Path::new(SCRATCH);
        if self.is_shown(path) || self.made.contains(path) {
            return Err(io::Error::other(format!(
                "something to be read lies in `{SCRATCH}`, the place of a job's files"
            )));
        }
        self.steps.push(Step::Folder(inside(path)?));
        let options = CString::new(format!("mode=1777,size={bytes},nr_inodes={SCRATCH_FILES}"))?;
        self.steps.push(Step::Scratch(inside(path)?, options));
        // Where programs expect to be able to write.
        let temporary = Path::new("/tmp");
        if !self.is_shown(temporary) && !self.made.contains(temporary) {
            self.steps.push(Step::Link(text(path)?, inside(temporary)?));
        }
        Ok(())
    }

    fn link(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_shown(path) && self.made.insert(path.to_owned()) {
            self.folders_above(path)?;
            self.steps.push(Step::Link(text(&fs_err::read_link(path)?)?, inside(path)?));
        }
        Ok(())
    }
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A path of this machine, where the new root folder has it.
fn inside(path: &Path) -> io::Result<CString> {
    Ok(CString::new([PLACE.to_bytes(), path.as_os_str().as_bytes()].concat())?)
}

/// Makes a process nobody's, if nobody can read what is `readable` to it.
///
/// # Errors
/// The reason why that can't be had.
pub(super) fn become_nobody(readable: &[PathBuf]) -> Result<(String, Raise), String> {
    if !geteuid().is_root() || !may(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL) {
        return Err("candidates run as you do: another user needs root".to_owned());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let readable: Vec<CString> = readable.iter().filter_map(|path| text(path).ok()).collect();
    let raise = move || -> io::Result<()> {
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        for path in &readable {
            match open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    };
    Ok(("nobody".to_owned(), Box::new(raise)))
}

fn may(what: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(what))
}
