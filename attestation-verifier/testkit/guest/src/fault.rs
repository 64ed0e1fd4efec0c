//! What goes wrong next.

/// A fault, for some requests or until it is changed.
#[derive(Debug)]
pub struct Faults<F> {
    fault: Option<F>,
    times: Option<u32>,
}

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self {
            fault: None,
            times: None,
        }
    }
}

impl<F: Copy> Faults<F> {
    /// This fault from now on: for so many requests, or (`None`) until it is changed.
    pub fn set(&mut self, fault: F, times: Option<u32>) {
        (self.fault, self.times) = (Some(fault), times);
    }

    /// No fault from now on.
    pub fn clear(&mut self) {
        self.fault = None;
    }

    /// The fault of the next request, not yet used up.
    pub(crate) fn fault(&self) -> Option<F> {
        self.fault.filter(|_| self.times != Some(0))
    }

    /// The fault of the next request, used up by one.
    pub(crate) fn take(&mut self) -> Option<F> {
        match &mut self.times {
            Some(0) => self.fault = None,
            Some(times) => *times -= 1,
            None => {}
        }
        self.fault
    }
}
