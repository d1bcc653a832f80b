//! Firmware of a device, for a port that is read and written octet by octet: it is linked and measured, not run.
//!
//! With the feature `device` it takes pushes and acknowledges each; without it, it sends back each line that it reads. The
//! difference is the link. `size.sh` prints it.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::ptr;

/// A receiver whose register reads above 255 while it has nothing, and a transmitter that takes an octet at any time.
const RECEIVED: *const u32 = 0x4000_4404 as *const u32;
const TO_SEND: *mut u32 = 0x4000_4408 as *mut u32;
/// Milliseconds since the start, counted by some timer.
const CLOCK: *const u32 = 0x4000_0024 as *const u32;
/// Somebody wants another subscription while it reads 1.
const BUTTON: *const u32 = 0x4002_0010 as *const u32;
/// Where messages go.
const SHOWN: *mut u32 = 0x4001_0800 as *mut u32;

fn received() -> Option<u8> {
    // SAFETY: a register of the chip, always readable.
    u8::try_from(unsafe { ptr::read_volatile(RECEIVED) }).ok()
}

fn send(octets: &[u8]) {
    // SAFETY: a register of the chip, always writable.
    octets.iter().for_each(|octet| unsafe { ptr::write_volatile(TO_SEND, (*octet).into()) });
}

fn show(octets: &[u8]) {
    // SAFETY: a register of the chip, always writable.
    octets.iter().for_each(|octet| unsafe { ptr::write_volatile(SHOWN, (*octet).into()) });
}

fn clock_ms() -> u32 {
    // SAFETY: a register of the chip, always readable.
    unsafe { ptr::read_volatile(CLOCK) }
}

fn is_pressed() -> bool {
    // SAFETY: a register of the chip, always readable.
    unsafe { ptr::read_volatile(BUTTON) == 1 }
}

#[cfg(feature = "device")]
mod device {
    use core::mem::MaybeUninit;

    use fieldgate::link::device::{Device, Received};
    use fieldgate::link::memory::DeviceMemory;
    use fieldgate::link::{Config, Role};
    use fieldgate::time::Instant;
    use fieldgate::wire::{ChannelId, DeviceId, ToDevice};

    /// A usual device; `size.sh` knows these numbers. Octets of a frame, of the window (messages of 1,024 octets), and of what is sent.
    const MTU: usize = 256;
    const WINDOW: usize = 1_026;
    const TX: usize = 256;
    /// Message ids that are kept.
    const SEEN: usize = 16;

    type Meter = Device<DeviceMemory<MTU, WINDOW, 0, TX>, SEEN>;

    /// What it remembers, in one place so that the linker counts it. Made when the firmware starts, so not in flash.
    static mut STATE: MaybeUninit<Meter> = MaybeUninit::uninit();
    static mut FRAME: [u8; MTU] = [0; MTU];

    fn now() -> Instant {
        Instant::from_millis(super::clock_ms().into())
    }

    /// On its own, so that what it needs on the stack is free again when the device runs.
    #[inline(never)]
    fn start(state: &mut MaybeUninit<Meter>) -> &mut Meter {
        let id: DeviceId = "meter-1".parse().expect("of letters, a digit and a hyphen");
        let config = Config { role: Role::Device, boot_id: super::clock_ms(), mtu: MTU };
        state.write(Device::new(id, config, now()))
    }

    #[allow(static_mut_refs, reason = "there is one thread and it is here once")]
    pub fn run() -> ! {
        // SAFETY: this function is called once and does not return: nothing else refers to these.
        let (state, frame) = unsafe { (&mut STATE, &mut FRAME) };
        let device = start(state);
        super::send(&[0]);
        loop {
            if let Some(octet) = super::received()
                && let (_, Some(_)) = device.feed(&[octet], now())
            {
                while let Some(received) = device.poll_message() {
                    if let Received::New(ToDevice::Push { message, body, .. }) = received {
                        super::show(body);
                        device.accept(message);
                    }
                }
            }
            if super::is_pressed() && device.subscribe(ChannelId(1)).is_err() {
                super::show(b"later");
            }
            device.handle_timeout(now());
            while let Some(bytes) = device.poll_transmit(now(), frame) {
                super::send(&frame[..bytes]);
            }
        }
    }
}

#[cfg(not(feature = "device"))]
mod device {
    const BYTES: usize = 256;

    static mut LINE: [u8; BYTES] = [0; BYTES];
    static mut FRAME: [u8; BYTES] = [0; BYTES];

    /// Sends back line by line, and so moves, copies and clears octets, as any firmware does.
    #[allow(static_mut_refs, reason = "there is one thread and it is here once")]
    pub fn run() -> ! {
        // SAFETY: this function is called once and does not return: nothing else refers to these.
        let (line, frame) = unsafe { (&mut LINE, &mut FRAME) };
        let mut bytes = 0;
        loop {
            if let Some(octet) = super::received()
                && let Some(place) = line.get_mut(bytes)
            {
                *place = octet;
                bytes += 1;
            }
            if let Some(end) = line.iter().position(|octet| *octet == b'\n') {
                frame[..end].copy_from_slice(&line[..end]);
                super::send(&frame[..end]);
                line.copy_within(end + 1.., 0);
                bytes = bytes.saturating_sub(end + 1);
                line[bytes..].fill(0);
            }
            if super::is_pressed() {
                super::send(&super::clock_ms().to_le_bytes());
                super::show(b"later");
            }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    device::run()
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
