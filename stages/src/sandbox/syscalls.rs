//! Which system calls a candidate may not make. Numbers only: nothing here calls anything.

use libc::c_long;

pub(super) const EPERM: u32 = libc::EPERM as u32;
pub(super) const ENOSYS: u32 = libc::ENOSYS as u32;
pub(super) const CLONE: c_long = libc::SYS_clone;
pub(super) const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
pub(super) const PRCTL: c_long = libc::SYS_prctl;
pub(super) const PR_SET_PDEATHSIG: u64 = libc::PR_SET_PDEATHSIG as u64;
/// Allowed on oneself (process 0) only.
pub(super) const PRLIMIT: c_long = libc::SYS_prlimit64;
/// Allowed for connected streams, which reach nobody else: event loops wake themselves by one.
pub(super) const SOCKETPAIR: c_long = libc::SYS_socketpair;
pub(super) const AF_UNIX: u64 = libc::AF_UNIX as u64;
/// The bits of a socket's type that are not flags, and the one that a stream has.
pub(super) const SOCKET_TYPES: u64 = 0xf;
pub(super) const SOCK_STREAM: u64 = libc::SOCK_STREAM as u64;

/// The flags of `open` by which a file may be made or changed.
pub(super) struct WriteFlags;

impl WriteFlags {
    pub(super) const ALL: &[u64] =
        &[libc::O_WRONLY as u64, libc::O_RDWR as u64, libc::O_CREAT as u64, libc::O_TRUNC as u64];
}

/// Calls that open files, with the place of their flags.
#[cfg(target_arch = "x86_64")]
pub(super) const OPENING: &[(c_long, u8)] = &[(libc::SYS_open, 1), (libc::SYS_openat, 2)];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OPENING: &[(c_long, u8)] = &[(libc::SYS_openat, 2)];

/// Answered as if the kernel did not know them: libraries then take an older call, which a filter can see into.
pub(super) const ABSENT: &[c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

/// What only the fork server itself may do.
#[cfg(target_arch = "x86_64")]
pub(super) const NO_NEW_PROCESS: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve, libc::SYS_execveat];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const NO_NEW_PROCESS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

macro_rules! numbers {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Forbidden beside those, and files opened for writing, where there is no folder of a job's own to change.
#[cfg(target_arch = "x86_64")]
pub(super) const CHANGING_FILES: &[c_long] = numbers! {
    SYS_creat SYS_unlink SYS_unlinkat SYS_rename SYS_renameat SYS_renameat2 SYS_link SYS_linkat SYS_symlink
    SYS_symlinkat SYS_mkdir SYS_mkdirat SYS_rmdir SYS_truncate SYS_fallocate SYS_chmod SYS_fchmod SYS_fchmodat
    SYS_fchmodat2 SYS_utime SYS_utimes SYS_utimensat SYS_futimesat
};
#[cfg(not(target_arch = "x86_64"))]
pub(super) const CHANGING_FILES: &[c_long] = numbers! {
    SYS_unlinkat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_mkdirat SYS_truncate SYS_fallocate SYS_fchmod SYS_fchmodat
    SYS_utimensat
};

/// Forbidden to the fork server and to candidates alike: network, signals to others, owners and attributes of files,
/// other processes' memory and priorities, namespaces, mounts, keys, kernel programs, shared memory that outlives us.
#[cfg(target_arch = "x86_64")]
pub(super) const FORBIDDEN: &[c_long] = numbers! {
    SYS_socket SYS_connect SYS_accept SYS_accept4 SYS_bind SYS_listen SYS_shutdown SYS_setsockopt
    SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_pidfd_send_signal SYS_pidfd_getfd
    SYS_mknod SYS_mknodat SYS_chown SYS_fchown SYS_lchown SYS_fchownat
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp
    SYS_setpriority SYS_ioprio_set SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler
    SYS_migrate_pages SYS_move_pages SYS_mbind SYS_set_mempolicy
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid SYS_setfsgid
    SYS_setsid SYS_setpgid SYS_capset SYS_unshare SYS_setns SYS_chroot SYS_pivot_root
    SYS_mount SYS_umount2 SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_mount_setattr SYS_swapon SYS_swapoff SYS_quotactl SYS_acct SYS_sethostname SYS_setdomainname
    SYS_name_to_handle_at SYS_open_by_handle_at SYS_fanotify_init SYS_inotify_init SYS_inotify_init1
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_io_setup SYS_memfd_create SYS_memfd_secret SYS_add_key SYS_request_key SYS_keyctl SYS_personality
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot SYS_syslog
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_vhangup SYS_modify_ldt SYS_iopl SYS_ioperm
    SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semtimedop SYS_semctl
    SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
};
#[cfg(not(target_arch = "x86_64"))]
pub(super) const FORBIDDEN: &[c_long] = numbers! {
    SYS_socket SYS_connect SYS_accept SYS_accept4 SYS_bind SYS_listen SYS_shutdown SYS_setsockopt
    SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_pidfd_send_signal SYS_pidfd_getfd
    SYS_mknodat SYS_fchown SYS_fchownat
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp
    SYS_setpriority SYS_ioprio_set SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler
    SYS_migrate_pages SYS_move_pages SYS_mbind SYS_set_mempolicy
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid SYS_setfsgid
    SYS_setsid SYS_setpgid SYS_capset SYS_unshare SYS_setns SYS_chroot SYS_pivot_root
    SYS_mount SYS_umount2 SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_mount_setattr SYS_swapon SYS_swapoff SYS_quotactl SYS_acct SYS_sethostname SYS_setdomainname
    SYS_name_to_handle_at SYS_open_by_handle_at SYS_fanotify_init SYS_inotify_init1
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_io_setup SYS_memfd_create SYS_add_key SYS_request_key SYS_keyctl SYS_personality
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot SYS_syslog
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_vhangup
    SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semtimedop SYS_semctl
    SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
};
