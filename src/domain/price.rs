//! Prices with their dates and sources, and the exact cost of what was used.
