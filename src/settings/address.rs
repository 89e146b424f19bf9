//! Addresses to listen on.

use std::net::SocketAddr;

/// An address to listen on. `localhost` is the only name allowed: any other would require a DNS lookup.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
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
