//! `deploy/compose.yaml`: there is no engine to start it, so everything in it is looked up.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{check, checks, deploy, read, said, unknown_variables, yaml};
use crate::{
    clients::{install_envoy, skip},
    harness::is_installed,
};

/// The strings of a list, and those of the values of an object.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(object) => object.values().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

#[test]
fn the_compose_file_is_sound() {
    let venv = match checks() {
        Ok(venv) => venv,
        Err(missing) => return skip("compose", &missing),
    };
    let file = deploy("compose.yaml");
    let path = file.to_str().unwrap();
    // By the specification, with nothing that is not in it.
    let parse =
        "import sys, compose_spec; compose_spec.PyCompose.from_yaml(open(sys.argv[1]).read()).validate()";
    let (is_sound, found) = check(&venv, "python", &["-c", parse, path]);
    assert!(is_sound, "{found}");
    let (is_safe, found) = check(&venv, "compose-lint", &["--fail-on", "high", path]);
    assert!(is_safe, "{found}");
    assert_eq!(unknown_variables(&read("deploy/compose.yaml")), [""; 0]);

    let compose = yaml(&venv, &file).remove(0);
    let services = compose["services"].as_object().unwrap();
    let (volumes, networks) = (&compose["volumes"], &compose["networks"]);
    let mut mounts = 0;
    for (name, service) in services {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        for mount in texts(&service["volumes"]) {
            let (from, to) = mount.split_once(':').unwrap();
            mounts += 1;
            match from.strip_prefix("./") {
                Some(path) => {
                    assert!(deploy(path).exists(), "{name} mounts {path}, which is not there");
                    assert!(to.ends_with(":ro"), "{name} may write to {path}");
                }
                None => assert!(volumes.get(from).is_some(), "{name} mounts {from}, which is no volume"),
            }
        }
        for network in texts(&service["networks"]) {
            assert!(networks.get(&network).is_some(), "{name} is of {network}, which is no network");
        }
        let needed: BTreeSet<_> =
            service["depends_on"].as_object().into_iter().flat_map(|needed| needed.keys()).collect();
        assert!(needed.iter().all(|needed| services.contains_key(*needed)), "{name}: {needed:?}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
    }
    assert!(mounts > 8, "only {mounts} mounts found");
    assert_eq!(networks["state"]["internal"], true);
    assert_eq!(texts(&services["redis"]["networks"]), ["state"], "Redis is reached by Tollgate only");

    let directory = TempDir::new().unwrap();
    let faulty = directory.path().join("compose.yaml");
    fs::write(&faulty, read("deploy/compose.yaml").replace("depends_on:", "depend_on:")).unwrap();
    assert!(!check(&venv, "python", &["-c", parse, faulty.to_str().unwrap()]).0, "what is misspelt is found");
}

#[test]
fn prometheus_of_the_compose_file_is_sound() {
    if !is_installed("promtool") {
        return;
    }
    let directory = TempDir::new().unwrap();
    for file in ["compose/prometheus.yml", "prometheus/rules.yml"] {
        let name = file.rsplit('/').next().unwrap();
        fs::copy(deploy(file), directory.path().join(name)).unwrap();
    }
    let (is_sound, found) =
        said(Command::new("promtool").args(["check", "config"]).arg(directory.path().join("prometheus.yml")));
    assert!(is_sound, "{found}");
}

/// The compose file changes the shipped configuration of Envoy as it starts.
#[test]
fn envoy_of_the_compose_file_takes_its_configuration() {
    let (envoy, venv) = match (install_envoy(), checks()) {
        (Ok(envoy), Ok(venv)) => (envoy, venv),
        (Err(missing), _) | (_, Err(missing)) => return skip("envoy of compose", &missing),
    };
    let compose = yaml(&venv, &deploy("compose.yaml")).remove(0);
    let service = &compose["services"]["envoy"];
    assert_eq!(texts(&service["entrypoint"]), ["sh", "-c"]);
    let directory = TempDir::new().unwrap();
    let made = directory.path().join("envoy.yaml");
    let script = texts(&service["command"]).concat().replace("$$", "$");
    let script = script.replace("/etc/envoy/shipped.yaml", deploy("envoy/envoy.yaml").to_str().unwrap());
    let script = script.replace("/tmp/envoy.yaml", made.to_str().unwrap());
    let script = script.replace("exec envoy -c", "true");
    let (is_sound, found) = said(Command::new("sh").args(["-c", &script]));
    assert!(is_sound, "{found}");
    let text = fs::read_to_string(&made).unwrap();
    assert_eq!(text.matches("address: tollgate, port_value: 50051").count(), 1);
    assert_eq!(text.matches("address: 0.0.0.0, port_value: 10000").count(), 1);
    let envoy = envoy.join("bin/envoy");
    let (is_sound, found) = said(Command::new(envoy).args(["--mode", "validate", "-c"]).arg(&made));
    assert!(is_sound, "{found}");
}
