//! How often trapped pages of BARs are accessed, and how long answering takes. Each vCPU keeps its own, so that nothing is
//! locked or shared; without `--stats` there are none, and an access costs one branch more.

use std::collections::HashMap;
use std::time::Duration;

use crate::bus::Count;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Pages that a vCPU keeps apart. A guest can have gigabytes of trapped BARs; what it accesses in more pages than these
/// is counted together, by part of BAR.
const MOST_PAGES: usize = 1024;

/// A page of a trapped part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Page {
    /// The part, as [`crate::bus::Bus::regions`] lists them.
    pub region: usize,
    /// Which of its pages, from 0; nothing for all those that are not kept apart.
    pub number: Option<u64>,
}

/// What a vCPU accessed, by page.
#[derive(Clone, Debug, Default)]
pub struct PageTimes {
    pages: Vec<(Page, Times)>,
    index: HashMap<Page, usize>,
    /// Index of the page accessed last.
    last: usize,
}

impl PageTimes {
    /// An access at byte `offset` of a part was answered in this time.
    pub fn add(&mut self, region: usize, offset: u64, is_read: bool, took: Duration) {
        let page = Page { region, number: Some(offset / PAGE) };
        if self.pages.get(self.last).is_none_or(|(last, _)| *last != page) {
            self.last = self.find(page);
        }
        if let Some((_, times)) = self.pages.get_mut(self.last) {
            times.add(is_read, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn find(&mut self, page: Page) -> usize {
        if let Some(index) = self.index.get(&page) {
            return *index;
        }
        let page = if self.pages.len() < MOST_PAGES { page } else { Page { number: None, ..page } };
        let next = self.pages.len();
        let index = *self.index.entry(page).or_insert(next);
        if index == next {
            self.pages.push((page, Times::default()));
        }
        index
    }

    /// Adds another vCPU's.
    pub fn merge(&mut self, other: &PageTimes) {
        for (page, times) in &other.pages {
            let index = self.find(*page);
            if let Some((_, own)) = self.pages.get_mut(index) {
                own.merge(times);
            }
        }
    }

    /// The pages of a part that were accessed, by number; those not kept apart come last.
    pub fn of_region(&self, region: usize) -> Vec<(Page, &Times)> {
        let own = self.pages.iter().filter(|(page, _)| page.region == region);
        let mut pages: Vec<(Page, &Times)> = own.map(|(page, times)| (*page, times)).collect();
        pages.sort_by_key(|(page, _)| (page.number.is_none(), page.number));
        pages
    }
}

/// Accesses and their times, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Times {
    count: Count,
    sum: u64,
    least: u64,
    most: u64,
    buckets: [u32; BUCKETS],
}

/// Each power of two is divided into four, so that a quantile is at most a quarter too high.
const PARTS: u32 = 4;
const PART_BITS: u32 = PARTS.ilog2();
/// Up to 2^38 ns, which is more than four minutes.
const BUCKETS: usize = 148;

impl Default for Times {
    fn default() -> Times {
        Times { count: Count::default(), sum: 0, least: u64::MAX, most: 0, buckets: [0; BUCKETS] }
    }
}

impl Times {
    fn add(&mut self, is_read: bool, ns: u64) {
        self.count.add(is_read);
        self.sum = self.sum.saturating_add(ns);
        self.least = self.least.min(ns);
        self.most = self.most.max(ns);
        if let Some(bucket) = self.buckets.get_mut(bucket(ns)) {
            *bucket = bucket.saturating_add(1);
        }
    }

    fn merge(&mut self, other: &Times) {
        self.count.merge(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        for (to, from) in self.buckets.iter_mut().zip(other.buckets) {
            *to = to.saturating_add(from);
        }
    }

    /// Reads and writes.
    pub fn count(&self) -> Count {
        self.count
    }

    /// All times together.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The shortest; 0 when there was no access.
    pub fn least(&self) -> u64 {
        if self.count == Count::default() { 0 } else { self.least }
    }

    /// The longest.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The time within which so many of a hundred accesses were answered, at most a quarter too high.
    pub fn percentile(&self, percent: u64) -> u64 {
        let all: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        let wanted = (all * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return largest(index).clamp(self.least(), self.most);
            }
        }
        self.most
    }
}

fn bucket(ns: u64) -> usize {
    let Some(power) = ns.checked_ilog2().filter(|power| *power >= PART_BITS) else { return ns as usize };
    let part = ns >> (power - PART_BITS) & u64::from(PARTS - 1);
    let index = u64::from((power - PART_BITS + 1) * PARTS) + part;
    (index as usize).min(BUCKETS - 1)
}

/// The largest time that a bucket counts.
fn largest(bucket: usize) -> u64 {
    let (row, part) = (bucket as u32 / PARTS, bucket as u64 % u64::from(PARTS));
    match row {
        0 => part,
        row => ((u64::from(PARTS) + part + 1) << (row - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(times: &mut PageTimes, region: usize, offset: u64, ns: u64) {
        times.add(region, offset, true, Duration::from_nanos(ns));
    }

    #[test]
    fn buckets_follow_on_one_another_and_hold_what_falls_into_them() {
        for index in 0..BUCKETS - 1 {
            let most = largest(index);
            assert_eq!((bucket(most), bucket(most + 1)), (index, index + 1), "{most}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for ns in [5, 99, 1000, 123_456, 1 << 37] {
            let most = largest(bucket(ns));
            assert!(ns <= most && most <= ns + ns / 4, "{ns} {most}");
        }
    }

    #[test]
    fn percentiles_lie_between_the_shortest_and_the_longest() {
        let mut times = Times::default();
        assert_eq!((times.percentile(50), times.least(), times.most()), (0, 0, 0));
        (0..98).for_each(|_| times.add(true, 1000));
        times.add(false, 100);
        times.add(false, 1_000_000);
        assert_eq!((times.count(), times.sum()), (Count { reads: 98, writes: 2 }, 1_098_100));
        assert_eq!((times.least(), times.most()), (100, 1_000_000));
        let half = times.percentile(50);
        assert!((1000..=1250).contains(&half), "{half}");
        assert_eq!(times.percentile(99), half);
        assert_eq!(times.percentile(100), 1_000_000);
    }

    #[test]
    fn pages_are_kept_apart_and_added_up_over_vcpus() {
        let (mut first, mut second) = (PageTimes::default(), PageTimes::default());
        add(&mut first, 3, 0x10, 10);
        add(&mut first, 3, 0x2000, 20);
        add(&mut first, 3, 0x18, 30);
        add(&mut second, 3, 0x2fff, 40);
        add(&mut second, 4, 0, 50);
        first.merge(&second);
        let told = |region| -> Vec<(Option<u64>, u64, u64)> {
            let pages = first.of_region(region);
            pages.iter().map(|(page, times)| (page.number, times.count().reads, times.sum())).collect()
        };
        assert_eq!(told(3), [(Some(0), 2, 40), (Some(2), 2, 60)]);
        assert_eq!(told(4), [(Some(0), 1, 50)]);
    }

    #[test]
    fn a_guest_that_accesses_any_number_of_pages_fills_a_bounded_number() {
        let mut times = PageTimes::default();
        for page in 0..10 * MOST_PAGES as u64 {
            add(&mut times, 0, page * PAGE, 1);
            add(&mut times, 1, page * PAGE, 1);
        }
        let (first, second) = (times.of_region(0), times.of_region(1));
        assert!(first.len() + second.len() <= MOST_PAGES + 2);
        for pages in [first, second] {
            assert_eq!(pages.iter().map(|(_, t)| t.count().reads).sum::<u64>(), 10 * MOST_PAGES as u64);
            assert_eq!(pages.last().unwrap().0.number, None);
        }
    }
}
