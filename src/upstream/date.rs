//! What time it is at a push service, as its answers say it: once in a while is enough.

use std::cell::Cell;
use std::rc::Rc;

use http::HeaderMap;

use super::{Report, Reporter, Requester};
use crate::limits::DATE_INTERVAL_S;
use crate::proto::Input;
use crate::time::UnixTime;
use crate::transport::certificate::Validity;
use crate::transport::clock::WallClock;
use crate::webpush::headers;

/// What is known of time on one connection.
#[derive(Debug, Default)]
pub(super) struct Dates {
    /// Until when the certificate of the service is valid; without it nothing that it says is believed.
    not_after: Option<UnixTime>,
    /// The last one that was reported.
    last: Cell<UnixTime>,
}

impl Dates {
    /// On a connection whose certificate is valid so long.
    pub(super) fn of(validity: Option<Validity>) -> Self {
        Self { not_after: validity.map(|validity| validity.not_after), last: Cell::default() }
    }

    /// The date of an answer, unless it is hardly another one than the last.
    fn news(&self, headers: &HeaderMap) -> Option<UnixTime> {
        let date = headers::date(headers)?;
        let is_news = date.0.abs_diff(self.last.get().0) >= DATE_INTERVAL_S;
        is_news.then(|| self.last.set(date)).map(|()| date)
    }
}

/// Reports that the service was verified, by which a clock that is right becomes known.
pub(super) async fn verified(reporter: Reporter, dates: Rc<Dates>, clock: WallClock) {
    report(&reporter, &dates, None, &clock).await;
}

impl Requester {
    /// Reports what an answer says of time.
    pub(super) async fn read_date(&self, headers: &HeaderMap) {
        if let Some(date) = self.dates.news(headers) {
            report(&self.reporter, &self.dates, Some(date), &self.clock).await;
        }
    }
}

async fn report(reporter: &Reporter, dates: &Dates, date: Option<UnixTime>, clock: &WallClock) {
    if let Some(not_after) = dates.not_after {
        let (connection, clock) = (reporter.connection, clock.reading());
        reporter.report(Report::Input(Input::Dated { connection, date, not_after, clock })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_reported_once_in_a_while() {
        let dates = Dates::of(None);
        let news = |seconds| {
            let date = headers::http_date(UnixTime(seconds)).parse().expect("a field value");
            dates.news(&HeaderMap::from_iter([(http::header::DATE, date)])).is_some()
        };
        let times = [1_800_000_000, 1_800_000_001, 1_800_000_059, 1_800_000_060, 1_800_000_061, 1_700_000_000];
        assert_eq!(times.map(news), [true, false, false, true, false, true]);
        assert_eq!(dates.news(&HeaderMap::new()), None);
    }
}
