//! How a minimum TCB is written: `{"Genoa":{"bootloader":9,…}}`, or `{"tcb_evaluation_data_number":17}`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::types::MinimumTcb;
use crate::policy::{Floor, Floors};
use crate::product::FLOOR_KEYS;
use touchstone_formats::text::shown;

const NUMBER: &str = "tcb_evaluation_data_number";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FloorWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

impl Serialize for MinimumTcb {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self {
            MinimumTcb::Tdx {
                tcb_evaluation_data_number,
            } => map.serialize_entry(NUMBER, tcb_evaluation_data_number)?,
            MinimumTcb::Snp(Floors(floors)) => {
                for (product, floor) in floors {
                    let Floor {
                        fmc,
                        bootloader,
                        tee,
                        snp,
                        microcode,
                    } = *floor;
                    let wire = FloorWire {
                        fmc,
                        bootloader,
                        tee,
                        snp,
                        microcode,
                    };
                    map.serialize_entry(product, &wire)?;
                }
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for MinimumTcb {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = MinimumTcb;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "floors by product, or {NUMBER}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MinimumTcb, A::Error> {
                let mut floors = BTreeMap::new();
                let mut number = None;
                while let Some(key) = map.next_key::<String>()? {
                    let twice = if key == NUMBER {
                        number.replace(map.next_value()?).is_some()
                    } else if FLOOR_KEYS.contains(&key.as_str()) {
                        let wire: FloorWire = map.next_value()?;
                        let floor = floor(&key, wire).map_err(A::Error::custom)?;
                        floors.insert(key.clone(), floor).is_some()
                    } else {
                        let known = FLOOR_KEYS.join(", ");
                        return Err(A::Error::custom(format_args!(
                            "{} is none of {known}, {NUMBER}",
                            shown(&key)
                        )));
                    };
                    if twice {
                        return Err(A::Error::custom(format_args!("{key} stands twice")));
                    }
                }
                match (number, floors.is_empty()) {
                    (Some(tcb_evaluation_data_number), true) => Ok(MinimumTcb::Tdx {
                        tcb_evaluation_data_number,
                    }),
                    (None, false) => Ok(MinimumTcb::Snp(Floors(floors))),
                    _ => Err(A::Error::custom(
                        "expected floors of one product or more, or the number of TDX, one of them",
                    )),
                }
            }
        }

        from.deserialize_map(Members)
    }
}

/// Products from Turin on have an FMC, the ones before have not.
fn floor(product: &str, wire: FloorWire) -> Result<Floor, String> {
    if wire.fmc.is_some() != product.starts_with("Turin") {
        return Err(format!(
            "{product}: fmc belongs to Turin, and to Turin alone"
        ));
    }
    Ok(Floor {
        fmc: wire.fmc,
        bootloader: wire.bootloader,
        tee: wire.tee,
        snp: wire.snp,
        microcode: wire.microcode,
    })
}

impl MinimumTcb {
    /// Reads one as the command line has it: a product and its floors, `Genoa:bootloader=9,tee=0,snp=23,microcode=72`, or
    /// `tcb_evaluation_data_number=17`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_argument(text: &str) -> Result<MinimumTcb, String> {
        let number = |text: &str| -> Result<u64, String> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            number.ok_or_else(|| format!("{} is no number", shown(text)))
        };
        let pair = |text: &str| {
            let pair = text
                .split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()));
            pair.ok_or_else(|| format!("{}: expected NAME=NUMBER", shown(text)))
        };
        let Some((product, parts)) = text.split_once(':') else {
            let (name, value) = pair(text)?;
            if name != NUMBER {
                return Err(format!(
                    "expected {NUMBER}=N, or PRODUCT:bootloader=N,tee=N,snp=N,microcode=N"
                ));
            }
            return Ok(MinimumTcb::Tdx {
                tcb_evaluation_data_number: number(&value)?,
            });
        };
        let mut members = serde_json::Map::new();
        for part in parts.split(',') {
            let (name, value) = pair(part)?;
            if members
                .insert(name.clone(), number(&value)?.into())
                .is_some()
            {
                return Err(format!("{name} is given twice"));
            }
        }
        let object = serde_json::json!({ product: members });
        serde_json::from_value(object).map_err(|error| error.to_string())
    }

    /// Both, where they are floors of different products.
    ///
    /// # Errors
    /// A product that both have; numbers of TDX, of which there is one alone.
    pub fn and(self, other: MinimumTcb) -> Result<MinimumTcb, String> {
        let (MinimumTcb::Snp(Floors(mut all)), MinimumTcb::Snp(Floors(more))) = (self, other)
        else {
            return Err("a platform has floors of products, or one number of TDX".into());
        };
        for (product, floor) in more {
            if all.insert(product.clone(), floor).is_some() {
                return Err(format!("{product} is given twice"));
            }
        }
        Ok(MinimumTcb::Snp(Floors(all)))
    }
}
