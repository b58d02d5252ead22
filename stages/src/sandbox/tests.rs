mod files;

use super::*;
use crate::judge::{Job, Outcome, Verdict, judge};

fn started() -> Option<Sandbox> {
    let python = Python::find().ok()?;
    Some(Sandbox::start(&python, Limits::default(), 1).expect("the sandbox starts"))
}

#[expect(clippy::print_stderr, reason = "says why it is skipped")]
fn in_force(sandbox: &Sandbox, wall: &str) -> bool {
    let is_it = |line: &String| line.starts_with(wall);
    let Layers { present, missing, reduced, .. } = &sandbox.layers();
    assert_eq!(
        [present, missing, reduced].map(|lines| lines.iter().filter(|line| is_it(line)).count()).iter().sum::<usize>(),
        1
    );
    if !present.iter().any(is_it) {
        eprintln!("skipped, not in force here: {:?}", reduced.iter().find(|line| is_it(line)));
    }
    present.iter().any(is_it)
}

/// Whether an expression is true of a candidate.
fn holds(sandbox: &Sandbox, expression: &str) -> bool {
    let verdict = verdict(sandbox, &format!("import os\ndef f():\n    return {expression}\n"));
    assert!(matches!(verdict.outcome, Outcome::Pass | Outcome::Fail), "{verdict:?}");
    verdict.outcome == Outcome::Pass
}

/// How it goes with a program whose `f()` is to be true.
fn verdict(sandbox: &Sandbox, source: &str) -> Verdict {
    let (source, tests) = (source.to_owned(), vec!["assert f() == True".to_owned()]);
    let job = Job { source, tests, ..Job::default() };
    judge(sandbox, &[job], &|| false, &|_| {}).expect("the sandbox works").remove(0)
}

fn passes(sandbox: &Sandbox, source: &str) {
    let verdict = verdict(sandbox, source);
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict:?}\n{source}");
}

#[test]
fn candidates_see_nothing_but_the_library() {
    let Some(sandbox) = started() else { return };
    assert!(holds(&sandbox, "os.path.exists(os.__file__)"));
    if in_force(&sandbox, "namespaces") {
        assert!(!holds(&sandbox, &format!("os.path.exists({:?})", env!("CARGO_MANIFEST_DIR"))));
        assert!(!holds(&sandbox, "os.path.exists('/proc/self') or os.path.exists('/etc/passwd')"));
    }
}

#[test]
fn candidates_are_nobody() {
    let Some(sandbox) = started() else { return };
    if in_force(&sandbox, "user") {
        assert!(holds(&sandbox, "os.getresuid() + os.getresgid() == (65534,) * 6 and os.getgroups() == []"));
    } else {
        // A user namespace shows them as nobody, and everybody else too.
        let own = if in_force(&sandbox, "namespaces") { 65534 } else { rustix::process::getuid().as_raw() };
        assert!(holds(&sandbox, &format!("os.getuid() == {own}")));
    }
}

#[test]
fn a_worker_is_in_a_group_of_its_own_that_goes_with_it() {
    let Some(sandbox) = started() else { return };
    if !in_force(&sandbox, "control group") {
        return;
    }
    let (server, folders) = {
        let servers = sandbox.workers[0].lock().unwrap();
        let folders = servers.place.cgroup.as_ref().unwrap().folders();
        (servers.zygote.as_ref().unwrap().id(), folders)
    };
    let groups = fs_err::read_to_string(format!("/proc/{server}/cgroup")).unwrap();
    let own = format!("tracetune.{}.", std::process::id());
    assert!(groups.contains(&own), "{groups}");
    assert!(folders.iter().all(|folder| folder.is_dir()));
    drop(sandbox);
    assert!(!folders.iter().any(|folder| folder.exists()), "{folders:?}");
}

/// With one worker, and what it notes.
fn noting(python: &Python) -> (Sandbox, std::sync::Arc<Mutex<Vec<String>>>) {
    let notes = std::sync::Arc::new(Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&notes);
    let note = move |text: &str| heard.lock().unwrap().push(text.to_owned());
    (Sandbox::start_noting(python, Limits::default(), 1, Box::new(note)).unwrap(), notes)
}

#[test]
#[cfg(target_os = "linux")]
fn a_wall_that_is_refused_during_a_run_does_not_end_it() {
    let Ok(python) = Python::find() else { return };
    let (sandbox, notes) = noting(&python);
    let usual = sandbox.layers();
    {
        let mut walls = sandbox.walls();
        walls.0 = walls.0.clone().with_one_refused();
        walls.1.present.push("moat: it is deep".to_owned());
        sandbox.workers[0].lock().unwrap().zygote = None;
    }
    passes(&sandbox, "def f(): return True");
    assert_eq!(sandbox.layers(), usual);
    let notes = notes.lock().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("sandbox: a fork server did not start: No space left on device"), "{notes:?}");
}

#[test]
fn a_lost_control_group_is_noted_and_done_without() {
    let Ok(python) = Python::find() else { return };
    let (sandbox, notes) = noting(&python);
    if !in_force(&sandbox, "control group") {
        return;
    }
    {
        // What another program did to a group that was empty between two fork servers.
        let mut servers = sandbox.workers[0].lock().unwrap();
        servers.zygote = None;
        for folder in servers.place.cgroup.as_ref().unwrap().folders() {
            while std::fs::remove_dir(&folder).is_err() {
                std::thread::yield_now();
            }
        }
    }
    passes(&sandbox, "def f(): return True");
    passes(&sandbox, "def f(): return True");
    assert!(!in_force(&sandbox, "control group"));
    let notes = notes.lock().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("sandbox: from now on without control group: "), "{notes:?}");
}

#[test]
fn a_caller_that_asks_for_all_walls_does_not_go_on_without_one() {
    let Ok(python) = Python::find() else { return };
    let limits = Limits { isolation: Isolation::Full, ..Limits::default() };
    let Ok(sandbox) = Sandbox::start(&python, limits, 1) else { return };
    let lost = sandbox.do_without("control group", "it is gone");
    assert!(matches!(lost, Err(SandboxError::Unsafe(reason)) if reason == "control group: it is gone"));
}

#[test]
fn a_flood_of_small_frames_ends_the_job_at_what_was_asked_for() {
    let Some(sandbox) = started() else { return };
    let flood = b"import os\nwhile True: os.write(3, b'\\5\\0\\0\\0\\1\\0\\0\\0x' * 5000)";
    let call = |worker: &mut Worker, (): &()| {
        worker.run(Call::new("inside", &[flood, b"", b"999 999 9"]).bounds(Bounds::frames(10)))
    };
    let reply = sandbox.map(&[()], &|| false, &|_| {}, call).unwrap().remove(0);
    assert_eq!((reply.ending, reply.frames.len()), (Ending::Malformed, 10));
}

#[test]
fn doubtful_results_are_made_once_more_and_no_more() {
    let Some(sandbox) = started() else { return };
    let doubts = [None, Some(Doubt::Waited), Some(Doubt::Killed), Some(Doubt::Waited)];
    let tries: Vec<AtomicUsize> = doubts.iter().map(|_| AtomicUsize::new(0)).collect();
    let work = |_: &mut Worker, place: &usize| Ok((*place, tries[*place].fetch_add(1, Ordering::Relaxed) + 1));
    let results = sandbox.map_twice(&[0, 1, 2, 3], &|| false, &|_| {}, work, |(place, _)| doubts[*place]).unwrap();
    assert_eq!(results, [(0, 1), (1, 2), (2, 2), (3, 2)]);
}

#[test]
fn modules_that_a_program_fakes_do_not_reach_the_encoder() {
    let Some(sandbox) = started() else { return };
    for (module, class) in [("fractions", "Fraction"), ("decimal", "Decimal")] {
        let fake = format!(
            "import sys\nclass {class}:\n    def __eq__(self, other): return True\n    def as_integer_ratio(self): return 1, 1\n\
             sys.modules['{module}'] = sys.modules[__name__]\ndef f(): return {class}()\n"
        );
        let verdict = verdict(&sandbox, &fake);
        assert_eq!((verdict.outcome, verdict.detail), (Outcome::Fail, format!("test 1: <{class}> is not True")));
    }
    passes(&sandbox, "from fractions import Fraction\ndef f(): return Fraction(3, 3)");
}

#[test]
fn event_loops_and_threads_run() {
    let Some(sandbox) = started() else { return };
    passes(
        &sandbox,
        "import asyncio, time
from concurrent.futures import ThreadPoolExecutor
async def work(queue, x):
    await asyncio.sleep(0.001)
    await queue.put(await asyncio.to_thread(pow, x, 2))
async def main():
    queue = asyncio.Queue()
    await asyncio.gather(*(work(queue, x) for x in range(4)))
    got = sorted([await queue.get() for _ in range(4)])
    return got == [0, 1, 4, 9] and await asyncio.wait_for(asyncio.sleep(0, 7), 5) == 7
def f():
    with ThreadPoolExecutor(3) as pool:
        return asyncio.run(main()) and list(pool.map(abs, [-1, -2])) == [1, 2]",
    );
}

#[test]
fn of_sockets_a_program_has_connected_streams_alone() {
    let Some(sandbox) = started() else { return };
    passes(
        &sandbox,
        "import socket
def refused(make, *arguments):
    try:
        make(*arguments)
    except PermissionError:
        return True
def f():
    a, b = socket.socketpair()
    a.send(b'x')
    kinds = [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK]
    return (b.recv(9) == b'x' and all(refused(socket.socketpair, socket.AF_UNIX, kind) for kind in kinds)
        and refused(socket.socket, socket.AF_UNIX) and refused(socket.socket, socket.AF_INET)
        and refused(a.bind, '/tmp/x') and refused(a.listen))",
    );
}

#[test]
fn packages_are_imported_and_can_not_be_changed() {
    let Ok(python) = Python::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir_all(site.join("twofold")).unwrap();
    std::fs::write(site.join("twofold/__init__.py"), "import os\nLOADED_BY = os.getpid()\nfrom . import part\n")
        .unwrap();
    std::fs::write(site.join("twofold/part.py"), "def double(x):\n    return 2 * x\n").unwrap();
    let open = |warm: &[&str]| {
        let warm: Vec<String> = warm.iter().map(|&module| module.to_owned()).collect();
        let python = crate::packages::interpreter(Some("site"), &warm, folder.path()).unwrap();
        Sandbox::start(&python, Limits::default(), 1)
    };
    let (cold, warm) = (open(&[]).unwrap(), open(&["twofold"]).unwrap());
    let own = "import os, twofold\ndef f(): return twofold.part.double(4) == 8 and (twofold.LOADED_BY == os.getpid())";
    let served = "import os, sys\nseen = 'twofold' in sys.modules\nimport twofold\ndef f(): return seen and twofold.LOADED_BY == os.getppid()";
    passes(&cold, own);
    passes(&warm, served);
    let change = "import twofold\ndef f():\n    try: open(twofold.__file__, 'a')\n    except OSError: return True";
    passes(&cold, change);
    let without = Sandbox::start(&python, Limits::default(), 1).unwrap();
    assert_eq!(verdict(&without, own).outcome, Outcome::Error);
    let Err(SandboxError::Warm { module, reason }) = open(&["twofold.none"]) else { panic!("it starts") };
    assert_eq!(
        (module.as_str(), reason.as_str()),
        ("twofold.none", "ModuleNotFoundError: No module named 'twofold.none'")
    );
}
