//! The folder in which a job may write.

use super::*;

/// `None` where there is no such folder here.
fn with_folder(scratch_bytes: u64) -> Option<Sandbox> {
    let python = Python::find().ok()?;
    let limits = Limits { scratch_bytes, ..Limits::default() };
    let sandbox = Sandbox::start(&python, limits, 1).expect("the sandbox starts");
    in_force(&sandbox, "scratch folder").then_some(sandbox)
}

#[test]
fn files_folders_and_databases_can_be_made_and_removed() {
    let Some(sandbox) = with_folder(64 << 20) else { return };
    passes(
        &sandbox,
        "import os, sqlite3, tempfile, shutil, pathlib
def f():
    with open('x', 'w') as file: file.write('one')
    with open('x', 'a') as file: file.write('two')
    pathlib.Path('a/b').mkdir(parents=True)
    shutil.copy('x', 'a/b/y')
    os.replace('a/b/y', 'z')
    os.symlink('z', 'link')
    shutil.rmtree('a')
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile('w+') as file:
        inside = os.path.dirname(folder) == os.path.dirname(file.name) == os.getcwd()
    with sqlite3.connect('table.db') as db:
        db.execute('create table t (n)')
        db.executemany('insert into t values (?)', [(1,), (2,)])
    total = sqlite3.connect('table.db').execute('select sum(n) from t').fetchone()[0]
    with open('/dev/null', 'w') as nothing: nothing.write('x')
    open('/tmp/there', 'w').close()
    return (inside and total == 3 and open('link').read() == 'onetwo' and not os.path.exists('a')
        and sorted(os.listdir()) == ['link', 'table.db', 'there', 'x', 'z'])",
    );
}

#[test]
fn what_one_job_leaves_the_next_does_not_see() {
    let Some(sandbox) = with_folder(8 << 20) else { return };
    let fresh = "import os\ndef f(): return os.listdir('.') == [] and oct(os.stat('.').st_mode)[-4:] == '1777'";
    let left = [
        "open('x', 'w').write('secret')",
        "os.makedirs('a/b/c'); open('a/b/x', 'w').close(); os.chmod('a/b', 0); os.chmod('a', 0)",
        "open(b'\\xff\\xfe', 'w').close(); os.symlink('/', 'root'); os.symlink('..', 'up'); os.mkdir('d')",
        "[open(str(n), 'w').close() for n in range(2000)]",
        "try: os.utime('.', (1, 1))\n    except OSError: pass",
        "try: os.chmod('.', 0)\n    except OSError: pass",
        // So deep that no path reaches its end: the fork server is replaced.
        "for n in range(60):\n        os.mkdir('d' * 200)\n        os.chdir('d' * 200)",
    ];
    for leave in left {
        passes(&sandbox, &format!("import os\ndef f():\n    {leave}\n    return True"));
        passes(&sandbox, fresh);
    }
}

#[test]
fn files_are_bounded_in_bytes_and_in_number() {
    let Some(sandbox) = with_folder(1 << 20) else { return };
    let over = [
        "open('x', 'wb').write(bytes(2 << 20))",
        "for n in range(9): open(str(n), 'wb').write(bytes(1 << 18))",
        "for n in range(9999): open(str(n), 'w').close()",
        "os.truncate(os.open('x', os.O_CREAT | os.O_WRONLY), 1 << 40)",
    ];
    for fill in over {
        let verdict = verdict(&sandbox, &format!("import os\ndef f():\n    {fill}\n    return True"));
        assert_eq!((verdict.outcome, verdict.detail.as_str()), (Outcome::Limit, "test 1: files"), "{fill}");
    }
    passes(&sandbox, "def f(): return open('x', 'wb').write(bytes(1 << 19)) == 1 << 19");
}

#[test]
fn nothing_else_can_be_written_and_nothing_in_it_executed() {
    let Some(sandbox) = with_folder(8 << 20) else { return };
    for change in [
        "open('/x', 'w')",
        "open(os.__file__, 'a')",
        "os.chmod(os.__file__, 0o777)",
        "os.utime(os.__file__)",
        "os.unlink(os.__file__)",
        "os.link(os.__file__, 'x')",
        "os.rename(os.path.dirname(os.__file__), 'x')",
        "os.mkdir('/dev/x')",
        "os.mkfifo('x')",
        "os.rmdir('/job')",
    ] {
        let refused = format!("import os\ndef f():\n    try: {change}\n    except OSError: return True");
        passes(&sandbox, &refused);
    }
    passes(
        &sandbox,
        "import mmap, os
def f():
    file = os.open('x', os.O_CREAT | os.O_RDWR)
    os.truncate(file, 4096)
    try: mmap.mmap(file, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    except PermissionError: return True",
    );
}

#[test]
fn without_a_folder_nothing_is_written() {
    let Ok(python) = Python::find() else { return };
    let sandbox = Sandbox::start(&python, Limits { scratch_bytes: 0, ..Limits::default() }, 1).unwrap();
    for place in ["x", "/tmp/x", "/job/x"] {
        let refused = format!("def f():\n    try: open({place:?}, 'w')\n    except OSError: return True");
        passes(&sandbox, &refused);
    }
}
