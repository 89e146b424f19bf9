//! The image of `deploy/docker/Dockerfile`, around the binary of the tests: it is the same each time, and serves without root, writing
//! nowhere but to its volume.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{check, checks, printed, read, root, said};
use crate::{
    clients::skip,
    harness::{eventually, is_installed},
    redis_server::free_port,
};

const DOCKERFILE: &str = "deploy/docker/Dockerfile";
/// The user of the image, which the file system of a volume has to know by its number.
const USER: u32 = 65532;

/// An image as an archive has it, unpacked.
struct Image {
    directory: TempDir,
    config: Value,
}

/// The digest that a descriptor names, as a path in the archive.
fn blob(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

impl Image {
    fn unpack(archive: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let untar = |archive: &Path, into: &Path| {
            let mut tar = Command::new("tar");
            printed(tar.args(["-x", "-p", "--numeric-owner", "-f"]).arg(archive).arg("-C").arg(into));
        };
        let (parts, root) = (directory.path().join("parts"), directory.path().join("root"));
        fs::create_dir(&parts).unwrap();
        fs::create_dir(&root).unwrap();
        untar(archive, &parts);
        let json =
            |path: &str| -> Value { serde_json::from_slice(&fs::read(parts.join(path)).unwrap()).unwrap() };
        let manifest = json(&blob(&json("index.json")["manifests"][0]));
        for layer in manifest["layers"].as_array().unwrap() {
            untar(&parts.join(blob(layer)), &root);
        }
        let config = json(&blob(&manifest["config"]))["config"].clone();
        fs::remove_dir_all(parts).unwrap();
        Self { directory, config }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// `words` in the image as its user, with what its configuration has in the environment.
    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={}", self.config["User"].as_str().unwrap())).arg(self.root());
        command.args(words).env_clear().env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        let pairs = strings(&self.config["Env"]);
        command.envs(pairs.iter().filter_map(|pair| pair.split_once('=')));
        command
    }

    /// Everything in it but the volume: mode, owner, size and time of change.
    fn entries(&self) -> BTreeMap<PathBuf, (u32, u32, u64, i64)> {
        let (root, mut found, mut left) = (self.root(), BTreeMap::new(), vec![self.root()]);
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path == root.join("var/lib/tollgate") {
                    continue;
                }
                let about = fs::symlink_metadata(&path).unwrap();
                found.insert(
                    path.clone(),
                    (about.mode(), about.uid(), about.size(), about.mtime_nsec() + about.mtime()),
                );
                if about.is_dir() {
                    left.push(path);
                }
            }
        }
        found
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_dockerfile_is_sound() {
    match checks() {
        Ok(venv) => {
            let file = root().join(DOCKERFILE);
            assert_eq!(check(&venv, "hadolint", &[file.to_str().unwrap()]), (true, String::new()));
            let directory = TempDir::new().unwrap();
            let faulty = directory.path().join("Dockerfile");
            fs::write(&faulty, "FROM debian\nRUN cd /tmp && apt-get install x\n").unwrap();
            assert!(!check(&venv, "hadolint", &[faulty.to_str().unwrap()]).0);
        }
        Err(missing) => skip("hadolint", &missing),
    }
}

#[test]
fn the_image_is_built_with_the_compiler_of_the_checks() {
    let toolchain: toml_edit::DocumentMut = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(read(DOCKERFILE).contains(&format!("\nFROM rust:{channel}-bookworm AS build\n")), "{channel}");
}

#[test]
fn the_build_finds_all_that_it_needs_and_little_else() {
    let patterns: Vec<_> = read(".dockerignore").lines().map(str::to_owned).collect();
    assert!(patterns.contains(&"*".to_owned()), "everything is left out that is not named");
    let named: Vec<_> = patterns.iter().filter_map(|line| line.strip_prefix('!')).collect();
    for path in ["Cargo.toml", "Cargo.lock", "build.rs", "proto", "src", ".ci/static", "deploy/docker/root"] {
        assert!(named.contains(&path), "{path}");
    }
    // Cargo looks for each target that the manifest names.
    let context = TempDir::new().unwrap();
    for path in named.iter().filter(|path| !path.contains('*')) {
        let place = context.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        printed(Command::new("cp").arg("-r").arg(root().join(path)).arg(place));
    }
    let metadata = ["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"];
    printed(Command::new(env!("CARGO")).args(metadata).current_dir(context.path()));
    // What the code takes from elsewhere, such as the example policy.
    let mut sources = vec![root().join("src")];
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let taken = code.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let is_test = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        for file in taken.filter(|_| !is_test) {
            let file = path.parent().unwrap().join(file).canonicalize().unwrap();
            let file = file.strip_prefix(root()).unwrap().to_owned();
            assert!(named.iter().any(|path| file.starts_with(path)), "{} is not let in", file.display());
        }
    }
}

/// The archive of the image around the binary of the tests, and the image's id.
fn build(directory: &Path, name: &str) -> (PathBuf, String) {
    let binary = directory.join("tollgate");
    if !binary.exists() {
        // Without what only a debugger reads it is a quarter as large.
        printed(Command::new("strip").args([env!("CARGO_BIN_EXE_tollgate"), "-o"]).arg(&binary));
    }
    let archive = directory.join(name);
    let id = printed(Command::new(root().join(".ci/image")).arg(&binary).arg(&archive));
    (archive, id.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_is_the_same_each_time_and_serves_without_root() {
    if !is_installed("buildah") {
        return;
    }
    if !fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        return skip("image", "only root may change the root of a process");
    }
    let directory = TempDir::new().unwrap();
    let (archive, id) = build(directory.path(), "one.tar");
    let (again, same) = build(directory.path(), "two.tar");
    assert_eq!(id, same);
    assert!(fs::read(&archive).unwrap() == fs::read(again).unwrap(), "the archives differ");
    assert_eq!(id.len(), 64, "{id}");

    let image = Image::unpack(&archive);
    assert_eq!(image.config["User"], format!("{USER}:{USER}"));
    assert_eq!(strings(&image.config["Entrypoint"]), ["/usr/bin/tollgate"]);
    assert!(image.config["Volumes"]["/var/lib/tollgate"].is_object());
    let state = fs::metadata(image.root().join("var/lib/tollgate")).unwrap();
    assert_eq!((state.uid(), state.permissions().mode() & 0o777), (USER, 0o700));
    assert!(image.root().join("etc/ssl/certs/ca-certificates.crt").exists());
    for (path, (mode, owner, ..)) in image.entries() {
        assert!(owner == 0 && mode & 0o022 == 0, "{} can be written to: {mode:o}", path.display());
    }

    // Mounted by those who start it.
    fs::copy(root().join("examples/policy.toml"), image.root().join("etc/tollgate/policy.toml")).unwrap();
    let before = image.entries();
    let words = [strings(&image.config["Entrypoint"]), strings(&image.config["Cmd"])].concat();
    let (listen, admin) = (free_port().to_string(), free_port().to_string());
    let log = fs::File::create(directory.path().join("log")).unwrap();
    let mut serve = image.command(&words);
    serve.env("TOLLGATE_LISTEN", &listen).env("TOLLGATE_ADMIN", admin);
    let mut running =
        Running(serve.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let dockerfile = read(DOCKERFILE);
    let probe = dockerfile.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    let probe: Vec<String> = serde_json::from_str(probe.split_once("CMD ").unwrap().1).unwrap();
    let is_healthy = || said(image.command(&probe).env("TOLLGATE_ADDRESS", &listen));
    eventually("it is healthy", async || tokio::task::block_in_place(is_healthy).0).await;
    assert_eq!(is_healthy().1, "serving\n");
    assert!(image.root().join("var/lib/tollgate/tollgate.db").exists());
    assert!(image.entries() == before, "it wrote beside its volume");

    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = tokio::task::block_in_place(|| running.0.wait().unwrap());
    assert!(status.success(), "{status}: {}", fs::read_to_string(directory.path().join("log")).unwrap());
    assert!(!is_healthy().0);
}
