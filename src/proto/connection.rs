//! The connection to a push service: made, tested, replaced, let go.
//!
//! ```text
//! Down(until) --Connect--> Connecting --ready--> Up ---closed, or silent---> Down
//!                                                 |
//!                          going away, old, worn: | replace
//!                                                 v
//!                         Up and Connecting --ready--> Up (new) and Draining (old) --drained, or late--> Up
//! ```
//!
//! A replacement comes before what it replaces goes: requests stay on the old connection until the new one is ready. What
//! the old one has promised is still taken in, while acknowledgements go on the new one.
//!
//! Source: RFC 8030 §7.1 (graceful movement); RFC 9113 §5.1.1, §6.7, §6.8, §9.1.

use super::backoff::{Backoff, Decorrelated};
use super::keep_alive::KeepAlives;
use crate::limits::{
    BACKOFF_MS_FIRST_MAX, BACKOFF_MS_MAX, BACKOFF_MS_MIN, CONNECTION_AGE_S_MAX, CONNECTION_REFUSALS_MAX,
    CONNECTION_STREAMS_MAX, DRAIN_MS_MAX, DRAIN_MS_MIN, KEEP_ALIVE_WAIT_MS_MAX, MOVE_PAUSE_MS_MAX, MOVE_PAUSE_MS_MIN,
    PATH_WAKE_MS_MIN, REPLACE_PAUSE_MS, STABLE_MS,
};
use crate::random::{Random, between_ms};
use crate::time::{Duration, Instant};
use crate::webpush::alt_svc::Alternative;

/// Number of a connection or an attempt at one, never used twice in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The network does not carry it, or the service is not there.
    Network,
    /// The name of the service does not exist.
    Name,
    /// The certificate of the service is not to be trusted.
    Certificate,
    /// What answers does not speak HTTP/2 as it should.
    Protocol,
    /// The service ended the connection.
    Ended,
    /// The service no longer answered.
    Silent,
    /// The service does not let us in.
    Authorisation,
    /// What answers does not serve the origin (421).
    Misdirected,
}

/// What a connection was when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// An attempt.
    Attempt,
    /// The one that requests go on.
    Current,
    /// One that had been replaced.
    Old,
}

/// The connection to one push service.
#[derive(Debug)]
pub struct Uplink {
    current: Option<Connection>,
    old: Option<Old>,
    attempt: Attempt,
    /// A connection that is dead or no longer of use, and whose shell is to be told.
    dead: Option<ConnectionId>,
    backoff: Decorrelated,
    keep_alive: KeepAlives,
    trouble: Option<Trouble>,
    replaced_at: Option<Instant>,
    is_replacement_wanted: bool,
    /// Pauses between moves from one place to another.
    moves: Backoff,
    move_not_before: Instant,
    woken_at: Option<Instant>,
    /// Streams after which a connection is replaced.
    streams_max: u32,
}

#[derive(Debug)]
enum Attempt {
    None,
    Due { at: Instant },
    Connecting { id: ConnectionId, place: Option<Alternative> },
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    /// The alternative that it is at; none: the origin.
    place: Option<Alternative>,
    since: Instant,
    /// When it is old.
    renew_at: Instant,
    requests_max: usize,
    /// The service takes no more requests on it.
    is_going: bool,
    heard: Instant,
    pinged: Option<Instant>,
    /// To be tested although it is not silent for long.
    is_suspect: bool,
    streams: u32,
    refusals: u32,
}

#[derive(Debug)]
struct Old {
    id: ConnectionId,
    place: Option<Alternative>,
    since: Instant,
    is_closing: bool,
}

impl Trouble {
    /// Whether waiting will not mend it.
    pub fn needs_person(self) -> bool {
        matches!(self, Self::Name | Self::Certificate | Self::Authorisation)
    }
}

impl Uplink {
    /// Down, and to be tried at once.
    pub fn new(now: Instant, port: u16) -> Self {
        Self {
            current: None,
            old: None,
            attempt: Attempt::Due { at: now },
            dead: None,
            backoff: Decorrelated::new(BACKOFF_MS_MIN, BACKOFF_MS_FIRST_MAX, BACKOFF_MS_MAX),
            keep_alive: KeepAlives::for_port(port),
            trouble: None,
            replaced_at: None,
            is_replacement_wanted: false,
            moves: Backoff::new(MOVE_PAUSE_MS_MIN, MOVE_PAUSE_MS_MAX),
            move_not_before: now,
            woken_at: None,
            streams_max: CONNECTION_STREAMS_MAX,
        }
    }

    /// The connection that requests go on, if there is one that takes them.
    pub fn requests_on(&self) -> Option<ConnectionId> {
        self.current.as_ref().filter(|current| !current.is_going).map(|current| current.id)
    }

    /// Requests that the service allows at once.
    pub fn requests_max(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.requests_max)
    }

    /// The service allows another number of requests at once (RFC 9113 §6.5.2: at any time).
    pub fn set_requests_max(&mut self, id: ConnectionId, requests_max: usize) {
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.requests_max = requests_max;
        }
    }

    /// Whether messages can come.
    pub fn is_up(&self) -> bool {
        self.current.is_some()
    }

    /// Whether an attempt is under way.
    pub fn is_connecting(&self) -> bool {
        matches!(self.attempt, Attempt::Connecting { .. })
    }

    /// All connections, and an attempt at one.
    pub fn all(&self) -> impl Iterator<Item = ConnectionId> {
        let attempt = if let Attempt::Connecting { id, .. } = self.attempt { Some(id) } else { None };
        [self.current.as_ref().map(|current| current.id), self.old(), attempt].into_iter().flatten()
    }

    /// Whether a connection that was replaced is still read.
    pub fn old(&self) -> Option<ConnectionId> {
        self.old.as_ref().map(|old| old.id)
    }

    /// Whether a report of this connection is of interest.
    pub fn knows(&self, id: ConnectionId) -> bool {
        let attempt = matches!(self.attempt, Attempt::Connecting { id: attempt, .. } if attempt == id);
        attempt || self.current.as_ref().is_some_and(|current| current.id == id) || self.old() == Some(id)
    }

    /// The alternative that a connection is at, or an attempt at one; none: the origin.
    pub fn place(&self, id: ConnectionId) -> Option<&Alternative> {
        let current = self.current.as_ref().filter(|current| current.id == id);
        let old = self.old.as_ref().filter(|old| old.id == id);
        match &self.attempt {
            Attempt::Connecting { id: attempt, place } if *attempt == id => place.as_ref(),
            _ => current.and_then(|current| current.place.as_ref()).or(old.and_then(|old| old.place.as_ref())),
        }
    }

    /// The alternative that requests go to, if they do not go to the origin.
    pub fn current_place(&self) -> Option<&Alternative> {
        self.current.as_ref()?.place.as_ref()
    }

    /// Whether a connection has not lasted long enough to be good, or is an attempt at one.
    pub fn is_young(&self, id: ConnectionId, now: Instant) -> bool {
        let current = self.current.as_ref().filter(|current| current.id == id);
        let is_good = current.is_some_and(|current| now.since(current.since) >= Duration::from_millis(STABLE_MS));
        !is_good && self.old() != Some(id)
    }

    /// From when on the connection may move to another place, and where it is: not while it is replaced anyway.
    pub fn movable(&self) -> Option<(Instant, Option<&Alternative>)> {
        let current = self.current.as_ref().filter(|_| matches!(self.attempt, Attempt::None) && self.old.is_none())?;
        Some((self.move_not_before, current.place.as_ref()))
    }

    /// Why there is no connection, or was none a moment ago.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// The service does not let us in, or does again.
    pub fn set_authorised(&mut self, is_authorised: bool) {
        match (is_authorised, self.trouble) {
            (false, _) => self.trouble = Some(Trouble::Authorisation),
            (true, Some(Trouble::Authorisation)) => self.trouble = None,
            (true, _) => {}
        }
    }

    /// How long a connection may be silent before it is tested.
    pub fn keep_alive_interval(&self) -> Duration {
        self.keep_alive.current().interval()
    }

    /// When the next attempt is due.
    pub fn connect_at(&self) -> Option<Instant> {
        match self.attempt {
            Attempt::Due { at } => Some(at),
            Attempt::None | Attempt::Connecting { .. } => None,
        }
    }

    /// An attempt begins, at an alternative or at the origin.
    pub fn connecting(&mut self, id: ConnectionId, place: Option<Alternative>) {
        self.attempt = Attempt::Connecting { id, place };
    }

    /// The attempt has succeeded. What was there before becomes old; the caller has let go of one that was old already.
    pub fn ready(&mut self, id: ConnectionId, requests_max: usize, now: Instant, random: &mut dyn Random) {
        self.is_replacement_wanted = false;
        let place = match std::mem::replace(&mut self.attempt, Attempt::None) {
            Attempt::Connecting { place, .. } => place,
            Attempt::None | Attempt::Due { .. } => None,
        };
        self.keep_alive.go_to(place.as_ref().map(|place| place.port));
        if self.trouble != Some(Trouble::Authorisation) {
            self.trouble = None;
        }
        let before = self.current.replace(Connection {
            id,
            place,
            since: now,
            renew_at: now + renew_age(random),
            requests_max,
            is_going: false,
            heard: now,
            pinged: None,
            is_suspect: false,
            streams: 0,
            refusals: 0,
        });
        if let Some(before) = before {
            self.replaced_at = Some(now);
            if self.current_place() != before.place.as_ref() {
                self.moved(before.since, now, random);
            }
            self.old = Some(Old { id: before.id, place: before.place, since: now, is_closing: false });
        }
    }

    /// The connection is at another place than the one before it, which was there since `since`.
    fn moved(&mut self, since: Instant, now: Instant, random: &mut dyn Random) {
        if now.since(since) >= Duration::from_millis(MOVE_PAUSE_MS_MAX) {
            self.moves.reset();
        }
        self.move_not_before = now + self.moves.fail(None, random);
    }

    /// Lets go of a connection that was replaced, since the next one is about to be: gives it.
    pub fn drop_old(&mut self) -> Option<ConnectionId> {
        let old = self.old.take()?;
        self.dead = Some(old.id);
        Some(old.id)
    }

    /// A connection, or an attempt at one, has ended. One that was good for a while is tried again soon.
    pub fn closed(&mut self, id: ConnectionId, trouble: Trouble, now: Instant, random: &mut dyn Random) -> Was {
        if self.old() == Some(id) {
            self.old = None;
            return Was::Old;
        }
        if matches!(self.attempt, Attempt::Connecting { .. }) && self.current.as_ref().is_none_or(|it| it.id != id) {
            self.attempt_failed(trouble, now, random);
            return Was::Attempt;
        }
        if let Some(current) = self.current.take() {
            self.trouble = Some(trouble);
            if now.since(current.since) >= Duration::from_millis(STABLE_MS) {
                self.backoff.reset();
            }
        }
        // An attempt to replace it goes on.
        if matches!(self.attempt, Attempt::None) {
            self.attempt = Attempt::Due { at: now + self.backoff.fail(random) };
        }
        Was::Current
    }

    /// After an alternative another one or the origin is tried at once, unless there is a connection that does.
    fn attempt_failed(&mut self, trouble: Trouble, now: Instant, random: &mut dyn Random) {
        if matches!(self.attempt, Attempt::Connecting { place: Some(_), .. }) {
            let is_needed = self.current.as_ref().is_none_or(|current| current.is_going);
            self.attempt = if is_needed { Attempt::Due { at: now } } else { Attempt::None };
        } else {
            self.trouble = Some(trouble);
            self.attempt = Attempt::Due { at: now + self.backoff.fail(random) };
        }
    }

    /// No more requests go on a connection: it is replaced now.
    pub fn leave(&mut self, id: ConnectionId, now: Instant) {
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.is_going = true;
            if !matches!(self.attempt, Attempt::Connecting { .. }) {
                self.attempt = Attempt::Due { at: now };
            }
        }
    }

    /// The service will take no more requests on a connection: it is replaced at once, or with growing pauses if the
    /// service lets one after another go.
    pub fn going_away(&mut self, id: ConnectionId, now: Instant, random: &mut dyn Random) {
        let Some(current) = self.current.as_mut().filter(|current| current.id == id && !current.is_going) else {
            return;
        };
        current.is_going = true;
        let was_good = now.since(current.since) >= Duration::from_millis(STABLE_MS);
        if matches!(self.attempt, Attempt::None) {
            let pause = if was_good { Duration::ZERO } else { self.backoff.fail(random) };
            self.attempt = Attempt::Due { at: now + pause };
        }
        if was_good {
            self.backoff.reset();
        }
    }

    /// Wants the connection replaced, which happens not too often.
    pub fn replace(&mut self, now: Instant) {
        self.is_replacement_wanted = self.current.is_some() && matches!(self.attempt, Attempt::None);
        if self.is_replacement_wanted && self.replaceable_at() <= now && self.old.is_none() {
            self.is_replacement_wanted = false;
            self.attempt = Attempt::Due { at: now };
        }
    }

    fn replaceable_at(&self) -> Instant {
        self.replaced_at.map_or(Instant::ZERO, |at| at + Duration::from_millis(REPLACE_PAUSE_MS))
    }

    /// The network has changed: what waits is tried now, what is there is tested.
    pub fn path_changed(&mut self, now: Instant, random: &mut dyn Random) {
        let pause = Duration::from_millis(PATH_WAKE_MS_MIN);
        if self.woken_at.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        self.woken_at = Some(now);
        if let Attempt::Due { at } = &mut self.attempt {
            self.backoff.reset();
            // Gateways that lost the same network do not come back in step.
            *at = (*at).min(now + Duration::from_millis(between_ms(random, 0, BACKOFF_MS_MIN)));
        }
        self.suspect();
    }

    /// Something of the service came on a connection.
    pub fn heard(&mut self, id: ConnectionId, now: Instant) {
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.heard = now;
            (current.pinged, current.is_suspect) = (None, false);
        }
    }

    /// The answer to a test came.
    pub fn answered(&mut self, id: ConnectionId, now: Instant) {
        let interval = self.keep_alive.current().interval();
        let Some(current) = self.current.as_ref().filter(|current| current.id == id) else { return };
        if current.pinged.is_some_and(|pinged| pinged.since(current.heard) >= interval) {
            self.keep_alive.current_mut().proved(now);
        }
        self.heard(id, now);
    }

    /// An answer did not come that should have: the connection is tested.
    pub fn suspect(&mut self) {
        if let Some(current) = &mut self.current {
            current.is_suspect = true;
        }
    }

    /// A stream was used: a request, or a promise.
    pub fn used(&mut self, id: ConnectionId) {
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.streams = current.streams.saturating_add(1);
        }
    }

    /// A promise was refused. After many of them the connection is replaced, and nothing else need happen for that.
    pub fn refused(&mut self, id: ConnectionId, now: Instant) {
        let Some(current) = self.current.as_mut().filter(|current| current.id == id) else { return };
        current.refusals = current.refusals.saturating_add(1);
        if current.refusals >= CONNECTION_REFUSALS_MAX {
            self.replace(now);
        }
    }

    /// Replaces connections after so many streams.
    #[cfg(test)]
    pub fn limit_streams(&mut self, streams_max: u32) {
        self.streams_max = streams_max;
    }

    /// Lets time pass; gives a connection that is dead.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<ConnectionId> {
        let current = self.current.as_ref()?;
        let is_worn = current.streams >= self.streams_max || current.refusals >= CONNECTION_REFUSALS_MAX;
        if self.is_replacement_wanted || is_worn || current.renew_at <= now {
            self.replace(now);
        }
        let current = self.current.as_ref()?;
        let pinged = current.pinged.filter(|pinged| now.since(*pinged) >= ping_wait())?;
        let id = current.id;
        if pinged.since(current.heard) >= self.keep_alive.current().interval() {
            self.keep_alive.current_mut().disproved(now);
        }
        self.dead = Some(id);
        Some(id)
    }

    /// A connection that was found dead, for the shell to drop.
    pub fn take_dead(&mut self) -> Option<ConnectionId> {
        self.dead.take()
    }

    /// The connection to test now.
    pub fn ping_next(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.ping_at()? > now {
            return None;
        }
        let current = self.current.as_mut()?;
        (current.pinged, current.is_suspect) = (Some(now), false);
        Some(current.id)
    }

    fn ping_at(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|current| current.pinged.is_none())?;
        Some(if current.is_suspect { current.heard } else { current.heard + self.keep_alive.current().interval() })
    }

    /// Since when a connection has been ready.
    pub fn since(&self, connection: ConnectionId) -> Option<Instant> {
        self.current.as_ref().filter(|current| current.id == connection).map(|current| current.since)
    }

    /// The old connection, once it is to be closed: nothing more comes on it, or that takes too long.
    pub fn close_next(&mut self, is_drained: bool, now: Instant) -> Option<ConnectionId> {
        let old = self.old.as_mut().filter(|old| !old.is_closing)?;
        let (min, max) = (Duration::from_millis(DRAIN_MS_MIN), Duration::from_millis(DRAIN_MS_MAX));
        let age = now.since(old.since);
        if age < min || (!is_drained && age < max) {
            return None;
        }
        old.is_closing = true;
        Some(old.id)
    }

    /// When something is due by itself.
    pub fn due(&self) -> impl Iterator<Item = Instant> {
        let current = self.current.as_ref();
        let dead = current.and_then(|current| current.pinged).map(|pinged| pinged + ping_wait());
        let replaceable = matches!(self.attempt, Attempt::None) && self.old.is_none();
        let age = current.filter(|_| replaceable).map(|it| it.renew_at);
        let wanted = (self.is_replacement_wanted && replaceable).then(|| self.replaceable_at());
        let old = self.old.as_ref().filter(|old| !old.is_closing);
        let drain = [DRAIN_MS_MIN, DRAIN_MS_MAX].map(|ms| old.map(|old| old.since + Duration::from_millis(ms)));
        [dead, self.ping_at(), age, wanted].into_iter().chain(drain).flatten()
    }
}

/// Gateways that found their service again at the same time do not leave it at the same time.
fn renew_age(random: &mut dyn Random) -> Duration {
    let max = CONNECTION_AGE_S_MAX * 1_000;
    Duration::from_millis(between_ms(random, max - max / 8, max))
}

fn ping_wait() -> Duration {
    Duration::from_millis(KEEP_ALIVE_WAIT_MS_MAX)
}
