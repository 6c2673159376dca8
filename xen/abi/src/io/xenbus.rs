//! `public/io/xenbus.h`: the state that either end of a split device publishes in xenstore.

open_enum! {
    /// `XenbusState`; xenstore holds it as a decimal number.
    pub struct XenbusState: u32 {
        /// The state is unknown, because the node does not exist.
        UNKNOWN = 0;
        /// Starting.
        INITIALISING = 1;
        /// Started; waits for entries of the other end or of a hotplug script.
        INIT_WAIT = 2;
        /// This end has written all that the other end needs, and waits for it to connect.
        INITIALISED = 3;
        /// In use.
        CONNECTED = 4;
        /// Going away, after an error or on request.
        CLOSING = 5;
        /// Gone.
        CLOSED = 6;
        /// Changing its configuration.
        RECONFIGURING = 7;
        /// This end has changed its configuration.
        RECONFIGURED = 8;
    }
}
