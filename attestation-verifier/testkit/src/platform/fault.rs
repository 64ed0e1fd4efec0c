//! What can go wrong with a quote source.

use std::fmt;
use std::str::FromStr;

/// One way of misbehaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Says that it is busy.
    Busy,
    /// Says that the request failed.
    Fail,
    /// Takes the request and never answers on that connection.
    Hang,
    /// Gives a well-signed quote for other report data.
    Lie,
    /// Answers with a line that is no JSON.
    Garbage,
    /// Ends the connection in the middle of the answer.
    Close,
    /// Names another TEE than the quote's.
    WrongTee,
    /// Leaves away the end of the quote.
    Truncate,
    /// Sends without end, never a newline.
    Flood,
    /// Answers in a version of the protocol that does not exist.
    WrongVersion,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 10] = [
        Fault::Busy,
        Fault::Fail,
        Fault::Hang,
        Fault::Lie,
        Fault::Garbage,
        Fault::Close,
        Fault::WrongTee,
        Fault::Truncate,
        Fault::Flood,
        Fault::WrongVersion,
    ];

    /// The name used on the command line and in the control file.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Busy => "busy",
            Fault::Fail => "fail",
            Fault::Hang => "hang",
            Fault::Lie => "lie",
            Fault::Garbage => "garbage",
            Fault::Close => "close",
            Fault::WrongTee => "wrong-tee",
            Fault::Truncate => "truncate",
            Fault::Flood => "flood",
            Fault::WrongVersion => "wrong-version",
        }
    }
}

/// A fault, and for how many requests. Text: `hang`, `busy:3`, or `none` for no fault (see [`FaultPlan::parse`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// What goes wrong.
    pub fault: Fault,
    /// For how many more requests; `None`: until it is changed.
    pub times: Option<u32>,
}

impl FaultPlan {
    /// Reads `none` (or nothing at all) as no plan, and any other text as a plan.
    ///
    /// # Errors
    /// Says which names there are.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text.trim() {
            "" | "none" => Ok(None),
            plan => plan.parse().map(Some),
        }
    }

    /// The fault for the next request, and one request less in the plan; `None` when the plan is used up.
    pub(super) fn take(plan: &mut Option<Self>) -> Option<Fault> {
        let current = plan.as_mut()?;
        match &mut current.times {
            None => Some(current.fault),
            Some(0) => {
                *plan = None;
                None
            }
            Some(n) => {
                *n -= 1;
                Some(current.fault)
            }
        }
    }
}

impl FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, times) = match text.split_once(':') {
            Some((name, times)) => {
                let times = times
                    .parse()
                    .map_err(|_| format!("{times:?} is no number of requests"))?;
                (name, Some(times))
            }
            None => (text, None),
        };
        let names = || Fault::ALL.map(Fault::name).join(", ");
        let fault = Fault::ALL
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| format!("unknown fault {name:?}: expected none, {}", names()))?;
        Ok(Self { fault, times })
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.times {
            Some(times) => write!(f, "{}:{times}", self.fault.name()),
            None => f.write_str(self.fault.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_read_and_write_and_run_out() {
        for fault in Fault::ALL {
            for times in [None, Some(2)] {
                let plan = FaultPlan { fault, times };
                assert_eq!(FaultPlan::parse(&plan.to_string()), Ok(Some(plan)));
            }
        }
        assert_eq!(FaultPlan::parse(" none\n"), Ok(None));
        assert_eq!(FaultPlan::parse(""), Ok(None));
        assert!(
            FaultPlan::parse("sulk")
                .unwrap_err()
                .contains("expected none, busy, fail")
        );
        assert!(FaultPlan::parse("busy:often").is_err());

        let mut plan = FaultPlan::parse("busy:2").unwrap();
        let taken: Vec<_> = (0..4).map(|_| FaultPlan::take(&mut plan)).collect();
        assert_eq!(taken, [Some(Fault::Busy), Some(Fault::Busy), None, None]);
        let mut plan = FaultPlan::parse("hang").unwrap();
        assert!((0..9).all(|_| FaultPlan::take(&mut plan) == Some(Fault::Hang)));
    }
}
