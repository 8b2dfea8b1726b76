//! Addresses, networks and URLs (`k8s.io/apiserver/pkg/cel/library/{ip,cidr,urls}.go`).

use std::{net::IpAddr, sync::Arc};

use super::{Fault, Function, Meter, Opaque, Result, Value};
use crate::cel::url::Url;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "ip" => |_, args| match args {
            [Value::String(text)] => ip(text.as_str()).map(|ip| Value::Opaque(Opaque::Ip(ip))),
            [Value::Opaque(Opaque::Cidr(ip, _))] => Ok(Value::Opaque(Opaque::Ip(*ip))),
            _ => Err(Fault::overload()),
        },
        "isIP" => |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(ip(text.as_str()).is_ok())),
            _ => Err(Fault::overload()),
        },
        "ip.isCanonical" => |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(ip(text.as_str())?.to_string() == text.as_str())),
            _ => Err(Fault::overload()),
        },
        "family" => |_, args| of_ip(args, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |_, args| of_ip(args, |ip| Value::Bool(ip.is_unspecified())),
        "isLoopback" => |_, args| of_ip(args, |ip| Value::Bool(ip.is_loopback())),
        "isLinkLocalMulticast" => |_, args| of_ip(args, |ip| Value::Bool(link_local_multicast(ip))),
        "isLinkLocalUnicast" => |_, args| of_ip(args, |ip| Value::Bool(link_local(ip))),
        "isGlobalUnicast" => |_, args| {
            of_ip(args, |ip| {
                let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
                let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip) || broadcast;
                Value::Bool(!other)
            })
        },
        "cidr" => |_, args| match args {
            [Value::String(text)] => cidr(text.as_str()).map(|(ip, bits)| Value::Opaque(Opaque::Cidr(ip, bits))),
            _ => Err(Fault::overload()),
        },
        "isCIDR" => |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(cidr(text.as_str()).is_ok())),
            _ => Err(Fault::overload()),
        },
        "containsIP" => |_, args| match args {
            [Value::Opaque(Opaque::Cidr(net, bits)), Value::Opaque(Opaque::Ip(ip))] => {
                Ok(Value::Bool(within(*net, *bits, *ip)))
            }
            [Value::Opaque(Opaque::Cidr(net, bits)), Value::String(text)] => {
                // What is no address fails without saying so, as upstream has it.
                let ip = ip(text.as_str()).map_err(|_| Fault::overload())?;
                Ok(Value::Bool(within(*net, *bits, ip)))
            }
            _ => Err(Fault::overload()),
        },
        "containsCIDR" => |_, args| match args {
            [Value::Opaque(Opaque::Cidr(net, bits)), Value::Opaque(Opaque::Cidr(ip, inner))] => {
                Ok(Value::Bool(bits <= inner && within(*net, *bits, *ip)))
            }
            [Value::Opaque(Opaque::Cidr(net, bits)), Value::String(text)] => {
                let (ip, inner) = cidr(text.as_str()).map_err(|_| Fault::overload())?;
                Ok(Value::Bool(*bits <= inner && within(*net, *bits, ip)))
            }
            _ => Err(Fault::overload()),
        },
        "prefixLength" => |_, args| match args {
            [Value::Opaque(Opaque::Cidr(_, bits))] => Ok(Value::Int(i64::from(*bits))),
            _ => Err(Fault::overload()),
        },
        "masked" => |_, args| match args {
            [Value::Opaque(Opaque::Cidr(ip, bits))] => Ok(Value::Opaque(Opaque::Cidr(masked(*ip, *bits), *bits))),
            _ => Err(Fault::overload()),
        },
        "url" => |_, args| match args {
            [Value::String(text)] => match Url::parse(text.as_str()) {
                Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
                Err(error) => Err(Fault::failed(format!("URL parse error during conversion from string: {error}"))),
            },
            _ => Err(Fault::overload()),
        },
        "isURL" => |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(Url::parse(text.as_str()).is_ok())),
            _ => Err(Fault::overload()),
        },
        "getScheme" => |meter, args| of_url(meter, args, |url| url.scheme.clone()),
        "getHost" => |meter, args| of_url(meter, args, |url| url.host.clone()),
        "getHostname" => |meter, args| of_url(meter, args, |url| url.hostname().to_owned()),
        "getPort" => |meter, args| of_url(meter, args, |url| url.port().to_owned()),
        "getEscapedPath" => |meter, args| of_url(meter, args, |url| url.path.clone()),
        "getQuery" => |meter, args| match args {
            [Value::Opaque(Opaque::Url(url))] => {
                meter.make(url.query.len() * 2)?;
                let query = url.query();
                let entries = query.into_iter().map(|(key, values)| {
                    (Value::text(key), Value::made(values.into_iter().map(Value::text).collect()))
                });
                super::map_of(entries.collect())
            }
            _ => Err(Fault::overload()),
        },
        _ => return None,
    })
}

fn of_ip<'v>(args: &[Value<'v>], f: fn(IpAddr) -> Value<'v>) -> Result<Value<'v>> {
    match args {
        [Value::Opaque(Opaque::Ip(ip))] => Ok(f(*ip)),
        _ => Err(Fault::overload()),
    }
}

fn of_url<'v>(meter: &mut Meter, args: &[Value<'v>], f: fn(&Url) -> String) -> Result<Value<'v>> {
    match args {
        [Value::Opaque(Opaque::Url(url))] => {
            meter.make(url.path.len() + url.host.len())?;
            Ok(Value::text(f(url)))
        }
        _ => Err(Fault::overload()),
    }
}

fn ip(text: &str) -> Result<IpAddr> {
    if let Some((before, zone)) = text.split_once('%')
        && !zone.is_empty()
        && before.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Err(Fault::failed(format!("IP address {text:?} with zone value is not allowed")));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        Fault::failed(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ))
    })?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(Fault::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        other => Ok(other),
    }
}

fn cidr(text: &str) -> Result<(IpAddr, u8)> {
    let wrong = |why: &str| {
        let intro = "network address parse error during conversion from string: ";
        Fault::failed(format!("{intro}{intro}netip.ParsePrefix({text:?}): {why}"))
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| wrong(&format!("ParseAddr({address:?}): unable to parse IP")))?;
    let canonical =
        !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let most = if address.is_ipv4() { 32 } else { 128 };
    let count = bits.parse::<u8>().ok().filter(|count| canonical && *count <= most);
    let count = count.ok_or_else(|| wrong(&format!("bad bits after slash: {bits:?}")))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(Fault::failed(format!(
            "network address parse error during conversion from string: IPv4-mapped IPv6 address {text:?} is not allowed"
        ))),
        other => Ok((other, count)),
    }
}

fn bits_of(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

fn within(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let (_, family) = bits_of(net);
    family == bits_of(ip).1 && masked(net, bits) == masked(ip, bits)
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}
