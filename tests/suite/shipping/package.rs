//! The systemd unit, and what `make dist` makes packages of. The packages themselves are tried by `.ci/check-deb`, when they are made.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{deploy, printed, read, root, said, settings};
use crate::harness::is_installed;

/// The highest exposure that systemd may find in the unit, of 100.
const MOST_EXPOSED: &str = "--threshold=20";

#[test]
fn the_unit_is_sound_and_closed() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let unit = read("deploy/tollgate.service");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tollgate.service");
    let verify = |unit: &str| {
        fs::write(&file, unit).unwrap();
        said(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file))
    };
    // It begins with a name, which is looked for where programs are installed.
    let start = format!("ExecStart={} serve ", env!("CARGO_BIN_EXE_tollgate"));
    assert_eq!(unit.matches("\nExecStart=tollgate serve ").count(), 1);
    let unit = unit.replace("ExecStart=tollgate serve ", &start);
    assert_eq!(verify(&unit), (true, String::new()));
    assert!(verify(&unit.replace("PrivateTmp=", "PrivateTemp=")).1.contains("PrivateTemp"));
    let security = ["security", "--offline=true", MOST_EXPOSED];
    let (is_closed, found) =
        said(Command::new("systemd-analyze").args(security).arg(deploy("tollgate.service")));
    assert!(is_closed, "{found}");
}

#[test]
fn the_unit_lets_in_what_the_settings_say() {
    let unit = read("deploy/tollgate.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
    let user = value("User=").unwrap();
    assert!(read("deploy/debian/sysusers.conf").lines().any(|line| line.starts_with(&format!("u {user} "))));
    let config = unit.split_once("--config ").unwrap().1.lines().next().unwrap();
    assert_eq!(config, "/etc/tollgate/tollgate.toml");
    for port in ["50051", "8081"] {
        assert!(unit.contains(&format!("SocketBindAllow=tcp:{port}")), "{port}");
    }
    // drain_timeout is 10 s by default.
    let seconds: u64 = value("TimeoutStopSec=").unwrap().strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds > 10, "{seconds}");
}

#[test]
fn the_settings_of_the_package_name_policy_and_store() {
    let made = printed(&mut Command::new(deploy("debian/settings")));
    let shipped = read("deploy/tollgate.toml");
    let changed: Vec<_> = made
        .lines()
        .zip(shipped.lines())
        .filter(|(made, shipped)| made != shipped)
        .map(|(made, _)| made)
        .collect();
    let expected = ["policy = \"/etc/tollgate/policy.toml\"", "store = \"embedded:/var/lib/tollgate\""];
    assert_eq!(changed, expected);
    let table: toml_edit::DocumentMut = made.parse().unwrap();
    assert!(table.iter().all(|(key, _)| settings().contains(key)));
    assert!(read("deploy/tollgate.service").contains("StateDirectory=tollgate\n"), "/var/lib/tollgate");
}

#[test]
fn the_package_has_what_it_names() {
    let manifest: toml_edit::DocumentMut = read("Cargo.toml").parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let dist = read(".ci/dist");
    let mut places = BTreeSet::new();
    for asset in package["assets"].as_array().unwrap() {
        let [from, to, mode] =
            [0, 1, 2].map(|index| asset.as_array().unwrap().get(index).unwrap().as_str().unwrap());
        match from.strip_prefix("target/stage/") {
            Some(made) => {
                let name = made.split(['/', '*']).next().unwrap();
                assert!(dist.contains(&format!("$stage/{name}")) || name == "tollgate", "{from} is not made");
            }
            None => assert!(root().join(from).exists(), "{from}"),
        }
        assert_eq!(mode, if from.ends_with("/tollgate") { "755" } else { "644" }, "{from}");
        let name = from.rsplit('/').next().unwrap();
        places.insert(if to.ends_with('/') { format!("/{to}{name}") } else { format!("/{to}") });
    }
    for file in package["conf-files"].as_array().unwrap() {
        assert!(places.contains(file.as_str().unwrap()), "{file} is not in the package: {places:?}");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let file = root().join(package["maintainer-scripts"].as_str().unwrap()).join(script);
        let (is_sound, found) = said(Command::new("sh").arg("-n").arg(file));
        assert!(is_sound, "{script}: {found}");
    }
}

#[test]
fn chart_and_service_have_one_version() {
    let chart = read("deploy/helm/tollgate/Chart.yaml");
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&line), "Chart.yaml has no `{}`", line.trim());
    }
    for (file, start, end) in [
        ("docs/operations.md", "tollgate-chart-", ".tgz"),
        ("docs/operations.md", "tollgate_", "-1_amd64.deb"),
        ("deploy/kustomize/example/kustomization.yaml", "newTag: ", " }"),
    ] {
        let text = format!("{start}{}{end}", env!("CARGO_PKG_VERSION"));
        assert!(read(file).contains(&text), "{file} has no `{text}`");
    }
}

#[test]
fn the_bill_of_materials_has_each_crate_that_is_built() {
    let bill = || printed(Command::new(root().join(".ci/sbom")).env("SOURCE_DATE_EPOCH", "1795428000"));
    let text = bill();
    assert!(text == bill(), "it differs from one time to the next");
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["specVersion"], "1.5");
    assert_eq!(bill["metadata"]["timestamp"], "2026-11-23T10:00:00Z");
    assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let components = bill["components"].as_array().unwrap();
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        assert_eq!(component["hashes"][0]["content"].as_str().unwrap().len(), 64, "{component}");
    }
    let names: BTreeSet<_> = components.iter().map(|component| component["name"].as_str().unwrap()).collect();
    for name in ["tonic", "rusqlite", "aws-lc-sys", "tonic-prost-build"] {
        assert!(names.contains(name), "{name}");
    }
    assert!(!names.contains("proptest"), "that only tests need");
    let reference = |value: &Value| value.as_str().unwrap().to_owned();
    let known: BTreeSet<_> = components.iter().map(|component| reference(&component["bom-ref"])).collect();
    for dependency in bill["dependencies"].as_array().unwrap() {
        for wanted in dependency["dependsOn"].as_array().unwrap() {
            assert!(known.contains(&reference(wanted)), "{wanted} is named and not listed");
        }
    }
}
