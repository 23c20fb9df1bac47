//! Two hosts and one clock, for tests of one behaviour.
