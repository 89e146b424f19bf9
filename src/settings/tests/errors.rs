//! What is wrong with a setting, and where it stands.

use super::{
    super::{
        Settings, SettingsFlags,
        layer::{flag as flag_of, variable},
    },
    file, flags, variables,
};

#[test]
fn says_which_setting_is_wrong_and_where_it_comes_from() {
    let flag = |argument: &str| flags(&[argument]);
    let none = SettingsFlags::default;
    for (text, pairs, flags, said) in [
        ("lissten = \"x\"", &[][..], none(), "`lissten` in `FILE:1` is no setting; did you mean `listen`?"),
        ("colour = 1", &[], none(), "`colour` in `FILE:1` is no setting; the settings are listen,"),
        ("a = 1\nlisten = ", &[], none(), "`FILE`, line 2: "),
        ("listen = \"here\"", &[], none(), "`listen` in `FILE:1`: "),
        ("threads = -1", &[], none(), "`threads` in `FILE:1`: "),
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
        ("", &[], flag("--store=http://:hunter2@x"), "flag `--store`: not the address of"),
        ("", &[], flag("--log-format=xml"), "flag `--log-format`: "),
        ("", &[], flag("--store-timeout=0s"), "flag `--store-timeout`: `0s` is not between 1ms and 1m"),
        ("threads = 5000", &[], none(), "`threads` in `FILE:1`: `5000` is not between"),
        (
            "decision_log_allowed = \"101%\"",
            &[],
            none(),
            "`decision_log_allowed` in `FILE:1`: `101%` is not a share",
        ),
        ("log = \"=,=\"", &[], none(), "`log` in `FILE:1`: `=,=` is no filter"),
        (
            "redis_password_file = \"x\"",
            &[],
            none(),
            "`redis_password_file` in `FILE:1`: the store is not Redis",
        ),
        (
            "tls_cert_file = \"c.pem\"",
            &[],
            none(),
            "`tls_cert_file` in `FILE:1`: a certificate needs its private key; name it in tls_key_file",
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
            flag("--tls-client-ca-file=ca.pem"),
            "flag `--tls-client-ca-file`: clients show certificates only where the server has one",
        ),
        (
            "tls_cert_file = \"c\"\ntls_key_file = \"k\"\ntls_client_auth = \"required\"",
            &[],
            none(),
            "`tls_client_auth` in `FILE:3`: clients are verified against a CA; name it in tls_client_ca_file",
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
        ("allow_insecure_listen = \"x\"", &[], none(), "`allow_insecure_listen` in `FILE:1`: "),
        ("drain_timeout = 20", &[], none(), "`FILE:1`: `20` has no unit; write `\"20s\"` for seconds"),
        ("", &[], flag("--drain-timeout=20"), "flag `--drain-timeout`: `20` has no unit; write `20s` for"),
        ("drain_timeout = \"61m\"", &[], none(), "`61m` is not between 0s and 1h"),
        ("threads = 1.5", &[], none(), "`1.5` is not a whole number"),
        ("threads = \"4\"", &[], none(), "`4` is not a whole number"),
        ("admin_enabled = \"true\"", &[], none(), "write `true` without quotes"),
        ("policy = \"\"", &[], none(), "the path is empty"),
        ("[policy]\na = 1", &[], none(), "`policy` in `FILE:1`: a table is not taken"),
        (
            "store = \"redis://:hunter2@a,b\"",
            &[],
            none(),
            "`FILE:1`: one server is expected after redis://; several are Sentinels, as in redis+sentinel://",
        ),
        (
            "store = \"redis://cache\"\nredis_tls_ca_file = \"ca.pem\"",
            &[],
            none(),
            "`redis_tls_ca_file` in `FILE:2`: the store is no Redis with TLS; write rediss://",
        ),
        (
            "store = \"rediss://cache\"\nredis_tls_cert_file = \"c.pem\"",
            &[],
            none(),
            "`redis_tls_cert_file` in `FILE:2`: its key is missing; name it in redis_tls_key_file",
        ),
        (
            "store = \"rediss://ann@cache\"\nredis_username = \"ann\"",
            &[],
            none(),
            "`redis_username` in `FILE:2`: the store's address names a user already",
        ),
        (
            "store = \"redis://cache\"",
            &[("TOLLGATE_REDIS_SENTINEL_PASSWORD", "hunter2")],
            none(),
            "variable `TOLLGATE_REDIS_SENTINEL_PASSWORD`: the store has no Sentinels",
        ),
        (
            "store = \"redis://cache\"\nredis_sentinel_username = \"ann\"",
            &[],
            none(),
            "`redis_sentinel_username` in `FILE:2`: the store has no Sentinels; write redis+sentinel://",
        ),
        (
            "redis_password = \"hunter2\"",
            &[],
            none(),
            "is no setting; a secret stands in none; write it into a file and name that in `redis_password_file`",
        ),
        ("audit_sinks = \"file\"", &[], none(), "`file` is no list; write `[\"file\"]`"),
        ("audit_sinks = [\"file\", \"file\"]", &[], none(), "`file` stands in it twice"),
        (
            "",
            &[],
            flag("--audit-sinks=file,fil"),
            "flag `--audit-sinks`: `fil` is not one of `store`, `file`, `stdout`; did",
        ),
        (
            "store = \"redis://cache\"\naudit_sinks = [\"file\"]",
            &[],
            none(),
            "`audit_sinks` in `FILE:2`: with Redis, `file` needs a file of this replica; name it in audit_file",
        ),
    ] {
        let file = file(text);
        let error = Settings::load_from(Some(file.path()), variables(pairs), &flags).unwrap_err().to_string();
        let error = error.replace(&file.path().display().to_string(), "FILE");
        assert!(error.contains(said) && !error.contains("hunter2"), "{error}\n{said}");
    }
}

/// A pipe would hold up the start, and what is large would be sent to the server.
#[test]
fn a_file_without_a_password_is_named_with_its_setting() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("line"), "\r\n").unwrap();
    std::fs::write(at("large"), "x".repeat((64 << 10) + 1)).unwrap();
    std::fs::write(at("binary"), b"hunter2\xff").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    for (name, said) in [
        ("missing", "cannot be read: No such file"),
        ("empty", "holds no password"),
        ("line", "holds no password"),
        ("large", "cannot be read: 65537 bytes are more than a password has"),
        ("binary", "cannot be read: stream did not contain valid UTF-8"),
        ("pipe", "cannot be read: it is no regular file"),
        ("", "cannot be read: it is no regular file"),
    ] {
        let path = at(name);
        let text = format!("store = \"redis+sentinel://s/main\"\nredis_sentinel_password_file = {path:?}");
        let file = file(&text);
        let loaded = Settings::load_from(Some(file.path()), variables(&[]), &SettingsFlags::default());
        let error = loaded.unwrap_err().to_string();
        let place =
            format!("`redis_sentinel_password_file` in `{}:2`: `{path}` {said}", file.path().display());
        assert!(error.starts_with(&place) && !error.contains("hunter2"), "{error}\n{place}");
    }
}

#[test]
fn a_size_of_no_spool_is_warned_of() {
    for (text, is_warned) in [
        ("spool_max_size = \"3MiB\"", true),
        ("spool_max_size = \"3MiB\"\nspool_directory = \"spool\"\nstore = \"redis://cache\"", false),
        ("", false),
    ] {
        let file = file(text);
        let loaded = Settings::load_from(Some(file.path()), variables(&[]), &SettingsFlags::default());
        let warnings = loaded.unwrap().warnings.join("\n");
        assert_eq!(
            warnings.contains("nothing is kept without spool_directory"),
            is_warned,
            "{text}: {warnings}"
        );
    }
}

#[test]
fn what_is_no_longer_taken_says_what_to_write() {
    for (name, value, in_file, as_flag) in [
        ("drain_seconds", "20", "write `drain_timeout = \"20s\"`", "write `--drain-timeout=20s`"),
        ("store_deadline_ms", "50", "write `store_timeout = \"50ms\"`", "write `--store-timeout=50ms`"),
        (
            "decision_log",
            "1%",
            "write `decision_log_denials = true` and `decision_log_allowed = \"1%\"`",
            "write `--decision-log-denials=true` and `--decision-log-allowed=1%`",
        ),
        (
            "decision_log",
            "denials",
            "write `decision_log_denials = true`",
            "write `--decision-log-denials=true`",
        ),
        (
            "decision_log",
            "off",
            "write `decision_log_denials = false`",
            "write `--decision-log-denials=false`",
        ),
        ("admin", "off", "write `admin_enabled = false`", "write `--admin-enabled=false`"),
        ("audit_file", "off", "write `audit_sinks = []`", "write `--audit-sinks=,`"),
        ("audit_file", "stdout", "write `audit_sinks = [\"stdout\"]`", "write `--audit-sinks=stdout`"),
        ("threads", "0", "leave it out for one thread for each core", "leave it out"),
    ] {
        let quoted = if value.parse::<u32>().is_ok() { value.to_owned() } else { format!("{value:?}") };
        let of_file = file(&format!("\n{name} = {quoted}"));
        let error = Settings::load_from(Some(of_file.path()), [], &flags(&[])).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{name}` in `")) && error.contains(":2`"), "{error}");
        assert!(error.ends_with(in_file), "{error}");
        let argument = format!("--{}={value}", flag_of(name));
        let error = Settings::load_from(None, [], &flags(&[&argument])).unwrap_err().to_string();
        assert!(error.starts_with("flag `--") && error.contains(as_flag), "{error}");
        let pairs = variables(&[(&variable(name), value)]);
        let error = Settings::load_from(None, pairs, &flags(&[])).unwrap_err().to_string();
        assert!(error.starts_with(&format!("environment variable `{}`", variable(name))), "{error}");
        assert!(error.contains("write `TOLLGATE_") || name == "threads", "{error}");
    }
}

#[test]
fn values_that_no_setting_has_are_named() {
    for (suffix, text, said) in [
        (".toml", "policy = 1979-05-27", "a date is not taken"),
        (".toml", "policy = { a = 1 }", "a table is not taken"),
        (".toml", "threads = 1979-05-27", "a date is not a whole number"),
        (".json", "{\"policy\": {\"a\": 1}}", "an object is not taken"),
        (".json", "{\"policy\": null}", "null is not taken"),
        (".toml", "threads = 4.0", "`4.0` is not a whole number"),
        (".json", "{\"threads\": 4.0}", "`4.0` is not a whole number"),
        (".json", "{\"threads\": 1e3}", "`1000.0` is not a whole number"),
    ] {
        let file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = Settings::load_from(Some(file.path()), [], &flags(&[])).unwrap_err().to_string();
        assert!(error.contains(said), "{error}\n{said}");
    }
}
