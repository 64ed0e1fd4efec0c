//! Attested connections: nothing is sent before the enclave at the other end has proven itself on that
//! very connection, and no answer is believed before it is checked.
#![forbid(unsafe_code)]
