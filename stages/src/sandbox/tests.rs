use super::*;
use crate::verify::{Job, Outcome, verify};

fn started() -> Option<Sandbox> {
    let python = Python::find().ok()?;
    Some(Sandbox::start(&python, Limits::default(), 1).expect("the sandbox starts"))
}

#[expect(clippy::print_stderr, reason = "says why it is skipped")]
fn in_force(sandbox: &Sandbox, wall: &str) -> bool {
    let is_it = |line: &String| line.starts_with(wall);
    let Layers { present, missing, reduced, .. } = sandbox.layers();
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
    let source = format!("import os\ndef f():\n    return {expression}\n");
    let job = Job { source, setup: String::new(), tests: vec!["assert f() == True".to_owned()] };
    let verdicts = verify(sandbox, &[job], &|| false, &|_| {}).expect("the sandbox works");
    assert!(matches!(verdicts[0].outcome, Outcome::Pass | Outcome::Fail), "{verdicts:?}");
    verdicts[0].outcome == Outcome::Pass
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
        let folders = servers.place.cgroup.as_ref().unwrap().folders().to_vec();
        (servers.candidate.as_ref().unwrap().id(), folders)
    };
    let groups = fs_err::read_to_string(format!("/proc/{server}/cgroup")).unwrap();
    let own = format!("tracetune-{}-", std::process::id());
    assert!(groups.contains(&own), "{groups}");
    assert!(folders.iter().all(|folder| folder.is_dir()));
    drop(sandbox);
    assert!(!folders.iter().any(|folder| folder.exists()), "{folders:?}");
}
