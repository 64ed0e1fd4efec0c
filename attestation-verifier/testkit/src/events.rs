//! Event logs of TDX guests in the form that firmware leaves in memory (`ccel`): TCG's crypto-agile log (TCG PC Client
//! Platform Firmware Profile, §10.2), one SHA-384 digest an event, MR index 1 for RTMR0 up to 4 for RTMR3.

use ring::digest::{SHA384, digest};
use touchstone_formats::evidence::EventLog as EvidenceLog;
use touchstone_formats::text::Base64Bytes;

/// Types of events (TCG PC Client Platform Firmware Profile, table 27).
pub mod event_type {
    /// EV_NO_ACTION: nothing is extended.
    pub const NO_ACTION: u32 = 0x3;
    /// EV_SEPARATOR.
    pub const SEPARATOR: u32 = 0x4;
    /// EV_EVENT_TAG.
    pub const EVENT_TAG: u32 = 0x6;
    /// EV_PLATFORM_CONFIG_FLAGS.
    pub const PLATFORM_CONFIG_FLAGS: u32 = 0xa;
    /// EV_IPL.
    pub const IPL: u32 = 0xd;
    /// EV_EFI_PLATFORM_FIRMWARE_BLOB2.
    pub const EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
}

/// TCG's number of SHA-384.
const ALG_SHA384: u16 = 0x000c;

/// One event. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// MR index as written: 0 is MRTD, 1 to 4 are RTMR0 to RTMR3.
    pub mr_index: u32,
    /// Type, see [`event_type`].
    pub event_type: u32,
    /// What the register was extended with.
    pub digest: [u8; 48],
    /// The event itself.
    pub data: Vec<u8>,
}

impl Event {
    /// An event in RTMR `rtmr` (0 to 3) whose digest is that of its data.
    pub fn new(rtmr: usize, event_type: u32, data: &[u8]) -> Self {
        Self {
            mr_index: rtmr as u32 + 1,
            event_type,
            digest: sha384(&[data]),
            data: data.to_vec(),
        }
    }
}

/// An event log. Every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Padding to be written after the end: how many bytes, of which value (real firmware: 0x00 or 0xff).
    pub padding: (usize, u8),
}

impl EventLog {
    /// What a small guest measures before its first program runs: firmware's configuration in RTMR0, loader and kernel in
    /// RTMR1, the command line in RTMR2, nothing in RTMR3.
    pub fn boot() -> Self {
        use event_type::{EFI_PLATFORM_FIRMWARE_BLOB2, IPL, PLATFORM_CONFIG_FLAGS, SEPARATOR};
        let event = Event::new;
        Self {
            events: vec![
                event(0, PLATFORM_CONFIG_FLAGS, b"td_hob\0simulated"),
                event(0, SEPARATOR, &[0; 4]),
                event(
                    1,
                    EFI_PLATFORM_FIRMWARE_BLOB2,
                    b"\x0btd_payload\0simulated kernel",
                ),
                event(1, SEPARATOR, &[0; 4]),
                event(2, IPL, b"console=hvc0 root=/dev/vda1"),
            ],
            padding: (0, 0),
        }
    }

    /// The value of RTMR `rtmr` (0 to 3) after these events: SHA-384 of the old value and the digest, each time.
    pub fn replay(&self, rtmr: usize) -> [u8; 48] {
        self.events
            .iter()
            .filter(|e| e.mr_index as usize == rtmr + 1 && e.event_type != event_type::NO_ACTION)
            .fold([0; 48], |value, e| sha384(&[&value, &e.digest]))
    }

    /// The log as firmware writes it.
    pub fn to_ccel(&self) -> Vec<u8> {
        let mut out = spec_id_event();
        for event in &self.events {
            out.extend_from_slice(&event.mr_index.to_le_bytes());
            out.extend_from_slice(&event.event_type.to_le_bytes());
            out.extend_from_slice(&1u32.to_le_bytes());
            out.extend_from_slice(&ALG_SHA384.to_le_bytes());
            out.extend_from_slice(&event.digest);
            out.extend_from_slice(&(event.data.len() as u32).to_le_bytes());
            out.extend_from_slice(&event.data);
        }
        out.resize(out.len() + self.padding.0, self.padding.1);
        out
    }

    /// The log as evidence holds it.
    pub fn to_evidence(&self) -> EvidenceLog {
        EvidenceLog {
            format: "ccel".into(),
            data: Base64Bytes(self.to_ccel()),
        }
    }
}

/// `TCG_EfiSpecIDEvent`, in the older form of an event: one SHA-1 digest of zeros. It names SHA-384 as the only algorithm.
fn spec_id_event() -> Vec<u8> {
    let mut event = b"Spec ID Event03\0".to_vec();
    event.extend_from_slice(&0u32.to_le_bytes()); // platform class: client
    event.extend_from_slice(&[0, 2, 0, 2]); // version 2.0, errata 0, UINTN of 8 bytes
    event.extend_from_slice(&1u32.to_le_bytes());
    event.extend_from_slice(&ALG_SHA384.to_le_bytes());
    event.extend_from_slice(&48u16.to_le_bytes());
    event.push(0); // no vendor information
    let mut out = [0u32, event_type::NO_ACTION].map(u32::to_le_bytes).concat();
    out.extend_from_slice(&[0; 20]);
    out.extend_from_slice(&(event.len() as u32).to_le_bytes());
    out.extend_from_slice(&event);
    out
}

fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    let digest = digest(&SHA384, &parts.concat());
    digest.as_ref().try_into().expect("48 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_takes_what_is_extended_and_nothing_else() {
        let mut log = EventLog::boot();
        let before = [0, 1, 2, 3].map(|n| log.replay(n));
        assert_eq!(before[3], [0; 48]);
        assert!(before[..3].iter().all(|value| *value != [0; 48]));
        log.events
            .push(Event::new(3, event_type::NO_ACTION, b"nothing"));
        assert_eq!(log.replay(3), [0; 48]);
        log.events
            .push(Event::new(3, event_type::EVENT_TAG, b"app"));
        assert_eq!(log.replay(3), sha384(&[&[0; 48], &sha384(&[b"app"])]));
        assert_eq!([0, 1, 2].map(|n| log.replay(n)), before[..3]);
    }
}
