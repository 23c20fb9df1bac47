//! What a stack counts: every drop has a name here.

use crate::tcp::DropReason;

/// Declares the counters once, with their names for people and programs.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything that a stack has counted since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StackCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl StackCounters {
            /// All counters with their names, in the order of the fields.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Adds another stack's counters to these.
            pub fn add(&mut self, other: &StackCounters) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// IP packets and ARP frames sent.
    tx_packets,
    /// Frames taken in.
    rx_frames,
    /// Frames whose link header is cut short.
    rx_link_malformed,
    /// Frames for another link address.
    rx_other_host,
    /// Frames of a protocol that is not spoken here.
    rx_unknown_ethertype,
    /// ARP packets that are malformed or claim an impossible sender.
    arp_invalid,
    /// ARP requests sent.
    arp_requests_sent,
    /// IP packets with a bad header: version, length or checksum.
    ip_malformed,
    /// IP packets for an address that is not this host's.
    ip_not_ours,
    /// IP packets with a source route, which are not followed (RFC 7126).
    ip_source_routed,
    /// IP packets from a source that cannot be one: broadcast, multicast, loopback.
    ip_bad_source,
    /// IP packets of a protocol that is not spoken here.
    ip_unknown_protocol,
    /// Fragments taken in.
    fragments_received,
    /// Fragments sent.
    fragments_sent,
    /// Packets put together again.
    reassembled,
    /// Reassemblies that ran out of time.
    reassembly_expired,
    /// TCP segments taken in.
    tcp_segments_received,
    /// Those of them that were taken in as one with the segment before them.
    tcp_segments_joined,
    /// TCP segments and super-segments sent.
    tcp_segments_sent,
    /// TCP segments with a malformed header.
    tcp_malformed,
    /// TCP segments with a wrong checksum.
    tcp_bad_checksum,
    /// TCP segments to a port where nothing listens.
    tcp_no_socket,
    /// TCP segments dropped because they lie outside the window: old, duplicate or forged.
    tcp_drop_outside_window,
    /// TCP data dropped because the receive window was closed.
    tcp_drop_zero_window,
    /// TCP segments dropped because of an old or missing timestamp (RFC 7323 §5).
    tcp_drop_timestamp,
    /// RSTs and SYNs that were challenged instead of believed (RFC 5961 §3, §4).
    tcp_drop_challenged,
    /// TCP segments dropped without the challenge ACK that they deserved, because their connection
    /// has sent enough of them this second (RFC 5961 §7).
    tcp_challenges_limited,
    /// TCP segments dropped because of their ACK: none, or of what was never sent (RFC 5961 §5).
    tcp_drop_bad_ack,
    /// SACK blocks not believed: of what was never sent, or too many to remember.
    tcp_drop_bad_sack,
    /// TCP data dropped because too much packet memory is pinned by what was not read.
    tcp_drop_memory,
    /// TCP data dropped because too much of it is out of sequence.
    tcp_drop_reassembly,
    /// TCP data dropped because nobody reads it any more.
    tcp_drop_closed,
    /// TCP data dropped because the pool runs low and its reader has not read what came before.
    rx_memory_pressure,
    /// Writes refused because only the pool's reserve is left.
    tx_memory_pressure,
    /// RSTs sent for segments that belong to no connection.
    tcp_resets_sent,
    /// RSTs not sent because of the rate limit.
    tcp_resets_limited,
    /// SYNs dropped because the accept queue is full.
    listen_overflow,
    /// SYNs dropped because the stack was behind what arrives.
    listen_shed,
    /// Final ACKs ignored because the accept queue is full: the client will send again.
    accept_overflow,
    /// SYN cookies sent because the half-open queue was full.
    cookies_sent,
    /// Connections made from a returned cookie.
    cookies_accepted,
    /// ACKs that looked like a cookie and were none.
    cookies_refused,
    /// ACKs with a cookie that has made a connection before: late copies.
    cookies_spent,
    /// Cookies that have made a connection, and no room to remember it.
    cookies_unremembered,
    /// SYNs dropped because the queue of half-open connections is full and cookies are off.
    half_open_full,
    /// Segments for half-open connections left unanswered because one was answered just before.
    half_open_replies_limited,
    /// Connections opened by a SYN with a good fast open cookie, its data taken (RFC 7413).
    fast_open_accepted,
    /// SYNs with a fast open cookie that was not good, taken without their data.
    fast_open_refused,
    /// SYNs with a good fast open cookie, taken without their data because the queue was full.
    fast_open_full,
    /// Handshakes completed without data, for which `TCP_DEFER_ACCEPT` waits.
    accept_deferred,
    /// Half-open connections given up.
    half_open_expired,
    /// Connections refused because the socket limit is reached.
    sockets_full,
    /// Connections that went straight to CLOSED because TIME-WAIT was full.
    time_wait_full,
    /// Segments for connections in TIME-WAIT left unanswered because one was answered just before.
    time_wait_replies_limited,
    /// Closed connections aborted because too many had no application any more.
    orphans_aborted,
    /// Connections reset because their peer left data unread while memory was scarce.
    stalled_aborted,
    /// UDP datagrams taken in.
    udp_datagrams_received,
    /// UDP datagrams sent.
    udp_datagrams_sent,
    /// UDP datagrams with a malformed header.
    udp_malformed,
    /// UDP datagrams with a wrong checksum.
    udp_bad_checksum,
    /// UDP datagrams to a port where no socket is.
    udp_no_socket,
    /// UDP datagrams dropped because the socket's receive queue was full.
    udp_queue_full,
    /// ICMP messages taken in.
    icmp_received,
    /// ICMP messages that are malformed or have a wrong checksum.
    icmp_malformed,
    /// ICMP errors that belong to no socket.
    icmp_unmatched,
    /// ICMP messages not sent because of the rate limit.
    icmp_rate_limited,
    /// Packets lost because the pool had no buffer for a header or a copy.
    tx_no_buffer,
    /// Packets without a route.
    tx_no_route,
    /// Packets to a neighbour that does not answer.
    tx_no_neighbor,
    /// Packets dropped because too many wait for the neighbour.
    tx_neighbor_queue_full,
    /// Replies dropped because the device does not keep up.
    tx_reply_overflow,
    /// Segments copied together because they lay in too many pieces.
    tx_joined,
    /// Packets to own addresses dropped because too many wait.
    loopback_full,
    /// Frames that came to this engine and belong to another.
    forwarded,
    /// Forwarded packets dropped because too many wait.
    forward_full,
}

impl StackCounters {
    /// Counts a segment, or its payload, that a connection dropped.
    pub(crate) fn tcp_dropped(&mut self, reason: DropReason, wire_segments: u16) {
        let counter = match reason {
            DropReason::OutsideWindow => &mut self.tcp_drop_outside_window,
            DropReason::ZeroWindow => &mut self.tcp_drop_zero_window,
            DropReason::OldTimestamp | DropReason::MissingTimestamp => &mut self.tcp_drop_timestamp,
            DropReason::BadReset | DropReason::UnexpectedSyn => &mut self.tcp_drop_challenged,
            DropReason::ChallengeLimit => &mut self.tcp_challenges_limited,
            DropReason::NoAck | DropReason::BadAck => &mut self.tcp_drop_bad_ack,
            DropReason::BadSack => &mut self.tcp_drop_bad_sack,
            DropReason::ReceiveMemory => &mut self.tcp_drop_memory,
            DropReason::Reassembly => &mut self.tcp_drop_reassembly,
            DropReason::AfterFin | DropReason::ReadShut | DropReason::Closed => {
                &mut self.tcp_drop_closed
            }
        };
        *counter += u64::from(wire_segments.max(1));
    }
}
