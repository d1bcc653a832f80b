//! A connection of the gateway to the service: performs outputs, reports inputs, decides nothing.
//!
//! Each request and each body has a life of its own, so reports of different ones may change places; promises and the
//! end of one monitoring request do not.

use std::collections::{BTreeMap, VecDeque};

use fieldgate::limits::{PROMISED_STREAMS_MAX, PUSH_BODY_WAIT_MS_MAX, REQUEST_WAIT_MS_MAX};
use fieldgate::proto::connection::ConnectionId;
use fieldgate::proto::delivery::SlotId;
use fieldgate::proto::subscription::SubscriptionId;
use fieldgate::proto::{Input, Output, PromiseId};
use fieldgate::service::retention::{Ending, Reply};
use fieldgate::service::token::Token;
use fieldgate::time::Duration;
use fieldgate::webpush::exchange::{Deletion, Dialect, Granted, Next, SubscribeError, Target};
use fieldgate::webpush::headers::Urgency;
use fieldgate::webpush::resource::{PushMessageUri, PushUri, SetUri, SubscriptionUri};

use super::gateway::GatewayEvent;
use super::invariant::Invariant;
use super::network::{Down, Up};
use super::{Context, Event, Fault};

/// The origin of all resources.
pub(super) const ORIGIN: &str = "https://push.example";

/// A request that waits for its answer.
enum Asked {
    Monitor { monitor: fieldgate::proto::monitor::MonitorId, target: Target, urgency: Urgency },
    Fetch { subscription: SubscriptionId, read: SubscriptionUri, urgency: Urgency },
    Subscribe { subscription: SubscriptionId },
    Unsubscribe { subscription: SubscriptionId },
    UnsubscribeSet { set: SetUri },
    Acknowledge { message: PushMessageUri },
}

/// A request that is yet to be sent.
struct Queued {
    asked: Asked,
    request: Request,
}

enum Request {
    Get(Token, Option<u64>, Urgency),
    Subscribe(Option<Token>),
    Delete(Token),
}

/// A promised stream.
struct Promised {
    slot: Option<SlotId>,
    send: PushUri,
    max_age_s: u64,
    body: Vec<u8>,
    has_ended: bool,
}

/// One connection, or an attempt at one.
pub(super) struct Upstream {
    /// Its number in the network.
    connection: u64,
    /// Its number in the machine.
    id: ConnectionId,
    is_up: bool,
    streams_max: usize,
    next_stream: u32,
    next_promise: u32,
    open: BTreeMap<u32, Asked>,
    queued: VecDeque<Queued>,
    promised: BTreeMap<u32, Promised>,
    parked: BTreeMap<PromiseId, u32>,
}

/// The number of the connection that a promise came on.
pub(super) fn connection_of(promise: PromiseId) -> u64 {
    promise.0 >> 32
}

impl Upstream {
    pub fn connect(connection: u64, id: ConnectionId, context: &mut Context) -> Self {
        let delay = context.network.one_way_ms(&context.weather, &mut context.dice);
        context.after(delay, Event::Dial { connection });
        Self {
            connection,
            id,
            is_up: false,
            streams_max: 0,
            next_stream: 1,
            next_promise: 0,
            open: BTreeMap::new(),
            queued: VecDeque::new(),
            promised: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Requests and promises.
    pub fn streams(&self) -> usize {
        self.open.len() + self.queued.len() + self.promised.len() + self.parked.len()
    }

    pub fn is_up(&self) -> bool {
        self.is_up
    }

    pub fn up(&mut self, streams_max: usize) {
        self.is_up = true;
        self.streams_max = streams_max;
    }

    /// Does what the machine decided, as far as it concerns the service.
    pub fn perform(&mut self, output: Output, context: &mut Context) {
        if !self.is_up {
            return;
        }
        match output {
            Output::Refuse { promise } => {
                // All of a message that has arrived whole was read: there is nothing left to reset.
                if let Some(stream) = self.parked.remove(&promise)
                    && self.promised.remove(&stream).is_some_and(|it| !it.has_ended)
                {
                    context.check.refused_visibly();
                    context.send_up(self.connection, Up::Reset { stream });
                }
            }
            Output::Admit { promise, slot, .. } => self.admit(promise, slot, context),
            Output::Ping { .. } => context.send_up(self.connection, Up::Ping),
            Output::Monitor { monitor, target, urgency, .. } => {
                let request = Request::Get(target_token(&target), None, sent(urgency, context));
                self.ask(Asked::Monitor { monitor, target, urgency }, request, context);
            }
            Output::Fetch { subscription, read, urgency, .. } => {
                let request = Request::Get(token(read.as_str()), Some(0), sent(urgency, context));
                self.ask(Asked::Fetch { subscription, read, urgency }, request, context);
                self.check_fetches(context);
            }
            Output::Acknowledge { message, .. } => {
                let is_lost = match context.fault {
                    Some(Fault::LosesDeletes) => !context.is_healed,
                    Some(Fault::NeverDeletes) => true,
                    _ => false,
                };
                if is_lost {
                    let outcome = Deletion::Retry(None);
                    let connection = self.id;
                    return self.report(Input::Acknowledged { connection, message, outcome }, context);
                }
                let request = Request::Delete(token(message.as_str()));
                self.ask(Asked::Acknowledge { message }, request, context);
            }
            Output::Unsubscribe { subscription, read, .. } => {
                let request = Request::Delete(token(read.as_str()));
                self.ask(Asked::Unsubscribe { subscription }, request, context);
            }
            Output::UnsubscribeSet { set, .. } => {
                let request = Request::Delete(token(set.as_str()));
                self.ask(Asked::UnsubscribeSet { set }, request, context);
            }
            Output::Subscribe { subscription, set, .. } => {
                let request = Request::Subscribe(set.map(|set| token(set.as_str())));
                self.ask(Asked::Subscribe { subscription }, request, context);
            }
            _ => context.check.fail(Invariant::OutputsEnd, "not an output for the push service".to_owned()),
        }
    }

    /// Takes a frame of the service; gives what the machine is to hear once all that came with it was read.
    pub fn hear(&mut self, frame: Down, context: &mut Context) -> Option<Input> {
        match frame {
            Down::Promise { on, stream, message, push, max_age_s } => {
                let (target, urgency) = match self.open.get(&on)? {
                    Asked::Monitor { target, urgency, .. } => (target.clone(), *urgency),
                    Asked::Fetch { read, urgency, .. } => (Target::Subscription(read.clone()), *urgency),
                    _ => return None,
                };
                context.check.wanted(message, urgency);
                let send: PushUri = uri(push, PushUri::parse);
                let promised = Promised { slot: None, send: send.clone(), max_age_s, body: vec![], has_ended: false };
                self.promised.insert(stream, promised);
                let promise = PromiseId(self.connection << 32 | u64::from(self.next_promise));
                self.next_promise += 1;
                self.parked.insert(promise, stream);
                let unended = self.promised.values().filter(|it| !it.has_ended).count();
                context.check.bound("promised streams", unended, PROMISED_STREAMS_MAX);
                let message = uri(message, PushMessageUri::parse);
                let connection = self.id;
                Some(Input::Promised { connection, promise, target, message, send: Some(send) })
            }
            Down::Data { stream, octets, is_last } => {
                let promised = self.promised.get_mut(&stream)?;
                promised.body.extend_from_slice(&octets);
                promised.has_ended = is_last;
                self.pushed(stream, context);
                None
            }
            Down::Reset { stream } => {
                let slot = self.promised.remove(&stream)?.slot?;
                self.report(Input::PushFailed { connection: self.id, slot, content: None }, context);
                None
            }
            Down::End { stream, ending } => {
                let connection = self.id;
                let next = match ending {
                    Ending::Gone => Next::Ended,
                    Ending::Replaced => Next::Displaced,
                    Ending::Pushed | Ending::Nothing => Next::Again,
                };
                let input = match self.open.remove(&stream)? {
                    Asked::Monitor { monitor, .. } => Input::MonitorEnded { connection, monitor, next },
                    Asked::Fetch { subscription, read, .. } => {
                        Input::FetchEnded { connection, subscription, read, next }
                    }
                    _ => return None,
                };
                self.send_queued(context);
                Some(input)
            }
            Down::Settings { streams_max } => {
                self.streams_max = streams_max;
                self.send_queued(context);
                Some(Input::RequestsMax { connection: self.id, streams_max })
            }
            Down::Pong => Some(Input::Pong { connection: self.id }),
            Down::GoingAway => Some(Input::GoingAway { connection: self.id }),
            Down::Answer { stream, reply } => {
                let asked = self.open.remove(&stream)?;
                self.send_queued(context);
                let input = answered(self.id, asked, reply)?;
                self.report(input, context);
                None
            }
        }
    }

    /// A request got no answer in time.
    pub fn request_late(&mut self, stream: u32, context: &mut Context) {
        let is_one_answer = |asked: &Asked| !matches!(asked, Asked::Monitor { .. } | Asked::Fetch { .. });
        if !self.open.get(&stream).is_some_and(is_one_answer) {
            return;
        }
        let input = match self.open.remove(&stream) {
            Some(Asked::Subscribe { subscription }) => {
                Some(Input::Subscribed { connection: self.id, subscription, outcome: None })
            }
            Some(asked) => answered(self.id, asked, None),
            None => None,
        };
        if let Some(input) = input {
            self.report(input, context);
        }
        self.send_queued(context);
    }

    /// A body did not come in time.
    pub fn body_late(&mut self, stream: u32, context: &mut Context) {
        if self.promised.get(&stream).is_some_and(|it| !it.has_ended) {
            let slot = self.promised.remove(&stream).and_then(|it| it.slot);
            context.send_up(self.connection, Up::Reset { stream });
            if let Some(slot) = slot {
                self.report(Input::PushFailed { connection: self.id, slot, content: None }, context);
            }
        }
    }

    fn admit(&mut self, promise: PromiseId, slot: SlotId, context: &mut Context) {
        let Some(stream) = self.parked.remove(&promise) else { return };
        let Some(promised) = self.promised.get_mut(&stream) else {
            // It was reset before anybody looked at it.
            return self.report(Input::PushFailed { connection: self.id, slot, content: None }, context);
        };
        promised.slot = Some(slot);
        let connection = self.connection;
        context.after(PUSH_BODY_WAIT_MS_MAX, Event::Gateway(GatewayEvent::BodyLate { connection, stream }));
        self.pushed(stream, context);
    }

    /// Reports an admitted message once it is whole.
    fn pushed(&mut self, stream: u32, context: &mut Context) {
        let is_whole = self.promised.get(&stream).is_some_and(|it| it.has_ended && it.slot.is_some());
        if !is_whole || (context.fault == Some(Fault::SwallowsBody) && context.dice.percent(5)) {
            return;
        }
        if let Some(Promised { slot: Some(slot), send, max_age_s, body, .. }) = self.promised.remove(&stream) {
            let max_age = Some(Duration::from_secs(max_age_s));
            self.report(
                Input::Pushed { connection: self.id, slot, send: Some(send), body, max_age, age: None },
                context,
            );
        }
    }

    fn ask(&mut self, asked: Asked, request: Request, context: &mut Context) {
        self.queued.push_back(Queued { asked, request });
        self.send_queued(context);
    }

    /// Sends what the service's limit of streams leaves room for.
    fn send_queued(&mut self, context: &mut Context) {
        while self.open.len() < self.streams_max
            && let Some(Queued { asked, request }) = self.queued.pop_front()
        {
            let (stream, connection) = (self.next_stream, self.connection);
            self.next_stream += 2;
            self.open.insert(stream, asked);
            context.send_up(
                connection,
                match request {
                    Request::Get(resource, wait_s, urgency) => Up::Get { stream, resource, wait_s, urgency },
                    Request::Subscribe(set) => Up::Subscribe { stream, set },
                    Request::Delete(resource) => Up::Delete { stream, resource },
                },
            );
            context.after(REQUEST_WAIT_MS_MAX, Event::Gateway(GatewayEvent::RequestLate { connection, stream }));
        }
    }

    fn check_fetches(&self, context: &mut Context) {
        let asked = self.open.values().chain(self.queued.iter().map(|queued| &queued.asked));
        let fetched = asked.filter_map(|asked| match asked {
            Asked::Fetch { subscription, .. } => Some(*subscription),
            _ => None,
        });
        let mut counts: BTreeMap<SubscriptionId, usize> = BTreeMap::new();
        fetched.for_each(|subscription| *counts.entry(subscription).or_default() += 1);
        let (all, most) = (counts.values().sum(), counts.values().max().copied().unwrap_or(0));
        context.check.bound("fetches", all, fieldgate::limits::FETCH_COUNT_MAX);
        context.check.bound("fetches of a subscription", most, fieldgate::limits::FETCH_PER_SUBSCRIPTION_MAX);
    }

    /// Reports as a task of its own does: a little later.
    fn report(&self, input: Input, context: &mut Context) {
        let (pause, connection) = (context.dice.below(2), self.connection);
        context.after(pause, Event::Gateway(GatewayEvent::Report { connection, input }));
    }
}

fn answered(connection: ConnectionId, asked: Asked, reply: Option<Reply>) -> Option<Input> {
    let outcome = if reply.is_some() { Deletion::Done } else { Deletion::Retry(None) };
    match asked {
        Asked::Acknowledge { message } => Some(Input::Acknowledged { connection, message, outcome }),
        Asked::UnsubscribeSet { set } => Some(Input::SetUnsubscribed { connection, set, outcome }),
        Asked::Unsubscribe { subscription } => Some(Input::Unsubscribed { connection, subscription, outcome }),
        Asked::Subscribe { subscription } => {
            let outcome = match reply {
                Some(Reply::Subscribed { subscription, push, set }) => Ok(Granted {
                    dialect: Dialect::Rfc8030,
                    read: uri(subscription, SubscriptionUri::parse),
                    send: uri(push, PushUri::parse),
                    set: Some(uri(set, SetUri::parse)),
                    keeps_for: None,
                }),
                Some(Reply::InvalidSet) => Err(SubscribeError::SetRefused),
                _ => Err(SubscribeError::Busy(Some(Duration::from_secs(10)))),
            };
            Some(Input::Subscribed { connection, subscription, outcome: Some(outcome) })
        }
        Asked::Monitor { .. } | Asked::Fetch { .. } => None,
    }
}

/// The urgency that the shell says.
fn sent(urgency: Urgency, context: &Context) -> Urgency {
    if context.fault == Some(Fault::IgnoresUrgency) { Urgency::VeryLow } else { urgency }
}

/// The token in the URI of a resource.
pub(super) fn token(uri: &str) -> Token {
    uri.strip_prefix(ORIGIN).and_then(Token::from_path).expect("all URIs are of the one service")
}

fn target_token(target: &Target) -> Token {
    match target {
        Target::Set(set) => token(set.as_str()),
        Target::Subscription(subscription) => token(subscription.as_str()),
    }
}

fn uri<T, E: std::fmt::Debug>(token: Token, parse: impl Fn(&str) -> Result<T, E>) -> T {
    parse(&format!("{ORIGIN}{}", token.path())).expect("tokens make valid URIs")
}
