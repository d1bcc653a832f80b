//! The push service: [`Retention`] with the shell of its connections and of its store.

#[path = "commit.rs"]
mod commit;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fieldgate::limits::{PROMISED_STREAMS_MAX, SERVICE_LATE_REFUSALS_COUNT};
use fieldgate::random::SeededRandom;
use fieldgate::service::retention::{
    ConnectionId, Content, DeliveryId, Ending, Input, Kind, Moment, MonitorId, Output, Policy, Posted, Push,
    ReceiptWish, Record, Reply, Request, Retention, Room,
};
use fieldgate::service::token::Token;
use fieldgate::time::{Instant, UnixTime};
use fieldgate::webpush::headers::{Ttl, Urgency};

use super::network::{Down, Up};
use super::plan::Plan;
use super::{Context, Dice, Event, WALL_S};

/// What happens inside the service.
pub(super) enum ServiceEvent {
    /// The process runs.
    Start,
    /// A message of an application server arrives.
    Send { push: Token, ttl_s: u64, plaintext: Vec<u8>, body: Bytes },
    /// The writes that were begun are on the disk.
    Committed { life: u32 },
    /// The window of a receiver has room again, or the last octets of a message have left.
    Progress { connection: u64, stream: u32, life: u32 },
}

/// Who waits for an answer.
#[derive(Clone, Copy)]
enum Asker {
    Stream(u64, u32),
    /// The application server, with the number of its message.
    Application(usize),
}

/// Records that are committed together, and the answer that waits for them.
struct Write {
    records: Vec<Record>,
    answer: Option<(Asker, Reply)>,
    removed: Option<Token>,
}

/// A promised message that is not written whole.
struct Sending {
    delivery: DeliveryId,
    rest: VecDeque<Bytes>,
}

#[derive(Default)]
struct Session {
    streams_max: usize,
    next_stream: u32,
    sending: BTreeMap<u32, Sending>,
    ended: VecDeque<(u32, DeliveryId)>,
}

/// The process and its disk.
pub(super) struct Service {
    /// Requests at once that a connection may have, if one for each set and one more are no more.
    streams_max: usize,
    core: Option<Retention>,
    epoch: u64,
    life: u32,
    random: SeededRandom,
    disk: Vec<Record>,
    waiting: Vec<Write>,
    committing: Vec<Write>,
    sessions: BTreeMap<u64, Session>,
}

impl Service {
    pub fn new(plan: &Plan, dice: &mut Dice) -> Self {
        Self {
            streams_max: plan.streams_max,
            core: None,
            epoch: 0,
            life: 0,
            random: dice.source(),
            disk: Vec::new(),
            waiting: Vec::new(),
            committing: Vec::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// Starts the process from what is on the disk.
    pub fn start(&mut self, context: &mut Context) {
        if self.core.is_some() {
            return;
        }
        self.life += 1;
        self.epoch = context.now;
        let now = self.moment(context);
        let mut core = Retention::new(Policy::default());
        self.disk.sort_by_key(|record| match record {
            Record::Set { id, .. } => (0, id.0, 0),
            Record::Subscription { id, .. } => (1, id.0, 0),
            Record::Message(stored) => (2, stored.subscription.0, stored.sequence),
            _ => (3, 0, 0),
        });
        for record in self.disk.clone() {
            core.restore(record, now);
        }
        self.core = Some(core);
        context.trace(|| format!("service starts with {} records", self.disk.len()));
        self.settle(context);
    }

    /// Ends the process; of the writes under way the first ones may be on the disk.
    pub fn crash(&mut self, context: &mut Context) {
        if self.core.take().is_none() {
            return;
        }
        self.sessions.clear();
        let begun = std::mem::take(&mut self.committing);
        self.waiting.clear();
        // A commit holds all of its writes or none.
        if context.dice.percent(50) {
            for write in begun {
                self.apply(write.records);
            }
        }
        context.trace(|| "service crashes".to_owned());
    }

    /// Everything on the disk is lost.
    pub fn wipe(&mut self) {
        self.disk.clear();
    }

    /// Records on the disk, and messages that connections may still refuse or are given.
    pub fn stock(&self) -> (usize, usize) {
        let sending = self.sessions.values().map(|session| session.sending.len() + session.ended.len());
        (self.disk.len(), sending.sum())
    }

    /// Whether a message is still there.
    pub fn is_kept(&self, message: Token) -> bool {
        self.core.as_ref().is_some_and(|core| core.kind(message) == Some(Kind::Message))
    }

    /// Takes a connection and says how many requests it may have at once.
    pub fn connect(&mut self, connection: u64) -> Option<usize> {
        self.core.as_ref()?;
        let streams_max = self.streams_max();
        self.sessions.insert(connection, Session { next_stream: 2, streams_max, ..Session::default() });
        Some(streams_max)
    }

    /// Source: RFC 8030 §7.5 (one stream for management, and one for each set).
    fn streams_max(&self) -> usize {
        let sets = self.disk.iter().filter(|record| matches!(record, Record::Set { .. })).count();
        self.streams_max.max(sets + 1)
    }

    /// Tells connections of a limit that is another one.
    fn tell_limit(&mut self, context: &mut Context) {
        let streams_max = self.streams_max();
        for (connection, session) in self.sessions.iter_mut().filter(|(_, it)| it.streams_max != streams_max) {
            session.streams_max = streams_max;
            context.send_down(*connection, Down::Settings { streams_max });
        }
    }

    pub fn left(&mut self, connection: u64, context: &mut Context) {
        if self.sessions.remove(&connection).is_some() {
            context.trace(|| format!("service: connection {connection} is gone"));
            self.input(Input::ConnectionClosed(ConnectionId(connection)), context);
        }
    }

    /// Lets all connections go.
    pub fn go_away(&self, context: &mut Context) {
        for connection in self.sessions.keys() {
            context.send_down(*connection, Down::GoingAway);
        }
    }

    pub fn wake(&self) -> Option<u64> {
        let due = self.core.as_ref()?.poll_timeout()?;
        Some(self.epoch + due.as_millis())
    }

    pub fn handle_timeout(&mut self, context: &mut Context) {
        let now = self.moment(context);
        if let Some(core) = &mut self.core {
            core.handle_timeout(now);
            self.settle(context);
        }
    }

    pub fn happen(&mut self, event: ServiceEvent, context: &mut Context) {
        match event {
            ServiceEvent::Start => self.start(context),
            ServiceEvent::Send { push, ttl_s, plaintext, body } => self.send(push, ttl_s, plaintext, body, context),
            ServiceEvent::Committed { life } if life == self.life => self.committed(context),
            ServiceEvent::Progress { connection, stream, life } if life == self.life => {
                self.progress(connection, stream, context);
            }
            ServiceEvent::Committed { .. } | ServiceEvent::Progress { .. } => {}
        }
    }

    /// Takes a frame of the gateway.
    pub fn hear(&mut self, connection: u64, frame: Up, context: &mut Context) {
        if !self.sessions.contains_key(&connection) {
            return;
        }
        context.trace(|| format!("service hears on {connection}: {frame:?}"));
        match frame {
            Up::Get { stream, resource, wait_s, urgency } => {
                let monitor = MonitorId { connection: ConnectionId(connection), stream };
                let reply = self.ask(Request::Monitor { resource, monitor, wait_s, urgency }, context);
                self.settle(context);
                if reply != Reply::Monitoring {
                    context.send_down(connection, Down::End { stream, ending: Ending::Gone });
                }
            }
            Up::Subscribe { stream, set } => {
                self.request(Asker::Stream(connection, stream), Request::Subscribe { set, restricted: None }, context);
            }
            Up::Delete { stream, resource } => {
                if self.core.as_ref().and_then(|core| core.kind(resource)) == Some(Kind::Message) {
                    context.check.deleting(resource);
                }
                self.request(Asker::Stream(connection, stream), Request::Remove { resource }, context);
            }
            Up::Reset { stream } => self.reset(connection, stream, context),
            Up::Ping => context.send_down(connection, Down::Pong),
        }
    }

    fn send(&mut self, push: Token, ttl_s: u64, plaintext: Vec<u8>, body: Bytes, context: &mut Context) {
        if self.core.is_none() {
            return;
        }
        let content = Content { body: body.clone(), content_type: None, content_encoding: None };
        let urgency = *context.dice.pick(&Urgency::ALL);
        let (ttl, receipts) = (Ttl::from_secs(ttl_s), ReceiptWish::None);
        let posted = Posted { push, ttl, urgency, topic: None, receipts, content };
        let reply = self.ask(Request::Send(posted), context);
        let Reply::Accepted { message, .. } = reply else { return self.settle(context) };
        let number = context.check.sent(push, message, plaintext, &body, (ttl_s, urgency), context.now);
        context.trace(|| format!("service takes message {}", context.check.describe(number)));
        self.answer_later(Asker::Application(number), reply, None, context);
    }

    fn request(&mut self, asker: Asker, request: Request, context: &mut Context) {
        let removed = if let Request::Remove { resource } = &request { Some(*resource) } else { None };
        let reply = self.ask(request, context);
        self.answer_later(asker, reply, removed, context);
    }

    /// Answers once the records that the request left are on the disk.
    fn answer_later(&mut self, asker: Asker, reply: Reply, removed: Option<Token>, context: &mut Context) {
        let records = self.take_records();
        self.settle(context);
        let write = Write { records, answer: Some((asker, reply)), removed };
        if write.records.is_empty() {
            self.answer(write, context);
        } else {
            self.write(write, context);
        }
    }

    fn ask(&mut self, request: Request, context: &mut Context) -> Reply {
        let now = self.moment(context);
        let core = self.core.as_mut().expect("only a running service hears anything");
        let reply = core.handle_request(request, now, &mut self.random);
        if let Reply::Subscribed { push, .. } = reply {
            context.check.granted(push);
        }
        reply
    }

    fn input(&mut self, input: Input, context: &mut Context) {
        let now = self.moment(context);
        if let Some(core) = &mut self.core {
            core.handle_input(input, now, &mut self.random);
            self.settle(context);
        }
    }

    fn take_records(&mut self) -> Vec<Record> {
        let Some(core) = &mut self.core else { return Vec::new() };
        std::iter::from_fn(|| core.poll_record()).collect()
    }

    /// Lets every connection that was woken look, and stores what nobody waits for.
    fn settle(&mut self, context: &mut Context) {
        let mut rounds = 0;
        while let Some(ConnectionId(connection)) = self.core.as_mut().and_then(Retention::poll_wake) {
            rounds += 1;
            if !context.check.is_output_allowed(rounds) {
                return;
            }
            self.pump(connection, context);
        }
        let records = self.take_records();
        if !records.is_empty() {
            self.write(Write { records, answer: None, removed: None }, context);
        }
    }

    fn pump(&mut self, connection: u64, context: &mut Context) {
        let now = self.moment(context);
        let streams: Vec<u32> =
            self.sessions.get(&connection).map(|it| it.sending.keys().copied().collect()).unwrap_or_default();
        for stream in streams {
            self.drop_unless_live(connection, stream, context);
        }
        for round in 0.. {
            let Some(session) = self.sessions.get(&connection) else { return };
            let room = if session.sending.len() < PROMISED_STREAMS_MAX { Room::Any } else { Room::None };
            let output = self.core.as_mut().and_then(|core| core.poll_output(ConnectionId(connection), room, now));
            match output {
                Some(Output::Push(push)) => self.push(connection, *push, context),
                Some(Output::End(monitor, ending)) => {
                    context.trace(|| format!("service ends {monitor:?}: {ending:?}"));
                    context.send_down(connection, Down::End { stream: monitor.stream, ending });
                }
                Some(Output::Receipt(_)) => unreachable!("nobody asks for receipts here"),
                None => return,
            }
            if !context.check.is_output_allowed(round) {
                return;
            }
        }
    }

    fn push(&mut self, connection: u64, push: Push, context: &mut Context) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let stream = session.next_stream;
        session.next_stream += 2;
        let number = context.check.promised(push.message, connection, context.now);
        context
            .trace(|| format!("service promises {} on {connection}, stream {stream}", context.check.describe(number)));
        let (message, max_age_s) = (push.message, push.max_age_s);
        let promise = Down::Promise { on: push.monitor.stream, stream, message, push: push.push, max_age_s };
        context.send_down(connection, promise);
        let body = push.content.body;
        if body.is_empty() {
            context.send_down(connection, Down::Data { stream, octets: body, is_last: true });
            return self.delivered(connection, stream, push.delivery, context);
        }
        let pieces = if context.dice.percent(context.weather.slow_bodies) { 3 } else { 1 };
        let piece = body.len().div_ceil(pieces);
        let rest = (0..body.len()).step_by(piece).map(|at| body.slice(at..body.len().min(at + piece))).collect();
        session.sending.insert(stream, Sending { delivery: push.delivery, rest });
        self.progress(connection, stream, context);
    }

    /// Sends the next octets; once there are none left, they have left.
    fn progress(&mut self, connection: u64, stream: u32, context: &mut Context) {
        if self.drop_unless_live(connection, stream, context) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let Some(sending) = session.sending.get_mut(&stream) else { return };
        let Some(octets) = sending.rest.pop_front() else {
            let delivery = sending.delivery;
            session.sending.remove(&stream);
            return self.delivered(connection, stream, delivery, context);
        };
        let is_last = sending.rest.is_empty();
        context.send_down(connection, Down::Data { stream, octets, is_last });
        let pause = if is_last { context.dice.below(3) } else { context.dice.between(1, 4_000) };
        let life = self.life;
        context.after(pause, Event::Service(ServiceEvent::Progress { connection, stream, life }));
    }

    fn delivered(&mut self, connection: u64, stream: u32, delivery: DeliveryId, context: &mut Context) {
        if let Some(session) = self.sessions.get_mut(&connection) {
            session.ended.push_back((stream, delivery));
            if session.ended.len() > SERVICE_LATE_REFUSALS_COUNT {
                session.ended.pop_front();
            }
        }
        self.input(Input::Delivered(delivery), context);
    }

    /// Gives up a message that is over before all of it was handed over.
    fn drop_unless_live(&mut self, connection: u64, stream: u32, context: &mut Context) -> bool {
        let now = self.moment(context);
        let Some(sending) = self.sessions.get(&connection).and_then(|it| it.sending.get(&stream)) else { return false };
        let delivery = sending.delivery;
        let is_live = self.core.as_ref().is_some_and(|core| core.is_live(delivery, now));
        if is_live || sending.rest.is_empty() {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(&connection) {
            session.sending.remove(&stream);
        }
        context.send_down(connection, Down::Reset { stream });
        self.input(Input::Dropped(delivery), context);
        true
    }

    fn reset(&mut self, connection: u64, stream: u32, context: &mut Context) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let sending = session.sending.remove(&stream).map(|sending| sending.delivery);
        let ended = session.ended.iter().position(|(ended, _)| *ended == stream);
        let ended = ended.and_then(|index| session.ended.remove(index)).map(|(_, delivery)| delivery);
        if let Some(delivery) = sending.or(ended) {
            self.input(Input::Refused(delivery), context);
        }
    }

    fn moment(&self, context: &Context) -> Moment {
        Moment {
            instant: Instant::from_millis(context.now - self.epoch),
            wall: wall(context),
            is_synchronised: true,
            ..Moment::default()
        }
    }
}

fn wall(context: &Context) -> UnixTime {
    UnixTime(WALL_S + context.now / 1_000)
}
