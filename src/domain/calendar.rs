//! Days, weeks and months in the organization's time zone.
