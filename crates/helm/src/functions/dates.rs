//! Times, with Go's layouts. The local zone is UTC: nothing here knows another. Zones are those of the time zone database that is built in.

mod durations;
mod layout;
mod reading;
pub mod time;

use jiff::{SignedDuration, Timestamp};

use self::{layout::formatted, reading::parsed, time::Time};
use super::State;
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    text::quoted,
    value::Value,
};

const DATE: &str = "2006-01-02";

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "ago",
        takes: "a",
        run: |scope, args| {
            let now = State::of(scope.run)?.world.now;
            let of = instant(scope, args.at(0))?;
            let seconds = (now.as_duration() - of.as_duration()).as_nanos().div_euclid(1_000_000_000);
            Ok(durations::text(seconds.saturating_mul(1_000_000_000)).into())
        },
    },
    Function { name: "date", takes: "sa", run: |scope, args| in_zone(scope, args.text(0), args.at(1), "UTC") },
    Function {
        name: "dateInZone",
        takes: "sas",
        run: |scope, args| in_zone(scope, args.text(0), args.at(1), args.text(2)),
    },
    Function { name: "dateModify", takes: "st", run: |_, args| modified(&args, false) },
    Function {
        name: "date_in_zone",
        takes: "sas",
        run: |scope, args| in_zone(scope, args.text(0), args.at(1), args.text(2)),
    },
    Function { name: "date_modify", takes: "st", run: |_, args| modified(&args, false) },
    Function {
        name: "duration",
        takes: "a",
        run: |_, args| {
            let seconds = match args.at(0) {
                Value::Str(text) => text.parse().unwrap_or(0),
                Value::Int64(seconds) => *seconds,
                _ => 0,
            };
            Ok(durations::text(i128::from(seconds.wrapping_mul(1_000_000_000))).into())
        },
    },
    Function { name: "durationRound", takes: "a", run: duration_round },
    Function { name: "htmlDate", takes: "a", run: |scope, args| in_zone(scope, DATE, args.at(0), "UTC") },
    Function { name: "htmlDateInZone", takes: "as", run: |scope, args| in_zone(scope, DATE, args.at(0), args.text(1)) },
    Function { name: "mustDateModify", takes: "st", run: |_, args| modified(&args, true) },
    Function {
        name: "mustToDate",
        takes: "ss",
        run: |_, args| parsed(args.text(0), args.text(1)).map_or_else(Error::call, |time| Ok(time.into())),
    },
    Function { name: "must_date_modify", takes: "st", run: |_, args| modified(&args, true) },
    Function { name: "now", takes: "", run: |scope, _| Ok(Time::utc(State::of(scope.run)?.world.now).into()) },
    Function {
        name: "toDate",
        takes: "ss",
        run: |_, args| Ok(parsed(args.text(0), args.text(1)).unwrap_or_else(|_| Time::zero()).into()),
    },
    Function {
        name: "unixEpoch",
        takes: "t",
        run: |_, args| Ok(Time::from(args.at(0)).at.as_second().to_string().into()),
    },
];

/// A time, or seconds since 1970; now for all else.
fn instant(scope: &mut Scope<'_>, value: &Value) -> Result<Timestamp> {
    Ok(match value {
        Value::Int(seconds) | Value::Int64(seconds) => {
            Timestamp::from_second(*seconds).unwrap_or(Timestamp::UNIX_EPOCH)
        }
        value => match Time::read(value) {
            Some(time) => time.at,
            None => State::of(scope.run)?.world.now,
        },
    })
}

fn in_zone(scope: &mut Scope<'_>, layout: &str, of: &Value, zone: &str) -> Result<Value> {
    let at = instant(scope, of)?;
    Ok(formatted(&Time::within(at, zone), layout).into())
}

fn modified(args: &Args, must: bool) -> Result<Value> {
    let time = Time::from(args.at(1));
    let moved = durations::read(args.text(0)).and_then(|nanoseconds| {
        let by = SignedDuration::from_nanos(i64::try_from(nanoseconds).ok()?);
        time.at.checked_add(by).ok()
    });
    match moved {
        Some(at) => Ok(Time { at, ..time }.into()),
        None if must => Error::call(format!("time: invalid duration {}", quoted(args.text(0)))),
        None => Ok(args.at(1).clone()),
    }
}

fn duration_round(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let nanoseconds = match args.at(0) {
        Value::Str(text) => durations::read(text).unwrap_or(0),
        Value::Int64(nanoseconds) => i128::from(*nanoseconds),
        value => match Time::read(value) {
            Some(time) => State::of(scope.run)?.world.now.as_nanosecond() - time.at.as_nanosecond(),
            None => 0,
        },
    };
    Ok(durations::rounded(nanoseconds).into())
}
