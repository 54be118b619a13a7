//! What only a port with several handles can do.
