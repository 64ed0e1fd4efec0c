//! The SGX extensions of PCK certificates (Intel SGX PCK Certificate and CRL Profile Specification, "SGX Extensions").
//!
//! One X.509 extension, 1.2.840.113741.1.13.1, holds a sequence of pairs of an OID and a value. Platform Instance ID and
//! Configuration may be left out, as the Processor CA does; every other field has to be there, each once, and nothing that
//! is not known: a field that stands twice would have two readings.

use crate::parse::cert::{CertError, Certificate, shown};
use crate::parse::der::{
    self, BOOLEAN, ENUMERATED, Element, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE,
};

/// Which CA issued a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PckCa {
    /// Intel SGX PCK Processor CA: platforms of one package, and those whose keys Intel does not register.
    Processor,
    /// Intel SGX PCK Platform CA: platforms that registered.
    Platform,
}

impl PckCa {
    /// `processor`, `platform`, as in the names of Intel's service.
    pub fn word(self) -> &'static str {
        match self {
            PckCa::Processor => "processor",
            PckCa::Platform => "platform",
        }
    }
}

/// SGX Type: how memory is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgxType {
    /// 0: with integrity and freshness, small.
    Standard,
    /// 1: encryption alone.
    Scalable,
    /// 2: encryption and integrity.
    ScalableWithIntegrity,
}

impl SgxType {
    /// `standard`, `scalable`, `scalable-with-integrity`.
    pub fn word(self) -> &'static str {
        match self {
            SgxType::Standard => "standard",
            SgxType::Scalable => "scalable",
            SgxType::ScalableWithIntegrity => "scalable-with-integrity",
        }
    }
}

/// Configuration of a platform, as certificates by the Platform CA give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformConfiguration {
    /// Packages can be added to the platform. `None`: undefined.
    pub dynamic_platform: Option<bool>,
    /// Intel keeps the platform's root keys. `None`: undefined.
    pub cached_keys: Option<bool>,
    /// SMT is on. `None`: undefined.
    pub smt_enabled: Option<bool>,
}

/// What the SGX extensions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PckExtensions {
    /// PPID.
    pub ppid: [u8; 16],
    /// Security version of each of the 16 TCB components.
    pub comp_svn: [u8; 16],
    /// PCESVN.
    pub pce_svn: u16,
    /// CPUSVN.
    pub cpu_svn: [u8; 16],
    /// PCE-ID, bytes as in `pceId` of TCB info.
    pub pce_id: [u8; 2],
    /// FMSPC: family, model, stepping, platform type and custom SKU.
    pub fmspc: [u8; 6],
    /// SGX Type.
    pub sgx_type: SgxType,
    /// Platform Instance ID; optional.
    pub platform_instance_id: Option<[u8; 16]>,
    /// Configuration; optional.
    pub configuration: Option<PlatformConfiguration>,
    /// Which CA the certificate says issued it. `None`: neither of the two, which no authentic evidence has.
    pub ca: Option<PckCa>,
}

/// Contents of the OID 1.2.840.113741.1.13.1.
const SGX: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// Fields below [`SGX`], and their names in Intel's specification.
const PPID: (&[u8], &str) = (&[1], "PPID");
const TCB: (&[u8], &str) = (&[2], "TCB");
const PCE_ID: (&[u8], &str) = (&[3], "PCE-ID");
const FMSPC: (&[u8], &str) = (&[4], "FMSPC");
const SGX_TYPE: (&[u8], &str) = (&[5], "SGX Type");
const INSTANCE: (&[u8], &str) = (&[6], "Platform Instance ID");
const CONFIGURATION: (&[u8], &str) = (&[7], "Configuration");
const PCE_SVN: (&[u8], &str) = (&[2, 17], "PCESVN");
const CPU_SVN: (&[u8], &str) = (&[2, 18], "CPUSVN");
const DYNAMIC_PLATFORM: (&[u8], &str) = (&[7, 1], "Dynamic Platform");
const CACHED_KEYS: (&[u8], &str) = (&[7, 2], "Cached Keys");
const SMT_ENABLED: (&[u8], &str) = (&[7, 3], "SMT Enabled");

/// Last byte of the OID of the first and of the last TCB component's security version.
const COMPONENTS: std::ops::RangeInclusive<u8> = 1..=16;

impl PckExtensions {
    /// Reads what a PCK certificate says of its platform.
    ///
    /// # Errors
    /// [`CertError`] names the field that is missing, stands twice or is not of its form.
    pub fn read(certificate: &Certificate) -> Result<PckExtensions, CertError> {
        let extension = certificate
            .extensions
            .iter()
            .find(|extension| extension.oid == SGX)
            .ok_or(CertError::Missing("SGX Extensions"))?;
        let whole = der::strict(&extension.value)?;
        let mut fields = Fields::of("SGX Extensions", whole)?;
        let mut tcb = Fields::of(TCB.1, fields.take(TCB)?)?;
        let mut comp_svn = [0; 16];
        for (svn, number) in comp_svn.iter_mut().zip(COMPONENTS) {
            let component = tcb.take((&[2, number], "TCB Component SVN"))?;
            *svn = integer("TCB Component SVN", component)?;
        }
        let pce_svn = integer(PCE_SVN.1, tcb.take(PCE_SVN)?)?;
        let cpu_svn = octets(CPU_SVN.1, tcb.take(CPU_SVN)?)?;
        tcb.end()?;
        let ppid = octets(PPID.1, fields.take(PPID)?)?;
        let pce_id = octets(PCE_ID.1, fields.take(PCE_ID)?)?;
        let fmspc = octets(FMSPC.1, fields.take(FMSPC)?)?;
        let sgx_type = sgx_type(fields.take(SGX_TYPE)?)?;
        let platform_instance_id = fields.optional(INSTANCE.0);
        let platform_instance_id = platform_instance_id.map(|id| octets(INSTANCE.1, id));
        let configuration = fields.optional(CONFIGURATION.0).map(configuration);
        fields.end()?;
        Ok(PckExtensions {
            ppid,
            comp_svn,
            pce_svn,
            cpu_svn,
            pce_id,
            fmspc,
            sgx_type,
            platform_instance_id: platform_instance_id.transpose()?,
            configuration: configuration.transpose()?,
            ca: ca_of(&certificate.issuer_cn),
        })
    }
}

/// Pairs of an OID and a value that have not been read yet.
struct Fields<'a> {
    name: &'static str,
    left: Vec<(&'a [u8], Element<'a>)>,
}

impl<'a> Fields<'a> {
    /// Splits a SEQUENCE OF SEQUENCE { OID, value }; all OIDs lie below [`SGX`], none twice.
    fn of(name: &'static str, sequence: Element<'a>) -> Result<Fields<'a>, CertError> {
        if sequence.tag != SEQUENCE {
            return Err(wrong(name, sequence.whole, "a SEQUENCE of fields"));
        }
        let mut reader = sequence.reader();
        let mut left: Vec<(&[u8], Element<'_>)> = Vec::new();
        while let Some(pair) = reader.next()? {
            let expected = "pairs of an OID and a value";
            if pair.tag != SEQUENCE {
                return Err(wrong(name, pair.whole, expected));
            }
            let mut inner: Reader<'_> = pair.reader();
            let oid = inner.expect(OID)?.contents;
            let value = inner
                .next()?
                .ok_or_else(|| wrong(name, pair.whole, expected))?;
            inner.end()?;
            let Some(field) = oid.strip_prefix(SGX) else {
                return Err(wrong(name, oid, "fields whose OID is Intel's"));
            };
            // No sequence of fields has more than 18: a set would not be faster.
            if left.len() == 18 {
                return Err(wrong(name, pair.whole, "no more fields than are defined"));
            }
            if left.iter().any(|(before, _)| *before == field) {
                return Err(CertError::Twice(format!("{name}, field {}", shown(field))));
            }
            left.push((field, value));
        }
        Ok(Fields { name, left })
    }

    /// The value of a field, which has to be there.
    fn take(&mut self, (field, name): (&[u8], &'static str)) -> Result<Element<'a>, CertError> {
        self.optional(field).ok_or(CertError::Missing(name))
    }

    fn optional(&mut self, field: &[u8]) -> Option<Element<'a>> {
        let place = self.left.iter().position(|(oid, _)| *oid == field)?;
        Some(self.left.swap_remove(place).1)
    }

    /// Nothing may be left that was not asked for.
    fn end(self) -> Result<(), CertError> {
        match self.left.first() {
            None => Ok(()),
            Some((field, _)) => Err(wrong(
                self.name,
                field,
                "no field but those that are defined",
            )),
        }
    }
}

/// Which CA it was, by the name that the certificate gives its issuer.
fn ca_of(issuer: &str) -> Option<PckCa> {
    let processor = issuer.contains("SGX PCK Processor CA");
    let platform = issuer.contains("SGX PCK Platform CA");
    match (processor, platform) {
        (true, false) => Some(PckCa::Processor),
        (false, true) => Some(PckCa::Platform),
        _ => None,
    }
}

fn wrong(name: &str, found: &[u8], expected: &'static str) -> CertError {
    CertError::Extension {
        name: name.into(),
        found: shown(found),
        expected,
    }
}

fn octets<const N: usize>(name: &str, value: Element<'_>) -> Result<[u8; N], CertError> {
    match <[u8; N]>::try_from(value.contents) {
        Ok(bytes) if value.tag == OCTET_STRING => Ok(bytes),
        _ => Err(wrong(name, value.whole, "an OCTET STRING of its length")),
    }
}

/// An INTEGER that is not negative and not too large.
fn integer<T: TryFrom<u16>>(name: &str, value: Element<'_>) -> Result<T, CertError> {
    let number = match value.contents {
        _ if value.tag != INTEGER => None,
        [low @ 0..=0x7f] => Some(u16::from(*low)),
        // Strict DER: a leading zero stands only before a byte with its highest bit set.
        [high @ 0..=0x7f, low] | [0, high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| wrong(name, value.whole, "an INTEGER within its range"))
}

fn sgx_type(value: Element<'_>) -> Result<SgxType, CertError> {
    match (value.tag, value.contents) {
        (ENUMERATED, [0]) => Ok(SgxType::Standard),
        (ENUMERATED, [1]) => Ok(SgxType::Scalable),
        (ENUMERATED, [2]) => Ok(SgxType::ScalableWithIntegrity),
        _ => Err(wrong(SGX_TYPE.1, value.whole, "an ENUMERATED from 0 to 2")),
    }
}

/// Each flag may be left out: then it is undefined.
fn configuration(value: Element<'_>) -> Result<PlatformConfiguration, CertError> {
    let mut fields = Fields::of(CONFIGURATION.1, value)?;
    let mut flag = |(field, name): (&[u8], &'static str)| match fields.optional(field) {
        None => Ok(None),
        Some(Element {
            tag: BOOLEAN,
            contents: [byte],
            ..
        }) => Ok(Some(*byte != 0)),
        Some(other) => Err(wrong(name, other.whole, "a BOOLEAN")),
    };
    let configuration = PlatformConfiguration {
        dynamic_platform: flag(DYNAMIC_PLATFORM)?,
        cached_keys: flag(CACHED_KEYS)?,
        smt_enabled: flag(SMT_ENABLED)?,
    };
    fields.end()?;
    Ok(configuration)
}
