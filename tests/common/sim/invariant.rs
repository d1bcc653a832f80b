//! What must hold, and what a run came to.

use super::plan::Climate;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// No DELETE without the device ack of exactly that message.
    AcknowledgedByDevice,
    /// No slot is lost.
    SlotsReturn,
    /// What was accepted and has not expired is delivered in the end.
    Delivered,
    /// What was delivered is acknowledged in the end.
    Acknowledged,
    /// A device that keeps its ids has each message once; others have twice only what they could have forgotten.
    Once,
    /// Messages of a subscription keep their order unless one of them was pushed again.
    Order,
    /// Nothing is delivered long after its lifetime.
    InTime,
    /// What a device gets is what was sent to its channel.
    Intact,
    /// Memory stays within bounds.
    Memory,
    /// Outputs end.
    OutputsEnd,
    /// A device that is told that nothing waits has all; and if it was told that something does, it is told once nothing
    /// does.
    Status,
    /// Promises are not wasted.
    Promises,
    /// On a request comes what matters as much as it says, and nothing else.
    Wanted,
    /// Each channel has the subscription that its device was told of.
    Subscribed,
    /// The application server knows each subscription in use, and none that has ended; it is told one after another, and
    /// only what is on flash.
    Announced,
}

/// Limits of what must hold; a test lowers them to see that they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Part of each bound of memory that may be used, in percent.
    pub memory_percent: usize,
    /// Outputs of one turn.
    pub outputs_max: u32,
    /// Promises of a steady run for each hundred of delivered messages; two and a half times that in one that is only
    /// calm, four times where devices sleep.
    pub promises_percent: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { memory_percent: 100, outputs_max: 10_000, promises_percent: 120 }
    }
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub invariant: Invariant,
    /// How it showed.
    pub text: String,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// What went wrong in it.
    pub climate: Option<Climate>,
    /// Whether nothing went wrong in it, and no more was in flight than there are slots for.
    pub is_steady: bool,
    /// Messages that were accepted.
    pub accepted: u64,
    /// Messages that their device has.
    pub delivered: u64,
    /// Copies that an application had again.
    pub copies: u64,
    /// Promises of the service.
    pub promises: u64,
    /// Promises that the service saw refused.
    pub refused_visibly: u64,
    /// Messages that a device had no room for.
    pub refused_by_device: u64,
    /// The longest that a message reached its device after its lifetime.
    pub late_ms_max: u64,
    /// How often a device fell asleep.
    pub naps: u64,
    /// Of a long run: what there was after each tenth of it.
    pub stock: [Stock; 10],
}

/// What there is at one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock {
    /// Connections that the gateway made until then.
    pub connections: u64,
    /// Records on the disk of the service.
    pub service_records: usize,
    /// Messages that the service has for its connections.
    pub service_sending: usize,
    /// Records on the flash of the gateway.
    pub gateway_records: usize,
    /// Messages in flight there.
    pub gateway_messages: usize,
    /// Connections, requests and promises of its shell.
    pub gateway_streams: usize,
    /// What is on its way, and timers.
    pub events: usize,
    /// Of the whole process, with the reference model.
    ///
    /// Units: pages.
    pub resident: usize,
}
