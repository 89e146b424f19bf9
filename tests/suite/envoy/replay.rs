//! A day of the official SDKs, in thousands of mixed requests, held against the mock's own ledger.
