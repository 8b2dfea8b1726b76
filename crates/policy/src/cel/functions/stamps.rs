//! Parts of times and durations (cel-spec, "Timestamp/Duration Accessors").

use jiff::Zoned;

use super::{Fault, Function, Result, Value, time};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "getFullYear" => |_, args| stamp(args, |at| i64::from(at.year())),
        "getMonth" => |_, args| stamp(args, |at| i64::from(at.month()) - 1),
        "getDayOfYear" => |_, args| stamp(args, |at| i64::from(at.day_of_year()) - 1),
        "getDayOfMonth" => |_, args| stamp(args, |at| i64::from(at.day()) - 1),
        "getDate" => |_, args| stamp(args, |at| i64::from(at.day())),
        "getDayOfWeek" => |_, args| stamp(args, |at| i64::from(at.weekday().to_sunday_zero_offset())),
        "getHours" => |_, args| either(args, 3600 * time::SECOND, |at| i64::from(at.hour())),
        "getMinutes" => |_, args| either(args, 60 * time::SECOND, |at| i64::from(at.minute())),
        "getSeconds" => |_, args| either(args, time::SECOND, |at| i64::from(at.second())),
        "getMilliseconds" => |_, args| match args {
            [Value::Duration(nanos)] => Ok(Value::Int(nanos / 1_000_000 % 1000)),
            _ => stamp(args, |at| i64::from(at.millisecond())),
        },
        _ => return None,
    })
}

fn either<'v>(args: &[Value<'v>], unit_nanos: i64, f: fn(&Zoned) -> i64) -> Result<Value<'v>> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit_nanos)),
        _ => stamp(args, f),
    }
}

fn stamp<'v>(args: &[Value<'v>], f: fn(&Zoned) -> i64) -> Result<Value<'v>> {
    let (stamp, name) = match args {
        [Value::Timestamp(stamp)] => (stamp, "UTC"),
        [Value::Timestamp(stamp), Value::String(zone)] => (stamp, zone.as_str()),
        _ => return Err(Fault::overload()),
    };
    let zone = time::zone(name).ok_or_else(|| Fault::failed(format!("unknown time zone {name}")))?;
    Ok(Value::Int(f(&stamp.to_zoned(zone))))
}
