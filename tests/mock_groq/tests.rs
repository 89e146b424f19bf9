//! The mock itself, over real HTTP.
