//! Kind `command` as its users meet it: keys, parameters, outputs, logs, endings.

use std::time::{Duration, Instant};

use crate::purity::node;
use crate::support::Workspace;
use crate::workspace;

const HEAD: &str = "[pipeline]\nname = \"own\"\n[stages.problems]\nkind = \"dataset\"\nsource = \"builtin:mini-python\"\n\
                    sizes = { dev = 3 }\n";

/// A script that ends as a shell script; the rest of a stage `own` that runs it.
fn project(script: &str, rest: &str) -> Workspace {
    let workspace = workspace();
    workspace.write("tool.sh", &format!("#!/bin/sh\n{script}\n"));
    make_executable(&workspace, "tool.sh");
    let stage = format!(
        "[stages.own]\nkind = \"command\"\nrun = [\"./tool.sh\"]\ninputs = {{ rows = \"problems\" }}\n{rest}\n"
    );
    workspace.write("pipeline.toml", &format!("{HEAD}{stage}"));
    workspace
}

fn make_executable(workspace: &Workspace, path: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(workspace.path().join(path), mode).expect("the script");
}

const COPY: &str = "cp \"$TRACETUNE_IN_ROWS\" \"$TRACETUNE_OUT\"";

fn status(workspace: &Workspace, stage: &str) -> String {
    let ran = workspace.run(["run", "pipeline.toml", "--json"]);
    node(&ran.json(), stage)["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_program_that_changes_is_run_again() {
    let workspace = project(COPY, "");
    assert_eq!((status(&workspace, "own"), status(&workspace, "own")), ("computed".to_owned(), "cached".to_owned()));
    workspace.write("tool.sh", &format!("#!/bin/sh\n# another program\n{COPY}\n"));
    assert_eq!(status(&workspace, "own"), "computed");
    let why = workspace.run(["why", "pipeline.toml", "own"]);
    assert_eq!(why.code, Some(0), "{why}");
}

#[test]
fn why_names_the_files_of_a_folder_that_changed() {
    let workspace = project(COPY, "files = [\"lib\"]");
    for name in ["a.py", "deep/b.py", "c.py"] {
        workspace.write(&format!("lib/{name}"), name);
    }
    assert_eq!(status(&workspace, "own"), "computed");
    workspace.write("lib/deep/b.py", "other bytes");
    workspace.write("lib/d.py", "");
    std::fs::remove_file(workspace.path().join("lib/c.py")).expect("the file");
    let why = workspace.run(["why", "pipeline.toml", "own"]).stdout;
    let files = "(`c.py` was removed, `d.py` was added, `deep/b.py` changed)";
    assert!(why.contains(files), "{why}");
    let json = workspace.run(["why", "pipeline.toml", "own", "--json"]).json();
    assert_eq!(json["stages"][0]["causes"][0]["files"][2]["change"], "changed", "{json}");
}

#[test]
fn another_program_of_the_same_name_earlier_in_the_path_is_another_key() {
    let workspace = project("", "");
    for (folder, word) in [("one", "first"), ("two", "second")] {
        workspace.write(&format!("{folder}/mytool"), &format!("#!/bin/sh\n# {word}\n{COPY}\n"));
        make_executable(&workspace, &format!("{folder}/mytool"));
    }
    let text = std::fs::read_to_string(workspace.path().join("pipeline.toml")).expect("the file");
    workspace.write("pipeline.toml", &text.replace("./tool.sh", "mytool"));
    let run = |folder: &str| {
        let path = format!("{}:{}", workspace.path().join(folder).display(), std::env::var("PATH").unwrap_or_default());
        let output =
            workspace.command(["run", "pipeline.toml", "--json"]).env("PATH", path).output().expect("it starts");
        node(&workspace.ran(&output).json(), "own")["status"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!([run("one"), run("one"), run("two"), run("one")], ["computed", "cached", "computed", "cached"]);
    let ran = workspace.run(["run", "pipeline.toml"]);
    assert!(ran.stderr.contains("there is no program `mytool` in the folders of PATH"), "{ran}");
}

#[test]
fn check_names_scripts_outside_the_key_and_files_that_are_not_there() {
    let workspace = project(COPY, "files = [\"tool.hs\"]");
    let text = std::fs::read_to_string(workspace.path().join("pipeline.toml")).expect("the file");
    workspace.write("pipeline.toml", &text.replace("[\"./tool.sh\"]", "[\"sh\", \"tool.sh\"]"));
    let ran = workspace.run(["check", "pipeline.toml"]);
    assert!(ran.stderr.contains("`run`: `tool.sh` is a file of the project and not among `files`"), "{ran}");
    assert!(ran.stderr.contains("tool.hs`: ") && ran.stderr.contains("did you mean `tool.sh`?"), "{ran}");
}

#[test]
fn ports_that_share_a_variable_are_told_apart_by_no_program() {
    let workspace = project(COPY, "");
    let text = std::fs::read_to_string(workspace.path().join("pipeline.toml")).expect("the file");
    workspace.write("pipeline.toml", &text.replace("{ rows = ", "{ a-b = \"problems\", A_b = "));
    let ran = workspace.run(["check", "pipeline.toml"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("have the same variable `TRACETUNE_IN_A_B`"), "{ran}");
}

#[test]
fn parameters_reach_the_program_in_their_types_and_count_in_the_key() {
    let script = format!("{COPY}; echo \"$TRACETUNE_PARAMS $TRACETUNE_PARAM_LR $MODE $1\"");
    let rest = "params = { lr = \"$lr\", name = \"run-${lr}\", deep = { layers = [1, 2], on = true } }\nenv = { MODE = \"m${lr}\" }";
    let workspace = project(&script, rest);
    let text = std::fs::read_to_string(workspace.path().join("pipeline.toml")).expect("the file");
    let text = text.replace("[\"./tool.sh\"]", "[\"./tool.sh\", \"x=${lr} $HOME $${lr}\"]");
    workspace.write("pipeline.toml", &format!("{text}[params]\nlr = 0.5\n"));
    let ran = workspace.run(["run", "pipeline.toml"]);
    let expected = r#"{"deep":{"layers":[1,2],"on":true},"lr":0.5,"name":"run-0.5"} 0.5 m0.5 x=0.5 $HOME ${lr}"#;
    assert!(ran.code == Some(0) && ran.stderr.contains(expected), "{ran}");
    assert_eq!(status(&workspace, "own"), "cached");
    let ran = workspace.run(["run", "pipeline.toml", "--set", "lr=0.25"]);
    assert!(ran.stderr.contains("0.25 m0.25 x=0.25"), "{ran}");
    workspace.write("pipeline.toml", &format!("{text}[params]\nlx = 0.5\n"));
    let ran = workspace.run(["check", "pipeline.toml"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("did you mean `${lx}`?"), "{ran}");
}

#[test]
fn variables_are_handed_through_without_a_trace() {
    let script = format!("{COPY}; test \"$SECRET\" = s3cr3t || exit 3");
    let workspace = project(&script, "pass_env = [\"SECRET\", \"NOT_THERE\"]");
    let output =
        workspace.command(["run", "pipeline.toml", "--json"]).env("SECRET", "s3cr3t").output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(status(&workspace, "own"), "cached", "its value is in no key");
    let found =
        std::process::Command::new("grep").args(["-r", "s3cr3t", ".tracetune"]).current_dir(workspace.path()).output();
    assert!(found.expect("grep").stdout.is_empty());
}

#[test]
fn tables_models_and_folders_are_outputs_and_inputs() {
    let script = "mkdir \"$TRACETUNE_OUT_PLOTS\" \"$TRACETUNE_OUT_NET\"; echo picture > \"$TRACETUNE_OUT_PLOTS/a.svg\"; \
                  echo {} > \"$TRACETUNE_OUT_NET/config.json\"; cp \"$TRACETUNE_IN_ROWS\" \"$TRACETUNE_OUT_ROWS\"";
    let workspace = project(script, "outputs = { rows = \"table\", plots = \"folder\", net = \"model\" }");
    let text = std::fs::read_to_string(workspace.path().join("pipeline.toml")).expect("the file");
    let reader = "[stages.reader]\nkind = \"command\"\n\
        run = [\"sh\", \"-c\", 'cat \"$TRACETUNE_IN_P/a.svg\" \"$TRACETUNE_IN_M/config.json\"; cp \"$TRACETUNE_IN_T\" \"$TRACETUNE_OUT\"']\n\
        inputs = { p = \"own.plots\", m = \"own.net\", t = \"own\" }\n";
    workspace.write("pipeline.toml", &format!("{text}{reader}"));
    let ran = workspace.run(["run", "pipeline.toml"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("picture"), "{ran}");
    // What is not as declared is named.
    for (broken, message) in [
        ("echo {} > \"$TRACETUNE_OUT_NET/config.json\"", "wrote a model to TRACETUNE_OUT_NET without `config.json`"),
        ("echo picture > \"$TRACETUNE_OUT_PLOTS/a.svg\"", "left the folder at TRACETUNE_OUT_PLOTS empty"),
        ("cp \"$TRACETUNE_IN_ROWS\" \"$TRACETUNE_OUT_ROWS\"", "wrote nothing to TRACETUNE_OUT_ROWS"),
    ] {
        let other = if broken.contains("NET") { "touch \"$TRACETUNE_OUT_NET/other\"" } else { "true" };
        workspace.write("tool.sh", &format!("#!/bin/sh\n{}\n", script.replace(broken, other)));
        let ran = workspace.run(["run", "pipeline.toml"]);
        assert!(ran.code == Some(1) && ran.stderr.contains(message), "{message}: {ran}");
    }
}

#[test]
fn what_a_program_writes_is_kept_and_shown_and_harms_no_terminal() {
    let script = format!(
        "{COPY}; printf 'begin\\n'; printf '\\033]0;title\\007\\033[31mred\\033[0m\\n'; printf '10%%\\r99%%\\n'; seq 1 3000; echo end"
    );
    let workspace = project(&script, "");
    let ran = workspace.run(["run", "pipeline.toml", "-v"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("own | begin") && ran.stderr.contains("own | red"), "{ran}");
    assert!(!ran.stderr.contains("title") && ran.stderr.contains("own | 99%"), "{ran}");
    let log = workspace.run(["log", "latest", "own"]);
    assert!(log.stdout.starts_with("begin\n") && log.stdout.ends_with("2999\n3000\nend\n"), "{log}");
    let log = workspace.run(["log", "latest", "own", "--json"]).json();
    assert!(log["stage"] == "own" && log["text"].as_str().is_some_and(|text| text.ends_with("3000\nend\n")), "{log}");
    let log = workspace.run(["log", "latest", "own", "--follow"]);
    assert!(log.code == Some(0) && log.stdout.ends_with("3000\nend\n"), "{log}");
    // A later run of the same finds it where it was computed.
    workspace.run(["run", "pipeline.toml"]);
    let log = workspace.run(["log", "latest", "own"]);
    assert!(log.code == Some(0) && log.stdout.ends_with("3000\nend\n"), "{log}");
    let log = workspace.run(["log", "latest", "problems"]);
    assert!(log.code != Some(0) && log.stderr.contains("wrote nothing that is kept"), "{log}");
    let log = workspace.run(["log", "latest", "owm"]);
    assert!(log.stderr.contains("did you mean `own`?"), "{log}");
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_that_a_program_started_outlives_it_or_a_killed_run() {
    // One in the background, one in a session of its own: each writes the time now and then.
    let marks =
        "(while :; do date >> marks; sleep 0.05; done) & setsid sh -c 'while :; do date >> marks2; sleep 0.05; done' &";
    let workspace = project(&format!("{marks} sleep 1000"), "");
    let size = |name: &str| std::fs::metadata(workspace.path().join(name)).map_or(0, |found| found.len());
    let wait_for = |what: &str, is_so: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let rests = || {
        let before = (size("marks"), size("marks2"));
        std::thread::sleep(Duration::from_millis(500));
        before == (size("marks"), size("marks2"))
    };
    for signal in ["KILL", "HUP", "TERM"] {
        let mut child = workspace
            .command(["run", "pipeline.toml", "-q"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary starts");
        let before = (size("marks"), size("marks2"));
        wait_for("the programs start", &|| size("marks") > before.0 && size("marks2") > before.1);
        let sent = std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
        child.wait().expect("the run ends");
        wait_for(&format!("they end after SIG{signal}"), &rests);
    }
    // A program that ends by itself leaves nothing either.
    workspace.write("tool.sh", &format!("#!/bin/sh\n{marks} sleep 0.5; {COPY}\n"));
    assert_eq!(status(&workspace, "own"), "computed");
    wait_for("they end with the program", &rests);
}

#[test]
#[cfg(target_os = "linux")]
fn a_supervised_worker_talks_over_its_socket_and_ends_with_its_supervisors_input() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tracetune"))
        .args(["__supervise-worker", "/bin/sh", "-c", "setsid sleep 1000 & read -r line; echo \"got $line\"; wait"])
        .stdin(Stdio::piped())
        .stdout(OwnedFd::from(theirs))
        .spawn()
        .expect("the binary starts");
    let (mut answer, mut ours) = (String::new(), BufReader::new(ours));
    ours.get_mut().write_all(b"hello\n").expect("it reads");
    ours.read_line(&mut answer).expect("it answers");
    assert_eq!(answer, "got hello\n");
    drop(child.stdin.take());
    // The socket closes when the last process that holds it has ended: the shell, and `sleep` in its own session.
    assert_eq!(ours.read(&mut [0]).expect("the socket closes"), 0);
    child.wait().expect("the supervisor ends");
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_program_writes_does_not_fill_the_memory() {
    let workspace = project(&format!("yes 'a line of output' | head -c 200000000; {COPY}"), "");
    let null = std::process::Stdio::null;
    let mut child =
        workspace.command(["run", "pipeline.toml", "-v"]).stdout(null()).stderr(null()).spawn().expect("it starts");
    // The most memory so far, of a process that has not ended.
    let peak_kib = || -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
        text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
    };
    let mut peak = 0;
    while let Some(kib) = peak_kib() {
        peak = kib;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().is_ok_and(|status| status.success()));
    assert!((1..100_000).contains(&peak), "{peak} KiB");
}

#[test]
fn an_audit_asks_first_whether_files_are_still_the_runs() {
    let workspace = project(&format!("{COPY}; cat data.txt"), "files = [\"data.txt\"]");
    workspace.write("data.txt", "1");
    assert_eq!(status(&workspace, "own"), "computed");
    assert_eq!(workspace.run(["audit", "latest"]).code, Some(0));
    workspace.write("data.txt", "2");
    let ran = workspace.run(["audit", "latest"]);
    assert!(ran.code != Some(0) && ran.stderr.contains("own: file data.txt changed ("), "{ran}");
    assert!(ran.stderr.contains("can't be audited"), "{ran}");
    workspace.write("data.txt", "1");
    assert_eq!(workspace.run(["audit", "latest"]).code, Some(0));
}
