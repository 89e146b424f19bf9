//! The subjects of the measurement.

/// The way that requests take to the mock of Groq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client itself.
    Direct,
    /// Through Envoy with the shipped configuration, but without the filters that call the policy service.
    Bare,
    /// Through Envoy with the two filters that every policy needs: `ext_authz`, and the `ext_proc` that meters.
    Meter,
    /// Through Envoy with the shipped configuration: requests go through ext_proc as well, to be rewritten.
    Filters,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Bare, Self::Meter, Self::Filters];

    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare",
            Self::Meter => "meter",
            Self::Filters => "filters",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Direct => "no Envoy",
            Self::Bare => "Envoy without the filters",
            Self::Meter => "with ext_authz and the meter",
            Self::Filters => "with the request phase as well",
        }
    }
}

/// The requested answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An answer in one piece.
    Plain,
    /// A stream of 20 tokens, one per chunk, written as fast as they are read.
    Stream,
    /// The same with 2,000 tokens: 300 kB, all of which pass through the service.
    Long,
}

impl Kind {
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Stream => "stream",
            Self::Long => "long stream",
        }
    }
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many in flight at any time, each on a connection of its own.
    InFlight(usize),
    /// So many per second, evenly spaced.
    PerSecond(u32),
}

/// Connections at a steady rate; far more than needed.
const CONNECTIONS: usize = 16;

impl Pace {
    pub(crate) const fn connections(self) -> usize {
        match self {
            Self::InFlight(count) => count,
            Self::PerSecond(_) => CONNECTIONS,
        }
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InFlight(count) => write!(f, "{count}"),
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
        }
    }
}
