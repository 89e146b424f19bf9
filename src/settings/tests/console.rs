//! How people sign in to the console.

use std::{path::PathBuf, time::Duration};

use super::{file, flags, variables};
use crate::settings::{Settings, SettingsFlags};

const CLIENT: &str = "console_url = \"https://tollgate.example.com\"\nconsole_oidc_issuer = \"https://login.example.com/acme\"\n\
                      console_oidc_client_id = \"tollgate\"\n";

fn load(text: &str, pairs: &[(&str, &str)]) -> Result<Settings, String> {
    let file = file(text);
    let loaded = Settings::load_from(Some(file.path()), variables(pairs), &SettingsFlags::default());
    loaded.map_err(|error| error.to_string())
}

#[test]
fn a_client_of_a_provider_is_whole_or_refused() {
    let client = load(CLIENT, &[]).unwrap().oidc_client().unwrap();
    assert_eq!((&*client.issuer, &*client.client_id), ("https://login.example.com/acme", "tollgate"));
    assert_eq!(
        (client.secret, client.secret_file, client.scopes),
        (None, None, vec!["openid".into(), "profile".into()])
    );
    assert_eq!(Settings::default().oidc_client(), None);
    let secret = ("TOLLGATE_CONSOLE_OIDC_CLIENT_SECRET", "hunter2");
    let settings = load(CLIENT, &[secret]).unwrap();
    assert_eq!(settings.oidc_client().unwrap().secret.unwrap().text(), "hunter2");
    assert!(!format!("{settings:?}").contains("hunter2"));
    let without =
        |name: &str| CLIENT.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n");
    for (text, pairs, said) in [
        (without("console_url"), &[][..], "`console_oidc_issuer` in"),
        (without("console_url"), &[], "give it in console_url"),
        (without("console_oidc_client_id"), &[], "give it in console_oidc_client_id"),
        (without("console_oidc_issuer"), &[], "the provider is missing; name it in console_oidc_issuer"),
        ("console_oidc_client_secret_file = \"s\"".to_owned(), &[], "the provider is missing"),
        (format!("{CLIENT}console_oidc_scopes = [\"profile\"]"), &[], "`openid` is missing"),
        (format!("{CLIENT}console_oidc_scopes = [\"openid email\"]"), &[], "`openid email` is not one word"),
        (format!("{CLIENT}console_oidc_client_secret_file = \"s\""), &[secret], "too; give one of the two"),
        (
            "console_oidc_client_secret = \"hunter2\"".to_owned(),
            &[],
            "name that in `console_oidc_client_secret_file`",
        ),
        ("console_session_key_files = [\"a\", \"b\", \"c\"]".to_owned(), &[], "more than 2 files"),
        (
            "console_session_timeout = \"1h\"\nconsole_session_max_age = \"30m\"".to_owned(),
            &[],
            "it is shorter than",
        ),
        ("console_session_timeout = \"10s\"".to_owned(), &[], "is not between 1m and 1d"),
    ] {
        let error = load(&text, pairs).unwrap_err();
        assert!(error.contains(said) && !error.contains("hunter2"), "{said}: {error}");
    }
}

#[test]
fn the_console_has_an_address_with_tls_or_on_loopback() {
    for (written, read) in [
        ("https://Tollgate.example.com", Some("https://tollgate.example.com")),
        ("https://tollgate.example.com:443/", Some("https://tollgate.example.com")),
        ("https://tollgate.example.com:8443", Some("https://tollgate.example.com:8443")),
        ("http://localhost:8081", Some("http://localhost:8081")),
        ("http://127.0.0.1:80", Some("http://127.0.0.1")),
        ("http://[::1]:8081", Some("http://[::1]:8081")),
        ("http://tollgate.example.com", None),
        ("http://localhost.example.com", None),
        ("http://127.0.0.1.example.com", None),
        ("https://tollgate.example.com/console", None),
        ("https://user@tollgate.example.com", None),
        ("https://tollgate.example.com?x", None),
        ("https://", None),
        ("ftp://tollgate.example.com", None),
        ("tollgate.example.com", None),
    ] {
        let settings = load(&format!("console_url = \"{written}\""), &[]);
        let url = settings.ok().map(|settings| settings.console_url.unwrap());
        assert_eq!(url.as_deref(), read, "{written}");
    }
    for (issuer, is_good) in [
        ("https://login.example.com/realms/acme/", true),
        ("http://127.0.0.1:3000", true),
        ("http://login.example.com", false),
        ("https://login.example.com?x", false),
    ] {
        let text = CLIENT.replace("https://login.example.com/acme", issuer);
        assert_eq!(load(&text, &[]).is_ok(), is_good, "{issuer}");
    }
}

#[test]
fn replicas_without_a_key_in_common_are_warned_of() {
    for (arguments, warned) in [
        (&[][..], false),
        (&["--store=redis://cache"], true),
        (&["--store=redis://cache", "--console-session-key-files=a,b"], false),
        (&["--store=redis://cache", "--console-enabled=false"], false),
        (&["--store=redis://cache", "--admin-enabled=false"], false),
    ] {
        let settings = Settings::load_from(None, [], &flags(arguments)).unwrap();
        let is_told = settings.warnings.iter().any(|warning| warning.contains("console_session_key_files"));
        assert_eq!(is_told, warned, "{arguments:?}");
    }
    let settings = Settings::load_from(None, [], &flags(&["--console-session-key-files=a,b"])).unwrap();
    assert_eq!(settings.session_key_files(), [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!(settings.console_session_timeout, Duration::from_secs(900));
}

#[test]
fn the_place_of_the_console_is_said_where_it_leads_somewhere() {
    for (arguments, place) in [
        (&["--admin=127.0.0.1:8081"][..], Some("http://127.0.0.1:8081")),
        (&["--console-url=https://tollgate.example.com"], Some("https://tollgate.example.com")),
        (&["--console-enabled=false"], None),
        (&["--admin-enabled=false"], None),
        (&["--admin=127.0.0.1:0"], None),
        (&["--admin=0.0.0.0:8081", "--allow-insecure-listen=true"], None),
    ] {
        let settings = Settings::load_from(None, [], &flags(arguments)).unwrap();
        assert_eq!(settings.console_place().as_deref(), place, "{arguments:?}");
    }
}
