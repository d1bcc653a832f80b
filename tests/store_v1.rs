//! Golden bytes of the gateway's log.
