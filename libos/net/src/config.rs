//! The `net=` setting of the guest's command line.
//!
//! `off`, `dhcp`, or a static address such as `10.0.0.2/24,gw=10.0.0.1,dns=10.0.0.1`.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

/// The origin of the network interface's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Router for everything outside the prefix.
    pub gateway: Option<Ipv4Addr>,
    /// Server that answers name queries.
    pub dns: Option<Ipv4Addr>,
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
    /// An option other than `gw=` and `dns=`.
    UnknownOption,
    /// The same option twice.
    Repeated(&'static str),
    /// The value of this option is no IPv4 address of a host.
    OptionAddress(&'static str),
    /// The gateway cannot be reached directly from the address.
    GatewayOutside(Ipv4Addr),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORM: &str = "use net=dhcp, net=off or net=10.0.0.2/24,gw=10.0.0.1";
        match self {
            Self::Empty => write!(f, "net= has no value; {FORM}"),
            Self::Address => write!(f, "net= does not start with an IPv4 address; {FORM}"),
            Self::NotAHost(a) => write!(f, "net= address {a} cannot be a host's own; {FORM}"),
            Self::Prefix => write!(f, "net= needs a prefix length of 1 to 32; {FORM}"),
            Self::UnknownOption => write!(f, "net= knows only the options gw= and dns=; {FORM}"),
            Self::Repeated(name) => write!(f, "net= has {name}= twice; {FORM}"),
            Self::OptionAddress(name) => {
                write!(f, "net= option {name}= needs an IPv4 address; {FORM}")
            }
            Self::GatewayOutside(a) => {
                write!(f, "net= gateway {a} is not inside the address's own network; {FORM}")
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
        let mut parts = value.split(',');
        let first = parts.next().unwrap_or_default();
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

        let mut this = Self { address, prefix, gateway: None, dns: None };
        for option in parts {
            let (field, name, text) = match option.split_once('=') {
                Some(("gw", text)) => (&mut this.gateway, "gw", text),
                Some(("dns", text)) => (&mut this.dns, "dns", text),
                _ => return Err(ConfigError::UnknownOption),
            };
            if field.is_some() {
                return Err(ConfigError::Repeated(name));
            }
            let value: Ipv4Addr = text.parse().map_err(|_| ConfigError::OptionAddress(name))?;
            if !is_host(value) {
                return Err(ConfigError::OptionAddress(name));
            }
            *field = Some(value);
        }
        match this.gateway {
            Some(gateway) if !this.contains(gateway) => Err(ConfigError::GatewayOutside(gateway)),
            _ => Ok(this),
        }
    }
}

impl StaticAddress {
    fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix));
        self.address.to_bits() & mask == other.to_bits() & mask
    }
}

fn is_host(address: Ipv4Addr) -> bool {
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
            dns: Some(Ipv4Addr::new(10, 0, 0, 3)),
        };
        assert_eq!(parse("10.0.0.2/24,gw=10.0.0.1,dns=10.0.0.3"), Ok(NetConfig::Static(expected)));
        assert_eq!(parse("10.0.0.2/24"), Ok(NetConfig::Static(StaticAddress { gateway: None, dns: None, ..expected })));
    }

    #[test]
    fn bad_values_say_what_is_wrong_in_one_line() {
        let gateway = Ipv4Addr::new(10, 0, 1, 1);
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
            ("10.0.0.2/24,gw=10.0.1.1", ConfigError::GatewayOutside(gateway)),
        ] {
            let found = parse(text).unwrap_err();
            assert_eq!(found, error, "{text}");
            let line = found.to_string();
            assert!(line.contains("net=") && !line.contains('\n'), "{line}");
        }
    }
}
