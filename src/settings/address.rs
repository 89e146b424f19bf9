//! Addresses to listen on.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub(super) fn address_or_off<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" | "off" => Ok(None),
        _ => parse_address(&text)
            .map(Some)
            .map_err(|error| serde::de::Error::custom(format!("{error}; or write `off`"))),
    }
}

/// An address to listen on. `localhost` is the only name allowed: any other would require a DNS lookup.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let Ok(port) = port.parse::<u16>() else {
        return Err(format!("`{text}` is no address such as `127.0.0.1:50051` or `localhost:50051`"));
    };
    match host {
        "localhost" => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        "" | "*" => Err(format!(
            "`{text}` names no interface; write `127.0.0.1:{port}` for this machine only, or `0.0.0.0:{port}` for all"
        )),
        _ => Err(format!(
            "`{text}`: the host of an address to listen on is an IP address or `localhost`; write `127.0.0.1:{port}` for \
             this machine only, or `0.0.0.0:{port}` for all"
        )),
    }
}
