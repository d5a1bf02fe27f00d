//! Which addresses belong to somebody's own network, or to nobody: the special-purpose registries of IANA (RFC 6890).
//!
//! An address that carries another inside, as mapped, NAT64 and 6to4 addresses do, is what it carries: that is where its
//! packets arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not one of the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Internal {
    Unspecified,
    Loopback,
    Private,
    /// Between a carrier and its customers (RFC 6598).
    Shared,
    UniqueLocal,
    LinkLocal,
    Multicast,
    Reserved,
}

impl Internal {
    /// In words, after "is".
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "no address of a host",
            Self::Loopback => "an address of this machine",
            Self::Private => "a private address",
            Self::Shared => "an address between a carrier and its customers",
            Self::UniqueLocal => "a unique-local address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        }
    }

    /// Whether a name that configuration allows may have it.
    pub(crate) fn may_be_named(self) -> bool {
        match self {
            Self::Loopback | Self::Private | Self::Shared | Self::UniqueLocal => true,
            Self::Unspecified | Self::LinkLocal | Self::Multicast | Self::Reserved => false,
        }
    }
}

/// What an address is, if it is not public.
pub(crate) fn internal(address: IpAddr) -> Option<Internal> {
    match address {
        IpAddr::V4(address) => internal_v4(address),
        IpAddr::V6(address) => internal_v6(address),
    }
}

fn internal_v4(address: Ipv4Addr) -> Option<Internal> {
    match address.octets() {
        [0, 0, 0, 0] => Some(Internal::Unspecified),
        [127, ..] => Some(Internal::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Internal::Private),
        [100, 64..=127, ..] => Some(Internal::Shared),
        [169, 254, ..] => Some(Internal::LinkLocal),
        [224..=239, ..] => Some(Internal::Multicast),
        // This network; IETF protocols; documentation; 6to4 relays; benchmarks; the future, with broadcast.
        [0 | 240..=255, ..]
        | [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..] => Some(Internal::Reserved),
        _ => None,
    }
}

fn internal_v6(address: Ipv6Addr) -> Option<Internal> {
    if let Some(inner) = carried(address) {
        return internal_v4(inner);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Internal::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Internal::Loopback),
        [0xfc00..=0xfdff, ..] => Some(Internal::UniqueLocal),
        [0xfe80..=0xfebf, ..] => Some(Internal::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Internal::Multicast),
        // IETF protocols with Teredo and ORCHID; documentation.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Some(Internal::Reserved),
        // Global unicast addresses are these alone (RFC 4291, as assigned); local NAT64 lies outside.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Internal::Reserved),
    }
}

/// The IPv4 address inside: mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`), 6to4 (`2002::/16`).
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(join(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_that_is_not_public_is_told_by_its_kind() {
        let kinds = [
            (Internal::Unspecified, "0.0.0.0 :: ::ffff:0.0.0.0"),
            (Internal::Loopback, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"),
            (Internal::Private, "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 ::ffff:10.0.0.1 64:ff9b::a00:1"),
            (Internal::Private, "2002:c0a8:101::1 ::ffff:192.168.1.1"),
            (Internal::Shared, "100.64.0.1 100.127.255.255 ::ffff:100.64.0.1"),
            (Internal::LinkLocal, "169.254.169.254 fe80::1 febf::1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe"),
            (Internal::LinkLocal, "2002:a9fe:a9fe::1"),
            (Internal::UniqueLocal, "fc00::1 fdff::1 fd00:ec2::254"),
            (Internal::Multicast, "224.0.0.1 239.255.255.255 ff02::1"),
            (Internal::Reserved, "0.1.2.3 192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1"),
            (Internal::Reserved, "240.0.0.1 255.255.255.255 ::127.0.0.1 64:ff9b:1::a00:1 2001::1 2001:db8::1"),
            (Internal::Reserved, "100::1 3fff::1 4000::1 fec0::1 5f00::1"),
        ];
        for (kind, addresses) in kinds {
            for address in addresses.split(' ') {
                assert_eq!(internal(address.parse().unwrap()), Some(kind), "{address}");
            }
        }
    }

    #[test]
    fn public_addresses_stay_reachable() {
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "11.0.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
            "3ffe::1",
        ] {
            assert_eq!(internal(address.parse().unwrap()), None, "{address}");
        }
    }
}
