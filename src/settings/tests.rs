use std::io::Write as _;

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
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
        ("TOLLGATE_ADMIN", "off"),
        ("TOLLGATE_THREADS", "4"),
        ("TOLLGATE_LOG", "warn,tollgate=debug"),
        ("TOLLGATE_POLICY", "p.toml"),
        ("TOLLGATE_API_KEY", "tg_secret"),
        ("TOLLGATE_TEAM", "chatbot"),
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
    let flags = SettingsFlags {
        threads: Some(5),
        store: Some("redis://:pw@cache:6379".to_owned()),
        ..SettingsFlags::default()
    };
    let settings = Settings::load_from(Some(file.path()), variables, &flags).unwrap();
    let expected = Settings {
        listen: "0.0.0.0:1".parse().unwrap(),
        allow_unauthenticated_listen: true,
        admin: None,
        threads: Some(5),
        log: "warn,tollgate=debug".to_owned(),
        policy: Some(PathBuf::from("p.toml")),
        store: "redis://:pw@cache:6379".parse().unwrap(),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    assert!(!format!("{settings:?}").contains("pw"));
}

#[test]
fn says_which_setting_is_wrong_and_where_it_comes_from() {
    let flag = |set: fn(&mut SettingsFlags)| {
        let mut flags = SettingsFlags::default();
        set(&mut flags);
        flags
    };
    let none = SettingsFlags::default;
    for (text, pairs, flags, said) in [
        ("lissten = \"x\"", &[][..], none(), "`lissten` in `FILE` is no setting; did you mean `listen`?"),
        ("colour = 1", &[], none(), "`colour` in `FILE` is no setting; the settings are listen,"),
        ("a = 1\nlisten = ", &[], none(), "`FILE`, line 2: "),
        ("listen = \"here\"", &[], none(), "`listen` in `FILE`: "),
        ("threads = -1", &[], none(), "`threads` in `FILE`: "),
        (
            "listen = \":50051\"",
            &[],
            none(),
            "write `127.0.0.1:50051` for this machine only, or `0.0.0.0:50051`",
        ),
        ("listen = \"50051\"", &[], none(), "`50051` names no interface; write `127.0.0.1:50051`"),
        (
            "listen = \"gateway:50051\"",
            &[],
            none(),
            "is an IP address or `localhost`; write `127.0.0.1:50051`",
        ),
        ("", &[("TOLLGATE_THREADS", "many")], none(), "environment variable `TOLLGATE_THREADS`: "),
        (
            "",
            &[("TOLLGATE_ADMIN", "here")],
            none(),
            "environment variable `TOLLGATE_ADMIN`: `here` is no address",
        ),
        (
            "",
            &[],
            flag(|f| f.store = Some("http://:hunter2@x".to_owned())),
            "flag `--store`: not the address of",
        ),
        ("", &[], flag(|f| f.log_format = Some("xml".to_owned())), "flag `--log-format`: "),
        (
            "",
            &[],
            flag(|f| f.store_deadline_ms = Some(0)),
            "flag `--store-deadline-ms`: `0` is not between 1",
        ),
        ("threads = 5000", &[], none(), "`threads` in `FILE`: `5000` is not between"),
        (
            "decision_log = \"101%\"",
            &[],
            none(),
            "`decision_log` in `FILE`: `101%` is not `off`, `denials`, or a share",
        ),
        ("log = \"=,=\"", &[], none(), "`log` in `FILE`: `=,=` is no filter"),
        (
            "redis_password_file = \"x\"",
            &[],
            none(),
            "`redis_password_file` in `FILE`: the store is not Redis",
        ),
        (
            "tls_cert_file = \"c.pem\"",
            &[],
            none(),
            "`tls_cert_file` in `FILE`: a certificate needs its private key; name it in tls_key_file",
        ),
        (
            "",
            &[("TOLLGATE_TLS_KEY_FILE", "k.pem")],
            none(),
            "environment variable `TOLLGATE_TLS_KEY_FILE`: a key needs its certificate; name it in tls_cert_file",
        ),
        (
            "",
            &[],
            flag(|f| f.tls_client_ca_file = Some("ca.pem".to_owned())),
            "flag `--tls-client-ca-file`: clients show certificates only where the server has one",
        ),
        (
            "tls_cert_file = \"c\"\ntls_key_file = \"k\"\ntls_client_auth = \"required\"",
            &[],
            none(),
            "`tls_client_auth` in `FILE`: clients are verified against a CA; name it in tls_client_ca_file",
        ),
        (
            "",
            &[("TOLLGATE_TLS_CLIENT_AUTH", "always")],
            none(),
            "environment variable `TOLLGATE_TLS_CLIENT_AUTH`: ",
        ),
        (
            "",
            &[("TOLLGATE_ADMIN_TLS", "true")],
            none(),
            "variable `TOLLGATE_ADMIN_TLS`: there is no certificate",
        ),
        ("allow_insecure_listen = \"x\"", &[], none(), "`allow_insecure_listen` in `FILE`: "),
    ] {
        let file = file(text);
        let error = Settings::load_from(Some(file.path()), variables(pairs), &flags).unwrap_err().to_string();
        let error = error.replace(&file.path().display().to_string(), "FILE");
        assert!(error.contains(said) && !error.contains("hunter2"), "{error}\n{said}");
    }
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
    let with = |store: &str| SettingsFlags {
        store: Some(store.to_owned()),
        redis_password_file: Some(secret.path().display().to_string()),
        ..SettingsFlags::default()
    };
    let settings = Settings::load_from(None, [], &with("redis://cache")).unwrap();
    let StoreUrl::Redis { password, .. } = &settings.store else { panic!("{settings:?}") };
    assert_eq!(password.as_deref(), Some("hunter2"));
    assert!(!format!("{settings:?}").contains("hunter2"));
    let twice = Settings::load_from(None, [], &with("redis://:other@cache")).unwrap_err();
    assert!(twice.to_string().contains("holds a password already"));
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
    let flags = SettingsFlags {
        connections: ConnectionFlags {
            max_connections: Some(20),
            connection_idle_timeout: Some("1h30m".to_owned()),
            ..ConnectionFlags::default()
        },
        ..SettingsFlags::default()
    };
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
        ("CONNECTION_IDLE_TIMEOUT", "900", "a length of time in quotes such as \"30s\""),
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
fn every_key_is_known() {
    let error = Figment::from(("colour", 1)).extract::<Settings>().unwrap_err();
    let figment::error::Kind::UnknownField(_, known) = error.kind else { panic!("{error}") };
    assert_eq!(known, layer::KEYS);
}

#[test]
fn which_decisions_are_logged() {
    for (text, expected) in [
        ("off", Some(None)),
        ("denials", Some(Some(0))),
        ("1%", Some(Some(10_000))),
        ("0.5%", Some(Some(5_000))),
        ("12.0001%", Some(Some(120_001))),
        ("100%", Some(Some(1_000_000))),
        ("100.1%", None),
        ("0.00001%", None),
        ("-1%", None),
        ("+1%", None),
        ("%", None),
        (".%", None),
        ("99999999999%", None),
        ("all", None),
    ] {
        let flags = SettingsFlags { decision_log: Some(text.to_owned()), ..SettingsFlags::default() };
        let settings = Settings::load_from(None, [], &flags).ok();
        assert_eq!(settings.map(|settings| settings.decision_log), expected, "{text}");
    }
}
