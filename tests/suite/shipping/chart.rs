//! The Helm chart and the Kustomize base, through Helm, kubectl and the schemas of Kubernetes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::Value;
use tempfile::TempDir;
use tollgate::settings::{Settings, SettingsFlags, check_exposure};

use super::{check, checks, deploy, printed, read, root, said, settings, unknown_variables, yaml};
use crate::clients::{Missing, installed, run, skip};

const CHART: &str = "deploy/helm/tollgate";
/// The release of Kubernetes whose schemas are taken.
const KUBERNETES: &str = "1.34";

/// Where Helm and kubectl are.
fn helm() -> Result<PathBuf, Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let place = installed("helm");
    run(Command::new(root().join(".ci/helm")).arg(&place))?;
    Ok(place.join("bin"))
}

/// Both, or says why not.
fn tools() -> Option<(PathBuf, PathBuf)> {
    match (helm(), checks()) {
        (Ok(helm), Ok(venv)) => Some((helm, venv)),
        (Err(missing), _) | (_, Err(missing)) => {
            skip("chart", &missing);
            None
        }
    }
}

/// The files of values with which the chart is tried.
fn values() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join(CHART).join("ci")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(files.len() >= 4, "only {files:?}");
    files
}

/// `helm template` with these arguments.
fn template(helm: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(helm.join("helm"));
    command.args(["template", "edge", CHART, "--namespace", "policy"]).args(arguments).current_dir(root());
    command
}

/// What the schemas of Kubernetes find wrong in a file. They know no kinds of others, such as ServiceMonitor.
fn has_schema(venv: &Path, file: &Path) -> (bool, String) {
    check(venv, "kubernetes-validate", &["-k", KUBERNETES, "--strict", file.to_str().unwrap()])
}

/// The pod of a Deployment or StatefulSet.
fn pod(documents: &[Value]) -> &Value {
    let is_workload =
        |document: &&Value| ["Deployment", "StatefulSet"].iter().any(|kind| document["kind"] == *kind);
    &documents.iter().find(is_workload).unwrap()["spec"]["template"]["spec"]
}

fn kinds(documents: &[Value]) -> BTreeSet<&str> {
    documents.iter().map(|document| document["kind"].as_str().unwrap()).collect()
}

/// What holds with whatever values.
fn is_hardened(documents: &[Value]) {
    let pod = pod(documents);
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532, "the user of the image");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    let context = &container["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"][0], "ALL");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert!(container[probe]["httpGet"]["path"].is_string(), "{probe}");
    }
    let variables = container["env"].as_array().unwrap();
    let value = |name: &str| variables.iter().find(|variable| variable["name"] == name)?["value"].as_str();
    let seconds = |text: &str| text.strip_suffix('s').unwrap().parse::<u64>().unwrap();
    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > pause + seconds(value("TOLLGATE_DRAIN_TIMEOUT").unwrap()), "{grace} s are too few");
    // Every file that a setting names is of a volume, and each volume is there.
    let mounts = container["volumeMounts"].as_array().unwrap();
    let places: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    let paths = variables.iter().filter_map(|variable| variable["value"].as_str());
    for path in paths.flat_map(|value| value.split(',')).filter(|value| value.starts_with("/etc/tollgate/")) {
        assert!(places.iter().any(|place| path.starts_with(place)), "{path} is of no volume");
    }
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in mounts {
        // The state of a StatefulSet is a claim of its own.
        let is_there = volumes.iter().any(|volume| volume["name"] == mount["name"]);
        assert!(is_there || mount["name"] == "state", "{mount}");
    }
}

/// The service takes what the pod has in its environment: each value is one of its setting, and none contradicts another.
fn is_taken_by_the_service(documents: &[Value], directory: &Path) {
    // Files of the pod's volumes are here, each with a name of its own.
    let place = |part: &str| {
        let Some(name) = part.strip_prefix("/etc/tollgate/") else { return part.to_owned() };
        let path = directory.join(name.replace('/', "-"));
        fs::write(&path, "secret\n").unwrap();
        path.to_str().unwrap().to_owned()
    };
    let variables = pod(documents)["containers"][0]["env"].as_array().unwrap().iter();
    // What comes from a Secret has no value here, and the file is given below.
    let variables =
        variables.filter(|variable| variable["name"] != "TOLLGATE_CONFIG").filter_map(|variable| {
            let value: Vec<_> = variable["value"].as_str()?.split(',').map(place).collect();
            Some((variable["name"].as_str()?.into(), value.join(",").into()))
        });
    let file = documents.iter().find_map(|document| document["data"]["tollgate.toml"].as_str()).map(|text| {
        let path = directory.join("tollgate.toml");
        fs::write(&path, text).unwrap();
        path
    });
    let settings = Settings::load_from(file.as_deref(), variables, &SettingsFlags::default());
    let settings = settings.unwrap_or_else(|error| panic!("{error}"));
    assert!(!settings.listen.ip().is_loopback(), "others than this machine ask");
    check_exposure(&settings).unwrap();
}

#[test]
fn the_chart_renders_what_kubernetes_takes() {
    let Some((helm, venv)) = tools() else { return };
    let directory = TempDir::new().unwrap();
    let mut all = BTreeSet::new();
    for file in values() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let path = file.to_str().unwrap();
        let (is_sound, found) = said(
            Command::new(helm.join("helm")).args(["lint", "--strict", CHART, "-f", path]).current_dir(root()),
        );
        assert!(is_sound, "{name}: {found}");
        let text = printed(&mut template(&helm, &["-f", path]));
        assert_eq!(unknown_variables(&text), [""; 0], "{name}");
        let rendered = directory.path().join(format!("{name}.yaml"));
        fs::write(&rendered, &text).unwrap();
        let (is_sound, found) = has_schema(&venv, &rendered);
        assert!(is_sound && !found.contains("ERROR"), "{name}: {found}");
        let documents = yaml(&venv, &rendered);
        assert!(documents.iter().all(|document| document["metadata"]["namespace"] == "policy"), "{name}");
        is_hardened(&documents);
        is_taken_by_the_service(&documents, directory.path());
        all.extend(kinds(&documents).into_iter().map(str::to_owned));
    }
    let expected = [
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    ];
    assert_eq!(all, BTreeSet::from(expected.map(str::to_owned)));
    let faulty = directory.path().join("faulty.yaml");
    fs::write(&faulty, "apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { port: 1 }\n").unwrap();
    assert!(!has_schema(&venv, &faulty).0, "what Kubernetes does not know is found");
}

#[test]
fn the_chart_does_what_its_values_say() {
    let Some((helm, venv)) = tools() else { return };
    let directory = TempDir::new().unwrap();
    let render = |name: &str| {
        let file = root().join(CHART).join(format!("ci/{name}-values.yaml"));
        let rendered = directory.path().join(name);
        fs::write(&rendered, printed(&mut template(&helm, &["-f", file.to_str().unwrap()]))).unwrap();
        yaml(&venv, &rendered)
    };
    let variable = |documents: &[Value], name: &str| {
        let env = pod(documents)["containers"][0]["env"].as_array().unwrap().clone();
        let found: Vec<_> = env.iter().filter(|variable| variable["name"] == name).collect();
        assert!(found.len() < 2, "{name} is given twice");
        Some(found.first()?["value"].as_str()?.to_owned())
    };

    let embedded = render("embedded");
    assert!(!kinds(&embedded).contains("PodDisruptionBudget"), "it would hold up the drain of its node");
    let claim = embedded.iter().find(|document| document["kind"] == "StatefulSet").unwrap();
    assert_eq!(claim["spec"]["replicas"], 1);
    let claim = &claim["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["resources"]["requests"]["storage"], "20Gi");
    assert_eq!(claim["storageClassName"], "fast");
    assert_eq!(pod(&embedded)["containers"][0]["readinessProbe"]["httpGet"]["scheme"], "HTTPS");
    assert_eq!(variable(&embedded, "TOLLGATE_ALLOW_INSECURE_LISTEN"), None);

    let redis = render("redis");
    assert_eq!(pod(&redis)["topologySpreadConstraints"].as_array().unwrap().len(), 2);
    let url = variable(&redis, "TOLLGATE_STORE").unwrap();
    assert_eq!(url, "redis://tollgate@redis.data.svc:6380/1");
    let keys = variable(&redis, "TOLLGATE_CONSOLE_SESSION_KEY_FILES").unwrap();
    assert_eq!(keys, "/etc/tollgate/session/new,/etc/tollgate/session/old");
    let network = redis.iter().find(|document| document["kind"] == "NetworkPolicy").unwrap();
    assert_eq!(network["spec"]["egress"][1]["ports"][0]["port"], 6380, "the port of the address");
    let monitor = &redis.iter().find(|document| document["kind"] == "ServiceMonitor").unwrap()["spec"];
    let endpoint = &monitor["endpoints"][0];
    assert_eq!(endpoint["port"], "operators");
    assert_eq!(endpoint["scheme"], "https");
    let services: Vec<_> = redis.iter().filter(|document| document["kind"] == "Service").collect();
    let selector = &services[0]["spec"]["selector"];
    assert_eq!(selector, &monitor["selector"]["matchLabels"]);

    let mesh = render("mesh");
    for (name, expected) in [
        ("TOLLGATE_ALLOW_INSECURE_LISTEN", "true"),
        ("TOLLGATE_AUDIT_SINKS", "store,stdout"),
        ("TOLLGATE_OTLP_SIGNALS", ","),
        ("TOLLGATE_METRICS_MAX_TEAMS", "100000"),
        ("TOLLGATE_DECISION_LOG_DENIALS", "true"),
        ("TOLLGATE_LOG_FORMAT", "text"),
        ("TOLLGATE_CONFIG", "/etc/tollgate/settings/tollgate.toml"),
    ] {
        assert_eq!(variable(&mesh, name).as_deref(), Some(expected), "{name}");
    }
    let map = mesh.iter().find(|document| document["data"]["policy.toml"].is_string()).unwrap();
    let policy = map["data"]["policy.toml"].as_str().unwrap();
    crate::harness::policy(policy, crate::harness::START);

    // The defaults ask for a certificate and for who may ask; a look at it does not.
    let development = render("development");
    assert!(!kinds(&development).contains("NetworkPolicy"));
    assert_eq!(variable(&development, "TOLLGATE_ALLOW_UNAUTHENTICATED_LISTEN").as_deref(), Some("true"));
    assert_eq!(variable(&redis, "TOLLGATE_ALLOW_UNAUTHENTICATED_LISTEN"), None);
}

#[test]
fn the_schema_refuses_bad_values() {
    let Some((helm, _)) = tools() else { return };
    for (value, word) in [
        ("store.kind=memory", "/store/kind"),
        ("store.kind=redis", "/store/redis/url"),
        ("store.redis.url=redis://user:secret@host", "/store/redis/url"),
        ("replicas=0", "/replicas"),
        ("replicas=2.5", "/replicas"),
        ("tls.secret=", "/tls/insecure"),
        ("tls.clientAuth=required", "/tls/clientAuth"),
        ("policy.configMap=", "/policy/document"),
        ("image.tga=1", "tga"),
        ("settings.montly=1", "montly"),
        ("settings.listen=0.0.0.0:1", "listen"),
        ("console.oidc.issuer=https://login.example.com", "/console/oidc/clientId"),
        ("drainSeconds=10s", "/drainSeconds"),
        ("podDisruptionBudget.maxUnavailable=0", "/podDisruptionBudget/maxUnavailable"),
    ] {
        let (is_taken, found) = said(&mut template(&helm, &["--set", value]));
        assert!(!is_taken && found.contains(word), "{value}: {found}");
    }
}

#[test]
fn the_schema_has_each_setting_that_the_chart_does_not_make() {
    let schema: Value = serde_json::from_str(&read("deploy/helm/tollgate/values.schema.json")).unwrap();
    let listed = schema["properties"]["settings"]["properties"].as_object().unwrap();
    let listed: BTreeSet<_> = listed.keys().cloned().collect();
    let helpers = read("deploy/helm/tollgate/templates/_helpers.tpl");
    let made: BTreeSet<_> = helpers
        .split("name: TOLLGATE_")
        .skip(1)
        .filter_map(|rest| rest.split(',').next())
        .map(str::to_ascii_lowercase)
        .collect();
    // Without the pages for operators there is nothing to probe, and with TLS they have it.
    let fixed = ["admin_enabled", "admin_tls"].map(str::to_owned);
    let expected: BTreeSet<_> = settings()
        .into_iter()
        .filter(|name| (!made.contains(name) || name == "log_format") && !fixed.contains(name))
        .collect();
    assert_eq!(listed, expected, "properties.settings of values.schema.json");
}

#[test]
fn the_kustomize_base_is_what_the_chart_renders() {
    let Some((helm, venv)) = tools() else { return };
    let made = printed(Command::new(root().join(".ci/kustomize")).arg(helm.join("helm")));
    assert!(made == read("deploy/kustomize/base/tollgate.yaml"), "it is not current: make kustomize");

    let kubectl = if helm.join("kubectl").exists() { helm.join("kubectl") } else { PathBuf::from("kubectl") };
    let built = printed(Command::new(kubectl).arg("kustomize").arg(deploy("kustomize/example")));
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("example.yaml");
    fs::write(&file, &built).unwrap();
    let (is_sound, found) = has_schema(&venv, &file);
    assert!(is_sound, "{found}");
    let documents = yaml(&venv, &file);
    is_hardened(&documents);
    is_taken_by_the_service(&documents, directory.path());
    assert!(documents.iter().all(|document| document["metadata"]["namespace"] == "tollgate"));
    let pod = pod(&documents);
    let map = documents.iter().find(|document| document["kind"] == "ConfigMap").unwrap();
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["configMap"]["name"] == map["metadata"]["name"]));
    crate::harness::policy(map["data"]["policy.toml"].as_str().unwrap(), crate::harness::START);
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    let stores: Vec<_> = variables.iter().filter(|variable| variable["name"] == "TOLLGATE_STORE").collect();
    assert_eq!(stores.len(), 1);
    assert_eq!(stores[0]["value"], "redis://redis.data.svc:6379", "the overlay's");
}
