use tempfile::TempDir;

use super::*;

/// A folder with these files, a text each.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

const DOUBLE: &[(&str, &str)] = &[
    ("site/twofold/__init__.py", "def double(x):\n    return 2 * x\n"),
    ("site/twofold-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: Two_fold\nVersion: 1.2\n\nText: no field\n"),
    ("site/twofold-1.2.dist-info/RECORD", "twofold/__init__.py,,\n"),
];

fn environment_of(root: &TempDir) -> Option<Environment> {
    Python::find().ok()?;
    Some(environment(Some("site"), &Setup::new(root.path())).unwrap())
}

/// What is said of `given` below a folder, and what to do about it.
fn refusal(root: &TempDir, given: &str) -> Option<(String, String)> {
    Python::find().ok()?;
    match interpreter(Some(given), &[], root.path()) {
        Err(StageError::Environment { message, help: Some(help) }) => Some((message, help)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_versions_and_files_of_packages_are_in_the_environment() {
    let root = folder(DOUBLE);
    let Some(before) = environment_of(&root) else { return };
    assert!(before.contains(&("package two-fold".to_owned(), "1.2".to_owned())), "{before:?}");
    std::fs::write(root.path().join("site/twofold/__init__.py"), "def double(x):\n    return x << 1\n").unwrap();
    let after = environment_of(&root).unwrap();
    let names = |environment: &Environment| environment.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let differ = |(a, b): &(&(String, String), &(String, String))| a.1 != b.1;
    assert_eq!(names(&before), names(&after));
    let changed: Vec<&str> = before.iter().zip(&after).filter(differ).map(|(part, _)| part.0.as_str()).collect();
    assert_eq!(changed, ["packages"]);
}

#[test]
fn the_same_packages_elsewhere_are_the_same_environment() {
    let (here, there) = (folder(DOUBLE), folder(DOUBLE));
    let notes =
        [("twofold-1.2.dist-info/RECORD", "x"), ("twofold-1.2.dist-info/INSTALLER", "uv"), ("twofold/a.pyc", "")];
    for (path, text) in notes {
        std::fs::write(there.path().join("site").join(path), text).unwrap();
    }
    std::fs::create_dir(there.path().join("site/twofold/__pycache__")).unwrap();
    std::fs::write(there.path().join("site/twofold/__pycache__/__init__.cpython-311.pyc"), "x").unwrap();
    assert_eq!(environment_of(&here), environment_of(&there));
}

#[test]
fn a_folder_that_is_not_there_is_named_with_the_one_that_is() {
    let root = folder(&[(".venv/pyvenv.cfg", "")]);
    let Some((message, help)) = refusal(&root, "venv") else { return };
    assert!(message.starts_with("`packages = \"venv\"`: `") && message.ends_with("/venv` is not there"), "{message}");
    assert_eq!(help, "there is a virtual environment: `packages = \".venv\"`");
}

#[test]
fn a_project_with_a_virtual_environment_in_it_is_refused() {
    let root = folder(&[("project/venv/pyvenv.cfg", ""), ("project/main.py", "")]);
    let Some((message, help)) = refusal(&root, "project") else { return };
    assert_eq!(message, "`packages = \"project\"`: the virtual environment is `project/venv`");
    assert_eq!(help, "write `packages = \"project/venv\"`");
}

#[test]
fn a_folder_without_packages_is_refused() {
    let root = folder(&[("data/table.csv", "a,b")]);
    let Some((message, help)) = refusal(&root, "data") else { return };
    assert!(message.ends_with("/data` has no Python packages"), "{message}");
    assert!(help.starts_with("name a virtual environment"), "{help}");
}

#[test]
fn a_virtual_environment_of_another_release_is_refused() {
    let root = folder(&[("env/pyvenv.cfg", ""), ("env/lib/python3.2/site-packages/a.py", "")]);
    let Some((message, help)) = refusal(&root, "env") else { return };
    assert!(message.contains("it is made for Python 3.2, and programs run on CPython 3."), "{message}");
    assert!(help.contains(PYTHON_VARIABLE), "{help}");
}

#[test]
fn extension_modules_of_another_release_are_refused() {
    let file = "site/fast/_core.cpython-32-x86_64-linux-gnu.so";
    let root = folder(&[("site/fast/__init__.py", ""), (file, "")]);
    let Some((message, _)) = refusal(&root, "site") else { return };
    assert!(message.contains("`fast/_core.cpython-32-x86_64-linux-gnu.so` is built for Python 3.2, "), "{message}");
    let own = format!("site/fast/_core.cpython-3{}-x86_64-linux-gnu.so", Python::find().unwrap().release().1);
    std::fs::write(root.path().join(own), "").unwrap();
    assert!(interpreter(Some("site"), &[], root.path()).is_ok());
}

#[test]
fn a_link_out_of_the_folder_is_refused() {
    let root = folder(&[("site/a.py", ""), ("cache/b.py", "")]);
    std::os::unix::fs::symlink(root.path().join("cache/b.py"), root.path().join("site/b.py")).unwrap();
    let Some((message, _)) = refusal(&root, "site") else { return };
    assert!(message.ends_with("/site/b.py` is a link out of it"), "{message}");
}

#[test]
fn what_is_no_module_can_not_be_warmed() {
    assert_eq!(check_warm(&["os.path".to_owned(), "_x1".to_owned()]), Ok(()));
    for wrong in ["", "numpy as np", "1a", "a..b"] {
        let error = check_warm(&[wrong.to_owned()]).unwrap_err();
        assert_eq!((error.param, error.message), ("warm", format!("`{wrong}` is no name of a module")));
    }
}
