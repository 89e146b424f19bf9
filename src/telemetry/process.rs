//! What the system says about this process, under the names that every Prometheus client uses.

use std::{fs, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::Metric;

/// One of the values; `None`: the system does not say.
pub(super) fn value(metric: Metric) -> Option<f64> {
    match metric {
        Metric::ProcessCpu => Some(ticks(stat(13)? + stat(14)?).as_secs_f64()),
        Metric::ProcessThreads => stat(19).map(number),
        Metric::ProcessStart => Some(number(boot_time()?) + ticks(stat(21)?).as_secs_f64()),
        Metric::ProcessVirtual => stat(22).map(number),
        Metric::ProcessResident => Some(number(stat(23)?) * number(page_size() as u64)),
        Metric::ProcessOpenFiles => {
            // One of them is the directory that is being read.
            Some(number((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1)))
        }
        Metric::ProcessMaxFiles => getrlimit(Resource::Nofile).current.map(number),
        _ => None,
    }
}

/// The field of `/proc/self/stat` with this number, counted from 0 as in `proc(5)` less one.
fn stat(field: usize) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets, which may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(field.checked_sub(2)?)?.parse().ok()
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(1_000) / clock_ticks_per_second().max(1))
}

/// When the system started, in seconds since the epoch.
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Exact to 2^53, which no value here comes near.
#[expect(clippy::cast_precision_loss, reason = "such large values are not met")]
const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_process_is_measured() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let start = value(Metric::ProcessStart).unwrap();
        assert!(start <= now + 1.0 && start > now - 86_400.0, "{start} {now}");
        let resident = value(Metric::ProcessResident).unwrap();
        assert!((1e6..1e11).contains(&resident), "{resident}");
        assert!(value(Metric::ProcessVirtual).unwrap() >= resident);
        assert!(value(Metric::ProcessThreads).unwrap() >= 1.0);
        let before = value(Metric::ProcessOpenFiles).unwrap();
        let files: Vec<_> = (0..64).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(value(Metric::ProcessOpenFiles).unwrap() > before + 32.0);
        drop(files);
        assert!(value(Metric::ProcessCpu).unwrap() >= 0.0);
        assert_eq!(value(Metric::Decisions), None);
    }
}
