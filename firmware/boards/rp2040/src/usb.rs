//! A serial port on USB, as the operating system knows them: no driver, no baud rate.

use core::cell::RefCell;
use core::convert::Infallible;
use core::fmt::Write as _;

use cortex_m::singleton;
use critical_section::Mutex;
use embedded_io::{ErrorType, Write, WriteReady};
use forebay_firmware::adapters::interrupt::ByteGiver;
use forebay_shared::ids::ChipId;
use forebay_shared::reading::Name;
use rp2040_hal::pac::{self, interrupt};
use rp2040_hal::usb::UsbBus;
use usb_device::bus::UsbBusAllocator;
use usb_device::device::{StringDescriptors, UsbDevice, UsbDeviceBuilder, UsbVidPid};
use usbd_serial::{SerialPort, USB_CLASS_CDC};

/// What Raspberry Pi's own firmware for a serial port on USB has.
const IDENTITY: UsbVidPid = UsbVidPid(0x2e8a, 0x000a);

struct Usb {
    device: UsbDevice<'static, UsbBus>,
    serial: SerialPort<'static, UsbBus>,
    giver: ByteGiver<'static>,
}

/// The main loop writes, and the interrupt does all else.
static USB: Mutex<RefCell<Option<Usb>>> = Mutex::new(RefCell::new(None));

/// Lets the host see the port, with the chip's identity as its serial number.
pub(crate) fn start(bus: UsbBus, chip: &ChipId, giver: ByteGiver<'static>) -> Option<Port> {
    let bus = singleton!(: UsbBusAllocator<UsbBus> = UsbBusAllocator::new(bus))?;
    let number = singleton!(: Name = Name::new())?;
    write!(number, "{chip}").ok()?;
    let serial = SerialPort::new(bus);
    let strings = StringDescriptors::default().manufacturer("Forebay").product("Forebay Pico");
    let device = UsbDeviceBuilder::new(bus, IDENTITY)
        .strings(&[strings.serial_number(number)])
        .ok()?
        .device_class(USB_CLASS_CDC)
        .build();
    critical_section::with(|section| USB.borrow_ref_mut(section).replace(Usb { device, serial, giver }));
    // SAFETY: the interrupt's handler needs nothing but what is there now.
    unsafe { cortex_m::peripheral::NVIC::unmask(pac::Interrupt::USBCTRL_IRQ) };
    Some(Port)
}

#[interrupt]
fn USBCTRL_IRQ() {
    critical_section::with(|section| {
        let mut usb = USB.borrow_ref_mut(section);
        let Some(Usb { device, serial, giver }) = usb.as_mut() else { return };
        let mut packet = [0; 64];
        if device.poll(&mut [serial])
            && let Ok(count) = serial.read(&mut packet)
        {
            packet.iter().take(count).for_each(|byte| giver.give(*byte));
        }
    });
}

fn with_serial<T>(nothing: T, work: impl FnOnce(&mut SerialPort<'static, UsbBus>) -> T) -> T {
    critical_section::with(|section| match USB.borrow_ref_mut(section).as_mut() {
        Some(usb) => work(&mut usb.serial),
        None => nothing,
    })
}

/// The half that writes.
pub(crate) struct Port;

impl ErrorType for Port {
    type Error = Infallible;
}

impl WriteReady for Port {
    /// Whether the host has taken everything. As long as it does not, nothing more is written, so that the device's own
    /// ring keeps the readings.
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(with_serial(false, |serial| serial.flush().is_ok()))
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        loop {
            // The buffer of 128 bytes is empty whenever the port is ready, so that this does not come around.
            if let count @ 1.. = with_serial(0, |serial| serial.write(bytes).unwrap_or(0)) {
                return Ok(count);
            }
        }
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
