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
