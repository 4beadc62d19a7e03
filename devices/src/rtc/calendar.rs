//! Seconds since 1970 to calendar dates and back, in the Gregorian calendar and UTC.

const DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const CYCLE_DAYS: i64 = 146_097;
/// Days from 1 March 0000 to 1 January 1970.
const EPOCH: i64 = 719_468;
/// Lengths of the months from March on: February, whose length varies, comes last and needs no rule.
const MONTHS: [i64; 12] = [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29];

/// A date and time. Fields may be out of range while a guest sets them one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    pub(super) year: i64,
    /// From 1.
    pub(super) month: i64,
    /// From 1.
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
}

impl Calendar {
    pub(super) fn from_seconds(seconds: i64) -> Calendar {
        let (days, time) = (seconds.div_euclid(DAY) + EPOCH, seconds.rem_euclid(DAY));
        let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
        // The last of four centuries, and the last of four years, is a day longer than the others.
        let century = (day / 36_524).min(3);
        let day = day - century * 36_524;
        let (four_years, day) = (day / 1_461, day % 1_461);
        let year_of_four = (day / 365).min(3);
        let mut day = day - year_of_four * 365;
        let mut month = 3;
        for length in MONTHS {
            if day < length {
                break;
            }
            day -= length;
            month += 1;
        }
        let march_year = cycle * 400 + century * 100 + four_years * 4 + year_of_four;
        let (year, month) = if month > 12 { (march_year + 1, month - 12) } else { (march_year, month) };
        Calendar { year, month, day: day + 1, hour: time / 3600, minute: time / 60 % 60, second: time % 60 }
    }

    /// Fields out of range carry over: 31 April is 1 May, month 13 the next January.
    pub(super) fn to_seconds(self) -> i64 {
        let months = self.year * 12 + self.month - 3;
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
        let before_year = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let before_month: i64 = MONTHS.iter().take(month as usize).sum();
        let days = before_year + before_month + self.day - 1 - EPOCH;
        days * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// 1 Sunday to 7 Saturday.
    pub(super) fn weekday(self) -> u8 {
        // 1 January 1970 was a Thursday.
        ((self.to_seconds().div_euclid(DAY) + 4).rem_euclid(7) + 1) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds and dates as `date -u -d @SECONDS` has them.
    #[test]
    fn known_dates() {
        for (seconds, (year, month, day), (hour, minute, second), weekday) in [
            (0, (1970, 1, 1), (0, 0, 0), 5),
            (-1, (1969, 12, 31), (23, 59, 59), 4),
            (951_782_399, (2000, 2, 28), (23, 59, 59), 2),
            (951_782_400, (2000, 2, 29), (0, 0, 0), 3),
            (951_868_800, (2000, 3, 1), (0, 0, 0), 4),
            (1_709_210_096, (2024, 2, 29), (12, 34, 56), 5),
            (2_147_483_647, (2038, 1, 19), (3, 14, 7), 3),
            (4_107_542_400, (2100, 3, 1), (0, 0, 0), 2),
            (253_402_300_799, (9999, 12, 31), (23, 59, 59), 6),
        ] {
            let calendar = Calendar { year, month, day, hour, minute, second };
            assert_eq!(Calendar::from_seconds(seconds), calendar);
            assert_eq!(calendar.to_seconds(), seconds, "{calendar:?}");
            assert_eq!(calendar.weekday(), weekday, "{calendar:?}");
        }
    }

    #[test]
    fn every_day_of_a_cycle_follows_the_one_before() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let start = Calendar { year: 1900, month: 1, day: 1, hour: 0, minute: 0, second: 0 };
        let mut expected = start;
        for number in 0..CYCLE_DAYS {
            let seconds = start.to_seconds() + number * DAY;
            assert_eq!(Calendar::from_seconds(seconds), expected);
            assert_eq!(expected.to_seconds(), seconds);
            let length = match expected.month {
                4 | 6 | 9 | 11 => 30,
                2 if leap(expected.year) => 29,
                2 => 28,
                _ => 31,
            };
            expected.day += 1;
            if expected.day > length {
                (expected.day, expected.month) = (1, expected.month + 1);
            }
            if expected.month > 12 {
                (expected.month, expected.year) = (1, expected.year + 1);
            }
        }
        assert_eq!((expected.year, expected.month, expected.day), (2300, 1, 1));
    }

    #[test]
    fn fields_out_of_range_carry_over() {
        let date = |year, month, day| Calendar { year, month, day, hour: 0, minute: 0, second: 0 };
        for (odd, plain) in [
            (date(2024, 4, 31), date(2024, 5, 1)),
            (date(2023, 2, 29), date(2023, 3, 1)),
            (date(2024, 13, 1), date(2025, 1, 1)),
            (date(2024, 0, 1), date(2023, 12, 1)),
            (date(2024, 1, 0), date(2023, 12, 31)),
            (
                Calendar { second: 61, ..date(2024, 1, 1) },
                Calendar { minute: 1, second: 1, ..date(2024, 1, 1) },
            ),
        ] {
            assert_eq!(Calendar::from_seconds(odd.to_seconds()), plain, "{odd:?}");
        }
    }
}
