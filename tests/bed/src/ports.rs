//! Free ports of this machine, held until a program takes them.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::bail;

/// Below the ports that the kernel gives to outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Counts the ports that this process has given out, so that none is given twice: a member that is down for a while must
/// find its port again.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1, held by a listener until [`Port::release`].
#[derive(Debug)]
pub struct Port {
    number: u16,
    holder: Mutex<Option<TcpListener>>,
}

impl Port {
    /// The next free one.
    ///
    /// # Errors
    /// When all are taken.
    pub fn free() -> anyhow::Result<Self> {
        // Processes that run beside each other begin at different places.
        let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).unwrap_or_default();
        for _ in 0..COUNT {
            let given = GIVEN.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (start.wrapping_add(given)) % COUNT;
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", number)) {
                return Ok(Port { number, holder: Mutex::new(Some(listener)) });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Lets go of it: the program that is to listen starts now.
    pub fn release(&self) {
        if let Ok(mut holder) = self.holder.lock() {
            holder.take();
        }
    }
}
