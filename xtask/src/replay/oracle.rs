//! What the numbers of a log must be, computed by brute force and by other means than everything it judges: its own
//! reader of lines, its own calendar, sets instead of SQL. It reads the healthy lines of a combined log and nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};

/// Hours from UTC of Asia/Shanghai, which has had no daylight saving since 1991.
const SHANGHAI_HOURS: i64 = 8;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Numbers by bucket: the bucket's start, milliseconds since the epoch; buckets with 0 are absent.
pub(crate) type Series = BTreeMap<i64, u64>;

/// One metric at three widths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) hours: Series,
    pub(crate) days: Series,
    pub(crate) total: u64,
}

/// Everything that is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oracle {
    pub(crate) lines: u64,
    pub(crate) views: u64,
    pub(crate) installs: u64,
    pub(crate) pv: Metric,
    pub(crate) uv: Metric,
    pub(crate) new_users: Metric,
    /// All events by hour and day: a request for every line and a view for some.
    pub(crate) events: Metric,
    /// First and last time, milliseconds since the epoch.
    pub(crate) span: (i64, i64),
}

struct Hit<'a> {
    ip: &'a str,
    time: i64,
    view: bool,
}

/// Computes everything for a log in the combined format, in Asia/Shanghai.
pub(crate) fn compute(log: &str) -> Oracle {
    let hits: Vec<Hit<'_>> = log.lines().filter_map(hit).collect();
    let views: Vec<&Hit<'_>> = hits.iter().filter(|hit| hit.view).collect();
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for hit in &hits {
        let time = first.entry(hit.ip).or_insert(hit.time);
        *time = hit.time.min(*time);
    }
    let everything: Vec<&Hit<'_>> = hits.iter().chain(views.iter().copied()).collect();
    let distinct = |width: i64| {
        let mut seen: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
        for hit in &views {
            seen.entry(start(hit.time, width)).or_default().insert(hit.ip);
        }
        seen.into_iter().map(|(bucket, ips)| (bucket, ips.len() as u64)).collect::<Series>()
    };
    Oracle {
        lines: hits.len() as u64,
        views: views.len() as u64,
        installs: first.len() as u64,
        pv: count(views.iter().map(|hit| hit.time)),
        uv: Metric {
            hours: distinct(HOUR_MS),
            days: distinct(DAY_MS),
            total: views.iter().map(|hit| hit.ip).collect::<BTreeSet<_>>().len() as u64,
        },
        new_users: count(first.values().copied()),
        events: count(everything.iter().map(|hit| hit.time)),
        span: (
            hits.iter().map(|hit| hit.time).min().unwrap_or_default(),
            hits.iter().map(|hit| hit.time).max().unwrap_or_default(),
        ),
    }
}

fn count(times: impl Iterator<Item = i64>) -> Metric {
    let mut metric = Metric::default();
    for time in times {
        *metric.hours.entry(start(time, HOUR_MS)).or_default() += 1;
        *metric.days.entry(start(time, DAY_MS)).or_default() += 1;
        metric.total += 1;
    }
    metric
}

/// The start of the local hour or day that contains `time`.
pub(crate) fn start(time: i64, width: i64) -> i64 {
    let local = time + SHANGHAI_HOURS * HOUR_MS;
    local - local.rem_euclid(width) - SHANGHAI_HOURS * HOUR_MS
}

/// The local date of a time, for a table.
pub(crate) fn date(time: i64) -> String {
    let (year, month, day) = civil((time + SHANGHAI_HOURS * HOUR_MS).div_euclid(DAY_MS));
    format!("{year:04}-{month:02}-{day:02}")
}

/// The start of the local day after the one that contains `time`.
pub(crate) fn next_day(time: i64) -> i64 {
    start(time, DAY_MS) + DAY_MS
}

/// All starts of local hours or days from the day of `span.0` to the day of `span.1`.
pub(crate) fn buckets(span: (i64, i64), days: bool) -> Vec<i64> {
    let width = if days { DAY_MS } else { HOUR_MS };
    let (from, to) = (start(span.0, DAY_MS), next_day(span.1));
    (0..(to - from) / width).map(|number| from + number * width).collect()
}

/// A line, cut at its quotes: `IP - - [TIME] `, request, ` STATUS BYTES `, referrer, ..
fn hit(line: &str) -> Option<Hit<'_>> {
    let pieces: Vec<&str> = line.split('"').collect();
    let [head, request, numbers, ..] = pieces[..] else { return None };
    let ip = head.split(' ').next()?;
    let time = head.split('[').nth(1)?.split(']').next()?;
    let status = numbers.split_whitespace().next()?;
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?.to_lowercase();
    let endings = "css js png jpg jpeg gif ico svg woff ttf txt xml pdf zip gz tar rpm exe mp4 iso patch diff jar sh";
    let file = endings.split(' ').any(|ending| path.ends_with(&format!(".{ending}")));
    let view = method == "GET" && (status == "200" || status == "304") && !file;
    Some(Hit { ip, time: millis(time)?, view })
}

/// `17/May/2015:10:05:03 +0000` in milliseconds since the epoch.
fn millis(text: &str) -> Option<i64> {
    let fields: Vec<&str> = text.split(['/', ':', ' ']).collect();
    let [day, month, year, hour, minute, second, zone] = fields[..] else { return None };
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(month)? as i64 / 3 + 1;
    let number = |text: &str| text.parse::<i64>().ok();
    let zone = number(zone)?;
    let zone_seconds = (zone / 100 * 60 + zone % 100) * 60;
    let seconds = number(hour)? * 3600 + number(minute)? * 60 + number(second)? - zone_seconds;
    Some((days(number(year)?, month, number(day)?) * 86_400 + seconds) * 1000)
}

/// Days since the epoch of a date: the years, their leap days, the months, the day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    years + lengths[..month as usize - 1].iter().sum::<i64>() + day - 1
}

/// The reverse of [`days`], by trying.
fn civil(number: i64) -> (i64, i64, i64) {
    let year = (1970..).take_while(|year| days(*year, 1, 1) <= number).last().unwrap_or(1970);
    let month = (1..=12).take_while(|month| days(year, *month, 1) <= number).last().unwrap_or(1);
    (year, month, number - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures that came with the data.
    #[test]
    fn it_knows_the_published_figures_of_the_example_log() {
        let path = crate::tools::root().join("examples/data/access.log");
        let oracle = compute(&std::fs::read_to_string(path).unwrap());
        assert_eq!((oracle.lines, oracle.views, oracle.installs), (4525, 1988, 890));
        let by_date = |series: &Series| series.iter().map(|(day, count)| (date(*day), *count)).collect::<Vec<_>>();
        let expected = |counts: [u64; 3]| {
            ["2015-05-17", "2015-05-18", "2015-05-19"].map(str::to_owned).into_iter().zip(counts).collect::<Vec<_>>()
        };
        assert_eq!(by_date(&oracle.pv.days), expected([306, 1297, 385]));
        assert_eq!(by_date(&oracle.uv.days), expected([101, 421, 152]));
        assert_eq!(oracle.uv.total, 600);
        assert_eq!(oracle.new_users.total, 890);
        assert_eq!(oracle.events.total, 4525 + 1988);
    }

    #[test]
    fn its_calendar_is_right() {
        // date -ud @1431857103; date -ud @951782400
        assert_eq!(millis("17/May/2015:10:05:03 +0000"), Some(1_431_857_103_000));
        assert_eq!(millis("17/May/2015:06:35:03 -0330"), Some(1_431_857_103_000));
        assert_eq!(days(2000, 2, 29), 951_782_400 / 86_400);
        assert_eq!(civil(951_782_400 / 86_400), (2000, 2, 29));
        assert_eq!(date(1_431_878_400_000), "2015-05-18", "midnight in Shanghai is 16:00 UTC");
        assert_eq!(date(1_431_878_399_999), "2015-05-17");
    }
}
