//! The network between gateway and service: connections that carry frames in order, until they are cut.

use std::collections::BTreeMap;

use bytes::Bytes;
use fieldgate::service::retention::{Ending, Reply};
use fieldgate::service::token::Token;
use fieldgate::webpush::headers::Urgency;

use super::{Context, Dice, Event, Weather};

/// What the gateway sends.
#[derive(Clone, Debug)]
pub(super) enum Up {
    /// GET on a subscription or set, with the preference for a wait.
    Get { stream: u32, resource: Token, wait_s: Option<u64>, urgency: Urgency },
    /// POST for a subscription.
    Subscribe { stream: u32, set: Option<Token> },
    /// DELETE.
    Delete { stream: u32, resource: Token },
    /// The end of a promised stream.
    Reset { stream: u32 },
    /// A test whether anything still passes.
    Ping,
}

/// What the service sends.
#[derive(Clone, Debug)]
pub(super) enum Down {
    /// A promise on a monitoring request, with the head of the response that follows it at once.
    Promise { on: u32, stream: u32, message: Token, push: Token, max_age_s: u64 },
    /// Octets of a promised message.
    Data { stream: u32, octets: Bytes, is_last: bool },
    /// A promised message does not come.
    Reset { stream: u32 },
    /// The answer to a monitoring request.
    End { stream: u32, ending: Ending },
    /// The answer to another request; none: it could not be stored.
    Answer { stream: u32, reply: Option<Reply> },
    /// How many requests may be open at once.
    Settings { streams_max: usize },
    /// The answer to a test.
    Pong,
    /// No more requests are taken on the connection.
    GoingAway,
}

/// One connection. Each end learns of its end by itself.
#[derive(Debug, Default)]
struct Connection {
    up: Direction,
    down: Direction,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Direction {
    sent_at: u64,
    arrives_at: u64,
}

impl Direction {
    /// When what is sent now arrives: after what was sent before, and together with what leaves in the same write.
    fn arrival(&mut self, now: u64, delay: u64) -> u64 {
        if self.sent_at != now || self.arrives_at <= now {
            self.arrives_at = self.arrives_at.max(now + delay);
            self.sent_at = now;
        }
        self.arrives_at
    }
}

/// All connections that are not cut; each end of one that is may still think that it is there.
#[derive(Debug)]
pub(super) struct Network {
    /// Whether connections can be made.
    pub is_up: bool,
    connections: BTreeMap<u64, Connection>,
}

impl Network {
    pub fn new() -> Self {
        Self { is_up: true, connections: BTreeMap::new() }
    }

    pub fn one_way_ms(&self, weather: &Weather, dice: &mut Dice) -> u64 {
        dice.between(1, weather.latency_ms_max.max(1))
    }

    pub fn dialed(&mut self, connection: u64, is_made: bool) {
        if is_made {
            self.connections.insert(connection, Connection::default());
        }
    }

    /// Whether what is on its way still arrives.
    pub fn carries(&self, connection: u64) -> bool {
        self.connections.contains_key(&connection)
    }

    /// The connections that are not cut.
    pub fn alive(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    pub fn cut(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }
}

impl Context {
    pub(super) fn send_up(&mut self, connection: u64, frame: Up) {
        let delay = self.network.one_way_ms(&self.weather, &mut self.dice);
        if let Some(it) = self.network.connections.get_mut(&connection) {
            let at = it.up.arrival(self.now, delay);
            self.at(at, Event::ToService { connection, frame });
        }
    }

    pub(super) fn send_down(&mut self, connection: u64, frame: Down) {
        let delay = self.network.one_way_ms(&self.weather, &mut self.dice);
        if let Some(it) = self.network.connections.get_mut(&connection) {
            let at = it.down.arrival(self.now, delay);
            self.at(at, Event::ToGateway { connection, frame });
        }
    }
}
