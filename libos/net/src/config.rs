//! The `net=` setting of the guest's command line.
//!
//! `off`, `dhcp`, or a static address such as `10.0.0.2/24,gw=10.0.0.1,dns=10.0.0.1`.

use crate::dns::{Name, SearchList};
use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// The origin of the network interface's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "an interface has one")]
pub enum NetConfig {
    /// No network: the device is left alone.
    Off,
    /// The address comes from a DHCP server.
    Dhcp,
    /// The address is given.
    Static(StaticAddress),
}

/// A fixed IPv4 address with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticAddress {
    /// The interface's own address.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits, 1 to 32.
    pub prefix: u8,
    /// Router for everything without another route. It may be outside the prefix.
    pub gateway: Option<Ipv4Addr>,
    /// Further routes.
    pub routes: List<Route, ROUTES>,
    /// Servers that answer name queries, in the order in which they are asked.
    pub dns: List<Ipv4Addr, NAME_SERVERS>,
    /// Domains in which short names are looked for.
    pub search: SearchList,
}

/// Routes of an interface, at most, besides the one by its gateway.
pub const ROUTES: usize = 8;
/// Name servers, at most (resolv.conf(5): `MAXNS`).
pub const NAME_SERVERS: usize = 3;

/// The way to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// An address of the network.
    pub network: Ipv4Addr,
    /// Length of the network's prefix in bits, 0 to 32.
    pub prefix: u8,
    /// The router, which is on the link whatever its address is; `None`: the network itself is.
    pub router: Option<Ipv4Addr>,
}

impl Route {
    /// True if `address` is in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        in_network(address, self.network, self.prefix)
    }

    /// True if a packet by this route can arrive, sent from `own`.
    pub fn works_from(&self, own: Ipv4Addr) -> bool {
        self.prefix <= 32 && self.router.is_none_or(|router| is_host(router) && router != own)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)?;
        match self.router {
            Some(router) => write!(f, " by {router}"),
            None => f.write_str(" on the link"),
        }
    }
}

/// A few values, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct List<T, const N: usize>([Option<T>; N]);

impl<T: Copy, const N: usize> List<T, N> {
    /// No value.
    pub const EMPTY: Self = Self([None; N]);

    /// Adds a value at the end. `None`: there is no room.
    pub fn push(&mut self, value: T) -> Option<()> {
        *self.0.iter_mut().find(|place| place.is_none())? = Some(value);
        Some(())
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.0.iter().copied().flatten()
    }

    /// True if there is no value.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<T: Copy, const N: usize> FromIterator<T> for List<T, N> {
    /// The first `N` values.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut list = Self::EMPTY;
        let _ = values.into_iter().try_for_each(|value| list.push(value));
        list
    }
}

impl<T: Copy + fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The reason for which a `net=` value was refused. `Display` is one line with the fault and the
/// correct form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The value is empty.
    Empty,
    /// The part before the first comma is neither a word nor `ADDRESS/PREFIX`.
    Address,
    /// The address cannot belong to one host (zero, loopback, multicast or broadcast).
    NotAHost(Ipv4Addr),
    /// The prefix is missing or not in 1 to 32.
    Prefix,
    /// An option that does not exist.
    UnknownOption,
    /// The same option twice, or the same value of one that may be given more often.
    Repeated(&'static str),
    /// The option is given too often, or its values are too long.
    TooMany(&'static str),
    /// The value of this option is no IPv4 address of a host.
    OptionAddress(&'static str),
    /// The value of `search=` is no domain name.
    Domain,
    /// The value of `ndots=` is not a number from 0 to 15.
    Ndots,
    /// The value of `route=` is not `NETWORK/PREFIX:ROUTER`.
    Route,
    /// No packet can reach this router: it is the address itself, or the network's own or broadcast
    /// address.
    Router(Ipv4Addr),
    /// An address with the prefix 32 and no route has no neighbour.
    Alone,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORM: &str = "use net=dhcp, net=off or net=10.0.0.2/24,gw=10.0.0.1";
        match self {
            Self::Empty => write!(f, "net= has no value; {FORM}"),
            Self::Address => write!(f, "net= does not start with an IPv4 address; {FORM}"),
            Self::NotAHost(a) => write!(f, "net= address {a} cannot be a host's own; {FORM}"),
            Self::Prefix => write!(f, "net= needs a prefix length of 1 to 32; {FORM}"),
            Self::UnknownOption => {
                write!(f, "net= knows only the options gw=, route=, dns=, search= and ndots=; {FORM}")
            }
            Self::Repeated(name) => write!(f, "net= has {name}= twice; {FORM}"),
            Self::TooMany(name) => write!(f, "net= has more of {name}= than there is room for; {FORM}"),
            Self::OptionAddress(name) => {
                write!(f, "net= option {name}= needs an IPv4 address; {FORM}")
            }
            Self::Domain => write!(f, "net= option search= needs a domain, as in search=example.org"),
            Self::Ndots => write!(f, "net= option ndots= needs a number of 0 to 15"),
            Self::Route => {
                write!(f, "net= option route= needs a network and its router, as in route=192.168.0.0/16:10.0.0.1")
            }
            Self::Router(a) => write!(f, "net= router {a} cannot be reached from this address; {FORM}"),
            Self::Alone => {
                write!(f, "net= with the prefix 32 needs a router, as in net=192.0.2.9/32,gw=192.0.2.1")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl FromStr for NetConfig {
    type Err = ConfigError;

    fn from_str(value: &str) -> Result<Self, ConfigError> {
        match value {
            "" => Err(ConfigError::Empty),
            "off" => Ok(Self::Off),
            "dhcp" => Ok(Self::Dhcp),
            _ => value.parse().map(Self::Static),
        }
    }
}

impl FromStr for StaticAddress {
    type Err = ConfigError;

    fn from_str(value: &str) -> Result<Self, ConfigError> {
        let (first, options) = value.split_once(',').unwrap_or((value, ""));
        let (address, prefix) = match first.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (first, None),
        };
        let address: Ipv4Addr = address.parse().map_err(|_| ConfigError::Address)?;
        if !is_host(address) {
            return Err(ConfigError::NotAHost(address));
        }
        let prefix = prefix
            .and_then(|text| text.parse().ok())
            .filter(|bits| (1..=32).contains(bits))
            .ok_or(ConfigError::Prefix)?;
        if !names_one_host(address, address, prefix) {
            return Err(ConfigError::NotAHost(address));
        }
        let mut this =
            Self { address, prefix, gateway: None, routes: List::EMPTY, dns: List::EMPTY, search: SearchList::NONE };
        let mut ndots = None;
        if value.len() > first.len() {
            for option in options.split(',') {
                let (name, text) = option.split_once('=').ok_or(ConfigError::UnknownOption)?;
                match name {
                    "gw" => set(&mut this.gateway, "gw", host(text, "gw")?)?,
                    "route" => add(&mut this.routes, "route", route(text)?)?,
                    "dns" => add(&mut this.dns, "dns", host(text, "dns")?)?,
                    "search" => {
                        let domain = Name::from_text(text).ok_or(ConfigError::Domain)?;
                        if this.search.domains().any(|other| other == domain.octets()) {
                            return Err(ConfigError::Repeated("search"));
                        }
                        this.search.push(&domain).ok_or(ConfigError::TooMany("search"))?;
                    }
                    "ndots" => {
                        let number = text.parse().ok().filter(|number| *number <= SearchList::NDOTS_MAX);
                        set(&mut ndots, "ndots", number.ok_or(ConfigError::Ndots)?)?;
                    }
                    _ => return Err(ConfigError::UnknownOption),
                }
            }
        }
        this.search.ndots = ndots.unwrap_or(this.search.ndots);
        this.check_routes()?;
        Ok(this)
    }
}

impl StaticAddress {
    /// Refuses routes that cannot work.
    fn check_routes(&self) -> Result<(), ConfigError> {
        for router in self.routes.iter().filter_map(|route| route.router).chain(self.gateway) {
            if router == self.address || !names_one_host(router, self.address, self.prefix) {
                return Err(ConfigError::Router(router));
            }
        }
        if self.prefix == 32 && self.gateway.is_none() && self.routes.is_empty() {
            return Err(ConfigError::Alone);
        }
        Ok(())
    }
}

fn set<T>(field: &mut Option<T>, name: &'static str, value: T) -> Result<(), ConfigError> {
    match field.replace(value) {
        Some(_) => Err(ConfigError::Repeated(name)),
        None => Ok(()),
    }
}

fn add<T: Copy + PartialEq, const N: usize>(
    list: &mut List<T, N>,
    name: &'static str,
    value: T,
) -> Result<(), ConfigError> {
    if list.iter().any(|other| other == value) {
        return Err(ConfigError::Repeated(name));
    }
    list.push(value).ok_or(ConfigError::TooMany(name))
}

fn host(text: &str, name: &'static str) -> Result<Ipv4Addr, ConfigError> {
    text.parse().ok().filter(|address| is_host(*address)).ok_or(ConfigError::OptionAddress(name))
}

/// The route in `NETWORK/PREFIX:ROUTER`.
fn route(text: &str) -> Result<Route, ConfigError> {
    let (network, router) = text.split_once(':').ok_or(ConfigError::Route)?;
    let (network, prefix) = network.split_once('/').ok_or(ConfigError::Route)?;
    let network = network.parse().map_err(|_| ConfigError::Route)?;
    let prefix = prefix.parse().ok().filter(|bits| *bits <= 32).ok_or(ConfigError::Route)?;
    Ok(Route { network, prefix, router: Some(host(router, "route")?) })
}

/// True if both addresses are in one network with a prefix of `prefix` bits.
pub(crate) fn in_network(address: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (address.to_bits() ^ network.to_bits()) & mask == 0
}

/// True unless `address` is the network's own address or its broadcast address. Networks of two
/// addresses have neither (RFC 3021).
fn names_one_host(address: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let bits = address.to_bits() & host;
    prefix >= 31 || !in_network(address, network, prefix) || (bits != 0 && bits != host)
}

/// True if one host may have this address.
pub(crate) fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn parse(text: &str) -> Result<NetConfig, ConfigError> {
        text.parse()
    }

    #[test]
    fn good_values() {
        assert_eq!(parse("off"), Ok(NetConfig::Off));
        assert_eq!(parse("dhcp"), Ok(NetConfig::Dhcp));
        let expected = StaticAddress {
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            routes: List::EMPTY,
            dns: [Ipv4Addr::new(10, 0, 0, 3)].into_iter().collect(),
            search: SearchList::NONE,
        };
        assert_eq!(parse("10.0.0.2/24,gw=10.0.0.1,dns=10.0.0.3"), Ok(NetConfig::Static(expected)));
        let bare = StaticAddress { gateway: None, dns: List::EMPTY, ..expected };
        assert_eq!(parse("10.0.0.2/24"), Ok(NetConfig::Static(bare)));
    }

    #[test]
    fn a_router_may_be_outside_the_network() {
        let address: StaticAddress = "192.0.2.9/32,gw=10.0.0.1".parse().unwrap();
        assert_eq!(address.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        let address: StaticAddress = "10.0.0.2/24,route=192.168.0.0/16:10.9.9.9".parse().unwrap();
        let route = address.routes.iter().next().unwrap();
        assert_eq!(route.to_string(), "192.168.0.0/16 by 10.9.9.9");
        assert!(route.contains(Ipv4Addr::new(192, 168, 7, 7)) && !route.contains(Ipv4Addr::new(192, 169, 0, 0)));
        assert!("10.0.0.2/31,gw=10.0.0.3".parse::<StaticAddress>().is_ok());
    }

    #[test]
    fn several_servers_and_a_search_list_keep_their_order() {
        let text = "10.0.0.2/24,dns=10.0.0.9,dns=10.0.0.3,search=B.test,ndots=2,search=a.test.";
        let address: StaticAddress = text.parse().unwrap();
        assert!(address.dns.iter().eq([9, 3].map(|last| Ipv4Addr::new(10, 0, 0, last))));
        assert_eq!(alloc::format!("{:?}", address.search), "ndots 2, b.test, a.test");
    }

    #[test]
    fn bad_values_say_what_is_wrong_in_one_line() {
        let last = |last| Ipv4Addr::new(10, 0, 0, last);
        let long = ["a"; 7].map(|label| alloc::format!(",search={label}x{}", "y".repeat(40))).concat();
        let many = (1..5).map(|last| alloc::format!(",dns=10.0.0.{last}")).collect::<alloc::string::String>();
        for (text, error) in [
            ("", ConfigError::Empty),
            ("dchp", ConfigError::Address),
            ("10.0.0/24", ConfigError::Address),
            ("10.0.0.2", ConfigError::Prefix),
            ("10.0.0.2/", ConfigError::Prefix),
            ("10.0.0.2/0", ConfigError::Prefix),
            ("10.0.0.2/33", ConfigError::Prefix),
            ("0.0.0.0/8", ConfigError::NotAHost(Ipv4Addr::UNSPECIFIED)),
            ("10.0.0.2/24,mtu=9000", ConfigError::UnknownOption),
            ("10.0.0.2/24,", ConfigError::UnknownOption),
            ("10.0.0.2/24,gw=", ConfigError::OptionAddress("gw")),
            ("10.0.0.2/24,gw=224.0.0.1", ConfigError::OptionAddress("gw")),
            ("10.0.0.2/24,dns=a,dns=b", ConfigError::OptionAddress("dns")),
            ("10.0.0.2/24,dns=10.0.0.1,dns=10.0.0.1", ConfigError::Repeated("dns")),
            ("10.0.0.2/24,gw=10.0.0.2", ConfigError::Router(last(2))),
            ("10.0.0.2/24,gw=10.0.0.255", ConfigError::Router(last(255))),
            ("10.0.0.2/24,gw=10.0.0.0", ConfigError::Router(last(0))),
            ("10.0.0.2/24,route=192.168.0.0/16:10.0.0.2", ConfigError::Router(last(2))),
            ("10.0.0.2/24,gw=10.0.0.1,gw=10.0.0.3", ConfigError::Repeated("gw")),
            ("10.0.0.2/32", ConfigError::Alone),
            ("10.0.0.2/32,dns=10.0.0.1", ConfigError::Alone),
            ("10.0.0.0/24", ConfigError::NotAHost(last(0))),
            ("10.0.0.255/24", ConfigError::NotAHost(last(255))),
            ("10.0.0.2/24,route=192.168.0.0/16", ConfigError::Route),
            ("10.0.0.2/24,route=192.168.0.0/33:10.0.0.1", ConfigError::Route),
            ("10.0.0.2/24,route=192.168.0.0:10.0.0.1", ConfigError::Route),
            ("10.0.0.2/24,route=192.168.0.0/16:0.0.0.0", ConfigError::OptionAddress("route")),
            ("10.0.0.2/24,search=", ConfigError::Domain),
            ("10.0.0.2/24,search=a..b", ConfigError::Domain),
            ("10.0.0.2/24,search=a,search=A", ConfigError::Repeated("search")),
            ("10.0.0.2/24,ndots=16", ConfigError::Ndots),
            ("10.0.0.2/24,ndots=1,ndots=1", ConfigError::Repeated("ndots")),
            (&alloc::format!("10.0.0.2/24{many}"), ConfigError::TooMany("dns")),
            (
                &alloc::format!("10.0.0.2/24{}", long.replacen(",search=ax", ",search=bx", 1)),
                ConfigError::Repeated("search"),
            ),
        ] {
            let found = parse(text).unwrap_err();
            assert_eq!(found, error, "{text}");
            let line = found.to_string();
            assert!(line.contains("net=") && !line.contains('\n'), "{line}");
        }
    }
}
