mod console;
mod errors;
mod of_table;

use std::{io::Write as _, time::Duration};

use clap::{Args as _, Command, FromArgMatches as _};

use super::{raw::Raw, *};

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// The flags of this command line.
fn flags(arguments: &[&str]) -> SettingsFlags {
    let command = SettingsFlags::augment_args(Command::new("serve").no_binary_name(true));
    SettingsFlags::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn nothing_given_is_the_default() {
    let settings = Settings::load_from(None, [], &SettingsFlags::default()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn later_sources_go_before_earlier_ones() {
    let file = file("listen = \"0.0.0.0:1\"\nadmin = \"0.0.0.0:2\"\nthreads = 3\nlog = \"warn\"");
    let variables = variables(&[
        ("TOLLGATE_ADMIN_ENABLED", "false"),
        ("TOLLGATE_THREADS", "4"),
        ("TOLLGATE_LOG", "warn,tollgate=debug"),
        ("TOLLGATE_POLICY", "p.toml"),
        ("TOLLGATE_API_KEY", "tg_secret"),
        ("TOLLGATE_ORGANIZATION", "acme"),
        ("TOLLGATE_CLIENT_CERT_FILE", "me.pem"),
        ("TOLLGATE_CLIENT_KEY_FILE", "me-key.pem"),
        ("TOLLGATE_TOKEN", "tgs_secret"),
        ("TOLLGATE_ALLOW_UNAUTHENTICATED_LISTEN", "true"),
        // Variables that Kubernetes sets for a service with our name.
        ("TOLLGATE_SERVICE_HOST", "10.0.0.1"),
        ("TOLLGATE_SERVICE_PORT_GRPC", "50051"),
        ("TOLLGATE_PORT", "tcp://10.0.0.1:50051"),
        ("TOLLGATE_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("TOLLGATE_TLS_CA_FILE", "ca.pem"),
        ("HOME", "/root"),
    ]);
    let flags = flags(&["--threads=5", "--store=redis://:pw@cache:6379"]);
    let settings = Settings::load_from(Some(file.path()), variables, &flags).unwrap();
    let expected = Settings {
        listen: "0.0.0.0:1".parse().unwrap(),
        allow_unauthenticated_listen: true,
        admin: "0.0.0.0:2".parse().unwrap(),
        admin_enabled: false,
        threads: Some(5),
        log: "warn,tollgate=debug".to_owned(),
        policy: Some(PathBuf::from("p.toml")),
        store: "redis://:pw@cache:6379".parse().unwrap(),
        warnings: settings.warnings.clone(),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    let [warning] = &settings.warnings[..] else { panic!("{:?}", settings.warnings) };
    assert!(warning.starts_with("flag `--store`: the address holds a password"), "{warning}");
    assert!(!format!("{settings:?}").contains("pw"));
}

#[test]
fn variables_that_are_no_settings_or_empty_stop_nothing() {
    let variables = variables(&[
        ("TOLLGATE_LISTN", "x"),
        ("TOLLGATE_ADMIN_PORT", "8081"),
        ("TOLLGATE_LISTEN", "localhost:50052"),
        ("TOLLGATE_ADMIN", ""),
        ("TOLLGATE_STORE", ""),
        ("TOLLGATE_THREADS", ""),
        // Variables that Kubernetes sets for the services `tollgate-redis` and `tollgate`.
        ("TOLLGATE_REDIS_SERVICE_HOST", "10.0.0.1"),
        ("TOLLGATE_REDIS_SERVICE_PORT", "6379"),
        ("TOLLGATE_REDIS_SERVICE_PORT_TLS", "6380"),
        ("TOLLGATE_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("TOLLGATE_REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
        ("TOLLGATE_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("TOLLGATE_REDIS_PORT_6379_TCP_PORT", "6379"),
        ("TOLLGATE_REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ("TOLLGATE_PORT_53_UDP", "udp://10.0.0.1:53"),
        ("TOLLGATE_SERVICE_PORT", "50051"),
    ]);
    let settings = Settings::load_from(None, variables, &SettingsFlags::default()).unwrap();
    assert_eq!(
        settings.unknown_variables,
        [
            "environment variable `TOLLGATE_ADMIN_PORT` is no setting; did you mean `TOLLGATE_ADMIN_TLS`?",
            "environment variable `TOLLGATE_LISTN` is no setting; did you mean `TOLLGATE_LISTEN`?",
        ]
    );
    let expected = Settings {
        listen: "127.0.0.1:50052".parse().unwrap(),
        unknown_variables: settings.unknown_variables.clone(),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
}

#[test]
fn a_mark_before_the_text_is_passed_over_and_yaml_is_named() {
    let marked = file("\u{feff}threads = 3\n");
    let settings = Settings::load_from(Some(marked.path()), [], &SettingsFlags::default()).unwrap();
    assert_eq!(settings.threads, Some(3));
    let yaml = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let error = Settings::load_from(Some(yaml.path()), [], &SettingsFlags::default()).unwrap_err();
    assert!(error.to_string().contains("YAML is not read; write TOML"), "{error}");
}

#[test]
fn a_broken_file_does_not_give_its_password_away() {
    let file = file("store = \"redis://:hunter2@cache\nlisten = 1");
    let error = Settings::load_from(Some(file.path()), [], &SettingsFlags::default()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let missing = Settings::load_from(Some(Path::new("/nowhere.toml")), [], &SettingsFlags::default());
    assert!(missing.unwrap_err().to_string().starts_with("`/nowhere.toml` cannot be read: "));
}

#[test]
fn reads_the_password_from_its_file() {
    let secret = file("hunter2\n");
    let name = format!("--redis-password-file={}", secret.path().display());
    let with = |store: &str| flags(&[&format!("--store={store}"), &name]);
    let settings = Settings::load_from(None, [], &with("redis://cache")).unwrap();
    let StoreUrl::Redis { password, .. } = &settings.store else { panic!("{settings:?}") };
    assert_eq!(password.as_deref(), Some("hunter2"));
    assert!(!format!("{settings:?}").contains("hunter2"));
    let twice = Settings::load_from(None, [], &with("redis://:other@cache")).unwrap_err();
    assert!(twice.to_string().contains("holds a password already"));
    let of_environment = |pairs: &[(&str, &str)], flags: &SettingsFlags| {
        Settings::load_from(None, variables(pairs), flags).map_err(|error| error.to_string())
    };
    let password = ("TOLLGATE_REDIS_PASSWORD", "hunter2");
    let settings = of_environment(&[password], &flags(&["--store=redis://cache"])).unwrap();
    let StoreUrl::Redis { password: found, .. } = &settings.store else { panic!("{settings:?}") };
    assert_eq!((found.as_deref(), &*settings.unknown_variables), (Some("hunter2"), &[][..]));
    for (pairs, flags, expected) in [
        (
            &[password][..],
            with("redis://cache"),
            "is given in `TOLLGATE_REDIS_PASSWORD`, too; give one of the two",
        ),
        (
            &[password],
            flags(&["--store=redis://:x@cache"]),
            "variable `TOLLGATE_REDIS_PASSWORD`: the store's address",
        ),
        (&[password], flags(&[]), "variable `TOLLGATE_REDIS_PASSWORD`: the store is not Redis"),
        (
            &[("TOLLGATE_REDIS_PASSWORD", "'hunter2'")],
            flags(&["--store=redis://cache"]),
            "variable `TOLLGATE_REDIS_PASSWORD`: the password stands in quotation marks",
        ),
    ] {
        let error = of_environment(pairs, &flags).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn tls_is_what_its_settings_say() {
    let text = "tls_cert_file = \"c.pem\"\ntls_key_file = \"k.pem\"";
    let load = |more: &str, pairs: &[(&str, &str)]| {
        let file = file(&format!("{text}\n{more}"));
        Settings::load_from(Some(file.path()), variables(pairs), &SettingsFlags::default()).unwrap()
    };
    let (ca, off) = ("tls_client_ca_file = \"ca.pem\"", [("TOLLGATE_TLS_CLIENT_AUTH", "none")]);
    for (more, pairs, expected) in [
        ("", &[][..], ClientAuth::None),
        (ca, &[], ClientAuth::Required),
        (ca, &[("TOLLGATE_TLS_CLIENT_AUTH", "optional")], ClientAuth::Optional),
        (ca, &off, ClientAuth::None),
    ] {
        assert_eq!(load(more, pairs).tls_files().unwrap().client_auth, expected, "{more} {pairs:?}");
    }
    assert_eq!(Settings::default().tls_files(), None);
    for (more, pairs, expected) in [
        ("", &[][..], false),
        ("admin_tls = true", &[], true),
        ("", &[("TOLLGATE_ADMIN", "0.0.0.0:1")], true),
        ("", &[("TOLLGATE_ADMIN", "[::ffff:127.0.0.1]:1")], false),
        ("admin = \"0.0.0.0:1\"", &[("TOLLGATE_ADMIN_TLS", "false")], false),
    ] {
        assert_eq!(load(more, pairs).admin_is_tls(), expected, "{more} {pairs:?}");
    }
    assert!(load("", &[("TOLLGATE_ALLOW_INSECURE_LISTEN", "true")]).allow_insecure_listen);
    assert!(!load("", &[("TOLLGATE_TLS_CA_FILE", "of the commands")]).allow_insecure_listen);
}

#[test]
fn connections_are_bounded_as_written() {
    let flags = flags(&["--max-connections=20", "--connection-idle-timeout=1h30m"]);
    let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    let pairs = [
        variable("TOLLGATE_CONNECTION_MAX_UNREAD", "64KiB"),
        variable("TOLLGATE_CONNECTION_HANDSHAKE_TIMEOUT", "100ms"),
        variable("TOLLGATE_CONNECTION_IDLE_TIMEOUT", "1s"),
    ];
    let limits = Settings::load_from(None, pairs, &flags).unwrap().connection_limits();
    let expected = ConnectionLimits {
        max: Some(20),
        idle: Duration::from_secs(5_400),
        handshake: Duration::from_millis(100),
        max_unread: 65_536,
        ..ConnectionLimits::default()
    };
    assert_eq!(limits, expected);
    for (name, value, reason) in [
        ("MAX_CONNECTIONS", "0", "`0` is not between 1 and 65536"),
        ("MAX_CONNECTIONS", "65537", "is not between"),
        ("CONNECTION_IDLE_TIMEOUT", "900", "`900` has no unit; write `900s` for seconds"),
        ("CONNECTION_MAX_UNREAD", "1048576", "`1048576` has no unit; write `1048576B` for bytes"),
        ("CONNECTION_IDLE_TIMEOUT", "soon", "`soon` is not a length of time"),
        ("CONNECTION_MAX_AGE", "0s", "is not between 10ms and 365d"),
        ("CONNECTION_MAX_AGE_GRACE", "2h", "is not between 0s and 1h"),
        ("CONNECTION_MAX_UNREAD", "1MB", "`1MB` is not a size"),
        ("CONNECTION_MAX_UNREAD", "1B", "not between 1KiB and 1GiB"),
    ] {
        let pairs = [variable(&format!("TOLLGATE_{name}"), value)];
        let error = Settings::load_from(None, pairs, &SettingsFlags::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("TOLLGATE_{name}")) && error.contains(reason), "{error}");
    }
}

#[test]
fn the_audit_log_goes_where_it_is_sent() {
    use AuditSink::{File, Stdout, Store};
    for (arguments, sinks, path) in [
        (&[][..], &[Store, File][..], Some("./data/audit.jsonl")),
        (&["--store=redis://cache"], &[Store], None),
        (&["--store=redis://cache", "--audit-file=a"], &[Store, File], Some("a")),
        (&["--store=redis://cache", "--audit-sinks=stdout"], &[Stdout], None),
        (&["--store=redis://cache", "--audit-sinks=stdout,store"], &[Stdout, Store], None),
        (&["--audit-sinks=stdout, file"], &[Stdout, File], Some("./data/audit.jsonl")),
        (&["--audit-sinks=,"], &[], Some("./data/audit.jsonl")),
        (&["--audit-sinks="], &[], Some("./data/audit.jsonl")),
    ] {
        let arguments = [arguments, &["--console-enabled=false"]].concat();
        let settings = Settings::load_from(None, [], &flags(&arguments)).unwrap();
        assert_eq!((&*settings.audit_sinks(), settings.audit_path()), (sinks, path.map(PathBuf::from)));
        assert_eq!(&*settings.warnings, &[] as &[String]);
    }
    let of_file = file("audit_sinks = [\"stdout\"]\naudit_file = \"a\"");
    let settings = Settings::load_from(Some(of_file.path()), [], &flags(&[])).unwrap();
    assert_eq!((&*settings.audit_sinks(), settings.warnings.len()), (&[Stdout][..], 1));
    assert!(
        settings.warnings[0].contains("`audit_file` in")
            && settings.warnings[0].contains(":2`: nothing is written")
    );
    assert_eq!(Raw::outside("file, stdout", raw::Shape::List).outside_text(), "file,stdout");
}

#[test]
fn which_decisions_are_logged() {
    for (text, expected) in [
        ("0%", Some(0)),
        ("1%", Some(10_000)),
        ("0.5%", Some(5_000)),
        ("12.0001%", Some(120_001)),
        ("100%", Some(1_000_000)),
        ("100.1%", None),
        ("0.00001%", None),
        ("-1%", None),
        ("+1%", None),
        ("%", None),
        (".%", None),
        ("99999999999%", None),
        ("all", None),
    ] {
        let flags = flags(&[&format!("--decision-log-allowed={text}")]);
        let settings = Settings::load_from(None, [], &flags).ok();
        assert_eq!(settings.as_ref().map(|settings| settings.decision_log_allowed), expected, "{text}");
        assert!(settings.is_none_or(|settings| !settings.decision_log_denials), "two settings for two facts");
    }
}
