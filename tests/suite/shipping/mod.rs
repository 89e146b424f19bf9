//! What is shipped beside the binary, through the tools that its users have: the image, the compose file, the chart, the unit, the
//! package.

mod chart;
mod compose;
mod image;
mod package;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::Value;

use crate::clients::{Missing, install_once, installed, run, sources};

/// The list of packages for Python that check what is shipped.
const CHECKS: &str = "shipping/requirements.txt";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(path: &str) -> PathBuf {
    root().join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The environment with the checks that PyPI has.
fn checks() -> Result<PathBuf, Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let (venv, requirements) = (installed("shipping"), sources().join(CHECKS));
    install_once(&venv, &requirements, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        let bounds = ["--timeout=15", "--retries=2", "-r"];
        run(Command::new(venv.join("bin/python")).args(pip).args(bounds).arg(&requirements))
    })?;
    Ok(venv)
}

/// What `program` of `venv` says; whether it found nothing.
fn check(venv: &Path, program: &str, arguments: &[&str]) -> (bool, String) {
    said(Command::new(venv.join("bin").join(program)).args(arguments))
}

/// What a program wrote; whether it succeeded.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), text.concat())
}

/// What a program that succeeds wrote to its standard output.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The documents of a YAML file.
fn yaml(venv: &Path, file: &Path) -> Vec<Value> {
    let script =
        "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))";
    let text = printed(Command::new(venv.join("bin/python")).args(["-c", script]).arg(file));
    serde_json::from_str(&text).unwrap()
}

/// The names of all settings, as the file writes them.
fn settings() -> BTreeSet<String> {
    let tables = tollgate::settings::reference();
    let rows = tables.iter().flat_map(|(_, table)| table.lines());
    let names = rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    let names: BTreeSet<_> = names.map(|(name, _)| name.to_owned()).collect();
    assert!(names.len() > 40, "only {names:?}");
    names
}

/// Variables of the command line, and those that hold a secret: no settings of the table.
const OTHER_VARIABLES: [&str; 5] = ["address", "commit", "config", "otlp_headers", "tls_ca_file"];

/// The variables in `text` that are no setting.
fn unknown_variables(text: &str) -> Vec<String> {
    let settings = settings();
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let names = words.filter_map(|word| word.strip_prefix("TOLLGATE_")).map(str::to_ascii_lowercase);
    let is_known = |name: &String| settings.contains(name) || OTHER_VARIABLES.contains(&name.as_str());
    names.filter(|name| !name.is_empty() && !is_known(name)).collect()
}

#[test]
fn each_setting_that_is_shipped_exists() {
    let files = ["docker/Dockerfile", "tollgate.service"].map(deploy);
    for file in files {
        assert_eq!(unknown_variables(&fs::read_to_string(&file).unwrap()), [""; 0], "{}", file.display());
    }
    assert_eq!(unknown_variables("a: ${TOLLGATE_LISTN:-x} TOLLGATE_STORE=y"), ["listn"]);
}
