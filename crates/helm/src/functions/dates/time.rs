//! Times as templates have them: an instant, and the zone that it is told in.

use std::{
    rc::Rc,
    sync::{Arc, LazyLock},
};

use jiff::{
    SignedDuration, Timestamp, civil,
    tz::{TimeZone, TimeZoneDatabase},
};

use super::layout::formatted;
use crate::template::{
    error::{Error, Result},
    function::{Args, Function},
    value::{Field, Struct, Type, Value},
};

/// Go's `time.Time`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    pub at: Timestamp,
    /// How far its zone is ahead.
    pub offset_s: i32,
    /// The zone's short name; it may be empty.
    pub zone: Arc<str>,
}

static UTC: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("UTC"));
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// As `time.RFC3339Nano`.
const JSON: &str = "2006-01-02T15:04:05.999999999Z07:00";
/// As `String` tells it.
const TEXT: &str = "2006-01-02 15:04:05.999999999 -0700 MST";

static TIME: Type = Type {
    methods: METHODS,
    text: Some(|of| formatted(&Time::of(of), TEXT)),
    json: Some(|of| formatted(&Time::of(of), JSON).into()),
    ..Type::plain("time.Time")
};

const METHODS: &[Function] = &[
    Function { name: "AddDate", takes: "iii", run: |_, args| add_date(&args) },
    Function { name: "Day", takes: "", run: |_, args| Ok(Value::Int(clock(&args).day().into())) },
    Function { name: "Format", takes: "s", run: |_, args| Ok(formatted(&Time::from(args.at(0)), args.text(1)).into()) },
    Function { name: "Hour", takes: "", run: |_, args| Ok(Value::Int(clock(&args).hour().into())) },
    Function { name: "Local", takes: "", run: |_, args| Ok(Time::utc(Time::from(args.at(0)).at).into()) },
    Function { name: "Minute", takes: "", run: |_, args| Ok(Value::Int(clock(&args).minute().into())) },
    Function { name: "Second", takes: "", run: |_, args| Ok(Value::Int(clock(&args).second().into())) },
    Function { name: "String", takes: "", run: |_, args| Ok(formatted(&Time::from(args.at(0)), TEXT).into()) },
    Function { name: "UTC", takes: "", run: |_, args| Ok(Time::utc(Time::from(args.at(0)).at).into()) },
    Function { name: "Unix", takes: "", run: |_, args| Ok(Value::Int64(Time::from(args.at(0)).at.as_second())) },
    Function {
        name: "UnixNano",
        takes: "",
        run: |_, args| {
            let nanoseconds = Time::from(args.at(0)).at.as_nanosecond();
            Ok(Value::Int64(i64::try_from(nanoseconds).unwrap_or(i64::MAX)))
        },
    },
    Function { name: "Year", takes: "", run: |_, args| Ok(Value::Int(clock(&args).year().into())) },
    Function { name: "YearDay", takes: "", run: |_, args| Ok(Value::Int(clock(&args).day_of_year().into())) },
];

fn clock(args: &Args) -> civil::DateTime {
    Time::from(args.at(0)).clock()
}

fn add_date(args: &Args) -> Result<Value> {
    let time = Time::from(args.at(0));
    let added = |number| i32::try_from(args.int(number)).ok();
    let sum = || {
        let span = jiff::Span::new().try_years(added(1)?).ok()?.try_months(added(2)?).ok()?.try_days(added(3)?).ok()?;
        let moved = time.clock().checked_add(span).ok()?;
        Time::told(moved, time.offset_s, time.zone.clone())
    };
    sum().map_or_else(|| Error::call("the date is out of range"), |sum| Ok(sum.into()))
}

impl Time {
    pub fn utc(at: Timestamp) -> Self {
        Self { at, offset_s: 0, zone: UTC.clone() }
    }

    /// Go's time that is none: the first of January of the year 1.
    pub fn zero() -> Self {
        let first = civil::date(1, 1, 1).to_zoned(TimeZone::UTC);
        Self::utc(first.map_or(Timestamp::UNIX_EPOCH, |zoned| zoned.timestamp()))
    }

    /// What clocks of that zone tell. Nothing for what is too long ago or too far.
    pub fn told(clock: civil::DateTime, offset_s: i32, zone: Arc<str>) -> Option<Self> {
        let plain = clock.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let at = plain.checked_sub(SignedDuration::from_secs(offset_s.into())).ok()?;
        Some(Self { at, offset_s, zone })
    }

    /// The same instant where the zone has that name; UTC where there is none. `Local` is UTC: nothing here knows another.
    pub fn within(at: Timestamp, name: &str) -> Self {
        // Names are those of files to Go, so capitals count.
        let found = ZONES.get(name).ok().filter(|zone| zone.iana_name() == Some(name));
        found.map_or_else(
            || Self::utc(at),
            |zone| {
                let info = zone.to_offset_info(at);
                Self { at, offset_s: info.offset().seconds(), zone: info.abbreviation().into() }
            },
        )
    }

    pub fn formatted(&self, layout: &str) -> String {
        formatted(self, layout)
    }

    pub fn clock(&self) -> civil::DateTime {
        let local = self.at.checked_add(SignedDuration::from_secs(self.offset_s.into())).unwrap_or(self.at);
        TimeZone::UTC.to_datetime(local)
    }

    fn of(object: &Struct) -> Self {
        let number = |name| if let Some(Value::Int64(number)) = object.field(name) { *number } else { 0 };
        let nanoseconds = i32::try_from(number("nsec")).unwrap_or(0);
        let zone = match object.field("zone") {
            Some(Value::Str(zone)) => zone.clone(),
            _ => UTC.clone(),
        };
        Self {
            at: Timestamp::new(number("sec"), nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH),
            offset_s: i32::try_from(number("offset")).unwrap_or(0),
            zone,
        }
    }

    /// The time that a value is, if it is one.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Struct(of) if of.ty.name == TIME.name => Some(Self::of(of)),
            _ => None,
        }
    }
}

impl From<&Value> for Time {
    fn from(value: &Value) -> Self {
        Self::read(value).unwrap_or_else(|| Self::utc(Timestamp::UNIX_EPOCH))
    }
}

impl From<Time> for Value {
    fn from(time: Time) -> Self {
        let field = |name, value| Field { name, json: ("", false), value };
        let fields = vec![
            field("sec", Value::Int64(time.at.as_second())),
            field("nsec", Value::Int64(time.at.subsec_nanosecond().into())),
            field("offset", Value::Int64(time.offset_s.into())),
            field("zone", Value::Str(time.zone)),
        ];
        Value::Struct(Rc::new(Struct { ty: &TIME, pointer: false, fields }))
    }
}
