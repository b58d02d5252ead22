//! A second wall behind Landlock and the filters, where this process is root: the fork servers see a root folder with
//! Python's library and nothing else, no network, no one's shared memory, and belong to nobody.
//!
//! Both hold for the calling thread and what it starts. A thread can make no user namespace, so without root there is
//! neither: everybody keeps their own uid, from which the other walls keep candidates.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{Gid, Uid, chdir, getegid, geteuid, pivot_root};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};

/// The user and the group that own nothing.
const NOBODY: u32 = 65534;

/// Gives the thread namespaces of its own, and a root folder in which only `readable` is to be seen. It is made in
/// `folder`, which the thread can't remove, since it is outside then.
pub(super) fn separate(readable: &[PathBuf], folder: &Path) -> Result<String, String> {
    if !may(CapabilitySet::SYS_ADMIN) {
        return Err("they need root (CAP_SYS_ADMIN)".to_owned());
    }
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    #[expect(unsafe_code, reason = "the call that makes namespaces")]
    // SAFETY: what may not be unshared by a thread alone is the table of open files, which is not among the flags.
    let unshared = unsafe { unshare_unsafe(flags) };
    unshared.map_err(|error| error.to_string())?;
    change_root(readable, folder).map_err(|error| error.to_string())?;
    Ok("a root folder with Python's library alone, no network, no shared memory of others".to_owned())
}

fn change_root(readable: &[PathBuf], root: &Path) -> io::Result<()> {
    let sealed = MountFlags::NOSUID | MountFlags::NODEV;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tracetune", root, "tmpfs", sealed, c"mode=755,size=1m,nr_inodes=4096")?;
    let mut real: Vec<PathBuf> = readable.iter().filter_map(|path| path.canonicalize().ok()).collect();
    real.sort();
    let mut shown: Vec<PathBuf> = Vec::new();
    for path in real {
        if !shown.iter().any(|shown| path.starts_with(shown)) {
            show(root, &path)?;
            shown.push(path);
        }
    }
    // `/lib` is a link on many machines. A link below another link would lead out of the new root: there is none.
    for path in readable.iter().filter(|path| path.is_symlink()) {
        let parent = path.parent().filter(|parent| parent.canonicalize().is_ok_and(|real| real == **parent));
        let place = inside(root, path);
        if parent.is_some() && !place.is_symlink() && !place.exists() {
            fs_err::create_dir_all(place.parent().unwrap_or(root))?;
            fs_err::os::unix::fs::symlink(fs_err::read_link(path)?, place)?;
        }
    }
    mount_remount(root, sealed | MountFlags::RDONLY, c"")?;
    chdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}

/// Mounts a file or a folder at its own place below `root`, read-only.
fn show(root: &Path, path: &Path) -> io::Result<()> {
    let place = inside(root, path);
    if path.is_dir() {
        fs_err::create_dir_all(&place)?;
    } else {
        fs_err::create_dir_all(place.parent().unwrap_or(root))?;
        File::create(&place)?;
    }
    mount_bind(path, &place)?;
    let devices = if path.starts_with("/dev") { MountFlags::empty() } else { MountFlags::NODEV };
    Ok(mount_remount(&place, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | devices, c"")?)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes the thread nobody's, if nobody can read what is `readable` to it.
pub(super) fn become_nobody(readable: &[PathBuf]) -> Result<String, String> {
    if !geteuid().is_root() || !may(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL) {
        return Err("candidates run as you do: another user needs root".to_owned());
    }
    let explain = |error: rustix::io::Errno| error.to_string();
    let (own_user, own_group) = (geteuid(), getegid());
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_res_gid(None, group, None).map_err(explain)?;
    set_thread_res_uid(None, user, None).map_err(explain)?;
    let is_hidden = |path: &&PathBuf| File::open(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
    let hidden = readable.iter().find(is_hidden);
    set_thread_res_uid(None, own_user, None).map_err(explain)?;
    set_thread_res_gid(None, own_group, None).map_err(explain)?;
    if let Some(path) = hidden {
        return Err(format!("candidates run as root: nobody else may read `{}`", path.display()));
    }
    set_thread_groups(&[]).map_err(explain)?;
    set_thread_res_gid(group, group, group).map_err(explain)?;
    set_thread_res_uid(user, user, user).map_err(explain)?;
    Ok("nobody".to_owned())
}

fn may(what: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(what))
}
