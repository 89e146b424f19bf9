//! Addresses, and what is wrong with them.

use super::*;

fn node(host: &str, port: u16) -> RedisNode {
    RedisNode { host: host.to_owned(), port }
}

#[test]
fn every_scheme_is_read() {
    let server = |host: &str, port, database| RedisPlace::Server { node: node(host, port), database };
    let sentinels = vec![node("a", 26379), node("b", 1)];
    for (text, place, is_tls) in [
        ("redis://cache", server("cache", 6379, 0), false),
        ("redis://cache:1/2", server("cache", 1, 2), false),
        ("rediss://[::1]:7000/", server("::1", 7000, 0), true),
        ("redis+unix:///run/redis.sock", RedisPlace::Socket("/run/redis.sock".into()), false),
        (
            "redis+sentinel://a,b:1/main",
            RedisPlace::Sentinel { sentinels: sentinels.clone(), primary: "main".into() },
            false,
        ),
        ("rediss+sentinel://a,b:1,a/x.y", RedisPlace::Sentinel { sentinels, primary: "x.y".into() }, true),
        ("redis+cluster://a", RedisPlace::Cluster { nodes: vec![node("a", 6379)] }, false),
        (
            "rediss+cluster://a:1,[fe80::1]:2/",
            RedisPlace::Cluster { nodes: vec![node("a", 1), node("fe80::1", 2)] },
            true,
        ),
    ] {
        let url: RedisUrl = text.parse().unwrap();
        assert_eq!((&url.place, url.is_tls), (&place, is_tls), "{text}");
        let shown: RedisUrl = url.to_string().parse().unwrap();
        assert_eq!(shown, url, "what is shown is the same address");
    }
}

#[test]
fn a_login_is_decoded_and_not_shown() {
    let with = |text: &str| {
        let url: RedisUrl = text.parse().unwrap();
        (url.username.clone(), url.password.clone(), format!("{url} {url:?}"))
    };
    let some = |text: &str| Some(text.to_owned());
    for (text, user, password, shown) in [
        ("redis://ann:p%40%25@h", some("ann"), some("p@%"), "redis://ann:***@h:6379"),
        ("redis://:hun@ter2@h", None, some("hun@ter2"), "redis://:***@h:6379"),
        ("redis://hunter2@h", some("hunter2"), None, "redis://***@h:6379"),
        (
            "redis+sentinel://ann:hunter2@h/m",
            some("ann"),
            some("hunter2"),
            "redis+sentinel://ann:***@h:26379/m",
        ),
        ("redis://:@h", None, None, "redis://h:6379"),
    ] {
        assert_eq!(with(text), (user, password, format!("{shown} {shown}")), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named_without_repeating_it() {
    use RedisUrlError as E;
    for (text, error) in [
        ("cache", E::Scheme),
        ("redis-sentinel://h/m", E::Scheme),
        ("redis+x://h", E::Scheme),
        ("redis://", E::NoHost),
        ("redis://:hunter2@", E::NoHost),
        ("redis://:6379", E::NoHost),
        ("redis+cluster://a,,b", E::NoHost),
        ("redis://a b", E::Host),
        ("redis://[::1", E::Host),
        ("redis://[cache]", E::Host),
        ("redis://[::1]6379", E::Host),
        ("redis://cache:0", E::Port),
        ("redis://cache:hunter2", E::Port),
        ("redis://::1:6379", E::Host),
        ("redis://a,b", E::OneHost),
        ("redis://a/hunter2", E::Database),
        ("redis+cluster://a/1", E::ClusterDatabase),
        ("redis+sentinel://a", E::Primary),
        ("redis+sentinel://a/", E::Primary),
        ("redis+sentinel://a/b/0", E::Primary),
        ("redis+unix://run/redis.sock", E::Path),
        ("redis+unix:///", E::Path),
        ("rediss+unix:///run/redis.sock", E::SocketTls),
        ("redis://a?password=hunter2", E::Parameters),
        ("rediss://a#insecure", E::Parameters),
        ("redis://a:%zz@a", E::Login),
        ("redis://a:%f@a", E::Login),
        ("redis://%ff@a", E::Login),
    ] {
        assert_eq!(text.parse::<RedisUrl>(), Err(error), "{text}");
        assert!(!error.to_string().contains("hunter2"));
    }
    let many = vec!["h"; 40].join(",");
    assert_eq!(format!("redis+cluster://{many}").parse::<RedisUrl>(), Err(E::TooManyHosts));
}

#[test]
fn a_redirection_is_read() {
    for (text, expected) in [
        ("10.0.0.1:7000", Some(node("10.0.0.1", 7000))),
        ("::1:7000", Some(node("::1", 7000))),
        (":7000", Some(node("asked", 7000))),
        ("?:7000", Some(node("asked", 7000))),
        ("name.example:7000", Some(node("name.example", 7000))),
        ("name.example:0", None),
        ("nonsense", None),
    ] {
        assert_eq!(RedisNode::redirected(text, "asked"), expected, "{text}");
    }
}
