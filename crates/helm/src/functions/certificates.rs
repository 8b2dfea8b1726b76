//! Keys and certificates. Keys are made by who renders; what is signed here is signed as sprig does: for servers and clients, with one
//! common name, and a number that is made by chance.

use std::{net::IpAddr, rc::Rc, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};

use super::State;
use crate::{
    template::{
        Scope,
        error::{Error, Result},
        function::{Args, Function},
        value::{Field, Struct, Type, Value},
    },
    world::KeyKind,
};

/// Keys that one run may ask for: making them is slow.
pub const KEYS_MAX: usize = 64;

pub const FUNCTIONS: &[Function] = &[
    Function { name: "buildCustomCert", takes: "ss", run: |_, args| custom(&args) },
    Function {
        name: "genCA",
        takes: "si",
        run: |scope, args| {
            let key = made(scope, KeyKind::Rsa2048)?;
            authority(scope, &args, key)
        },
    },
    Function {
        name: "genCAWithKey",
        takes: "sis",
        run: |scope, args| {
            let key = given(args.text(2))?;
            authority(scope, &args, key)
        },
    },
    Function { name: "genPrivateKey", takes: "s", run: private_key },
    Function {
        name: "genSelfSignedCert",
        takes: "sAAi",
        run: |scope, args| {
            let key = made(scope, KeyKind::Rsa2048)?;
            self_signed(scope, &args, key)
        },
    },
    Function {
        name: "genSelfSignedCertWithKey",
        takes: "sAAis",
        run: |scope, args| {
            let key = given(args.text(4))?;
            self_signed(scope, &args, key)
        },
    },
    Function {
        name: "genSignedCert",
        takes: "sAAic",
        run: |scope, args| {
            let key = made(scope, KeyKind::Rsa2048)?;
            signed(scope, &args, key)
        },
    },
    Function {
        name: "genSignedCertWithKey",
        takes: "sAAics",
        run: |scope, args| {
            let key = given(args.text(5))?;
            signed(scope, &args, key)
        },
    },
];

static CERTIFICATE: Type = Type::plain("sprig.certificate");

fn object(certificate: &str, key: &str) -> Value {
    let field = |name, text| Field { name, json: (name, false), value: Value::text(text) };
    let fields = vec![field("Cert", certificate), field("Key", key)];
    Value::Struct(Rc::new(Struct { ty: &CERTIFICATE, pointer: false, fields }))
}

fn made(scope: &mut Scope<'_>, kind: KeyKind) -> Result<KeyPair> {
    let state = State::of(scope.run)?;
    state.keys += 1;
    if state.keys > KEYS_MAX {
        return Error::limit(format!("the templates ask for more than {KEYS_MAX} keys"));
    }
    let key = (state.world.key)(kind).or_else(|what| Error::call(format!("error generating key: {what}")))?;
    KeyPair::try_from(key).or_else(|what| Error::call(format!("error generating key: {what}")))
}

fn given(pem: &str) -> Result<KeyPair> {
    let key = match pem_body(pem) {
        // What sprig writes is PKCS #1 and SEC 1; what is read here is PKCS #8.
        Some(("RSA PRIVATE KEY", body)) => KeyPair::try_from(wrapped(&body, RSA)),
        Some(("EC PRIVATE KEY", body)) => KeyPair::try_from(wrapped(&body, P256)),
        _ => KeyPair::from_pem(pem),
    };
    key.or_else(|what| Error::call(format!("parsing private key: {what}")))
}

/// The name and the bytes of the first block.
fn pem_body(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (name, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END")?;
    let joined: String = body.split_whitespace().collect();
    Some((name, STANDARD.decode(joined).ok()?))
}

fn pem(name: &str, bytes: &[u8]) -> String {
    let mut out = format!("-----BEGIN {name}-----\n");
    for line in STANDARD.encode(bytes).as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {name}-----\n"));
    out
}

/// The algorithms of PKCS #8 in DER: rsaEncryption, and ecPublicKey on P-256.
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
const P256: &[u8] = &[0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match body.len() {
        short @ 0..128 => out.push(u8::try_from(short).unwrap_or(0)),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(0)..];
            out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
            out.extend(bytes);
        }
    }
    out.extend(body);
    out
}

fn wrapped(key: &[u8], algorithm: &[u8]) -> Vec<u8> {
    tagged(0x30, &[&[2, 1, 0], algorithm, &tagged(4, key)].concat())
}

/// The length of what a DER element holds, and where that starts.
fn element(der: &[u8]) -> Option<(usize, usize)> {
    let first = *der.get(1)?;
    if first < 128 {
        return Some((usize::from(first), 2));
    }
    let count = usize::from(first & 0x7f);
    let bytes = der.get(2..2 + count).filter(|bytes| bytes.len() <= 4)?;
    Some((bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + count))
}

/// The key inside of a PKCS #8 in DER: behind the version and the algorithm.
fn unwrapped(pkcs8: &[u8]) -> Option<&[u8]> {
    let (_, start) = element(pkcs8)?;
    let mut rest = pkcs8.get(start..)?;
    for _ in 0..2 {
        let (length, start) = element(rest)?;
        rest = rest.get(start + length..)?;
    }
    let (length, start) = element(rest)?;
    rest.get(start..start + length)
}

/// As Go writes a key of its kind.
fn key_pem(key: &KeyPair) -> String {
    let der = key.serialized_der();
    let name = match unwrapped(der) {
        _ if key.is_compatible(&rcgen::PKCS_ED25519) => None,
        Some(_) if key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) => Some("EC PRIVATE KEY"),
        Some(_) if key.is_compatible(&rcgen::PKCS_RSA_SHA256) => Some("RSA PRIVATE KEY"),
        _ => None,
    };
    match (name, unwrapped(der)) {
        (Some(name), Some(inner)) => pem(name, inner),
        _ => pem("PRIVATE KEY", der),
    }
}

fn private_key(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let kind = match args.text(0) {
        "" | "rsa" => KeyKind::Rsa4096,
        "ecdsa" => KeyKind::P256,
        "ed25519" => KeyKind::Ed25519,
        "dsa" => return Error::call("keys of DSA are not made here: use ecdsa or ed25519"),
        other => return Ok(format!("Unknown type {other}").into()),
    };
    Ok(key_pem(&made(scope, kind)?).into())
}

/// What all certificates have: name, addresses, names, days.
fn params(scope: &mut Scope<'_>, name: &str, addresses: &Value, names: &Value, days: i64) -> Result<CertificateParams> {
    let world = &mut State::of(scope.run)?.world;
    let mut serial = [0; 16];
    (world.random)(&mut serial);
    // A number that is not negative.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    let start = i128::from(world.now.as_second());
    let at = |seconds: i128| {
        let time =
            i64::try_from(seconds).ok().and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
        time.filter(|time| (1950..=9999).contains(&time.year()))
    };
    let (Some(from), Some(to)) = (at(start), at(start + i128::from(days) * 86_400)) else {
        return Error::call(format!("error creating certificate: {days} days from now are out of range"));
    };
    (params.not_before, params.not_after) = (from, to);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = IsCa::ExplicitNoCa;
    for name in names.items().unwrap_or_default() {
        let Value::Str(name) = &name else {
            let shown = crate::template::format::shown(&name)?;
            return Error::call(format!("error processing alternate dns name: {shown} is not a string"));
        };
        match name.to_string().try_into() {
            Ok(name) => params.subject_alt_names.push(SanType::DnsName(name)),
            Err(_) => return Error::call(format!("error creating certificate: {name} is not a DNS name")),
        }
    }
    for address in addresses.items().unwrap_or_default() {
        let Value::Str(address) = &address else {
            let shown = crate::template::format::shown(&address)?;
            return Error::call(format!("error parsing ip: {shown} is not a string"));
        };
        match IpAddr::from_str(address) {
            Ok(address) => params.subject_alt_names.push(SanType::IpAddress(address)),
            Err(_) => return Error::call(format!("error parsing ip: {address}")),
        }
    }
    Ok(params)
}

fn failed<T>(what: rcgen::Error) -> Result<T> {
    Error::call(format!("error creating certificate: {what}"))
}

fn authority(scope: &mut Scope<'_>, args: &Args, key: KeyPair) -> Result<Value> {
    let mut params = params(scope, args.text(0), &Value::Nil, &Value::Nil, args.int(1))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let certificate = params.self_signed(&key).or_else(failed)?;
    Ok(object(&pem("CERTIFICATE", certificate.der()), &key_pem(&key)))
}

fn self_signed(scope: &mut Scope<'_>, args: &Args, key: KeyPair) -> Result<Value> {
    let params = params(scope, args.text(0), args.at(1), args.at(2), args.int(3))?;
    let certificate = params.self_signed(&key).or_else(failed)?;
    Ok(object(&pem("CERTIFICATE", certificate.der()), &key_pem(&key)))
}

fn signed(scope: &mut Scope<'_>, args: &Args, key: KeyPair) -> Result<Value> {
    let Value::Struct(authority) = args.at(4) else { return Error::call("unable to decode certificate") };
    let text = |name| authority.field(name).and_then(Value::as_str).unwrap_or_default();
    let issuer = Issuer::from_ca_cert_pem(text("Cert"), given(text("Key"))?);
    let issuer = issuer.or_else(|what| Error::call(format!("error parsing certificate: {what}")))?;
    let mut params = params(scope, args.text(0), args.at(1), args.at(2), args.int(3))?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).or_else(failed)?;
    Ok(object(&pem("CERTIFICATE", certificate.der()), &key_pem(&key)))
}

fn custom(args: &Args) -> Result<Value> {
    let decoded = |index: usize, what: &str| {
        let text = STANDARD.decode(args.text(index)).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.map_or_else(|| Error::call(format!("unable to decode base64 {what}")), Ok)
    };
    let (certificate, key) = (decoded(0, "certificate")?, decoded(1, "private key")?);
    let Some((_, der)) = pem_body(&certificate) else { return Error::call("unable to decode certificate") };
    if let Err(what) = x509_parser::parse_x509_certificate(&der) {
        return Error::call(format!("error parsing certificate: decodedCert.Bytes: {what}"));
    }
    given(&key).map_err(|error| error.of(|what| format!("error parsing private key: {what}")))?;
    Ok(object(&certificate, &key))
}
