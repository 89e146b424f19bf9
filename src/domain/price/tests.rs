//! Prices against an oracle.
