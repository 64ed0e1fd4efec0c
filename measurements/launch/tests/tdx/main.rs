//! TDX: MRTD, RTMR1 and RTMR2 against a second implementation, against registers that hardware signed, and against bytes
//! that are not what they should be.

mod hardware;
mod hostile;
mod oracle;
mod refusals;
mod support;
