//! Memory that a job writes and the supervisor reads after its end, however it ended: no system call a message.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

#[cfg(target_os = "linux")]
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Its size in bytes.
const BYTES: usize = 64 << 10;

/// Shared memory, all zeros at first.
pub(super) struct SharedMemory(File);

impl SharedMemory {
    #[cfg(target_os = "linux")]
    pub(super) fn create() -> io::Result<Self> {
        let memory = File::from(memfd_create("tracetune", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        memory.set_len(BYTES as u64)?;
        fcntl_add_seals(&memory, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self(memory))
    }

    /// A file without a name, which a job could make shorter.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn create() -> io::Result<Self> {
        let memory = tempfile::tempfile()?;
        memory.set_len(BYTES as u64)?;
        Ok(Self(memory))
    }

    /// The end that a job gets.
    pub(super) fn link(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// What was written, which may be anything.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BYTES];
        let mut at = 0;
        while let count @ 1.. = self.0.read_at(&mut bytes[at..], at as u64)? {
            at += count;
        }
        Ok(bytes)
    }
}
