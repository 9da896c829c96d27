//! A program that samples once a second and writes to a UART: what it was sampled as it is, or, with the feature
//! `device`, through a device of two channels. The difference between the two is the flash that a device takes.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::panic::PanicInfo;

use embedded_io::{ErrorType, Read, ReadReady, Write};

/// Three registers of a UART, wherever the chip has them.
struct Uart(*mut u32);

impl Uart {
    fn read_register(&self, index: usize) -> u32 {
        // SAFETY: the program is only linked, to be measured; it stands for one that knows its chip.
        unsafe { self.0.add(index).read_volatile() }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.read_register(0) & 1 != 0)
    }
}

impl Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        *first = self.read_register(1).to_le_bytes()[0];
        Ok(1)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for byte in bytes {
            // SAFETY: as above.
            unsafe { self.0.add(2).write_volatile(u32::from(*byte)) }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut uart = Uart(0x4000_2000 as *mut u32);
    sample(&mut uart)
}

/// Rows of a count and a level, as the chip's registers have them.
fn row(uart: &Uart) -> (u64, u32, i32) {
    (u64::from(uart.read_register(3)), uart.read_register(4), uart.read_register(5).cast_signed())
}

#[cfg(not(feature = "device"))]
fn sample(uart: &mut Uart) -> ! {
    let mut bytes = [0; 64];
    loop {
        let (tick, count, level) = row(uart);
        if let Ok(true) = uart.read_ready() {
            let _ = uart.read(&mut bytes);
        }
        let words = [tick.to_le_bytes(), u64::from(count).to_le_bytes(), i64::from(level).to_le_bytes()];
        let _ = uart.write(words.as_flattened());
    }
}

#[cfg(feature = "device")]
fn sample(uart: &mut Uart) -> ! {
    use forebay_firmware::{Device, DeviceConfig, WhenFull, adapters::blocking::service};
    use forebay_shared::ids::{ChipId, GroupId, Millis, Tick};
    use forebay_shared::reading::{Channel, Group, Groups, Value, ValueKind};
    use forebay_shared::{link::Transport, message::ResetCause};

    const COUNT: Channel = Channel { name: "count", unit: "", kind: ValueKind::U32, scale: 0 };
    const LEVEL: Channel = Channel { name: "level", unit: "%", kind: ValueKind::I32, scale: -1 };
    const GROUPS: Groups = Groups::new(&[Group { name: "meter", channels: &[COUNT, LEVEL] }]);

    static CONFIG: DeviceConfig = DeviceConfig {
        name: "meter",
        groups: GROUPS,
        tick_hz: 1000,
        linger_ms: 1000,
        transport: Transport::Serial,
        when_full: WhenFull::DropOldest,
    };

    let Some(chip) = ChipId::new(&uart.read_register(6).to_le_bytes()) else { loop {} };
    #[cfg(not(feature = "resume"))]
    let mut device = {
        static mut RING: [u8; 8192] = [0; 8192];
        // SAFETY: this is called once, and nothing else knows the name.
        let ring = unsafe { &mut *(&raw mut RING) };
        Device::<8192, 2, _>::with_memory(&CONFIG, ring, chip, ResetCause::UNKNOWN)
    };
    #[cfg(feature = "resume")]
    let mut device = {
        use core::mem::MaybeUninit;
        use forebay_firmware::ring::{KEPT_BYTES, Uninit};

        #[unsafe(link_section = ".uninit.ring")]
        static mut RAM: MaybeUninit<[u8; 8192 + KEPT_BYTES]> = MaybeUninit::uninit();
        // SAFETY: this is called once, and nothing else knows the name.
        let ram = unsafe { Uninit::new(&raw mut RAM) };
        let cause = ResetCause(uart.read_register(7).to_le_bytes()[0]);
        Device::<8192, 2, _>::resume(&CONFIG, ram, chip, cause)
    };
    loop {
        let (tick, count, level) = row(uart);
        let _ = device.record(Tick(tick), GroupId(0), &[Some(Value::U32(count)), Some(Value::I32(level))]);
        let _ = service(&mut device, uart, Millis(tick), Tick(tick));
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
