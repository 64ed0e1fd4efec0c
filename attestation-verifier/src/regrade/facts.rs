//! What a notice is compared with: the description of an authentic platform, as a verdict has it.

use serde_json::Value;
use touchstone_formats::Tee;

use super::list::Notice;
use crate::product::Product;

/// The facts about one authentic piece of evidence.
pub(super) struct Facts<'a> {
    platform: &'a Value,
    tee: Tee,
}

/// The TCB versions of a report that a notice counts.
const TCBS: [&str; 3] = ["reported", "committed", "launch"];

impl<'a> Facts<'a> {
    /// None unless the evidence was authentic.
    pub(super) fn of(platform: &'a Value) -> Option<Facts<'a>> {
        let name = platform.get("tee")?.as_str()?;
        let tee = [Tee::SevSnp, Tee::Tdx]
            .into_iter()
            .find(|tee| tee.name() == name)?;
        Some(Facts { platform, tee })
    }

    /// Why the notice is about this platform, whatever the time; `None` if it is not.
    ///
    /// # Errors
    /// What the notice asks for, and the description does not have. A notice that cannot be evaluated is not
    /// one that does not apply.
    pub(super) fn matches(&self, notice: &Notice) -> Result<Option<String>, String> {
        if notice.tee != self.tee || !self.product(notice)? {
            return Ok(None);
        }
        if notice.below.is_empty() && notice.statuses.is_empty() && notice.advisories.is_empty() {
            return Ok(Some("at every level".to_owned()));
        }
        match self.tee {
            Tee::SevSnp => self.snp_below(notice),
            Tee::Tdx => self.tdx(notice),
        }
    }

    fn text(&self, pointer: &str) -> Result<&str, String> {
        let value = self.platform.pointer(pointer).and_then(Value::as_str);
        value.ok_or_else(|| pointer.trim_start_matches('/').replace('/', "."))
    }

    fn product(&self, notice: &Notice) -> Result<bool, String> {
        if notice.products == ["any"] {
            return Ok(true);
        }
        let names = |name: &str| notice.products.iter().any(|p| p == name);
        if self.tee == Tee::Tdx {
            return Ok(names(self.text("/fmspc")?));
        }
        if !self.platform.get("cpuid").is_some_and(Value::is_null) {
            return Ok(names(self.text("/variant")?));
        }
        // Version 2 does not say which variant of the product it is: it may be any of them.
        let product = self.text("/product")?;
        Ok(notice
            .products
            .iter()
            .any(|name| of_product(name) == product))
    }

    fn snp_below(&self, notice: &Notice) -> Result<Option<String>, String> {
        for (component, least) in &notice.below {
            for tcb in TCBS {
                let tcb_value = self.platform.pointer(&format!("/tcb/{tcb}"));
                let levels = tcb_value
                    .and_then(Value::as_object)
                    .ok_or_else(|| format!("tcb.{tcb}"))?;
                // Products before Turin have no FMC, which nothing can be below of.
                let Some(found) = levels.get(component) else {
                    if component == "fmc" {
                        continue;
                    }
                    return Err(format!("tcb.{tcb}.{component}"));
                };
                let found = found
                    .as_u64()
                    .ok_or_else(|| format!("tcb.{tcb}.{component}"))?;
                if found < *least {
                    return Ok(Some(format!("{tcb} {component} {found} is below {least}")));
                }
            }
        }
        Ok(None)
    }

    fn tdx(&self, notice: &Notice) -> Result<Option<String>, String> {
        for (component, least) in &notice.below {
            let pointer = match component.as_str() {
                "evaluation_number" => "/tcb/evaluation_number",
                "pce_svn" => "/tcb/pce_svn",
                _ => "/module/isvsvn",
            };
            let found = self.platform.pointer(pointer).and_then(Value::as_u64);
            let found = found.ok_or_else(|| component.clone())?;
            if found < *least {
                return Ok(Some(format!("{component} {found} is below {least}")));
            }
        }
        if !notice.statuses.is_empty() {
            let status = self.text("/tcb/status")?;
            if notice.statuses.iter().any(|s| s == status) {
                return Ok(Some(format!("its TCB status is {status}")));
            }
        }
        if !notice.advisories.is_empty() {
            let list = self.platform.pointer("/tcb/advisories");
            let list = list
                .and_then(Value::as_array)
                .ok_or_else(|| "tcb.advisories".to_owned())?;
            let hit = notice
                .advisories
                .iter()
                .find(|id| list.iter().any(|found| found.as_str() == Some(id)));
            if let Some(id) = hit {
                return Ok(Some(format!("{id} applies to its TCB level")));
            }
        }
        Ok(None)
    }
}

/// The product line that a part belongs to.
fn of_product(part: &str) -> &str {
    match part {
        "Milan-X" => Product::Milan.name(),
        "Genoa-X" | "Bergamo" => Product::Genoa.name(),
        "Turin-Dense" => Product::Turin.name(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn notice(change: impl FnOnce(&mut Value)) -> Notice {
        let mut notice = json!({
            "advisories": [], "below": {}, "id": "x", "not_trusted_since": null, "products": ["any"],
            "source": "s", "statuses": [], "tee": "tdx", "words": "w",
        });
        change(&mut notice);
        serde_json::from_value(notice).unwrap()
    }

    /// The members of `platform` that notices read, as appraisal writes them for TDX.
    #[test]
    fn notices_about_tdx() {
        let platform = json!({
            "tee": "tdx", "fmspc": "00806f050000",
            "tcb": {"status": "OutOfDate", "advisories": ["INTEL-SA-01036"], "evaluation_number": 17, "pce_svn": 11},
            "module": {"isvsvn": 4},
        });
        let facts = Facts::of(&platform).unwrap();
        let fits = |change: fn(&mut Value)| facts.matches(&notice(change)).unwrap().is_some();
        assert!(fits(|_| ()));
        assert!(fits(|n| n["products"] = json!(["00806f050000"])));
        assert!(!fits(|n| n["products"] = json!(["90c06f000000"])));
        assert!(fits(|n| n["below"] = json!({"tdx_module": 5})));
        assert!(!fits(|n| n["below"] = json!({"tdx_module": 4})));
        assert!(fits(
            |n| n["below"] = json!({"tdx_module": 4, "pce_svn": 12})
        ));
        assert!(!fits(
            |n| n["below"] = json!({"pce_svn": 11, "evaluation_number": 17})
        ));
        assert!(fits(|n| n["below"] = json!({"evaluation_number": 18})));
        assert!(fits(|n| n["statuses"] = json!(["Revoked", "OutOfDate"])));
        assert!(!fits(|n| n["statuses"] = json!(["Revoked"])));
        assert!(fits(|n| n["advisories"] = json!(["INTEL-SA-01036"])));
        assert!(!fits(|n| n["advisories"] = json!(["INTEL-SA-00837"])));
        assert!(!fits(|n| n["tee"] = json!("sev-snp")));
    }

    /// What a notice asks for and the description lacks is never passed over.
    #[test]
    fn what_is_not_described_is_not_passed_over() {
        let platform = json!({"tee": "tdx"});
        let facts = Facts::of(&platform).unwrap();
        let changes: [fn(&mut Value); 4] = [
            |n| n["products"] = json!(["00806f050000"]),
            |n| n["below"] = json!({"tdx_module": 5}),
            |n| n["statuses"] = json!(["OutOfDate"]),
            |n| n["advisories"] = json!(["INTEL-SA-01036"]),
        ];
        for change in changes {
            facts.matches(&notice(change)).unwrap_err();
        }
        assert!(facts.matches(&notice(|_| ())).unwrap().is_some());
        assert!(Facts::of(&Value::Null).is_none());
        assert!(Facts::of(&json!({"tee": "sgx"})).is_none());
    }
}
