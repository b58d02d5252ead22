//! Both kinds of locks do the same.

use std::io::{BufRead, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use tempfile::TempDir;

use super::super::lease::Owner;
use super::*;

const KINDS: [LockKind; 2] = [LockKind::Flock, LockKind::Lease];
/// Longer than any test: nobody takes over because of the time alone.
const LONG: Duration = Duration::from_secs(3600);

fn store(folder: &TempDir, kind: LockKind) -> Store {
    Store::open_with(folder.path(), Some(kind)).unwrap()
}

fn leasing(folder: &TempDir, time_to_live: Duration) -> Store {
    let mut store = store(folder, LockKind::Lease);
    store.locks = Locks::Lease(Leases::new(time_to_live, false));
    store
}

fn wait(store: &Store, name: &str) -> Lock {
    store.lock(name, &|| false, || {}).unwrap()
}

fn until(what: &str, happened: impl Fn() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn one_thread_at_a_time_holds_a_lock() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let (inside, entries) = (AtomicU32::new(0), AtomicU32::new(0));
        let shared = store(&folder, kind);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (inside, entries, folder, shared) = (&inside, &entries, &folder, &shared);
                scope.spawn(move || {
                    let own = store(folder, kind);
                    let store = if thread % 2 == 0 { &own } else { shared };
                    for _ in 0..10 {
                        let _lock = wait(store, "a");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "{kind}: two hold the lock");
                        entries.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(entries.into_inner(), 80);
        assert!(store(&folder, kind).try_lock("a").unwrap().is_some());
    }
}

const CHILD: &str = "TRACETUNE_TEST_LOCK_CHILD";

/// Not a test of its own: what the tests below start. `count` adds to a file's number under the lock, `hold` holds it.
#[test]
fn child() {
    let Some(told) = std::env::var_os(CHILD) else { return };
    let told: Vec<String> = told.to_string_lossy().split('|').map(str::to_owned).collect();
    let store = Store::open_with(&told[2], Some(told[1].parse().unwrap())).unwrap();
    if told[0] == "hold" {
        let (_lock, _hold) = (wait(&store, "a"), store.hold().unwrap());
        writeln!(std::io::stderr(), "held").unwrap();
        std::thread::sleep(LONG);
    }
    let counter = store.root.join("counter");
    for _ in 0..20 {
        let _lock = wait(&store, "a");
        let count: u32 = std::fs::read_to_string(&counter).map_or(0, |text| text.parse().unwrap());
        std::fs::write(&counter, (count + 1).to_string()).unwrap();
    }
}

fn start(what: &str, kind: LockKind, folder: &TempDir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cache::lock::tests::child", "--nocapture"])
        .env(CHILD, format!("{what}|{kind}|{}", folder.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn one_process_at_a_time_holds_a_lock() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let children: Vec<Child> = (0..4).map(|_| start("count", kind, &folder)).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("counter")).unwrap(), "80", "{kind}");
    }
}

#[test]
fn a_killed_process_holds_nothing() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let mut child = start("hold", kind, &folder);
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "held"), "{kind}: the child ended early");
        let mut store = store(&folder, kind);
        if kind == LockKind::Lease {
            store.locks = Locks::Lease(Leases::new(LONG, false));
        }
        assert!(store.try_lock("a").unwrap().is_none(), "{kind}: the child holds it");
        assert!(store.hold_alone().unwrap().is_none(), "{kind}: the child uses the store");
        child.kill().unwrap();
        // Not waited for yet: a zombie holds nothing either.
        let _lock = wait(&store, "a");
        until("the dead process's hold", || store.hold_alone().unwrap().is_some());
        child.wait().unwrap();
    }
}

#[test]
fn a_store_is_cleared_by_one_while_nobody_uses_it() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let (one, other) = (store(&folder, kind), store(&folder, kind));
        let users = [one.hold().unwrap(), other.hold().unwrap()];
        assert!(one.hold_alone().unwrap().is_none(), "{kind}: it is used");
        drop(users);
        let alone = one.hold_alone().unwrap();
        assert!(alone.is_some() && other.hold_alone().unwrap().is_none(), "{kind}");
        let cleared = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _hold = other.hold().unwrap();
                assert!(cleared.load(Ordering::SeqCst), "{kind}: used while it is cleared");
            });
            std::thread::sleep(Duration::from_millis(50));
            cleared.store(true, Ordering::SeqCst);
            drop(alone);
        });
    }
}

/// Another machine's lease, last renewed so long ago.
fn lease_of_another(store: &Store, name: &str, owner: &Owner, age: Duration) -> PathBuf {
    let folder = store.lease_folder(name);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("another");
    std::fs::write(&path, serde_json::to_vec(owner).unwrap()).unwrap();
    let renewed = std::fs::metadata(&path).unwrap().modified().unwrap() - age;
    File::options().write(true).open(&path).unwrap().set_modified(renewed).unwrap();
    path
}

fn stranger() -> Owner {
    Owner { host: "far".to_owned(), machine: Some("far boot pids".to_owned()), pid: 1, started: Some(1) }
}

#[test]
fn another_machines_fresh_lease_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let store = leasing(&folder, LONG);
    let path = lease_of_another(&store, "a", &stranger(), LONG / 2);
    let (asked, told) = (AtomicU32::new(0), AtomicBool::new(false));
    let third_time = || asked.fetch_add(1, Ordering::SeqCst) == 2;
    let waited = store.lock("a", &third_time, || told.store(true, Ordering::SeqCst));
    assert!(matches!(waited, Err(CacheError::Cancelled)) && told.into_inner() && path.exists());
    std::fs::remove_file(&path).unwrap();
    assert!(store.try_lock("a").unwrap().is_some());
}

#[test]
fn another_machines_stale_lease_is_taken_over() {
    let folder = TempDir::new().unwrap();
    let store = leasing(&folder, LONG);
    let path = lease_of_another(&store, "a", &stranger(), LONG * 2);
    let lock = store.try_lock("a").unwrap();
    assert!(lock.is_some() && !path.exists());
    assert!(leasing(&folder, LONG).try_lock("a").unwrap().is_none());
}

#[test]
fn a_lease_that_makes_no_sense_lives_its_time() {
    let folder = TempDir::new().unwrap();
    let store = leasing(&folder, LONG);
    let path = lease_of_another(&store, "a", &stranger(), Duration::ZERO);
    std::fs::write(&path, "{\"host\"").unwrap();
    assert!(store.try_lock("a").unwrap().is_none());
    lease_of_another(&store, "a", &stranger(), LONG * 2);
    assert!(store.try_lock("a").unwrap().is_some());
}

#[cfg(target_os = "linux")]
#[test]
fn a_pid_that_was_used_again_is_not_the_holder() {
    let folder = TempDir::new().unwrap();
    let store = leasing(&folder, LONG);
    let mine = store.try_lock("a").unwrap();
    let posted = std::fs::read_dir(store.lease_folder("a")).unwrap().next().unwrap().unwrap().path();
    let mut owner: Owner = serde_json::from_slice(&std::fs::read(posted).unwrap()).unwrap();
    drop(mine);
    lease_of_another(&store, "a", &owner, Duration::ZERO);
    assert!(store.try_lock("a").unwrap().is_none(), "this process lives");
    owner.started = owner.started.map(|ticks| ticks - 1);
    lease_of_another(&store, "a", &owner, Duration::ZERO);
    assert!(store.try_lock("a").unwrap().is_some(), "the one before it with its pid does not");
}

#[test]
fn a_lease_is_renewed_while_it_is_held() {
    let folder = TempDir::new().unwrap();
    let store = leasing(&folder, Duration::from_millis(60));
    let _lock = wait(&store, "a");
    let posted = std::fs::read_dir(store.lease_folder("a")).unwrap().next().unwrap().unwrap().path();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    File::options().write(true).open(&posted).unwrap().set_modified(long_ago).unwrap();
    until("a renewal", || std::fs::metadata(&posted).unwrap().modified().unwrap() > long_ago);
}

#[test]
fn who_lost_a_lease_leaves_the_successors_alone() {
    let folder = TempDir::new().unwrap();
    let (paused, successor) = (leasing(&folder, LONG), leasing(&folder, LONG));
    let lost = wait(&paused, "a");
    let posted = std::fs::read_dir(paused.lease_folder("a")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(posted).unwrap();
    let _taken_over = successor.try_lock("a").unwrap().expect("nobody has it");
    drop(lost);
    assert!(paused.try_lock("a").unwrap().is_none());
}
