//! How long to leave a server alone.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracetune_engine::stage::StageError;

/// The longest pause that a server's word is taken for.
const LONGEST: Duration = Duration::from_secs(120);

/// No request starts before a moment that all threads share: one that is told to wait makes the others wait.
pub(super) struct Pace {
    not_before: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { not_before: Mutex::new(Instant::now()) }
    }

    /// Lets no request start for so long.
    pub(super) fn hold(&self, pause: Duration) {
        let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        *not_before = (*not_before).max(Instant::now() + pause.min(LONGEST));
    }

    /// Waits until a request may start.
    ///
    /// # Errors
    /// The run was interrupted.
    pub(super) fn wait(&self, cancelled: &dyn Fn() -> bool) -> Result<(), StageError> {
        loop {
            if cancelled() {
                return Err(StageError::Cancelled);
            }
            let left = self.not_before.lock().unwrap_or_else(PoisonError::into_inner).duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// The pause before a try, if the server names none: 0.5, 1, 2, … seconds.
pub(super) fn back_off(tries: u32) -> Duration {
    Duration::from_millis(500) * 2u32.saturating_pow(tries.saturating_sub(1))
}

/// The pause that an answer's headers ask for: `retry-after-ms`, `retry-after` in seconds, or the reset of a limit of
/// which nothing is left (`x-ratelimit-remaining-*: 0` and `x-ratelimit-reset-*: 6m0s`).
pub(super) fn asked<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let milliseconds = header("retry-after-ms").and_then(|text| duration(&format!("{text}ms")));
    let after = || header("retry-after").and_then(duration);
    let resets = || {
        let spent = |what: &str| {
            let left = header(&format!("x-ratelimit-remaining-{what}"))?;
            (left.trim() == "0").then(|| header(&format!("x-ratelimit-reset-{what}")).and_then(duration))?
        };
        ["requests", "tokens"].into_iter().filter_map(spent).max()
    };
    milliseconds.or_else(after).or_else(resets)
}

/// `1.5`, `20ms`, `6m0s`: a number without a unit is seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        seconds += number
            * match &rest[digits..unit] {
                "" | "s" => 1.0,
                "ms" => 1e-3,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_how_long_to_wait() {
        let asked_by = |headers: &[(&str, &'static str)]| {
            asked(|name| headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value))
        };
        assert_eq!(asked_by(&[]), None);
        assert_eq!(asked_by(&[("retry-after", "2")]), Some(Duration::from_secs(2)));
        assert_eq!(asked_by(&[("retry-after-ms", "150"), ("retry-after", "9")]), Some(Duration::from_millis(150)));
        let spent = [("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0.5s")];
        assert_eq!(asked_by(&spent), Some(Duration::from_millis(360_500)));
        assert_eq!(asked_by(&[("x-ratelimit-remaining-tokens", "7"), ("x-ratelimit-reset-tokens", "1s")]), None);
        assert_eq!(asked_by(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), None);
    }
}
