//! A medium in memory that fails in every way a real one does: it loses what was not synced, tears writes at any octet,
//! lets them overtake each other, flips bits, fills up, and takes no writes.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};

use fieldgate::store::flash::{Flash, FlashError, Region};

/// One un-synced write or growth.
#[derive(Clone, Debug)]
struct Pending {
    region: usize,
    offset: usize,
    octets: Vec<u8>,
}

/// What becomes of the un-synced writes when the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// All of them reached the medium, the last one as far as it came.
    AllWritten,
    /// None did.
    AllLost,
    /// Only the last one did, as far as it came.
    LastWritten,
    /// All but the last one did.
    LastLost,
    /// Each is kept, lost or torn, in any order, as the seed says.
    Random(u64),
}

/// What a medium does when it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Works.
    None,
    /// Fails each write without doing it.
    Writes(FlashError),
    /// Does each write, then fails the sync: any part of what was written since the last one is safe, and a later sync
    /// saves no more of it.
    Syncs,
    /// Fails some of the next eight syncs like this, one for each bit, the lowest first.
    SomeSyncs(u8),
    /// Fails writes and syncs of one region only.
    Region(Region),
    /// Does not grow.
    Grow,
    /// Fails each read of a block.
    ReadsOf(Region, usize),
}

/// A medium in memory.
#[derive(Clone, Debug)]
pub struct MemoryFlash {
    /// What survives a power loss for sure.
    durable: [Vec<u8>; 2],
    /// What the program sees.
    visible: [Vec<u8>; 2],
    pending: Vec<Pending>,
    /// Octets that may still be written before the power goes; growing counts as one, a sync as one.
    budget: Option<usize>,
    /// Decides what a failed sync saves.
    seed: u64,
    /// Octets written so far.
    pub written: usize,
    /// Syncs so far.
    pub sync_count: usize,
    /// Copies made so far.
    pub aside: Vec<(Region, Vec<u8>)>,
    /// The present fault.
    pub fault: Fault,
}

/// What an operation says once the power is gone.
pub const POWER_IS_GONE: FlashError = FlashError::Io(ErrorKind::BrokenPipe);

impl MemoryFlash {
    /// An empty medium that works.
    pub fn new() -> Self {
        Self {
            durable: [Vec::new(), Vec::new()],
            visible: [Vec::new(), Vec::new()],
            pending: Vec::new(),
            budget: None,
            seed: 1,
            written: 0,
            sync_count: 0,
            aside: Vec::new(),
            fault: Fault::None,
        }
    }

    /// Cuts the power after so many more units of work.
    pub fn cut_after(mut self, budget: usize) -> Self {
        self.cut_from_now(budget);
        self
    }

    /// Cuts the power after so many more units of work, counted from now.
    pub fn cut_from_now(&mut self, budget: usize) {
        self.budget = Some(budget);
    }

    /// The power is gone.
    pub fn is_cut(&self) -> bool {
        self.budget == Some(0)
    }

    /// The medium as the next start finds it.
    pub fn after_power_loss(mut self, fate: Fate) -> Self {
        let mut pending = std::mem::take(&mut self.pending);
        let last = pending.pop();
        let survivors: Vec<Pending> = match fate {
            Fate::AllWritten => pending.into_iter().chain(last).collect(),
            Fate::AllLost => Vec::new(),
            Fate::LastWritten => last.into_iter().collect(),
            Fate::LastLost => pending,
            Fate::Random(seed) => survivors(pending.into_iter().chain(last).collect(), seed),
        };
        for write in survivors {
            apply(&mut self.durable, &write);
        }
        Self { durable: self.durable.clone(), visible: self.durable, ..Self::new() }
    }

    /// The medium after a clean stop.
    pub fn restarted(&self) -> Self {
        Self { durable: self.visible.clone(), visible: self.visible.clone(), ..Self::new() }
    }

    /// The octets of a region.
    pub fn region(&mut self, region: Region) -> &mut Vec<u8> {
        &mut self.visible[index(region)]
    }

    /// Flips one bit.
    pub fn flip(&mut self, region: Region, bit: usize) {
        self.visible[index(region)][bit / 8] ^= 1 << (bit % 8);
        self.durable[index(region)] = self.visible[index(region)].clone();
    }

    /// Spends up to `wanted` units of work; what is left of the power.
    fn spend(&mut self, wanted: usize) -> usize {
        let Some(budget) = &mut self.budget else { return wanted };
        let granted = wanted.min(*budget);
        *budget -= granted;
        granted
    }

    fn remember(&mut self, write: Pending) {
        apply(&mut self.visible, &write);
        self.pending.push(write);
    }
}

fn index(region: Region) -> usize {
    match region {
        Region::A => 0,
        Region::B => 1,
    }
}

fn apply(regions: &mut [Vec<u8>; 2], write: &Pending) {
    let region = &mut regions[write.region];
    let end = write.offset + write.octets.len();
    if region.len() < end {
        region.resize(end, 0);
    }
    region[write.offset..end].copy_from_slice(&write.octets);
}

/// Splits the writes into pages, as caches do, and lets each live, die or tear, in any order.
fn survivors(pending: Vec<Pending>, seed: u64) -> Vec<Pending> {
    const PAGE: usize = 4096;
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let mut pages = Vec::new();
    for write in pending {
        for (at, chunk) in write.octets.chunks(PAGE).enumerate() {
            pages.push(Pending { offset: write.offset + at * PAGE, octets: chunk.to_vec(), ..write });
        }
    }
    let mut survivors = Vec::new();
    while !pages.is_empty() {
        let mut page = pages.swap_remove(random(pages.len()));
        match random(3) {
            0 => continue,
            1 => page.octets.truncate(random(page.octets.len() + 1)),
            _ => {}
        }
        survivors.push(page);
    }
    survivors
}

impl Flash for MemoryFlash {
    fn size(&mut self, region: Region) -> Result<usize, FlashError> {
        Ok(self.visible[index(region)].len())
    }

    fn read(&mut self, region: Region, offset: usize, into: &mut [u8]) -> Result<(), FlashError> {
        if let Fault::ReadsOf(bad_region, block) = self.fault
            && bad_region == region
            && block == offset / 4096
        {
            return Err(FlashError::Io(ErrorKind::Other));
        }
        into.copy_from_slice(&self.visible[index(region)][offset..offset + into.len()]);
        Ok(())
    }

    fn write(&mut self, region: Region, offset: usize, octets: &[u8]) -> Result<(), FlashError> {
        match self.fault {
            Fault::Writes(error) => return Err(error),
            Fault::Region(bad) if bad == region => return Err(FlashError::Io(ErrorKind::Other)),
            _ => {}
        }
        assert!(offset + octets.len() <= self.visible[index(region)].len(), "writes stay inside the region");
        let granted = self.spend(octets.len());
        self.written += granted;
        self.remember(Pending { region: index(region), offset, octets: octets[..granted].to_vec() });
        if granted < octets.len() || self.is_cut() { Err(POWER_IS_GONE) } else { Ok(()) }
    }

    fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError> {
        if self.fault == Fault::Grow {
            return Err(FlashError::NoSpace);
        }
        if self.spend(1) == 0 {
            return Err(POWER_IS_GONE);
        }
        let offset = self.visible[index(region)].len();
        self.remember(Pending { region: index(region), offset, octets: vec![0; bytes - offset] });
        Ok(())
    }

    fn sync(&mut self, region: Region) -> Result<(), FlashError> {
        let fails = match self.fault {
            Fault::Syncs => true,
            Fault::SomeSyncs(bits) => {
                self.fault = Fault::SomeSyncs(bits >> 1);
                bits & 1 == 1
            }
            Fault::Region(bad) => bad == region,
            _ => false,
        };
        if !fails && (self.spend(1) == 0 || self.is_cut()) {
            return Err(POWER_IS_GONE);
        }
        let (mut saved, pending) = self.pending.drain(..).partition(|write| write.region == index(region));
        self.pending = pending;
        if fails {
            self.seed += 1;
            saved = survivors(saved, self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        for write in &saved {
            apply(&mut self.durable, write);
        }
        self.sync_count += 1;
        if fails { Err(FlashError::Io(ErrorKind::Other)) } else { Ok(()) }
    }

    fn set_aside(&mut self, region: Region) -> Result<(), FlashError> {
        self.aside.push((region, self.visible[index(region)].clone()));
        Ok(())
    }
}

/// A medium that the test holds on to while a log uses it.
#[derive(Clone, Debug)]
pub struct SharedFlash(Arc<Mutex<MemoryFlash>>);

impl SharedFlash {
    /// Shares a medium.
    pub fn new(flash: MemoryFlash) -> Self {
        Self(Arc::new(Mutex::new(flash)))
    }

    /// The medium as it is now.
    pub fn snapshot(&self) -> MemoryFlash {
        self.lock().clone()
    }

    /// The medium itself.
    pub fn lock(&self) -> MutexGuard<'_, MemoryFlash> {
        self.0.lock().expect("no test panicked")
    }
}

impl Flash for SharedFlash {
    fn size(&mut self, region: Region) -> Result<usize, FlashError> {
        self.lock().size(region)
    }

    fn read(&mut self, region: Region, offset: usize, into: &mut [u8]) -> Result<(), FlashError> {
        self.lock().read(region, offset, into)
    }

    fn write(&mut self, region: Region, offset: usize, octets: &[u8]) -> Result<(), FlashError> {
        self.lock().write(region, offset, octets)
    }

    fn grow(&mut self, region: Region, bytes: usize) -> Result<(), FlashError> {
        self.lock().grow(region, bytes)
    }

    fn sync(&mut self, region: Region) -> Result<(), FlashError> {
        self.lock().sync(region)
    }

    fn set_aside(&mut self, region: Region) -> Result<(), FlashError> {
        self.lock().set_aside(region)
    }
}
